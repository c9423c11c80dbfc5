//! A daemon that is killed again and again, over logs that are rotated in all ways: every key is found.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::test_runner::{RngAlgorithm, TestRng};
use rusqlite::{Connection, OpenFlags};

use super::followed::{Pack, append, gzip};
use super::world::{Daemon, World, wait};

/// Logs that one daemon follows, each with things done to it at random.
struct Many {
    world: World,
    daemon: Option<Daemon>,
    keys: Vec<String>,
    written: usize,
    /// The second half of a line, by log.
    halves: Vec<String>,
    /// Rotations, by log; what was rotated is compressed at the next one, if that is said.
    rotated: Vec<(usize, bool)>,
}

impl Many {
    fn new(logs: usize, keys: usize, rng: &mut TestRng) -> Self {
        let world = World::new();
        fs::create_dir(world.path("logs")).unwrap();
        world.write(
            "config.yaml",
            "registry: ./registry\nresponse: { mode: observe }\nmail: { directory: ./mail }\n\
             watch: [{ logs: [\"./logs/*.log\"] }]\n",
        );
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        let letter = |rng: &mut TestRng| char::from(letters[rng.random_range(0..letters.len())]);
        let mut key = || (0..40).map(|_| letter(rng)).collect::<String>();
        let keys: Vec<String> = (0..keys).map(|_| key()).collect();
        let mut lines = String::new();
        for (n, key) in keys.iter().enumerate() {
            let line =
                serde_json::json!({"name": format!("k{n}"), "key": key, "owner": "a@b.example"});
            lines.push_str(&format!("{line}\n"));
        }
        world.write("keys.jsonl", lines);
        world.run(&["key", "import", "keys.jsonl"]).expect(0);
        let daemon = Some(world.watch());
        let (halves, rotated) = (vec![String::new(); logs], vec![(0, false); logs]);
        let mut many = Self { world, daemon, keys, written: 0, halves, rotated };
        // From here on each is known.
        (0..logs).for_each(|log| many.write(log));
        many.wait();
        many
    }

    fn path(&self, log: usize) -> PathBuf {
        self.world.path(&format!("logs/{log}x.log"))
    }

    fn line(&mut self) -> String {
        self.written += 1;
        format!("GET /?t={}&n={}\n", self.keys[self.written - 1], self.written)
    }

    fn write(&mut self, log: usize) {
        let text = std::mem::take(&mut self.halves[log]) + &self.line();
        append(&self.path(log), &text);
    }

    fn half(&mut self, log: usize) {
        if self.halves[log].is_empty() {
            let line = self.line();
            let (now, later) = line.split_at(line.len() / 2);
            append(&self.path(log), now);
            later.clone_into(&mut self.halves[log]);
        }
    }

    fn rotate(&mut self, log: usize, copy: bool, pack: Pack) {
        let rest = std::mem::take(&mut self.halves[log]);
        append(&self.path(log), &rest);
        let (count, later) = self.rotated[log];
        let name = |number: usize| self.world.path(&format!("logs/{log}x.log-{number:03}"));
        if later {
            gzip(&name(count));
        }
        self.rotated[log] = (count + 1, matches!(pack, Pack::Later));
        let to = name(count + 1);
        if copy {
            fs::copy(self.path(log), &to).unwrap();
            OpenOptions::new().write(true).open(self.path(log)).unwrap().set_len(0).unwrap();
        } else {
            fs::rename(self.path(log), &to).unwrap();
            File::create(self.path(log)).unwrap();
        }
        if matches!(pack, Pack::AtOnce) {
            gzip(&to);
        }
    }

    /// Until every key is seen that is written with its line.
    fn wait(&mut self) {
        for log in 0..self.halves.len() {
            let rest = std::mem::take(&mut self.halves[log]);
            append(&self.path(log), &rest);
        }
        let path = self.world.path("registry/registry.db");
        let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let sql = "SELECT count(*) FROM incidents";
        let seen = || database.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap_or(0);
        let all = wait(|| (seen() == i64::try_from(self.written).unwrap()).then_some(()));
        if all.is_none() {
            let sql = "SELECT k.name FROM keys k JOIN incidents i ON i.key_id = k.id";
            let mut statement = database.prepare(sql).unwrap();
            let names = statement.query_map([], |row| row.get::<_, String>(0)).unwrap();
            let names: BTreeSet<String> = names.map(Result::unwrap).collect();
            let missed = (0..self.written).filter(|n| !names.contains(&format!("k{n}")));
            panic!("missed {:?}\n{}", missed.collect::<Vec<_>>(), self.world.log());
        }
    }
}

#[test]
fn no_key_is_missed_whatever_is_done_to_many_logs() {
    let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut many = Many::new(30, 600, &mut rng);
    while many.written < 570 {
        let log = rng.random_range(0..30);
        let pack = [Pack::Never, Pack::AtOnce, Pack::Later][rng.random_range(0..3)];
        match rng.random_range(0..40) {
            0..24 => many.write(log),
            24..28 => many.half(log),
            28..33 => many.rotate(log, false, pack),
            33..37 => many.rotate(log, true, pack),
            37 => many.wait_if_up(),
            38 => many.down(),
            _ => many.up(),
        }
    }
    many.up();
    many.wait();
}

impl Many {
    fn up(&mut self) {
        if self.daemon.is_none() {
            self.daemon = Some(self.world.watch());
        }
    }

    fn down(&mut self) {
        if let Some(daemon) = self.daemon.take() {
            daemon.kill();
        }
    }

    fn wait_if_up(&mut self) {
        if self.daemon.is_some() {
            self.wait();
        }
    }
}
