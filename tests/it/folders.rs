//! `watch`: folders, whatever the kernel tells of them and whatever lies in them.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, Timespec, Timestamps};

use super::world::{Daemon, World, wait};

const UNTESTED: &str = "NOT TESTED: this host gives no user namespaces, or no limits in them";

/// A world that watches `inbox`.
fn world_of(more: &str, keys: usize) -> (World, Vec<String>) {
    let world = World::new();
    fs::create_dir(world.path("inbox")).unwrap();
    configure(&world, "./inbox/**", more);
    let keys = (0..keys).map(|n| world.key(&format!("k{n}"), "disable", &[])).collect();
    (world, keys)
}

fn configure(world: &World, pattern: &str, more: &str) {
    let pattern = serde_json::to_string(pattern).unwrap();
    world.write(
        "config.yaml",
        format!(
            "registry: ./registry\nresponse: {{ mode: observe }}\nmail: {{ directory: ./mail }}\n\
             watch: [{{ files: [{pattern}]{more} }}]\n"
        ),
    );
}

#[track_caller]
fn seen(world: &World, key: usize) -> serde_json::Value {
    world.leak_of(&format!("k{key}"), |_| true)
}

/// Whether the kernel tells the daemon what happens in a folder: proc(5), `fdinfo` of inotify.
fn is_watched(daemon: &Daemon, folder: &Path) -> bool {
    let inode = format!("ino:{:x} ", fs::metadata(folder).unwrap().ino());
    let opened = fs::read_dir(format!("/proc/{}/fdinfo", daemon.child.id())).unwrap();
    let infos = opened.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let tells = |line: &str| line.starts_with("inotify ") && line.contains(&inode);
    infos.into_iter().any(|info| info.lines().any(tells))
}

/// Starts the daemon where the kernel sets it a limit.
fn limited(world: &World, limit: &str) -> Option<Daemon> {
    let script = format!("{limit} && exec \"$@\"");
    let wrapper = ["unshare", "-Ur", "sh", "-c", &script, "sh"];
    let mut probe = std::process::Command::new(wrapper[0]);
    let works = probe.args(&wrapper[1..]).arg("true").output();
    works
        .is_ok_and(|output| output.status.success())
        .then(|| world.watch_under(&wrapper, Vec::new()))
}

#[test]
fn beyond_the_limit_of_watches_folders_are_looked_at() {
    let (world, keys) = world_of("", 2);
    let folder = |n: usize| format!("inbox/{n}/file.txt");
    for n in 0..150 {
        world.write(&folder(n), &keys[0]);
    }
    let limit = "echo 100 > /proc/sys/user/max_inotify_watches";
    let Some(daemon) = limited(&world, limit) else {
        eprintln!("{UNTESTED}");
        return;
    };
    for n in 150..300 {
        world.write(&folder(n), &keys[0]);
    }
    world.leak_of("k0", |leak| leak["count"] == 300);
    world.write("inbox/299/later.txt", &keys[1]);
    seen(&world, 1);
    let told = || world.log().lines().find(|line| line.contains("degraded")).map(str::to_owned);
    let line = wait(told).expect("it is told");
    assert!(line.contains("user.max_inotify_watches is 100"), "{line}");
    assert_eq!(world.log().matches("degraded").count(), 1);
    daemon.stop();
}

#[test]
fn without_any_watcher_folders_and_logs_are_looked_at() {
    let (world, keys) = world_of("", 2);
    let limit = "echo 0 > /proc/sys/user/max_inotify_instances";
    let Some(daemon) = limited(&world, limit) else {
        eprintln!("{UNTESTED}");
        return;
    };
    world.write("inbox/a/b/c.txt", &keys[0]);
    seen(&world, 0);
    world.write("inbox/a/b/d.txt", &keys[1]);
    seen(&world, 1);
    let log = world.log();
    let told = log.lines().filter(|line| line.contains("degraded")).collect::<Vec<_>>();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("user.max_inotify_instances is 0"), "{told:?}");
    daemon.stop();
}

#[test]
fn odd_files_and_odd_names_stall_nothing() {
    let (world, keys) = world_of("", 6);
    let inbox = world.path("inbox");
    rustix::fs::mkfifoat(CWD, inbox.join("pipe"), 0o600.into()).unwrap();
    let _socket = UnixListener::bind(inbox.join("socket")).unwrap();
    symlink("/dev/zero", inbox.join("zero")).unwrap();
    symlink("/proc", inbox.join("proc")).unwrap();
    symlink(".", inbox.join("loop")).unwrap();
    world.write("outside/secret.txt", &keys[5]);
    symlink(world.path("outside"), inbox.join("out")).unwrap();
    symlink(world.path("outside/secret.txt"), inbox.join("out.txt")).unwrap();
    let daemon = world.watch();
    let name = |bytes: &[u8]| inbox.join(OsStr::from_bytes(bytes));
    fs::write(name(b"\xff\xfe.txt"), &keys[0]).unwrap();
    fs::create_dir(name(b"caf\xe9")).unwrap();
    fs::write(name(b"caf\xe9/x"), &keys[1]).unwrap();
    fs::write(name(b"two\nlines"), &keys[2]).unwrap();
    fs::write(name(b"[a]*?{b}\\"), &keys[3]).unwrap();
    for n in 0..4 {
        seen(&world, n);
    }
    rustix::fs::mkfifoat(CWD, inbox.join("late"), 0o600.into()).unwrap();
    world.write("inbox/last.txt", &keys[4]);
    seen(&world, 4);
    assert_eq!(world.leaks().len(), 5, "what is outside was read");
    assert!(!world.log().lines().any(|line| line.trim() == "lines"), "a name broke a line");
    daemon.stop();
}

#[test]
fn links_are_followed_as_configured() {
    for (links, expected) in [("never", 0), ("owner", 1), ("any", 2)] {
        let (world, keys) = world_of(&format!(", links: {links}"), 3);
        for (n, name) in ["own", "foreign"].into_iter().enumerate() {
            let target = world.write(&format!("outside/{name}"), &keys[n]);
            symlink(target, world.path(&format!("inbox/{name}"))).unwrap();
        }
        // A link whose maker is neither root nor the owner of the file.
        let link = world.path("inbox/foreign");
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(link, Some(12_345), None).unwrap();
        } else if links == "owner" {
            eprintln!("NOT TESTED: only root can give links away");
            continue;
        }
        let daemon = world.watch();
        world.write("inbox/last.txt", &keys[2]);
        seen(&world, 2);
        daemon.stop();
        assert_eq!(world.leaks().len(), expected + 1, "{links}");
    }
}

/// A folder and a link to one outside take turns at one name.
#[test]
fn a_link_in_a_folders_place_leads_nowhere() {
    let (world, keys) = world_of("", 2);
    world.write("outside/f.txt", &keys[0]);
    world.write("inbox/folder/f.txt", "nothing here");
    symlink(world.path("outside"), world.path("inbox/link")).unwrap();
    let daemon = world.watch();
    let [folder, link] = ["folder", "link"].map(|name| world.path("inbox").join(name));
    let swap = |a: &Path, b: &Path| {
        rustix::fs::renameat_with(CWD, a, CWD, b, RenameFlags::EXCHANGE).unwrap();
    };
    let end = std::time::Instant::now() + Duration::from_secs(3);
    while std::time::Instant::now() < end {
        swap(&folder, &link);
        fs::write(world.path("inbox/touched.txt"), "x").unwrap();
    }
    world.write("inbox/last.txt", &keys[1]);
    seen(&world, 1);
    assert_eq!(world.leaks().len(), 1, "what is outside was read");
    daemon.stop();
}

#[test]
fn folders_of_folders_that_are_moved_in_or_away_and_back_are_watched() {
    let (world, keys) = world_of("", 4);
    let daemon = world.watch();
    world.write("staged/a/b/c.txt", &keys[0]);
    fs::rename(world.path("staged"), world.path("inbox/staged")).unwrap();
    seen(&world, 0);
    let started = std::time::Instant::now();
    world.write("inbox/staged/a/b/d.txt", &keys[1]);
    seen(&world, 1);
    fs::rename(world.path("inbox/staged"), world.path("away")).unwrap();
    fs::rename(world.path("away"), world.path("inbox/staged")).unwrap();
    world.write("inbox/staged/a/b/e.txt", &keys[2]);
    seen(&world, 2);
    fs::rename(world.path("inbox/staged/a"), world.path("inbox/x")).unwrap();
    world.write("inbox/x/b/f.txt", &keys[3]);
    seen(&world, 3);
    assert!(started.elapsed() < Duration::from_secs(20), "only a walk found it");
    daemon.stop();
}

#[test]
fn polling_finds_what_file_events_would() {
    let (world, keys) = world_of(", poll: 1s", 3);
    let path = world.write("inbox/a.txt", "x".repeat(keys[0].len()));
    let daemon = world.watch();
    let inotify = |entry: fs::DirEntry| {
        fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == "anon_inode:inotify")
    };
    let descriptors = fs::read_dir(format!("/proc/{}/fd", daemon.child.id())).unwrap();
    assert!(!descriptors.flatten().any(inotify), "it asks for file events");
    // The same size and the same time of change, also one in the future.
    for (key, seconds) in [(0, 1_000_000_000), (1, 4_000_000_000)] {
        fs::write(&path, "x".repeat(keys[key].len())).unwrap();
        let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        // It is read as it is, with another file after it.
        let name = format!("sentinel{key}");
        let sentinel = world.key(&name, "disable", &[]);
        world.write(&format!("inbox/z{key}.txt"), sentinel);
        world.leak_of(&name, |_| true);
        fs::write(&path, &keys[key]).unwrap();
        rustix::fs::utimensat(CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
        seen(&world, key);
    }
    world.write("inbox/new/deep/c.txt", &keys[2]);
    seen(&world, 2);
    daemon.stop();
}

#[test]
fn a_folder_whose_name_reads_like_a_pattern_is_meant_as_it_stands() {
    let (world, keys) = world_of("", 2);
    let inbox = world.path("in[12]");
    fs::create_dir(&inbox).unwrap();
    for (n, pattern) in [inbox.to_str().unwrap(), "./in[[]12]/*.txt"].into_iter().enumerate() {
        configure(&world, pattern, ", exclude: [\"./in[[]12]/*.tmp\"]");
        let daemon = world.watch();
        world.write(&format!("in[12]/{n}.txt"), &keys[n]);
        seen(&world, n);
        daemon.stop();
    }
}

#[test]
fn nothing_is_lost_when_the_kernel_has_to_drop_events() {
    let (world, keys) = world_of("", 2);
    let daemon = world.watch();
    // It is ready before that: what is there already, its first walk finds.
    let inbox = world.path("inbox");
    wait(|| is_watched(&daemon, &inbox).then_some(())).expect("events are told");
    daemon.signal(rustix::process::Signal::STOP);
    for n in 0..20_000 {
        fs::write(world.path(&format!("inbox/{n}")), "x").unwrap();
    }
    world.write("inbox/new/a.txt", &keys[0]);
    daemon.signal(rustix::process::Signal::CONT);
    seen(&world, 0);
    world.write("inbox/new/b.txt", &keys[1]);
    seen(&world, 1);
    wait(|| world.log().contains("file events were lost").then_some(())).expect("it is told");
    daemon.stop();
}
