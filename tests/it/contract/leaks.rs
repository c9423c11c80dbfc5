//! Sightings, incidents, the outbox, and what is remembered.

use std::path::Path;
use std::time::Duration;

use leakwarden::incident::{Brake, LockedPolicy, Mode, Policy};
use leakwarden::ledger::{
    self, Batch, Homes, NoticeOutcome, Offset, Options, Recorded, Sighting, reread,
};
use leakwarden::registry::NewKey;
use leakwarden::registry::key::{Arrival, LeakAction, State};
use leakwarden::response::local::LocalExecutor;
use leakwarden::response::{Executor as _, Outcome};
use leakwarden::source::follow::Followed;
use leakwarden::source::{Head, Position, Stat, path_id};

use super::{Fresh, Make, at, operator, refusal, registered, text};

fn options() -> Options {
    let brake = Brake::DEFAULT;
    let policy = Policy {
        mode: Mode::Act,
        brake,
        delete_grace: Duration::ZERO,
        locked: LockedPolicy::Disable,
    };
    Options { policy, homes: Homes::default() }
}

/// The key with that number, seen at an offset of a log.
fn seen(fresh: &Fresh, number: u32, offset: u64) -> Sighting {
    Sighting {
        digest: fresh.registry.keyring().digest(text(number).as_bytes()),
        checked: false,
        source: "log".into(),
        stream: "log:1".into(),
        place: "/var/log/app.log".into(),
        real: None,
        other_stream: None,
        path: "/var/log/app.log".into(),
        commit: None,
        line: 1,
        column: 1,
        offset,
        host: "web1".into(),
        seen_at: at(10),
        world_readable: false,
        again: false,
    }
}

fn record(fresh: &mut Fresh, sightings: &[Sighting], offsets: &[Offset]) -> Recorded {
    let batch = Batch { sightings, offsets, ready: &[], forgotten: 0 };
    ledger::record(&mut fresh.registry, &batch, &options(), at(10)).unwrap()
}

pub fn a_sighting_opens_one_incident_and_is_told_once(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let commit = Some("0123456789abcdef".to_owned());
    let first = Sighting { commit: commit.clone(), ..seen(&fresh, 1, 7) };
    assert_eq!(record(&mut fresh, &[first], &[]), Recorded { opened: 1, added: 0 });
    // The same place again is nothing; another one is one more.
    let again = [seen(&fresh, 1, 7), seen(&fresh, 1, 8)];
    assert_eq!(record(&mut fresh, &again, &[]), Recorded { opened: 0, added: 1 });
    let ids = fresh.registry.read(|tx| tx.incident_ids(false, &operator())).unwrap();
    let incident = fresh.registry.read(|tx| tx.incident(ids[0])).unwrap();
    assert_eq!((ids.len(), incident.count, incident.sightings.len()), (1, 2, 2));
    assert_eq!((&incident.sightings[0].commit, &incident.key.id), (&commit, &key.id));
    assert_eq!(fresh.known(&key.id).leaked_at, Some(at(10)));
    let due = fresh.registry.read(|tx| tx.due_actions(at(11), 9)).unwrap();
    assert_eq!(due.len(), 1);
    fresh
        .registry
        .write(|tx| {
            tx.action_retry(&due[0], "busy", at(20))?;
            assert!(tx.due_actions(at(19), 9)?.is_empty());
            let due = tx.due_actions(at(20), 9)?;
            tx.set_state(&key, State::Disabled, (&operator(), ""), at(20))?;
            tx.action_done(&due[0], "the key is disabled", at(20))
        })
        .unwrap();
    assert!(fresh.registry.read(|tx| tx.due_actions(at(99), 9)).unwrap().is_empty());
    let notices = fresh.registry.read(|tx| tx.due_notices(at(99), 9)).unwrap();
    let mut to: Vec<_> = notices.iter().map(|notice| notice.recipient.as_str()).collect();
    to.sort_unstable();
    assert_eq!(to, ["admin@example.com", "ann@example.com"]);
    for notice in &notices {
        fresh
            .registry
            .write(|tx| tx.notice_outcome(notice, &NoticeOutcome::Sent, false, at(99)))
            .unwrap();
    }
    assert!(fresh.registry.read(|tx| tx.due_notices(at(999), 9)).unwrap().is_empty());
}

pub fn what_cannot_be_done_is_told_to_admins(make: Make) {
    let mut fresh = make();
    fresh.key(1);
    record_first(&mut fresh);
    let due = fresh.registry.read(|tx| tx.due_actions(at(11), 9)).unwrap();
    fresh.registry.write(|tx| tx.action_failed(&due[0], "no such executor", at(11))).unwrap();
    let ids = fresh.registry.read(|tx| tx.incident_ids(false, &operator())).unwrap();
    let incident = fresh.registry.read(|tx| tx.incident(ids[0])).unwrap();
    let action = &incident.actions[0];
    assert_eq!((action.state.as_str(), action.why.as_str()), ("failed", "no such executor"));
    assert!(fresh.registry.read(|tx| tx.due_actions(at(99), 9)).unwrap().is_empty());
    let notices = fresh.registry.read(|tx| tx.due_notices(at(99), 9)).unwrap();
    let failed: Vec<_> = notices.iter().filter(|n| n.kind.as_str() == "failed").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].recipient, "admin@example.com");
}

pub fn what_was_decided_while_acting_waits_when_only_observing(make: Make) {
    let mut fresh = make();
    fresh.key(1);
    record_first(&mut fresh);
    let due = |fresh: &mut Fresh| fresh.registry.read(|tx| tx.due_actions(at(11), 9)).unwrap();
    assert_eq!(due(&mut fresh).len(), 1);
    assert_eq!(fresh.registry.write(|tx| tx.hold_unapproved()).unwrap(), 1);
    assert_eq!(fresh.registry.write(|tx| tx.hold_unapproved()).unwrap(), 0);
    assert!(due(&mut fresh).is_empty());
    let ids = fresh.registry.read(|tx| tx.incident_ids(false, &operator())).unwrap();
    assert_eq!(fresh.registry.write(|tx| tx.approve(ids[0], &operator(), "", at(11))).unwrap(), 1);
    // What a person approved stays.
    assert_eq!(fresh.registry.write(|tx| tx.hold_unapproved()).unwrap(), 0);
    assert_eq!(due(&mut fresh).len(), 1);
}

pub fn a_mail_that_may_have_arrived_twice_is_given_up(make: Make) {
    let mut fresh = make();
    fresh.key(1);
    record_first(&mut fresh);
    let again = || NoticeOutcome::Unknown { why: "cut off".to_owned(), at: at(200) };
    let first = |fresh: &mut Fresh, when| {
        let notices = fresh.registry.read(|tx| tx.due_notices(when, 9)).unwrap();
        notices.into_iter().min_by_key(|notice| notice.id)
    };
    let notice = first(&mut fresh, at(199)).unwrap();
    let exhausted = fresh.registry.write(|tx| tx.notice_exhausted(&notice, at(199))).unwrap();
    assert!(!exhausted && notice.in_doubt == 0);
    fresh.registry.write(|tx| tx.notice_in_doubt(&notice)).unwrap();
    fresh.registry.write(|tx| tx.notice_outcome(&notice, &again(), true, at(199))).unwrap();
    // Whoever was killed in the middle of the second time has told nobody how it ended.
    let notice = first(&mut fresh, at(200)).unwrap();
    assert_eq!((notice.in_doubt, notice.attempts), (1, 1));
    fresh.registry.write(|tx| tx.notice_in_doubt(&notice)).unwrap();
    let killed = first(&mut fresh, at(200)).unwrap();
    assert_eq!((killed.id, killed.in_doubt), (notice.id, 2));
    assert!(fresh.registry.write(|tx| tx.notice_exhausted(&killed, at(201))).unwrap());
    assert_ne!(first(&mut fresh, at(999)).map(|other| other.id), Some(notice.id));
}

/// The first key is seen.
fn record_first(fresh: &mut Fresh) {
    let first = seen(fresh, 1, 7);
    assert_eq!(record(fresh, &[first], &[]), Recorded { opened: 1, added: 0 });
}

pub fn what_nobody_owned_is_remembered_and_raised(make: Make) {
    let mut fresh = make();
    let sightings = [seen(&fresh, 1, 7), seen(&fresh, 1, 9), seen(&fresh, 2, 8)];
    assert_eq!(record(&mut fresh, &sightings, &[]), Recorded::default());
    let memory = fresh.registry.read(|tx| tx.memory()).unwrap();
    assert_eq!((memory.kept, memory.evicted), (3, 0));
    let digest = sightings[0].digest;
    let places = fresh.registry.read(|tx| tx.places_of(None, &digest)).unwrap();
    assert!(places.len() == 2 && places.iter().all(|place| place.incident.is_none()));
    ledger::keep_policy(&mut fresh.registry, &options().policy).unwrap();
    let added = fresh.add(1, &registered("late", "ann@example.com")).unwrap();
    assert!(fresh.registry.write(|tx| tx.raise_remembered(&added, at(12))).unwrap());
    let ids = fresh.registry.read(|tx| tx.incident_ids(false, &operator())).unwrap();
    let incident = fresh.registry.read(|tx| tx.incident(ids[0])).unwrap();
    assert_eq!((incident.count, incident.actions[0].state.as_str()), (2, "due"));
    // Reading these places again is nothing new.
    assert_eq!(record(&mut fresh, &sightings[..2], &[]), Recorded::default());
    assert_eq!(fresh.registry.read(|tx| tx.memory()).unwrap().kept, 1);
    let batch = Batch { sightings: &[], offsets: &[], ready: &[], forgotten: 5 };
    ledger::record(&mut fresh.registry, &batch, &options(), at(13)).unwrap();
    assert_eq!(fresh.registry.read(|tx| tx.memory()).unwrap().evicted, 5);
}

pub fn what_an_import_makes_known_is_held(make: Make) {
    let mut fresh = make();
    let imported = NewKey { arrival: Arrival::Imported, ..registered("k", "ann@example.com") };
    fresh.add(1, &imported).unwrap();
    // Read before, and again now: nobody has looked at that import.
    let again = Sighting { again: true, ..seen(&fresh, 1, 7) };
    record(&mut fresh, &[again], &[]);
    let ids = fresh.registry.read(|tx| tx.incident_ids(false, &operator())).unwrap();
    let mut state = || {
        let incident = fresh.registry.read(|tx| tx.incident(ids[0])).unwrap();
        incident.actions[0].state.as_str().to_owned()
    };
    assert_eq!(state(), "held");
    let eve = fresh.caller("eve@example.com");
    refusal(fresh.registry.write(|tx| tx.approve(ids[0], &eve, "", at(11))));
    assert_eq!(fresh.registry.write(|tx| tx.approve(ids[0], &operator(), "", at(11))).unwrap(), 1);
    assert_eq!(fresh.registry.write(|tx| tx.approve(ids[0], &operator(), "", at(11))).unwrap(), 0);
    assert_eq!(fresh.registry.read(|tx| tx.due_actions(at(12), 9)).unwrap().len(), 1);
}

pub fn an_end_by_hand_stops_what_is_to_be_done(make: Make) {
    let mut fresh = make();
    let key = fresh.key(1);
    let sighting = seen(&fresh, 1, 7);
    record(&mut fresh, &[sighting], &[]);
    let op = operator();
    let id = fresh.registry.read(|tx| tx.find_incident("leak-1", &op)).unwrap();
    let mut resolve =
        |how: &str, caller| fresh.registry.write(|tx| tx.resolve(id, how, caller, "", at(11)));
    assert!(refusal(resolve("rotated", &op)).contains("still valid"));
    resolve("accepted", &op).unwrap();
    assert!(refusal(resolve("accepted", &op)).contains("resolved already"));
    assert!(fresh.registry.read(|tx| tx.incident_ids(false, &op)).unwrap().is_empty());
    assert_eq!(fresh.registry.read(|tx| tx.incident_ids(true, &op)).unwrap(), [id]);
    let eve = fresh.caller("eve@example.com");
    refusal(fresh.registry.read(|tx| tx.find_incident("1", &eve)));
    assert!(fresh.registry.read(|tx| tx.incident_ids(true, &eve)).unwrap().is_empty());
    // A known place opens nothing, a new one does; enabling closes that.
    let known = [seen(&fresh, 1, 7)];
    assert_eq!(record(&mut fresh, &known, &[]), Recorded::default());
    let new = [seen(&fresh, 1, 8)];
    assert_eq!(record(&mut fresh, &new, &[]).opened, 1);
    let due = fresh.registry.read(|tx| tx.due_actions(at(11), 9)).unwrap();
    assert_eq!(due.len(), 1);
    fresh.registry.write(|tx| tx.close_enabled(&key, "enabled", at(12))).unwrap();
    assert!(fresh.registry.read(|tx| tx.incident_ids(false, &op)).unwrap().is_empty());
    assert!(fresh.registry.read(|tx| tx.due_actions(at(99), 9)).unwrap().is_empty());
    // Who took the action from the outbox before that does nothing.
    let mut executor = LocalExecutor::new(fresh.registry.reopen().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(executor.execute(&due[0])), Outcome::Unwanted);
    assert_eq!(fresh.known(&key.id).state, State::Active);
}

pub fn homes_are_where_links_lead_now(make: Make) {
    let mut fresh = make();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().canonicalize().unwrap();
    let (link, home) = (root.join("current"), root.join("current/.env"));
    let releases = ["one", "two"].map(|name| root.join(name));
    let point_to = |release: &Path| {
        let _old = std::fs::remove_file(&link).is_ok();
        std::os::unix::fs::symlink(release, &link).unwrap();
    };
    for release in &releases {
        std::fs::create_dir(release).unwrap();
        std::fs::write(release.join(".env"), "").unwrap();
    }
    point_to(&releases[0]);
    let homes = Homes::new(vec![home.to_str().unwrap().to_owned()]).unwrap();
    let options = Options { homes, ..options() };
    fresh.key(1);
    let at_release = |fresh: &Fresh, release: &Path| {
        let place = release.join(".env");
        let real = Some(place.clone());
        Sighting { source: "file".into(), place, real, ..seen(fresh, 1, 1) }
    };
    point_to(&releases[1]);
    let sightings = [at_release(&fresh, &releases[1])];
    let batch = Batch { sightings: &sightings, offsets: &[], ready: &[], forgotten: 0 };
    let recorded = ledger::record(&mut fresh.registry, &batch, &options, at(10)).unwrap();
    assert_eq!(recorded, Recorded::default());
    // Of what was remembered, too, a home may be named by where a link leads.
    let place = link.join(".env");
    let remembered = Sighting {
        source: "file".into(),
        path: place.to_str().unwrap().to_owned(),
        place,
        ..seen(&fresh, 2, 1)
    };
    assert_eq!(record(&mut fresh, &[remembered], &[]), Recorded::default());
    let homes = [releases[1].join(".env").to_str().unwrap().to_owned()];
    let new = NewKey { homes: &homes, ..registered("later", "ann@example.com") };
    let added = fresh.add(2, &new).unwrap();
    assert!(!fresh.registry.write(|tx| tx.raise_remembered(&added, at(11))).unwrap());
}

pub fn offsets_go_with_what_was_found_before_them(make: Make) {
    let mut fresh = make();
    fresh.key(1);
    let file = path_id(Path::new("/var/log/app.log"));
    let position = Position { offset: 42, lines: 3, marker: [7; 16] };
    let stat = Stat { dev: 1, ino: u64::MAX, size: 99, changed_ns: -5, world_readable: true };
    let followed = Followed { stream: "log:1".into(), stat, position, head: Head::default() };
    let offset = |followed| Offset { watch: "logs".into(), file, followed };
    let sighting = seen(&fresh, 1, 7);
    let known = record(&mut fresh, &[sighting], &[offset(Some(followed.clone()))]);
    assert_eq!(known.opened, 1);
    let offsets = ledger::offsets(&mut fresh.registry, "logs").unwrap();
    assert_eq!(offsets.get(&file), Some(&followed));
    assert!(ledger::offsets(&mut fresh.registry, "other").unwrap().is_empty());
    record(&mut fresh, &[], &[offset(None)]);
    assert!(ledger::offsets(&mut fresh.registry, "logs").unwrap().is_empty());
    assert!(ledger::first_start(&mut fresh.registry, "logs").unwrap());
    let batch = Batch { sightings: &[], offsets: &[], ready: &["logs".into()], forgotten: 0 };
    ledger::record(&mut fresh.registry, &batch, &options(), at(10)).unwrap();
    assert!(!ledger::first_start(&mut fresh.registry, "logs").unwrap());
}

pub fn watches_read_again_what_strangers_may_be_in(make: Make) {
    let mut fresh = make();
    let registry = &mut fresh.registry;
    registry.write(|tx| tx.meet_strangers()).unwrap();
    reread::begins(registry, "old").unwrap();
    assert_eq!(reread::unread(registry, "old").unwrap(), None);
    registry.write(|tx| tx.meet_strangers()).unwrap();
    reread::begins(registry, "old").unwrap();
    reread::begins(registry, "new").unwrap();
    let unread = reread::unread(registry, "old").unwrap().unwrap();
    assert_eq!(reread::unread(registry, "new").unwrap(), None);
    // More came while it was read.
    registry.write(|tx| tx.meet_strangers()).unwrap();
    reread::was_read(registry, "old", unread).unwrap();
    let unread = reread::unread(registry, "old").unwrap().unwrap();
    reread::was_read(registry, "old", unread).unwrap();
    assert_eq!(reread::unread(registry, "old").unwrap(), None);
}

pub fn home_is_no_leak(make: Make) {
    let mut fresh = make();
    let homes = ["/etc/app.env".to_owned()];
    let at_home = NewKey {
        homes: &homes,
        leak_action: LeakAction::None,
        ..registered("k", "ann@example.com")
    };
    fresh.add(1, &at_home).unwrap();
    let in_file = |fresh: &Fresh, place: &str, offset| Sighting {
        source: "file".into(),
        place: place.into(),
        ..seen(fresh, 1, offset)
    };
    let home = in_file(&fresh, "/etc/app.env", 1);
    assert_eq!(record(&mut fresh, &[home], &[]), Recorded::default());
    let linked =
        Sighting { real: Some("/etc/app.env".into()), ..in_file(&fresh, "/run/app.env", 2) };
    assert_eq!(record(&mut fresh, &[linked], &[]), Recorded::default());
    let away = in_file(&fresh, "/tmp/app.env", 1);
    assert_eq!(record(&mut fresh, &[away], &[]).opened, 1);
    let suggested = fresh.registry.read(|tx| tx.home_suggestions(None, &operator())).unwrap();
    assert_eq!((suggested.len(), suggested[0].key.as_str()), (1, "k"));
}
