//! Accounts, identities, rights and homes.

use leakwarden::registry::access::{Act, Grant, Restrictions};
use leakwarden::registry::account::AccountUpdate;
use leakwarden::registry::home::HomeOf;
use leakwarden::registry::identity::{IdentityKind, IdentityUpdate, NewIdentity};
use leakwarden::registry::key::{Arrival, Home, KeyKind, LeakAction, State, Status};
use leakwarden::registry::{Filter, KeysOf, NewKey};

use super::{Make, at, material, operator, refusal, registered};

pub fn an_identity_has_so_many_keys_and_no_more(make: Make) {
    let mut fresh = make();
    let created = NewKey { arrival: Arrival::Created, ..registered("k", "ann@example.com") };
    let ids: Vec<String> = (0..20).map(|number| fresh.add(number, &created).unwrap().id).collect();
    assert!(refusal(fresh.add(20, &created)).contains("20 is the limit"));
    // Registering goes on; a tombstone makes room.
    let registered = fresh.add(21, &registered("k", "ann@example.com")).unwrap().id;
    for id in [&ids[0], &registered] {
        let key = fresh.known(id);
        fresh
            .registry
            .write(|tx| tx.set_state(&key, State::Deleted, (&operator(), ""), at(2)))
            .unwrap();
    }
    fresh.add(20, &created).unwrap();
    let identity = fresh.known(&ids[1]).identity_id;
    let count = fresh.registry.read(|tx| tx.key_count_of(&tx.identity(&identity)?, None)).unwrap();
    assert_eq!(count, 20);
}

pub fn identities_are_found_by_id_name_and_address(make: Make) {
    let mut fresh = make();
    let account = fresh.account();
    let op = operator();
    let ann = NewIdentity {
        email: Some("ann@example.com"),
        ..NewIdentity::new("Ann", IdentityKind::User)
    };
    let ann = fresh.registry.write(|tx| tx.create_identity(&account, &ann, &op, at(1))).unwrap();
    let groups = ["ops".to_owned()];
    let deploy = NewIdentity {
        contact: Some("ops@example.com"),
        manager: Some("ann"),
        groups: &groups,
        ..NewIdentity::new("deploy", IdentityKind::ServiceId)
    };
    let deploy =
        fresh.registry.write(|tx| tx.create_identity(&account, &deploy, &op, at(1))).unwrap();
    assert_eq!(
        (deploy.manager_id.as_ref(), deploy.groups.as_slice()),
        (Some(&ann.id), &groups[..])
    );
    let mut find =
        |what: &str| fresh.registry.read(|tx| tx.identity_named(&account, what)).unwrap();
    for what in [ann.id.as_str(), "ann", "ANN", "Ann@Example.com"] {
        assert_eq!(find(what).map(|one| one.id).as_ref(), Some(&ann.id), "{what}");
    }
    assert!(find("nobody").is_none());
    for (new, why) in [
        (NewIdentity::new("x", IdentityKind::User), "needs a mail address"),
        (NewIdentity::new("x", IdentityKind::ServiceId), "needs a contact"),
        (
            NewIdentity {
                email: Some("b@example.com"),
                ..NewIdentity::new("ann", IdentityKind::User)
            },
            "has that name",
        ),
        (
            NewIdentity {
                email: Some("ann@example.com"),
                ..NewIdentity::new("b", IdentityKind::User)
            },
            "has that address",
        ),
        (
            NewIdentity {
                email: Some("b@example.com"),
                parent: Some("deploy"),
                ..NewIdentity::new("b", IdentityKind::User)
            },
            "one of users",
        ),
    ] {
        let answer = fresh.registry.write(|tx| tx.create_identity(&account, &new, &op, at(1)));
        let told = refusal(answer);
        assert!(told.contains(why), "{told}");
    }
    let update = IdentityUpdate { description: Some("x".into()), ..IdentityUpdate::default() };
    let mut change = |version| {
        fresh
            .registry
            .write(|tx| tx.update_identity(&tx.identity(&ann.id)?, &update, version, &op, at(2)))
    };
    assert_eq!(change(Some(ann.version)).unwrap().version, ann.version + 1);
    assert!(refusal(change(Some(ann.version))).contains("changed meanwhile"));
}

pub fn an_identity_with_live_keys_stays(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let bob = fresh.caller("bob@example.com").identity.unwrap();
    let (ann, why) = (key.identity_id.clone(), (&operator(), "left"));
    let mut delete = |keys: KeysOf<'_>| {
        fresh.registry.write(|tx| tx.delete_identity(&tx.identity(&ann)?, keys, why, at(2)))
    };
    assert!(refusal(delete(KeysOf::Nobody)).contains("1 live key"));
    assert_eq!(delete(KeysOf::Disabled).unwrap(), 1);
    assert_eq!(fresh.known(&key.id).status(at(3)), Status::Disabled);
    let key = fresh.key(2);
    let identity = fresh.registry.read(|tx| tx.identity(&key.identity_id)).unwrap();
    assert_ne!(identity.id, ann, "the address is free again");
    let bob = fresh.registry.read(|tx| tx.identity(&bob)).unwrap();
    let moved = fresh
        .registry
        .write(|tx| tx.delete_identity(&identity, KeysOf::Reassigned(&bob), why, at(3)));
    assert_eq!(moved.unwrap(), 1);
    assert_eq!(fresh.known(&key.id).identity, "bob@example.com");
}

pub fn rights_come_from_grants_ownership_and_hierarchy(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let classic = NewKey {
        kind: KeyKind::Classic,
        leak_action: LeakAction::None,
        ..registered("c", "ann@example.com")
    };
    let classic = fresh.add(2, &classic).unwrap().id;
    let classic = fresh.known(&classic);
    let [ann, eve, admin] =
        ["ann", "eve", "admin"].map(|name| fresh.caller(&format!("{name}@example.com")));
    assert!(ann.may(Act::Update, &key.whose()).is_ok() && !ann.administers());
    assert!(eve.may(Act::View, &key.whose()).is_err());
    assert!(admin.administers() && admin.may(Act::Delete, &key.whose()).is_ok());
    let eve = eve.identity.unwrap();
    let op = operator();
    for grant in [Grant::Issue, Grant::Administrator] {
        let mut change = |on| {
            fresh.registry.write(|tx| {
                let eve = tx.identity(&eve)?;
                if on {
                    tx.grant(&eve, grant, &op, at(2))
                } else {
                    tx.revoke(&eve, grant, &op, at(2))
                }
            })
        };
        assert!(change(true).unwrap() && !change(true).unwrap());
        assert!(change(false).unwrap() && !change(false).unwrap());
        change(true).unwrap();
    }
    assert!(fresh.caller("eve@example.com").administers());
    let account = fresh.account();
    assert_eq!(
        fresh.registry.read(|tx| tx.admins(&account)).unwrap(),
        ["admin@example.com", "eve@example.com"]
    );
    fresh.caller("boss@example.com");
    let above =
        IdentityUpdate { parent: Some("boss@example.com".into()), ..IdentityUpdate::default() };
    fresh
        .registry
        .write(|tx| tx.update_identity(&tx.identity(&key.identity_id)?, &above, None, &op, at(2)))
        .unwrap();
    let boss = fresh.caller("boss@example.com");
    assert!(boss.may(Act::Delete, &classic.whose()).is_ok());
    assert!(boss.may(Act::Update, &classic.whose()).is_err());
    assert!(boss.may(Act::View, &key.whose()).is_err());
    // Restricted, nobody makes keys without a grant.
    let restricted = Restrictions { user_keys: true, service_keys: false };
    let update = AccountUpdate { restrictions: Some(restricted), ..AccountUpdate::default() };
    fresh
        .registry
        .write(|tx| tx.update_account(&tx.account(&account)?, &update, None, &op, at(3)))
        .unwrap();
    let new = registered("n", "ann@example.com");
    for caller in [&ann, &admin, &op] {
        let answer = fresh.registry.write(|tx| tx.add_key(&new, &material(3), caller, at(4)));
        assert!(refusal(answer).contains("is restricted"));
    }
    let eve = fresh.caller("eve@example.com");
    fresh.registry.write(|tx| tx.add_key(&new, &material(3), &eve, at(4))).unwrap();
}

pub fn accounts_do_not_see_each_other(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let op = operator();
    let other = fresh
        .registry
        .write(|tx| tx.create_account("other", "boss@example.com", &op, at(1)))
        .unwrap();
    let boss =
        fresh.registry.read(|tx| tx.caller("os", Some("boss@example.com"), Some("other"))).unwrap();
    refusal(fresh.registry.read(|tx| tx.find_key(&key.id, &boss)));
    refusal(fresh.registry.read(|tx| tx.one_account(&op)));
    assert_eq!(fresh.registry.read(|tx| tx.accounts(&boss)).unwrap().len(), 1);
    assert_eq!(fresh.registry.read(|tx| tx.accounts(&op)).unwrap().len(), 2);
    let told = refusal(fresh.registry.write(|tx| {
        tx.add_key(&registered("mine", "boss@example.com"), &material(1), &boss, at(2))
    }));
    assert!(told.contains("registered already") && !told.contains("key 1"), "{told}");
    let mut seen = 0;
    let show = &mut |_: &leakwarden::registry::key::Key| {
        seen += 1;
        std::ops::ControlFlow::Continue(())
    };
    fresh.registry.read(|tx| tx.each_key(&Filter::default(), &boss, at(2), show)).unwrap();
    let rows = fresh.registry.read(|tx| tx.audit_rows(None, 99, &boss)).unwrap();
    assert!(seen == 0 && rows.iter().all(|row| row.target != key.id));
    refusal(fresh.registry.write(|tx| tx.create_account("OTHER", "x@example.com", &op, at(3))));
    refusal(fresh.registry.write(|tx| tx.create_account("third", "x@example.com", &boss, at(3))));
    assert_eq!(
        fresh.registry.read(|tx| tx.account_named(&other.id)).unwrap().unwrap().name,
        "other"
    );
}

pub fn settings_change_with_a_version(make: Make) {
    let mut fresh = make();
    let account = fresh.account();
    let op = operator();
    let mut change = |update: AccountUpdate, version| {
        fresh
            .registry
            .write(|tx| tx.update_account(&tx.account(&account)?, &update, version, &op, at(2)))
    };
    let all = AccountUpdate::default;
    let changed = change(
        AccountUpdate { max_keys: Some(3), key_prefix: Some("acme".into()), ..all() },
        Some(1),
    );
    let changed = changed.unwrap();
    assert_eq!((changed.max_keys, changed.key_prefix.as_str(), changed.version), (3, "acme", 2));
    assert!(
        refusal(change(AccountUpdate { max_keys: Some(4), ..all() }, Some(1)))
            .contains("meanwhile")
    );
    refusal(change(AccountUpdate { key_prefix: Some("A B".into()), ..all() }, None));
    refusal(change(AccountUpdate { name: Some(" x".into()), ..all() }, None));
    refusal(change(AccountUpdate { owner: Some("nobody".into()), ..all() }, None));
}

pub fn homes_are_of_a_key_an_identity_or_an_account(make: Make) {
    let mut fresh = make();
    let [one, two] = [fresh.key(1), fresh.key(2)];
    let account = fresh.account();
    let identity = fresh.registry.read(|tx| tx.identity(&one.identity_id)).unwrap();
    let (op, eve) = (operator(), fresh.caller("eve@example.com"));
    let home = |glob: &str| Home { host: String::new(), glob: glob.into() };
    let mut add = |of: HomeOf<'_>, glob: &str, caller| {
        fresh.registry.write(|tx| tx.add_home(of, &home(glob), (caller, ""), at(2)))
    };
    assert!(add(HomeOf::Key(&one), "/etc/one", &op).unwrap());
    assert!(!add(HomeOf::Key(&one), "/etc/one", &op).unwrap());
    assert!(add(HomeOf::Identity(&identity), "/srv/**", &op).unwrap());
    assert!(add(HomeOf::Account(&account), "/run/secrets/**", &op).unwrap());
    for of in [HomeOf::Key(&one), HomeOf::Identity(&identity), HomeOf::Account(&account)] {
        assert!(add(of, "/x", &eve).is_err());
    }
    for glob in ["relative", "/**", "/a\u{7}", "/["] {
        refusal(add(HomeOf::Account(&account), glob, &op));
    }
    assert_eq!(fresh.known(&one.id).homes.len(), 3);
    assert_eq!(fresh.known(&two.id).homes.len(), 2);
    let rows = fresh.registry.read(|tx| tx.homes(Some(&two), &op)).unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(fresh.registry.read(|tx| tx.homes(None, &eve)).unwrap().len(), 1);
    let id = rows[0].id;
    refusal(fresh.registry.write(|tx| tx.remove_home(id, (&eve, ""), at(3))));
    fresh.registry.write(|tx| tx.remove_home(id, (&op, ""), at(3))).unwrap();
    refusal(fresh.registry.write(|tx| tx.remove_home(id, (&op, ""), at(3))));
    assert_eq!(fresh.known(&two.id).homes.len(), 1);
}
