//! The audit log, filters, peppers, copies.

use std::sync::{Arc, Mutex};

use leakwarden::registry::audit::{Entry, Fault, Head};
use leakwarden::registry::export::ExportedFilter;
use leakwarden::registry::key::State;
use leakwarden::registry::lookup::{Filter, Lookup};
use leakwarden::registry::{Material, NewKey, RegistryError};
use leakwarden::shape::Known as _;
use leakwarden::shape::{Alphabet, Shape};

use super::{Fresh, Make, at, operator, refusal, registered, text};

pub fn the_audit_log_is_a_chain(make: Make) {
    let mut fresh = make();
    let before = fresh.registry.read(|tx| tx.audit_head()).unwrap().unwrap();
    let entry =
        |seconds: i64| Entry { actor: "a", action: "b", target: "c", ..Entry::at(at(seconds)) };
    for seconds in 1..4 {
        fresh.registry.write(|tx| tx.audit(&entry(seconds))).unwrap();
    }
    // What is rolled back is no part of it.
    let undone: Result<(), _> = fresh.registry.write(|tx| {
        tx.audit(&entry(9))?;
        Err(RegistryError::Busy)
    });
    assert!(undone.is_err());
    let now = fresh.registry.read(|tx| tx.audit_head()).unwrap().unwrap();
    assert_eq!(now.seq, before.seq + 3);
    let verified =
        fresh.registry.read(|tx| tx.audit_verify(&[before.clone(), now.clone()])).unwrap();
    assert!(verified.faults.is_empty() && verified.heads == 2);
    assert_eq!((verified.rows, verified.head), (now.seq.unsigned_abs(), Some(now.clone())));
    let beyond = Head { seq: now.seq + 5, ..now.clone() };
    let wrong = Head { seq: before.seq, hash: now.hash };
    let verified =
        fresh.registry.read(|tx| tx.audit_verify(&[beyond.clone(), wrong.clone()])).unwrap();
    assert_eq!(verified.faults, [Fault::Rewritten(wrong), Fault::CutOff(beyond)]);
    let rows = fresh.registry.read(|tx| tx.audit_rows(Some("c"), 2, &operator())).unwrap();
    assert_eq!(rows.iter().map(|row| row.at).collect::<Vec<_>>(), [at(2), at(3)]);
}

pub fn a_filter_follows_what_is_registered(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let lookup = Lookup::new(&fresh.registry).unwrap();
    let shared = Arc::new(Mutex::new(fresh.registry.reopen().unwrap()));
    let by_index = Filter::of(&shared).unwrap();
    let knows = |number: u32| lookup.refresh().unwrap().knows(text(number).as_bytes());
    assert!(knows(1) && !knows(2) && by_index.knows(text(1).as_bytes()));
    assert!(!by_index.knows(text(2).as_bytes()));
    // What stands there several times is the same each time.
    let (known, other) = (text(1), text(2));
    let several = [&known, &other, &known, &other].map(|text| text.as_str()).join(" ");
    let places = [0, 1, 2, 3].map(|at| at * (known.len() + 1));
    let windows = places.map(|start| start..start + known.len());
    for _ in 0..2 {
        let mut found = Vec::new();
        by_index.which(several.as_bytes(), &windows, &mut |index| found.push(index));
        assert_eq!(found, [0, 2]);
    }
    let before = lookup.filter();
    fresh.key(2);
    assert!(knows(2) && !before.knows(text(2).as_bytes()));
    // A key of which only the hash is known, in another shape.
    let other = "0123456789ABCDEF0123456789abcdef";
    let hash: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(other.as_bytes()).into();
    let sha = Material::Sha256(hash, Shape { alphabet: Alphabet::Hex, len: other.len() });
    let new = registered("hashed", "ann@example.com");
    fresh.registry.write(|tx| tx.add_key(&new, &sha, &operator(), at(1))).unwrap();
    let after = lookup.refresh().unwrap();
    assert!(after.knows(other.as_bytes()) && after.shapes() != before.shapes());
    // A tombstone is recognised.
    fresh
        .registry
        .write(|tx| tx.set_state(&key, State::Deleted, (&operator(), ""), at(2)))
        .unwrap();
    assert!(knows(1) && knows(2));
    lookup.filter().check().unwrap();
}

pub fn a_filter_that_leaves_knows_live_keys_only(make: Make) {
    let mut fresh = make();
    fresh.key(1);
    let gone = fresh.key(2);
    fresh
        .registry
        .write(|tx| tx.set_state(&gone, State::Disabled, (&operator(), ""), at(2)))
        .unwrap();
    let soon = NewKey { expires_at: Some(at(5)), ..registered("soon", "ann@example.com") };
    fresh.add(3, &soon).unwrap();
    let (bytes, told) = fresh.registry.write(|tx| tx.export_filter("here", "op", at(5))).unwrap();
    assert_eq!((told.keys, told.weak, told.hashed), (1, 0, 0));
    let path = fresh.folder.path().join("filter");
    std::fs::write(&path, bytes).unwrap();
    let filter = ExportedFilter::read(&path).unwrap();
    let knows = |number: u32| filter.knows(text(number).as_bytes());
    assert!(knows(1) && !knows(2) && !knows(3) && filter.count() == 1);
}

pub fn a_new_pepper_needs_no_plain_key(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let mut other = fresh.registry.reopen().unwrap();
    let find = |fresh: &mut Fresh| {
        let digest = fresh.registry.keyring().digest(text(1).as_bytes());
        fresh.registry.read(|tx| tx.key_by_digest(&digest)).unwrap().map(|key| key.id)
    };
    let before = *fresh.registry.keyring().digest(text(1).as_bytes()).as_bytes();
    assert_eq!(fresh.registry.rotate_pepper(&operator(), "", at(3)).unwrap(), 2);
    let after = *fresh.registry.keyring().digest(text(1).as_bytes()).as_bytes();
    assert_ne!(before, after);
    assert_eq!(find(&mut fresh), Some(key.id));
    // Who opened it before is told, and never misses a key in silence.
    assert!(matches!(other.read(|tx| tx.key("x")), Err(RegistryError::Rotated)));
    let eve = fresh.caller("eve@example.com");
    refusal(fresh.registry.rotate_pepper(&eve, "", at(4)));
}

pub fn a_copy_is_whole(make: Make) {
    let mut fresh = make();
    fresh.key(1);
    let copy = fresh.folder.path().join("copy");
    fresh.registry.backup(&copy).unwrap();
    assert!(refusal(fresh.registry.backup(&copy)).contains("exists already"));
    assert!(fresh.registry.check().unwrap().is_empty());
}

pub fn settings_stay(make: Make) {
    let mut fresh = make();
    let mut other = fresh.registry.reopen().unwrap();
    for value in [&b"one"[..], b"two"] {
        fresh.registry.write(|tx| tx.set_setting("a", value)).unwrap();
        assert_eq!(other.read(|tx| tx.setting("a")).unwrap().as_deref(), Some(value));
    }
    assert_eq!(other.read(|tx| tx.setting("b")).unwrap(), None);
    let salt = fresh.registry.fingerprint_salt().unwrap();
    assert!(salt.len() == 16 && salt == other.fingerprint_salt().unwrap());
    fresh.registry.hasten().unwrap();
}

pub fn readers_see_one_state(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let mut other = fresh.registry.reopen().unwrap();
    other
        .read(|tx| {
            assert_eq!(tx.key(&key.id)?.state, State::Active);
            fresh
                .registry
                .write(|tx| tx.set_state(&key, State::Disabled, (&operator(), ""), at(2)))?;
            assert_eq!(tx.key(&key.id)?.state, State::Active, "a reader's state changed under it");
            Ok(())
        })
        .unwrap();
    assert_eq!(other.read(|tx| tx.key(&key.id)).unwrap().state, State::Disabled);
}
