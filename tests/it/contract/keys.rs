//! Keys: found, listed, changed, ended.

use std::ops::ControlFlow;

use leakwarden::registry::key::{Arrival, Class, Home, KeyKind, LeakAction, State, Status};
use leakwarden::registry::{Change, Filter, KeyUpdate, Material, NewKey, View};
use leakwarden::secret::Secret;

use super::{Fresh, Make, at, operator, refusal, registered, text};

fn names(fresh: &mut Fresh, filter: &Filter, now: i64) -> Vec<String> {
    let mut names = Vec::new();
    let show = &mut |key: &leakwarden::registry::key::Key| {
        names.push(key.name.clone());
        ControlFlow::Continue(())
    };
    fresh.registry.read(|tx| tx.each_key(filter, &operator(), at(now), show)).unwrap();
    names
}

fn status(fresh: &mut Fresh, number: u32, now: i64) -> Option<Status> {
    fresh
        .registry
        .read(|tx| {
            let digest = tx.keyring().digest(text(number).as_bytes());
            Ok(tx.key_by_digest(&digest)?.map(|key| key.status(at(now))))
        })
        .unwrap()
}

fn set(fresh: &mut Fresh, id: &str, state: State) -> leakwarden::registry::Result<Change> {
    let key = fresh.known(id);
    fresh.registry.write(|tx| tx.set_state(&key, state, (&operator(), "a test"), at(2)))
}

pub fn a_key_is_found_by_its_digest_in_every_state(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    fresh.key(2);
    assert_eq!(status(&mut fresh, 1, 5), Some(Status::Active));
    assert_eq!(status(&mut fresh, 3, 5), None);
    for (state, wanted) in [
        (State::Disabled, Status::Disabled),
        (State::Active, Status::Active),
        (State::Deleted, Status::Deleted),
    ] {
        assert_eq!(set(&mut fresh, &key.id, state).unwrap(), Change::Done);
        assert_eq!(status(&mut fresh, 1, 5), Some(wanted));
        assert_eq!(set(&mut fresh, &key.id, state).unwrap(), Change::Already);
    }
    assert_eq!(status(&mut fresh, 2, 5), Some(Status::Active));
    assert_eq!(fresh.registry.key_count().unwrap(), 1);
    // What is stored is no key.
    let digest = fresh.registry.keyring().digest(text(2).as_bytes());
    let twice = fresh.registry.keyring().digest(digest.as_bytes());
    assert!(fresh.registry.read(|tx| tx.key_by_digest(&twice)).unwrap().is_none());
    assert!(fresh.registry.read(|tx| tx.is_digest_of(&digest, &key)).is_ok_and(|is| !is));
}

pub fn a_key_comes_once_and_only_if_it_is_fit(make: Make) {
    let mut fresh = make();
    fresh.key(1);
    let again = refusal(fresh.add(1, &registered("again", "bob@example.com")));
    assert!(again.contains("registered already, as key 1"), "{again}");
    for (key, why) in [
        ("", "empty"),
        ("0123456789abcde", "15 characters"),
        ("abababababababababababab", "too regular"),
        ("0123456789 abcdefghijklmnop", "not visible ASCII"),
    ] {
        let material = Material::Plain(Secret::copy_of(key.as_bytes()));
        let new = registered("k", "ann@example.com");
        let answer = fresh.registry.write(|tx| tx.add_key(&new, &material, &operator(), at(1)));
        assert!(refusal(answer).contains(why), "{key}");
    }
    let (two, told) = (text(2), format!("it is {}", text(2)));
    for new in [
        registered("", "ann@example.com"),
        registered("a\nb", "ann@example.com"),
        registered(&two, "ann@example.com"),
        NewKey { description: &told, ..registered("k", "ann@example.com") },
        NewKey { executor: "No Name", ..registered("k", "ann@example.com") },
        NewKey { homes: &["**".to_owned()], ..registered("k", "ann@example.com") },
    ] {
        let why = refusal(fresh.add(2, &new));
        assert!(!why.contains(&two), "{why}");
    }
    assert_eq!(fresh.registry.key_count().unwrap(), 1);
}

pub fn a_list_shows_what_the_filter_wants_by_name(make: Make) {
    let mut fresh = make();
    let (ann, bob) = ("ann@example.com", "bob@example.com");
    fresh.add(1, &NewKey { class: Class::Test, ..registered("c", ann) }).unwrap();
    let soon = NewKey { expires_at: Some(at(100)), ..registered("b", ann) };
    fresh.add(2, &soon).unwrap();
    let imported = NewKey { arrival: Arrival::Imported, origin: "ibm", ..registered("a", bob) };
    let a = fresh.add(3, &imported).unwrap().id;
    let service = NewKey { kind: KeyKind::ServiceId, ..registered("svc", bob) };
    fresh.add(4, &service).unwrap();
    let classic =
        NewKey { kind: KeyKind::Classic, leak_action: LeakAction::Delete, ..registered("cl", bob) };
    fresh.add(5, &classic).unwrap();
    set(&mut fresh, &a, State::Deleted).unwrap();
    let identity = fresh.known(&a).identity_id;
    let leaked = fresh.registry.read(|tx| tx.find_key("b", &operator())).unwrap();
    fresh.registry.write(|tx| tx.note_leak(&leaked, at(5))).unwrap();
    let all = Filter::default;
    for (filter, wanted) in [
        (all(), &["b", "c", "cl", "svc"][..]),
        (Filter { with_deleted: true, ..all() }, &["a", "b", "c", "cl", "svc"]),
        (Filter { status: Some(Status::Deleted), ..all() }, &["a"]),
        (Filter { view: Some(View::User), ..all() }, &["b", "c"]),
        (Filter { view: Some(View::ServiceId), ..all() }, &["svc"]),
        (Filter { view: Some(View::Classic), ..all() }, &["cl"]),
        (Filter { class: Some(Class::Test), ..all() }, &["c"]),
        (Filter { leak_action: Some(LeakAction::Delete), ..all() }, &["cl"]),
        (Filter { leaked: true, ..all() }, &["b"]),
        (Filter { expires_before: Some(at(100)), ..all() }, &["b"]),
        (Filter { expires_before: Some(at(99)), ..all() }, &[]),
        (Filter { origin: Some("ibm".into()), with_deleted: true, ..all() }, &["a"]),
        (Filter { identity: Some(identity), ..all() }, &["cl"]),
    ] {
        assert_eq!(names(&mut fresh, &filter, 10), wanted, "{filter:?}");
    }
    let expired = Filter { status: Some(Status::Expired), ..all() };
    assert_eq!(names(&mut fresh, &expired, 100), ["b"]);
    // Whoever shows them can end it.
    let mut shown = 0;
    let show = &mut |_: &leakwarden::registry::key::Key| {
        shown += 1;
        ControlFlow::Break(())
    };
    fresh.registry.read(|tx| tx.each_key(&all(), &operator(), at(1), show)).unwrap();
    assert_eq!(shown, 1);
}

pub fn a_successor_names_the_key_it_replaces(make: Make) {
    let mut fresh = make();
    let old = fresh.key(1).id;
    let next = NewKey { replaces: Some(&old), ..registered("next", "ann@example.com") };
    let next = fresh.add(2, &next).unwrap().id;
    assert_eq!(fresh.known(&next).replaces, Some(old.clone()));
    assert_eq!((fresh.known(&old).replaces, fresh.known(&old).state), (None, State::Active));
    let rows = fresh.registry.read(|tx| tx.audit_rows(Some(&next), 9, &operator())).unwrap();
    let told = format!(
        "name=next owner=ann@example.com kind=user class=live leak_action=disable replaces={old}"
    );
    assert_eq!(rows[0].after, told);
}

pub fn a_name_means_one_live_key(make: Make) {
    let mut fresh = make();
    let one = fresh.add(1, &registered("same", "ann@example.com")).unwrap().id;
    let two = fresh.add(2, &registered("same", "ann@example.com")).unwrap().id;
    let mut find = |what: &str| fresh.registry.read(|tx| tx.find_key(what, &operator()));
    let why = refusal(find("same"));
    assert!(why.contains(&one) && why.contains(&two), "{why}");
    assert_eq!(find(&one).unwrap().id, one);
    assert_eq!(find(one.strip_prefix("ApiKey-").unwrap()).unwrap().id, one);
    refusal(find("other"));
    set(&mut fresh, &one, State::Deleted).unwrap();
    assert_eq!(fresh.registry.read(|tx| tx.find_key("same", &operator())).unwrap().id, two);
}

pub fn an_update_with_a_stale_version_is_refused(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let update = |text: &str| KeyUpdate { description: Some(text.into()), ..KeyUpdate::default() };
    let mut change = |text: &str, version| {
        let why = (&operator(), "");
        fresh.registry.write(|tx| tx.update_key(&key, &update(text), version, why, at(2)))
    };
    assert_eq!(change("one", Some(1)).unwrap(), Change::Done);
    assert!(refusal(change("two", Some(1))).contains("its version is 2"));
    assert_eq!(change("one", Some(2)).unwrap(), Change::Already);
    assert_eq!(change("two", None).unwrap(), Change::Done);
    let key = fresh.known(&key.id);
    assert_eq!((key.version, key.description.as_str(), key.modified_at), (3, "two", at(2)));
    assert_eq!((key.modified_by.as_str(), key.created_at), ("op", at(1)));
}

pub fn an_update_says_what_was_and_what_is(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let update = KeyUpdate {
        name: Some("new".into()),
        description: Some("text".into()),
        expires_at: Some(Some(at(9))),
        leak_action: Some(LeakAction::Delete),
        class: Some(Class::Publishable),
        homes: Some(vec!["/etc/a.env".into()]),
        executor: Some("vault".into()),
        remote_id: Some("7".into()),
    };
    let why = (&operator(), "because");
    fresh.registry.write(|tx| tx.update_key(&key, &update, None, why, at(2))).unwrap();
    let next = fresh.known(&key.id);
    assert_eq!((next.name.as_str(), next.expires_at), ("new", Some(at(9))));
    assert_eq!((next.class, next.leak_action), (Class::Publishable, LeakAction::Delete));
    assert_eq!((next.executor.as_str(), next.remote_id.as_deref()), ("vault", Some("7")));
    assert_eq!(next.homes, [Home { host: String::new(), glob: "/etc/a.env".into() }]);
    let rows = fresh.registry.read(|tx| tx.audit_rows(Some(&key.id), 9, &operator())).unwrap();
    let row = rows.last().unwrap();
    assert_eq!((row.action.as_str(), row.reason.as_str()), ("key update", "because"));
    for part in ["name=key 1", "leak_action=disable", "expires_at=never", "class=live"] {
        assert!(row.before.contains(part), "{}", row.before);
    }
    for part in ["name=new", "leak_action=delete", "executor=vault", "homes=/etc/a.env"] {
        assert!(row.after.contains(part), "{}", row.after);
    }
    let clear = KeyUpdate {
        expires_at: Some(None),
        homes: Some(Vec::new()),
        remote_id: Some(String::new()),
        ..KeyUpdate::default()
    };
    fresh.registry.write(|tx| tx.update_key(&key, &clear, None, why, at(3))).unwrap();
    let next = fresh.known(&key.id);
    assert_eq!((next.expires_at, next.homes.len(), next.remote_id), (None, 0, None));
}

pub fn a_lock_refuses_changes_and_deletion(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let why = (&operator(), "");
    let mut lock = |on| fresh.registry.write(|tx| tx.set_locked(&key, on, why, at(2)));
    assert_eq!(lock(true).unwrap(), Change::Done);
    assert_eq!(lock(true).unwrap(), Change::Already);
    let update = KeyUpdate { name: Some("x".into()), ..KeyUpdate::default() };
    let answer = fresh.registry.write(|tx| tx.update_key(&key, &update, None, why, at(3)));
    assert!(refusal(answer).contains("is locked"));
    assert!(refusal(set(&mut fresh, &key.id, State::Deleted)).contains("is locked"));
    // What makes it useless to a thief and loses nothing goes on.
    set(&mut fresh, &key.id, State::Disabled).unwrap();
    let unlocked = fresh.registry.write(|tx| tx.set_locked(&key, false, why, at(4)));
    assert_eq!(unlocked.unwrap(), Change::Done);
    set(&mut fresh, &key.id, State::Deleted).unwrap();
}

pub fn deleting_leaves_a_tombstone(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    set(&mut fresh, &key.id, State::Deleted).unwrap();
    assert_eq!(status(&mut fresh, 1, 5), Some(Status::Deleted));
    assert!(refusal(fresh.add(1, &registered("again", "ann@example.com"))).contains("already"));
    assert!(refusal(set(&mut fresh, &key.id, State::Active)).contains("for good"));
    let update = KeyUpdate { name: Some("x".into()), ..KeyUpdate::default() };
    let why = (&operator(), "");
    let answer = fresh.registry.write(|tx| tx.update_key(&key, &update, None, why, at(3)));
    assert!(refusal(answer).contains("for good"));
    assert!(
        refusal(fresh.registry.write(|tx| tx.set_locked(&key, true, why, at(3))))
            .contains("for good")
    );
}

pub fn an_expired_key_is_invalid_from_that_moment(make: Make) {
    let mut fresh = make();
    fresh
        .add(1, &NewKey { expires_at: Some(at(100)), ..registered("k", "a@example.com") })
        .unwrap();
    assert_eq!(status(&mut fresh, 1, 99), Some(Status::Active));
    assert_eq!(status(&mut fresh, 1, 100), Some(Status::Expired));
}

pub fn classic_keys_have_less(make: Make) {
    let mut fresh = make();
    let classic = NewKey {
        kind: KeyKind::Classic,
        leak_action: LeakAction::Delete,
        ..registered("c", "ann@example.com")
    };
    for (new, why) in [
        (NewKey { locked: true, ..classic }, "locked"),
        (NewKey { expires_at: Some(at(9)), ..classic }, "expire"),
        (NewKey { leak_action: LeakAction::Disable, ..classic }, "disabled"),
    ] {
        assert!(refusal(fresh.add(1, &new)).contains(why));
    }
    let key = fresh.add(1, &classic).unwrap().id;
    assert!(refusal(fresh.add(2, &classic)).contains("one is the limit"));
    assert!(refusal(set(&mut fresh, &key, State::Disabled)).contains("cannot be disabled"));
    let known = fresh.known(&key);
    let lock = fresh.registry.write(|tx| tx.set_locked(&known, true, (&operator(), ""), at(2)));
    assert!(refusal(lock).contains("cannot be locked"));
}

pub fn uses_are_counted(make: Make) {
    let mut fresh = make();
    let [one, two] = [fresh.key(1), fresh.key(2)];
    let ids = [one.id.clone(), one.id.clone()];
    fresh.registry.write(|tx| tx.count_uses(&ids, at(7))).unwrap();
    fresh.registry.write(|tx| tx.count_uses(&ids[..1], at(5))).unwrap();
    let known = fresh.known(&one.id);
    assert_eq!((known.use_count, known.last_used_at, known.version), (3, Some(at(7)), 1));
    assert_eq!(fresh.known(&two.id).use_count, 0);
}

pub fn what_is_refused_leaves_nothing_behind(make: Make) {
    let mut fresh = make();
    let rows = |fresh: &mut Fresh| fresh.registry.read(|tx| tx.audit_verify(&[])).unwrap().rows;
    let before = rows(&mut fresh);
    let homes = ["relative".to_owned()];
    refusal(fresh.add(1, &NewKey { homes: &homes, ..registered("k", "new@example.com") }));
    // A part of a transaction alone is taken back, too.
    fresh
        .registry
        .write(|tx| {
            let new = NewKey { homes: &homes, ..registered("k", "new@example.com") };
            let part = tx.part(|tx| tx.add_key(&new, &super::material(1), &operator(), at(1)));
            assert!(part.is_err());
            tx.add_key(
                &registered("other", "ann@example.com"),
                &super::material(2),
                &operator(),
                at(1),
            )
        })
        .unwrap();
    let account = fresh.account();
    let identities = fresh.registry.read(|tx| tx.identities(&account)).unwrap();
    assert!(identities.iter().all(|one| one.name != "new@example.com"));
    assert_eq!(fresh.registry.key_count().unwrap(), 1);
    assert_eq!(rows(&mut fresh), before + 2);
}
