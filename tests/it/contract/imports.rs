//! Many keys at once, and again.

use leakwarden::registry::key::{Arrival, State};
use leakwarden::registry::{Holders, Material, NewKey};
use leakwarden::shape::{Alphabet, Shape};

use super::{Make, at, material, operator, refusal, registered, text};

pub fn a_source_updates_by_remote_id_and_misses_what_it_did_not_name(make: Make) {
    let mut fresh = make();
    let op = operator();
    let account = fresh.account();
    let first = fresh.registry.write(|tx| tx.begin_import("ibm", &op, at(1))).unwrap();
    let ids: Vec<String> = (0..4).map(|number| format!("remote {number}")).collect();
    for (number, id) in (0..).zip(&ids) {
        let new = NewKey {
            arrival: Arrival::Imported,
            origin: "ibm",
            remote_id: Some(id),
            import: Some(first),
            ..registered("k", "ann@example.com")
        };
        fresh.add(number, &new).unwrap();
        assert!(refusal(fresh.add(100 + number, &new)).contains("has that remote id"));
    }
    let missing = |fresh: &mut super::Fresh, import| {
        fresh.registry.read(|tx| tx.missing_from(import, "ibm", &op)).unwrap()
    };
    assert_eq!(missing(&mut fresh, Some(first)), (Vec::new(), 4));
    let second = fresh.registry.write(|tx| tx.begin_import("ibm", &op, at(2))).unwrap();
    assert_ne!(first, second);
    let find = |fresh: &mut super::Fresh, origin: &str, id: &str| {
        fresh.registry.read(|tx| tx.key_by_remote_id(&account, origin, id)).unwrap()
    };
    for id in &ids[..3] {
        let key = find(&mut fresh, "ibm", id).unwrap();
        fresh.registry.write(|tx| tx.note_import(&key, Some(second))).unwrap();
    }
    let last = find(&mut fresh, "ibm", &ids[3]).unwrap();
    assert_eq!(missing(&mut fresh, Some(second)), (vec![last.id.clone()], 4));
    assert!(find(&mut fresh, "other", &ids[0]).is_none());
    fresh.registry.write(|tx| tx.set_state(&last, State::Deleted, (&op, ""), at(3))).unwrap();
    assert_eq!(missing(&mut fresh, Some(second)), (Vec::new(), 3));
    assert!(find(&mut fresh, "ibm", &ids[3]).is_none(), "a tombstone has given up its id");
}

pub fn hashes_come_without_keys(make: Make) {
    let mut fresh = make();
    let shape = Shape { alphabet: Alphabet::Base64Url, len: 44 };
    let hash: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(text(1).as_bytes()).into();
    let new = NewKey { arrival: Arrival::Imported, ..registered("hashed", "ann@example.com") };
    let op = operator();
    let sha = Material::Sha256(hash, shape);
    fresh.registry.write(|tx| tx.add_key(&new, &sha, &op, at(1))).unwrap();
    assert!(refusal(fresh.add(1, &registered("plain", "ann@example.com"))).contains("as hashed"));
    let digest = fresh.registry.keyring().digest(text(1).as_bytes());
    assert_eq!(
        fresh.registry.read(|tx| tx.key_by_digest(&digest)).unwrap().unwrap().name,
        "hashed"
    );
    let other: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(text(2).as_bytes()).into();
    let told = format!("it is {}", text(2));
    let new = NewKey { description: &told, ..new };
    let sha = Material::Sha256(other, shape);
    let answer = fresh.registry.write(|tx| tx.add_key(&new, &sha, &op, at(1)));
    assert!(refusal(answer).contains("holds the key itself"));
}

pub fn many_come_in_one_transaction(make: Make) {
    let mut fresh = make();
    let op = operator();
    fresh.registry.make_room().unwrap();
    fresh
        .registry
        .write(|tx| {
            let mut holders = Holders::default();
            for number in 0..500 {
                let owner = format!("o{}@example.com", number % 7);
                let new = NewKey { arrival: Arrival::Imported, ..registered("k", &owner) };
                tx.add_one_of(&mut holders, &new, &material(number), &op, at(1))?;
            }
            Ok(())
        })
        .unwrap();
    assert_eq!(fresh.registry.key_count().unwrap(), 500);
    let account = fresh.account();
    let identities = fresh.registry.read(|tx| tx.identities(&account)).unwrap();
    assert_eq!(identities.iter().filter(|one| one.name.starts_with('o')).count(), 7);
    assert!(fresh.registry.check().unwrap().is_empty());
}
