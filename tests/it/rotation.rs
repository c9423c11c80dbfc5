//! `watch`: logs that are rotated, cut, compressed and deleted, while it runs and while it does not.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::process::Command;
use std::time::Instant;

use rusqlite::{Connection, OpenFlags};

use super::followed::gzip;
use super::world::{World, wait};

/// Registers keys named `k0`, `k1`, … in a world that follows logs of a pattern.
fn world_of(pattern: &str, more: &str, count: usize) -> (World, Vec<String>) {
    let world = World::new();
    fs::create_dir(world.path("logs")).unwrap();
    world.write(
        "config.yaml",
        format!(
            "registry: ./registry\nresponse: {{ mode: observe }}\nmail: {{ directory: ./mail }}\n\
             watch: [{{ logs: [\"{pattern}\"]{more} }}]\n"
        ),
    );
    let keys = (0..count).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    (world, keys)
}

fn seen(world: &World, key: usize) -> serde_json::Value {
    world.leak_of(&format!("k{key}"), |_| true)
}

/// Lines that differ from each other.
fn filler(from: usize, bytes: usize) -> String {
    let mut text = String::new();
    for number in from.. {
        if text.len() >= bytes {
            break;
        }
        text.push_str(&format!("{number} something happened\n"));
    }
    text
}

/// Waits until so many bytes of some log are read and that is written down.
#[track_caller]
fn read_to(world: &World, offset: u64) {
    let database = database(world);
    let sql = "SELECT count(*) FROM streams WHERE position = ?1";
    wait(|| {
        let count = database.query_row(sql, [offset.cast_signed()], |row| row.get::<_, i64>(0));
        count.is_ok_and(|count| count > 0).then_some(())
    })
    .unwrap_or_else(|| panic!("never read to {offset}: {}", world.log()));
}

fn database(world: &World) -> Connection {
    let path = world.path("registry/registry.db");
    Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap()
}

fn rename(world: &World, from: &str, to: &str) {
    fs::rename(world.path(from), world.path(to)).unwrap();
}

#[test]
fn what_was_cut_before_it_was_read_is_counted_and_told() {
    let (world, keys) = world_of("./logs/*.log", ", start: beginning", 1);
    // Too much to be read before it is cut.
    let log = File::create(world.path("logs/app.log")).unwrap();
    log.set_len(8 << 30).unwrap();
    let daemon = world.watch();
    let database = database(&world);
    wait(|| {
        let sql = "SELECT max(position) > 0 FROM streams";
        database.query_row(sql, [], |row| row.get::<_, Option<bool>>(0)).ok()??.then_some(())
    })
    .expect("reading has begun");
    log.set_len(0).unwrap();
    world.append("logs/app.log", format!("{}\n", keys[0]));
    seen(&world, 0);
    let told = world.log();
    let told = told.lines().find(|line| line.contains("lost_bytes=")).expect("the loss is told");
    let lost = told.split("lost_bytes=").nth(1).unwrap();
    let lost: u64 = lost.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
    assert!(lost > 1 << 30, "{told}");
    daemon.stop();
}

#[test]
fn a_log_that_was_cut_and_grew_again_is_read_from_its_beginning() {
    let (world, keys) = world_of("./logs/*.log", "", 6);
    let old = filler(0, 5_000);
    let mut daemon = world.watch();
    for (n, (running, size)) in [
        (true, 2_000),
        (true, 5_000),
        (true, 9_000),
        (false, 2_000),
        (false, 5_000),
        (false, 9_000),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("logs/{n}.log");
        world.write(&name, &old);
        read_to(&world, old.len() as u64);
        if !running {
            daemon.stop_in_place();
        }
        let mut new = format!("k={}\n{}", keys[n], filler(n, size));
        if size == 5_000 {
            new.truncate(old.len());
        }
        fs::write(world.path(&name), &new).unwrap();
        if !running {
            daemon = world.watch();
        }
        let leak = seen(&world, n);
        assert_eq!(leak["sightings"][0]["line"], 1, "{name}");
        fs::remove_file(world.path(&name)).unwrap();
    }
    daemon.stop();
}

#[test]
fn a_copy_has_the_rest_and_is_not_read_again() {
    for pattern in ["./logs/app.log", "./logs/*"] {
        let (world, keys) = world_of(pattern, "", 4);
        let daemon = world.watch();
        world.append("logs/app.log", format!("{}\n{}", keys[0], filler(0, 3_000)));
        seen(&world, 0);
        daemon.stop();
        world.append("logs/app.log", format!("{}\n", keys[1]));
        fs::copy(world.path("logs/app.log"), world.path("logs/app.log.1")).unwrap();
        world.write("logs/app.log", format!("{}\n", keys[2]));
        let daemon = world.watch();
        let lines = filler(0, 3_000).lines().count() + 2;
        assert_eq!(seen(&world, 1)["sightings"][0]["line"], lines, "{pattern}");
        seen(&world, 2);
        // While it runs.
        fs::copy(world.path("logs/app.log"), world.path("logs/app.log.2")).unwrap();
        world.write("logs/app.log", format!("{}\n", keys[3]));
        seen(&world, 3);
        daemon.stop();
        for n in [0, 2] {
            assert_eq!(seen(&world, n)["count"], 1, "{pattern}: the copy was read again");
        }
    }
}

#[test]
fn rotations_while_nobody_watches_are_read_in_full() {
    let (world, keys) = world_of("./logs/app.log", "", 8);
    world.write("logs/app.log.1", format!("long ago {}\n", keys[0]));
    world.write("logs/app.log", "first\n");
    let daemon = world.watch();
    world.append("logs/app.log", format!("{}\n", keys[1]));
    seen(&world, 1);
    daemon.kill();
    world.append("logs/app.log", format!("{}\n", keys[2]));
    rename(&world, "logs/app.log.1", "logs/app.log.4");
    rename(&world, "logs/app.log", "logs/app.log.3");
    gzip(&world.path("logs/app.log.3"));
    world.write("logs/app.log.2", format!("{}\n", keys[3]));
    gzip(&world.path("logs/app.log.2"));
    world.write("logs/app.log.1", format!("{}\n", keys[4]));
    world.write("logs/app.log", format!("{}\n", keys[5]));
    let daemon = world.watch();
    assert_eq!(seen(&world, 2)["sightings"][0]["line"], 3, "the rest of what was read before");
    for key in [3, 4, 5] {
        seen(&world, key);
    }
    // Once more, without a new log.
    daemon.stop();
    world.append("logs/app.log", format!("{}\n", keys[6]));
    rename(&world, "logs/app.log", "logs/app.log-20261121");
    gzip(&world.path("logs/app.log-20261121"));
    let daemon = world.watch();
    seen(&world, 6);
    world.write("logs/app.log", format!("{}\n", keys[7]));
    seen(&world, 7);
    daemon.stop();
    for key in 1..8 {
        assert_eq!(seen(&world, key)["count"], 1, "k{key} was read twice");
    }
    assert_eq!(world.leaks().len(), 7, "what was rotated before the first start is not read");
}

#[test]
fn logs_whose_lines_are_all_alike_are_told_apart() {
    let (world, keys) = world_of("./logs/app.log", "", 5);
    let alike = |count: usize| "nothing happened\n".repeat(count);
    world.write("logs/app.log", "");
    let daemon = world.watch();
    world.append("logs/app.log", alike(3_000));
    read_to(&world, alike(3_000).len() as u64);
    // Each begins like the first and goes on like it, and has a key where that was read already.
    let other = |key: usize, count: usize| format!("{}{}\n{}", alike(900), keys[key], alike(count));
    rename(&world, "logs/app.log", "logs/app.log.1");
    // It is shorter than that was, at first.
    world.write("logs/app.log", other(0, 100));
    seen(&world, 0);
    world.append("logs/app.log", alike(4_000));
    read_to(&world, world.path("logs/app.log").metadata().unwrap().len());
    fs::copy(world.path("logs/app.log"), world.path("logs/app.log.2")).unwrap();
    world.write("logs/app.log", other(1, 1_000));
    seen(&world, 1);
    daemon.kill();
    rename(&world, "logs/app.log.1", "logs/app.log.4");
    gzip(&world.path("logs/app.log.4"));
    rename(&world, "logs/app.log", "logs/app.log.3");
    gzip(&world.path("logs/app.log.3"));
    world.write("logs/app.log.2", other(2, 6_000));
    gzip(&world.path("logs/app.log.2"));
    world.write("logs/app.log.1", other(3, 7_000));
    world.write("logs/app.log", other(4, 8_000));
    let daemon = world.watch();
    for key in 2..5 {
        assert_eq!(seen(&world, key)["sightings"][0]["line"], 901);
    }
    daemon.stop();
    for key in 0..5 {
        assert_eq!(seen(&world, key)["count"], 1, "k{key} was read twice");
    }
}

#[test]
fn what_is_compressed_at_once_was_read_or_is_read() {
    for pattern in ["./logs/app.log", "./logs/app.log*"] {
        let (world, keys) = world_of(pattern, "", 4);
        world.write("logs/app.log", "first\n");
        let daemon = world.watch();
        world.append("logs/app.log", format!("{}\n", keys[0]));
        seen(&world, 0);
        // Written, renamed, compressed and deleted before anybody can look.
        daemon.signal(rustix::process::Signal::STOP);
        world.append("logs/app.log", format!("{}\n", keys[1]));
        rename(&world, "logs/app.log", "logs/app.log.1");
        gzip(&world.path("logs/app.log.1"));
        world.write("logs/app.log", format!("{}\n", keys[2]));
        daemon.signal(rustix::process::Signal::CONT);
        seen(&world, 1);
        seen(&world, 2);
        rename(&world, "logs/app.log.1.gz", "logs/app.log.2.gz");
        daemon.stop();
        let daemon = world.watch();
        world.append("logs/app.log", format!("{}\n", keys[3]));
        seen(&world, 3);
        daemon.stop();
        for key in 0..4 {
            assert_eq!(seen(&world, key)["count"], 1, "{pattern}: k{key} was read twice");
        }
    }
}

#[test]
fn a_compressed_log_in_parts_or_damaged_is_read_as_far_as_it_goes() {
    let (world, keys) = world_of("./logs/*", "", 4);
    let daemon = world.watch();
    for (n, key) in keys.iter().enumerate().take(2) {
        world.write(&format!("part{n}"), format!("{key}\n"));
        gzip(&world.path(&format!("part{n}")));
    }
    let part = |n| fs::read(world.path(&format!("part{n}.gz"))).unwrap();
    world.write("logs/both.log.1.gz", [part(0), part(1)].concat());
    seen(&world, 0);
    seen(&world, 1);
    let noise: String =
        (0..20_000u32).map(|n| format!("{}\n", n.wrapping_mul(2_654_435_761))).collect();
    world.write("cut", format!("{}\n{noise}", keys[2]));
    gzip(&world.path("cut"));
    let cut = fs::read(world.path("cut.gz")).unwrap();
    world.write("logs/cut.log.1.gz", &cut[..cut.len() / 2]);
    seen(&world, 2);
    let told = || world.log().matches("compressed, and cut short or damaged").count();
    wait(|| (told() > 0).then_some(())).expect("it is told");
    world.append("logs/other.log", format!("{}\n", keys[3]));
    seen(&world, 3);
    assert_eq!(told(), 1);
    daemon.stop();
}

#[test]
fn a_writer_that_has_not_heard_of_a_rotation_is_read_on() {
    let (world, keys) = world_of("./logs/*.log", "", 5);
    world.write("logs/app.log", "first\n");
    let mut writer = OpenOptions::new().append(true).open(world.path("logs/app.log")).unwrap();
    let daemon = world.watch();
    rename(&world, "logs/app.log", "logs/app.log.1");
    world.write("logs/app.log", format!("{}\n", keys[0]));
    seen(&world, 0);
    writeln!(writer, "{}", keys[1]).unwrap();
    seen(&world, 1);
    // Moved out of its folder.
    fs::create_dir(world.path("old")).unwrap();
    rename(&world, "logs/app.log.1", "old/app.log.1");
    writeln!(writer, "{}", keys[2]).unwrap();
    seen(&world, 2);
    fs::remove_file(world.path("old/app.log.1")).unwrap();
    writeln!(writer, "{}", keys[3]).unwrap();
    seen(&world, 3);
    // Deleted with its folder.
    world.append("logs/app.log", format!("{}\n", keys[4]));
    fs::remove_dir_all(world.path("logs")).unwrap();
    seen(&world, 4);
    daemon.stop();
}

#[test]
fn a_link_to_the_current_log_is_followed_where_it_leads() {
    let (world, keys) = world_of("./logs/current.log", "", 4);
    world.write("data/a.log", "first\n");
    symlink("../data/a.log", world.path("logs/current.log")).unwrap();
    let daemon = world.watch();
    for n in 0..4 {
        let name = format!("data/{}.log", ["a", "b", "c", "d"][n]);
        if n > 0 {
            // A last line in the old one, the link is swapped, a line in the new one.
            world.write(&name, "");
            symlink(format!("../{name}"), world.path("logs/new")).unwrap();
            rename(&world, "logs/new", "logs/current.log");
        }
        world.append(&name, format!("{}\n", keys[n]));
        seen(&world, n);
    }
    daemon.stop();
}

#[test]
fn inodes_that_are_used_again_are_other_logs() {
    let (world, keys) = world_of("./logs/*.log", "", 20);
    let mut daemon = world.watch();
    for (n, key) in keys.iter().enumerate() {
        if n % 5 == 4 {
            daemon.stop_in_place();
        }
        let path = world.path("logs/app.log");
        if path.exists() {
            fs::remove_file(&path).unwrap();
        }
        // Longer than the one before, and with its key where that was read already.
        world.write("logs/app.log", format!("{key}\n{}", filler(n, 200 * (n + 1))));
        if n % 5 == 4 {
            daemon = world.watch();
        }
        assert_eq!(seen(&world, n)["sightings"][0]["line"], 1);
    }
    daemon.stop();
}

#[test]
fn lines_are_found_whole_or_not_yet() {
    let (world, keys) = world_of("./logs/*.log", "", 4);
    world.write("logs/app.log", "first\r\n");
    let mut daemon = world.watch();
    // No newline behind it; then one of DOS; then in pieces, also over a kill.
    world.append("logs/app.log", &keys[0]);
    seen(&world, 0);
    world.append("logs/app.log", format!("\r\n{}\r\n", keys[1]));
    assert_eq!(seen(&world, 1)["sightings"][0]["line"], 3);
    let sentinel = |n: usize| {
        let key = world.key(&format!("s{n}"), "disable", &[]);
        world.append("logs/s.log", format!("{key}\n"));
        world.leak_of(&format!("s{n}"), |_| true);
    };
    for (n, piece) in keys[2].as_bytes().chunks(9).enumerate() {
        world.append("logs/app.log", piece);
        sentinel(n);
        if n == 2 {
            daemon.kill();
            daemon = world.watch();
        }
    }
    world.append("logs/app.log", format!("\n{}\n", keys[3]));
    seen(&world, 3);
    for n in 0..4 {
        assert_eq!(seen(&world, n)["count"], 1, "k{n}");
    }
    daemon.stop();
}

/// What the daemon used at most, in KiB.
fn peak(daemon: &super::world::Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_line_without_an_end_is_read_in_bounded_memory() {
    let (world, keys) = world_of("./logs/*.log", ", start: beginning", 3);
    // A gibibyte, most of it holes.
    let log = File::create(world.path("logs/app.log")).unwrap();
    for (key, half) in keys.iter().zip(0..) {
        log.write_all_at(key.as_bytes(), half * (512 << 20)).unwrap();
    }
    let daemon = world.watch();
    for n in 0..3 {
        assert_eq!(seen(&world, n)["sightings"][0]["line"], 1);
    }
    assert!(peak(&daemon) < 128 << 10, "{} KiB", peak(&daemon));
    daemon.stop();
}

#[test]
fn a_long_log_keeps_no_live_one_waiting_and_a_restart_goes_on_in_it() {
    let (world, keys) = world_of("./logs/*.log", ", start: beginning", 2);
    let size = 6 << 30;
    File::create(world.path("logs/long.log")).unwrap().set_len(size).unwrap();
    world.write("logs/live.log", "first\n");
    let daemon = world.watch();
    world.append("logs/live.log", format!("{}\n", keys[0]));
    seen(&world, 0);
    let furthest = |world: &World| {
        let sql = "SELECT coalesce(max(position), 0) FROM streams";
        database(world).query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap().unsigned_abs()
    };
    assert!(furthest(&world) < size, "the long one was read before the live one");
    wait(|| (furthest(&world) > 64 << 20).then_some(())).expect("the long one is read as well");
    daemon.kill();
    let before = furthest(&world);
    let daemon = world.watch();
    world.append("logs/live.log", format!("{}\n", keys[1]));
    seen(&world, 1);
    let after = wait(|| Some(furthest(&world)).filter(|after| *after > before)).unwrap();
    let read = fs::read_to_string(format!("/proc/{}/io", daemon.child.id())).unwrap();
    let read: u64 = read.lines().next().unwrap().strip_prefix("rchar: ").unwrap().parse().unwrap();
    // What was read since `after` was asked for may be a slice or more; again from the start it is not.
    assert!(read < after - before + (512 << 20), "{read} bytes for {before} to {after}");
    let (time, _) = daemon.stop();
    assert!(time.as_secs() < 4, "{time:?}");
}

#[test]
fn logrotate_loses_nothing() {
    if Command::new("logrotate").arg("--version").output().is_err() {
        eprintln!("NOT TESTED: logrotate is not installed; tests/run installs it");
        return;
    }
    let modes = [
        "create",
        "create\ncompress",
        "create\ncompress\ndelaycompress",
        "copytruncate",
        "copytruncate\ncompress",
        "create\ndateext\ndateformat -%Y%m%d-%s",
        "create\ndateext\ndateformat -%Y%m%d-%s\ncompress",
        "nocreate",
    ];
    let (world, keys) = world_of("./logs/*.log", "", modes.len() * 4);
    let mut keys = keys.iter().enumerate();
    for (mode, words) in modes.iter().enumerate() {
        let name = format!("logs/{mode}.log");
        world.write(&name, filler(mode, 2_000));
        let mut daemon = world.watch();
        for round in 0..4 {
            let (n, key) = keys.next().unwrap();
            world.append(&name, format!("{key}\n"));
            match round {
                // Rotated at once, after it was read, and while nobody watches.
                0 => {}
                1 => {
                    seen(&world, n);
                }
                _ => {
                    daemon.stop_in_place();
                }
            }
            rotate(&world, &name, words);
            if round > 1 {
                daemon = world.watch();
            }
            seen(&world, n);
            // Names of dates have seconds.
            let second = Instant::now();
            let later = || second.elapsed().as_millis() > 1_000;
            if words.contains("dateext") {
                wait(|| later().then_some(())).unwrap();
            }
        }
        daemon.stop();
    }
    for leak in world.leaks() {
        assert_eq!(leak["count"], 1, "read twice: {leak:#}");
    }
}

/// Rotates as cron would.
fn rotate(world: &World, log: &str, words: &str) {
    let path = world.path(log);
    let config = format!("{} {{\nrotate 3\n{words}\n}}\n", path.display());
    let config = world.write("logrotate.conf", config);
    let state = world.path("logrotate.state");
    let mut command = Command::new("logrotate");
    command.args(["--force", "--state"]).arg(state).arg(config);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
