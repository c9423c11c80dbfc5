//! Older schemas are brought up to date, whatever happens meanwhile; what is no registry of ours is
//! refused and left as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use rusqlite::Connection;

use super::world::{World, answer};

/// The steps that older schemas are the sums of.
const STEPS: [&str; 5] = [
    include_str!("../../src/registry/schema/1.sql"),
    include_str!("../../src/registry/schema/2.sql"),
    include_str!("../../src/registry/schema/3.sql"),
    include_str!("../../src/registry/schema/4.sql"),
    include_str!("../../src/registry/schema/5.sql"),
];
const NOW: i64 = 6;

fn database(world: &World) -> Connection {
    Connection::open(world.path("registry/registry.db")).unwrap()
}

fn count(database: &Connection, sql: &str) -> i64 {
    database.query_row(sql, [], |row| row.get(0)).unwrap()
}

fn version(database: &Connection) -> i64 {
    database.pragma_query_value(None, "user_version", |row| row.get(0)).unwrap()
}

/// Puts the registry back to an older schema, with what that one knew.
fn downgrade(folder: &Path, to: i64) {
    let (path, old) = (folder.join("registry.db"), folder.join("old.db"));
    let database = Connection::open(&old).unwrap();
    fs::set_permissions(&old, fs::Permissions::from_mode(0o600)).unwrap();
    for step in STEPS.iter().take(usize::try_from(to).unwrap()) {
        database.execute_batch(step).unwrap();
    }
    database.execute("ATTACH ?1 AS new", [path.to_str().unwrap()]).unwrap();
    database.pragma_update(None, "foreign_keys", false).unwrap();
    if to == 1 {
        fill_first(&database);
    } else {
        fill(&database);
    }
    database.pragma_update(None, "user_version", to).unwrap();
    drop(database);
    for name in ["registry.db-wal", "registry.db-shm"] {
        // They are there only while it is open.
        let _removed = fs::remove_file(folder.join(name)).is_ok();
    }
    fs::rename(old, path).unwrap();
}

/// Copies all that the older schema has columns for; what triggers count comes last.
fn fill(database: &Connection) {
    let all = |sql: &str| -> Vec<String> {
        let mut statement = database.prepare(sql).unwrap();
        let rows = statement.query_map([], |row| row.get(0)).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    };
    let tables = "SELECT name FROM main.sqlite_master WHERE type = 'table'
             AND name NOT LIKE 'sqlite_%' ORDER BY name IN ('totals', 'memory')";
    for table in all(tables) {
        let columns =
            all(&format!("SELECT '\"' || name || '\"' FROM pragma_table_info('{table}')"));
        let columns = columns.join(", ");
        database.execute(&format!("DELETE FROM main.{table}"), []).unwrap();
        let sql = format!("INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}");
        database.execute(&sql, []).unwrap();
    }
}

fn fill_first(database: &Connection) {
    for (table, columns) in [
        ("meta", "name, value"),
        ("accounts", "id, name, key_prefix, max_keys_per_identity, created_at"),
        ("identities", "id, account_id, kind, email, name, created_at"),
        (
            "keys",
            "seq, id, account_id, identity_id, kind, class, name, description, state, locked, \
             leak_action, hint, digest, pepper_version, tag, export_tag, alphabet, length, source, \
             expires_at, created_at, created_by, modified_at, modified_by, leaked_at, version",
        ),
        ("shapes", "alphabet, length, untagged"),
        ("homes", "key_id, glob, created_at, created_by"),
        ("audit", "seq, at, actor, action, target, before, after, reason, hash"),
    ] {
        let sql = format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM new.{table}");
        database.execute(&sql, []).unwrap();
    }
    let admins = "UPDATE identities SET is_admin = 1 WHERE id IN
         (SELECT identity_id FROM new.grants WHERE word = 'administrator')";
    database.execute(admins, []).unwrap();
}

/// A registry of an older schema, and the keys that were in it.
fn old_registry(schema: i64) -> (World, String, String) {
    let world = World::new();
    let first = world.key("first", "delete", &["--lock", "--home", "/etc/first.env"]);
    let second = world.key("second", "none", &["--like", "ibm"]);
    world.run(&["key", "delete", "-f", "second"]).expect(0);
    downgrade(&world.path("registry"), schema);
    (world, first, second)
}

fn check(world: &World, first: &str, second: &str) {
    assert_eq!(world.verify(first), "active");
    assert_eq!(world.verify(second), "deleted");
    let shown = world.run(&["key", "show", "first", "--format", "json"]).expect(0).json();
    assert_eq!(shown["owner"], "first@example.com");
    assert_eq!(shown["homes"], serde_json::json!(["/etc/first.env"]));
    assert_eq!(shown["locked"], true);
    let answer = world.run(&["registry", "check"]).expect(0);
    assert!(answer.out.contains("whole: 1 key"), "{}", answer.both());
    world.write("leak.txt", format!("({first}) and ({second})"));
    let found = world.run(&["scan", "leak.txt", "--only", "registered"]).expect(1);
    assert!(found.out.contains("first") && found.out.contains("second"), "{}", found.both());
    let access = world.run(&["access", "list"]).expect(0).out;
    assert!(access.contains("account owner, administrator"), "{access}");
}

#[test]
fn an_older_schema_is_brought_up_to_date_after_a_copy() {
    for schema in 1..NOW {
        let (world, first, second) = old_registry(schema);
        assert_eq!(version(&database(&world)), schema);
        check(&world, &first, &second);
        assert_eq!(version(&database(&world)), NOW);
        let copy = world.path(&format!("registry/registry.before-schema-{}.db", schema + 1));
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o600);
        let copy = Connection::open(copy).unwrap();
        assert_eq!(version(&copy), schema);
        assert_eq!(count(&copy, "SELECT count(*) FROM keys"), 2);
        // What it counts goes on being counted.
        world.key("third", "none", &[]);
        let answer = world.run(&["registry", "check"]).expect(0);
        assert!(answer.out.contains("whole: 2 keys"), "{}", answer.both());
    }
}

#[test]
fn a_migration_that_is_killed_leaves_the_old_or_the_new() {
    let kills: usize = (1..NOW).map(killed_from).sum();
    assert!(kills >= 150, "only {kills} kills");
}

/// Kills a migration from a schema at each of its calls; answers how often that was.
fn killed_from(schema: i64) -> usize {
    let (template, first, second) = old_registry(schema);
    let mut kills = 0;
    for call in ["pwrite64", "fdatasync", "fsync", "rename", "unlink", "openat"] {
        for number in 1.. {
            let world = World::empty();
            copy(&template.path("registry"), &world.path("registry"));
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
            command.arg(env!("CARGO_BIN_EXE_leakwarden")).args(["key", "list"]);
            command.env("LEAKWARDEN_REGISTRY", world.path("registry"));
            let killed = answer(command, b"").code != 0;
            let found = version(&database(&world));
            assert!(found == schema || found == NOW, "{call} {number}: schema {found}");
            check(&world, &first, &second);
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    kills
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o700)).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn a_running_daemon_stops_a_migration() {
    let (world, ..) = old_registry(1);
    let lock = fs::File::create(world.path("registry/daemon.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let answer = world.run(&["key", "list"]).expect(2);
    assert!(answer.err.contains("stop it first"), "{}", answer.err);
    drop(lock);
    world.run(&["key", "list"]).expect(0);
}

#[test]
fn what_is_no_whole_registry_is_refused_and_not_replaced() {
    let world = World::new();
    world.key("k", "none", &[]);
    let path = world.path("registry/registry.db");
    let whole = fs::read(&path).unwrap();
    let mut zeroed = whole.clone();
    zeroed[..100].fill(0);
    let other = World::new();
    let foreign = fs::read(other.path("registry/registry.db")).unwrap();
    for (bytes, advice) in [
        (&whole[..whole.len() / 2], "put a backup in their place"),
        (&whole[..5_000], "put a backup in their place"),
        (&whole[..1], "put a backup in their place"),
        (&whole[..whole.len() - 100], "the last 100 bytes of"),
        (&whole[..whole.len() - 4_000], "put a backup in their place"),
        (&zeroed, "put a backup in their place"),
        (&b"this is no database, but long enough to look at it twice"[..], "put a backup"),
        (&[][..], "restore it from its backup"),
        (&foreign, "not the one this registry was made with"),
    ] {
        fs::write(&path, bytes).unwrap();
        for command in [&["key", "list"][..], &["registry", "check"], &["scan", "x"]] {
            let answer = world.run(command).expect(2);
            assert!(answer.err.contains(advice), "{}", answer.err);
        }
        assert!(fs::read(&path).unwrap() == bytes, "not left as it is");
    }
    fs::write(&path, &whole).unwrap();
    database(&world).pragma_update(None, "user_version", 99).unwrap();
    let answer = world.run(&["key", "list"]).expect(2);
    assert!(answer.err.contains("use a newer one"), "{}", answer.err);
}

#[test]
fn what_a_killed_checkpoint_left_in_the_log_is_not_missing() {
    let world = World::new();
    let (path, log) = (world.path("registry/registry.db"), world.path("registry/registry.db-wal"));
    let before = fs::metadata(&path).unwrap().len();
    let holder = database(&world);
    let _tables: i64 = holder.query_row("SELECT count(*) FROM keys", [], |row| row.get(0)).unwrap();
    for number in 0..20 {
        world.key_of(&format!("o{number}"), &format!("k{number}"), "none", &[]);
    }
    let in_log = fs::read(&log).unwrap();
    holder.query_row("PRAGMA wal_checkpoint(FULL)", [], |_| Ok(())).unwrap();
    let whole = fs::read(&path).unwrap();
    assert!(whole.len() as u64 > before + 4_096, "the database has not grown");
    drop(holder);
    fs::write(&log, in_log).unwrap();
    fs::write(&path, &whole[..whole.len() - 4_096]).unwrap();
    let listed = world.run(&["key", "list"]).expect(0).out;
    assert_eq!(listed.lines().count(), 20, "{listed}");
    world.run(&["registry", "check"]).expect(0);
    assert_eq!(fs::metadata(&path).unwrap().len(), whole.len() as u64);
}

#[test]
fn a_damaged_page_is_found_or_does_no_harm() {
    let world = World::new();
    for number in 0..40 {
        world.key_of(&format!("o{number}"), &format!("k{number}"), "none", &[]);
    }
    let told = |command: &[&str]| world.run(command).both();
    let commands = [&["key", "export", "--all"][..], &["audit", "show"], &["identity", "list"]];
    let before = commands.map(told);
    let path = world.path("registry/registry.db");
    let whole = fs::read(&path).unwrap();
    let mut found = 0;
    // A byte in each page, at different places of it.
    for page in 1..whole.len() / 4096 {
        let mut bytes = whole.clone();
        bytes[page * 4096 + page * 37 % 120] ^= 0x5a;
        fs::write(&path, &bytes).unwrap();
        let answer = world.run(&["registry", "check"]);
        if answer.code == 0 {
            assert!(commands.map(told) == before, "page {page} is damaged, and nobody says so");
        } else {
            assert!(answer.code == 1 || answer.code == 2, "{}", answer.both());
            found += 1;
        }
        assert!(path.metadata().unwrap().len() >= whole.len() as u64, "replaced");
    }
    assert!(found >= 10, "only {found} were found");
}

#[test]
fn a_copy_is_whole_and_opens_again() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    let answer = world.run(&["registry", "backup", "copy.db"]).expect(0);
    assert!(answer.out.contains("copied 1 key"), "{}", answer.out);
    let mode = fs::metadata(world.path("copy.db")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    let answer = world.run(&["registry", "backup", "copy.db"]).expect(2);
    assert!(answer.err.contains("exists already"), "{}", answer.err);
    world.run(&["key", "disable", "k"]).expect(0);
    fs::rename(world.path("copy.db"), world.path("registry/registry.db")).unwrap();
    assert_eq!(world.verify(&key), "active");
}

#[test]
fn a_new_pepper_needs_no_plain_key() {
    let world = World::new();
    let key = world.key("k", "none", &[]);
    let token = super::world::github_token();
    world.run_with(&["key", "register", "t"], token.as_bytes()).expect(0);
    world.run(&["registry", "backup", "before.db"]).expect(0);
    let pepper = fs::read_to_string(world.path("registry/pepper")).unwrap();
    let digests = |world: &World| {
        let sql = "SELECT group_concat(hex(digest)) FROM keys";
        database(world).query_row(sql, [], |row| row.get::<_, String>(0)).unwrap()
    };
    let before = digests(&world);
    let answer = world.run(&["registry", "rotate-pepper"]).expect(2);
    assert!(answer.err.contains("--force"), "{}", answer.err);
    world.run(&["registry", "rotate-pepper", "-f", "--reason", "a test"]).expect(0);
    world.run(&["registry", "rotate-pepper", "-f"]).expect(0);
    assert_ne!(digests(&world), before);
    assert_eq!((world.verify(&key), world.verify(&token)), ("active".into(), "active".into()));
    let rotated = fs::read_to_string(world.path("registry/pepper")).unwrap();
    assert_eq!(rotated.matches("\npepper ").count(), 3);
    world.run(&["registry", "check"]).expect(0);
    assert!(world.run(&["key", "list"]).expect(0).out.contains("ghp_…"));
    // The old pepper alone is of no use any more; an old copy opens with the new file.
    fs::write(world.path("registry/pepper"), pepper).unwrap();
    let answer = world.run(&["key", "list"]).expect(2);
    assert!(answer.err.contains("not the one this registry was made with"), "{}", answer.err);
    fs::write(world.path("registry/pepper"), rotated).unwrap();
    fs::rename(world.path("before.db"), world.path("registry/registry.db")).unwrap();
    assert_eq!(world.verify(&token), "active");
    // And the next rotation takes up the pepper that is there.
    world.run(&["registry", "rotate-pepper", "-f"]).expect(0);
    let again = fs::read_to_string(world.path("registry/pepper")).unwrap();
    assert!(again.matches("\npepper ").count() == 3);
    assert_eq!(world.verify(&token), "active");
}

#[test]
fn a_rotation_that_is_killed_leaves_a_registry_that_works() {
    let template = World::new();
    let key = template.key("k", "none", &[]);
    let mut kills = 0;
    for call in ["pwrite64", "write", "fdatasync", "fsync", "rename"] {
        for number in 1.. {
            let world = World::empty();
            copy(&template.path("registry"), &world.path("registry"));
            let mut command = Command::new("strace");
            command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
            command.args(["-e", &format!("inject={call}:signal=KILL:when={number}")]);
            command.arg(env!("CARGO_BIN_EXE_leakwarden"));
            command.args(["registry", "rotate-pepper", "--force"]);
            command.env("LEAKWARDEN_REGISTRY", world.path("registry"));
            let killed = answer(command, b"").code != 0;
            assert_eq!(world.verify(&key), "active", "{call} {number}");
            world.run(&["registry", "rotate-pepper", "-f"]).expect(0);
            assert_eq!(world.verify(&key), "active", "{call} {number}, once more");
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    assert!(kills >= 15, "only {kills} kills");
}
