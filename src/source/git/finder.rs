//! One object by its name.

use std::collections::HashMap;
use std::io::Read;
use std::rc::Rc;

use gix_hash::oid;
use gix_object::Kind;
use gix_pack::data::entry::Header;

use super::decode::{Buffer, Decoder, Fault};
use super::store::Store;
use crate::source::reader::{self, Links};

/// Longest object that is looked up, in bytes.
const OBJECT_MAX: u64 = 64 << 20;
/// Bytes of bases that are kept: neighbours rest on the same ones.
const KEPT_MAX: usize = 48 << 20;
/// git makes no longer chains, unless told to.
const CHAIN_MAX: usize = 4_096;

/// Looks objects up.
pub(super) struct Finder<'a> {
    store: &'a Store,
    decoder: Decoder,
    kept: HashMap<(usize, u64), (Kind, Rc<Buffer>)>,
    kept_bytes: usize,
}

impl<'a> Finder<'a> {
    pub(super) fn new(store: &'a Store) -> Self {
        let decoder = Decoder::new(store.hash, OBJECT_MAX);
        Self { store, decoder, kept: HashMap::new(), kept_bytes: 0 }
    }

    /// The object; the first place that has it whole counts.
    pub(super) fn find(&mut self, id: &oid) -> Result<(Kind, Rc<Buffer>), Fault> {
        let store = self.store;
        let mut why = Fault::Broken;
        for (number, pack) in store.packs.iter().enumerate() {
            let Some(index) = pack.index.lookup(id) else { continue };
            match self.packed(number, pack.index.pack_offset_at_index(index)) {
                Ok(found) => return Ok(found),
                Err(fault) => why = fault,
            }
        }
        match store.loose.binary_search_by(|(loose, _)| loose.as_ref().cmp(id)) {
            Ok(at) => {
                let mut out = Buffer::default();
                let (id, folder) = store.loose.get(at).ok_or(Fault::Broken)?;
                let kind = loose(&mut self.decoder, &store.loose_path(id, *folder), &mut out)?;
                Ok((kind, Rc::new(out)))
            }
            Err(_) => Err(why),
        }
    }

    fn packed(&mut self, number: usize, at: u64) -> Result<(Kind, Rc<Buffer>), Fault> {
        let pack = self.store.packs.get(number).ok_or(Fault::Broken)?;
        let mut chain = Vec::new();
        let mut place = at;
        let (kind, mut bytes) = loop {
            if let Some((kind, bytes)) = self.kept.get(&(number, place)) {
                break (*kind, bytes.clone());
            }
            let entry = self.decoder.header((number, pack), place).ok_or(Fault::Broken)?;
            let base = match entry.header {
                Header::OfsDelta { base_distance } => entry.checked_base_pack_offset(base_distance),
                Header::RefDelta { base_id } => {
                    pack.index.lookup(base_id).map(|index| pack.index.pack_offset_at_index(index))
                }
                _ => {
                    let mut out = Buffer::default();
                    let kind = self.decoder.root((number, pack), place, pack.end, &mut out)?;
                    let bytes = Rc::new(out);
                    self.keep((number, place), kind, &bytes);
                    break (kind, bytes);
                }
            };
            chain.push(place);
            place = base.filter(|_| chain.len() < CHAIN_MAX).ok_or(Fault::Broken)?;
        };
        while let Some(place) = chain.pop() {
            let mut out = Buffer::default();
            let base = (bytes.as_slice(), OBJECT_MAX);
            self.decoder.differing((number, pack), (place, pack.end), base, &mut out)?;
            bytes = Rc::new(out);
            self.keep((number, place), kind, &bytes);
        }
        Ok((kind, bytes))
    }

    fn keep(&mut self, place: (usize, u64), kind: Kind, bytes: &Rc<Buffer>) {
        if self.kept_bytes + bytes.len() > KEPT_MAX {
            self.kept.clear();
            self.kept_bytes = 0;
        }
        self.kept_bytes += bytes.len() + 64;
        self.kept.insert(place, (kind, bytes.clone()));
    }
}

/// Reads a loose object of at most what the decoder allows.
pub(super) fn loose(
    decoder: &mut Decoder,
    path: &std::path::Path,
    out: &mut Vec<u8>,
) -> Result<Kind, Fault> {
    let (file, stat) = reader::open(path, Links::Follow).map_err(|_| Fault::Broken)?;
    if stat.size > decoder.limit() {
        return Err(Fault::TooLarge);
    }
    let mut packed = Vec::with_capacity(usize::try_from(stat.size).unwrap_or_default());
    file.take(decoder.limit()).read_to_end(&mut packed).map_err(|_| Fault::Broken)?;
    decoder.loose(&packed, out)
}
