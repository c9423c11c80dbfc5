//! Killed at any moment and started again: nothing missed, nothing done twice, nobody told a third
//! time. strace kills the daemon at its N-th call of a kind, for every N there is. A log goes on while
//! nobody watches, in the middle of a key.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::{Connection, OpenFlags};

use super::mail::Server;
use super::world::{PATIENCE, World, header, wait_for_end};

/// Calls that change what others can see: database pages, their sync, mail on its way.
const CALLS: [&str; 5] = ["pwrite64", "fdatasync", "sendto", "recvfrom", "openat"];
/// Kills that the test must reach over all calls: how many there are depends on what the daemon gets to
/// write at once.
const POINTS_MIN: usize = 100;

struct Point {
    folder: PathBuf,
}

impl Point {
    /// A copy of the template.
    fn new(template: &Path, folder: PathBuf) -> Self {
        for entry in ignore::WalkBuilder::new(template).standard_filters(false).build() {
            let entry = entry.unwrap();
            let to = folder.join(entry.path().strip_prefix(template).unwrap());
            if entry.file_type().unwrap().is_dir() {
                fs::create_dir(&to).unwrap();
                fs::set_permissions(&to, entry.metadata().unwrap().permissions()).unwrap();
            } else {
                fs::copy(entry.path(), &to).unwrap();
            }
        }
        Self { folder }
    }

    fn daemon(&self, strace: Option<(&str, usize)>) -> Child {
        let program = env!("CARGO_BIN_EXE_leakwarden");
        let mut command = match strace {
            None => Command::new(program),
            Some((call, number)) => {
                let mut command = Command::new("strace");
                command.args(["-f", "-qq", "-o", "/dev/null"]);
                command.args(["-e", &format!("trace={call}")]);
                command.args(["-e", &format!("inject={call}:signal=KILL:when={number}"), program]);
                command
            }
        };
        command
            .args(["watch", "--config", "config.yaml"])
            .current_dir(&self.folder)
            .process_group(0)
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        command.spawn().expect("strace is installed; run the tests with tests/run")
    }

    fn database(&self) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
        Connection::open_with_flags(self.folder.join("registry/registry.db"), flags).unwrap()
    }

    fn count(database: &Connection, sql: &str) -> i64 {
        // While the daemon recovers the database after a kill it may be locked.
        database.busy_timeout(PATIENCE).unwrap();
        database.query_row(sql, [], |row| row.get(0)).unwrap_or(-1)
    }

    /// What there is of: files read, leaks found, actions due, notices due.
    fn state(&self) -> [i64; 4] {
        let database = self.database();
        [
            "SELECT count(*) FROM streams",
            "SELECT count(*) FROM incidents",
            "SELECT count(*) FROM actions WHERE state = 'due'",
            "SELECT count(*) FROM notices WHERE state = 'due'",
        ]
        .map(|sql| Self::count(&database, sql))
    }

    /// Waits until the daemon is dead (`true`) or has read both files, found so many leaks, and has
    /// nothing left to do (`false`).
    fn wait(&self, daemon: &mut Child, leaks: i64) -> bool {
        let end = Instant::now() + PATIENCE;
        loop {
            if daemon.try_wait().unwrap().is_some() {
                return true;
            }
            let (state, settled) = (self.state(), [2, leaks, 0, 0]);
            if state == settled {
                return false;
            }
            let place = self.folder.display();
            assert!(
                Instant::now() < end,
                "{place}: neither dead nor done: {state:?}, not {settled:?}"
            );
            std::thread::sleep(Duration::from_millis(4));
        }
    }

    fn end(&self, mut daemon: Child) {
        let group = rustix::process::Pid::from_raw(daemon.id().cast_signed()).unwrap();
        // It may have died by itself.
        let _sent =
            rustix::process::kill_process_group(group, rustix::process::Signal::KILL).is_ok();
        daemon.wait().unwrap();
        wait_for_end(&self.folder.join("registry"));
    }

    fn check(&self, place: &str) {
        let database = self.database();
        let count = |sql: &str| Self::count(&database, sql);
        assert_eq!(count("SELECT count(*) FROM incidents"), 3, "{place}: incidents");
        assert_eq!(count("SELECT count(*) FROM sightings"), 3, "{place}: sightings");
        let line = "SELECT line FROM sightings s JOIN incidents n ON n.id = s.incident_id
            JOIN keys k ON k.id = n.key_id WHERE k.name = 'n'";
        assert_eq!(count(line), 4, "{place}: line");
        assert_eq!(count("SELECT count(*) FROM keys WHERE name = 'x' AND state = 'deleted'"), 1);
        assert_eq!(count("SELECT count(*) FROM keys WHERE name = 'd' AND state = 'disabled'"), 1);
        assert_eq!(count("SELECT count(*) FROM actions WHERE state = 'done'"), 3, "{place}");
        for (action, expected) in [("key disable", 2), ("key delete", 1)] {
            let sql = format!("SELECT count(*) FROM audit WHERE action = '{action}'");
            assert_eq!(count(&sql), expected, "{place}: {action} took effect");
        }
        let sent = "SELECT count(*) FROM notices WHERE state = 'sent'";
        let doubtful =
            "SELECT count(*) FROM notices WHERE state = 'failed' AND why LIKE 'perhaps%'";
        assert_eq!(count(sent) + count(doubtful), 6, "{place}: notices");
        let check: String =
            database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
        assert_eq!(check, "ok", "{place}");
    }
}

#[test]
fn killed_at_every_call_and_started_again() {
    let world = World::new();
    let server = Server::start(&world, "smtp", &[]);
    let config = format!(
        "registry: ./registry\n\
         watch:\n  - files: [\"./inbox/**\"]\n  \
         - {{ logs: [\"./logs/*.log\"], start: beginning }}\n\
         response: {{ mode: act }}\n\
         mail: {{ smtp: {{ host: 127.0.0.1, port: {}, tls: none, from: lw@example.com }}, \
         retry_after: 0s }}\n",
        server.port
    );
    let delete = world.key("x", "delete", &[]);
    let disable = world.key("d", "disable", &["--like", "ibm"]);
    let none = world.key("n", "none", &[]);
    let (half, rest) = none.split_at(none.len() / 2);
    fs::create_dir(world.path("template")).unwrap();
    fs::rename(world.path("registry"), world.path("template/registry")).unwrap();
    world.write("template/config.yaml", config);
    world.write("template/inbox/app/.env", format!("KEY={delete}\n"));
    world.write("template/logs/app.log", format!("first\nGET /?key={disable}\nlast\n{half}"));

    let (mut points, mut rounds) = (0, 0);
    for call in CALLS {
        for number in 1.. {
            let place = format!("{call} {number}");
            let point = Point::new(&world.path("template"), world.path(&place));
            let mut daemon = point.daemon(Some((call, number)));
            let killed = point.wait(&mut daemon, 2);
            point.end(daemon);
            points += usize::from(killed);
            let mut log = OpenOptions::new();
            let mut log = log.append(true).open(point.folder.join("logs/app.log")).unwrap();
            log.write_all(format!("{rest}\n").as_bytes()).unwrap();
            let mut daemon = point.daemon(None);
            assert!(!point.wait(&mut daemon, 3), "{place}: the second daemon died");
            point.end(daemon);
            point.check(&place);
            rounds += 1;
            fs::remove_dir_all(&point.folder).unwrap();
            if !killed {
                break;
            }
        }
    }
    assert!(points >= POINTS_MIN, "only {points} points");
    let mut copies: BTreeMap<String, usize> = BTreeMap::new();
    for (message, _) in server.messages() {
        *copies.entry(header(&message, "Message-ID")).or_default() += 1;
    }
    assert!(copies.values().all(|&count| count <= 2), "a mail went out three times");
    assert_eq!(copies.len(), 6 * rounds, "a mail never arrived");
    let twice = copies.values().filter(|&&count| count == 2).count();
    eprintln!("{points} kills, {} mails, {twice} of them twice", copies.len());
}
