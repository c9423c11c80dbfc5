//! What the service manager gets: the unit, users and folders, credentials, no core dumps.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;

use super::mail::Server;
use super::world::{Answer, World, answer, wait};

const UNIT: &str = include_str!("../../systemd/leakwarden.service");
/// How exposed the unit may be, in tenths.
const EXPOSURE_MAX: &str = "25";

/// What systemd-analyze says of the unit with these lines at its end.
fn analyze(arguments: &[&str], more: &str) -> Answer {
    let world = World::empty();
    // The binary need not be installed for the unit to be checked.
    let unit = UNIT.replace("/usr/bin/leakwarden", env!("CARGO_BIN_EXE_leakwarden"));
    let path = world.write("leakwarden.service", format!("{unit}\n[Service]\n{more}\n"));
    let mut command = Command::new("systemd-analyze");
    command.args(arguments).arg(&path);
    answer(command, b"")
}

#[test]
fn systemd_accepts_the_unit() {
    assert!(UNIT.contains("Type=notify") && UNIT.contains("WatchdogSec="));
    let verdict = analyze(&["verify", "--man=no"], "").expect(0);
    let own: Vec<&str> =
        verdict.err.lines().filter(|line| line.contains("leakwarden.service")).collect();
    assert!(own.is_empty(), "{own:?}");
}

#[test]
fn the_unit_is_hardly_exposed() {
    let threshold = format!("--threshold={EXPOSURE_MAX}");
    let arguments = ["security", "--offline=yes", "--no-pager", &threshold];
    analyze(&arguments, "").expect(0);
    // As its comments allow it.
    let capability = "AmbientCapabilities=CAP_DAC_READ_SEARCH\n\
        CapabilityBoundingSet=CAP_DAC_READ_SEARCH\nPrivateUsers=no\nSupplementaryGroups=adm";
    analyze(&arguments, capability).expect(0);
    analyze(&arguments, "NoNewPrivileges=no\nPrivateDevices=no\nSystemCallFilter=\nUser=root")
        .expect(1);
}

#[test]
fn users_and_folders_are_made() {
    let world = World::empty();
    let root = format!("--root={}", world.path("root").display());
    for (name, folder) in [("sysusers", "sysusers.d"), ("tmpfiles", "tmpfiles.d")] {
        let from = format!("{}/systemd/leakwarden.{name}", env!("CARGO_MANIFEST_DIR"));
        let content = fs::read(from).unwrap();
        world.write(&format!("root/usr/lib/{folder}/leakwarden.conf"), content);
    }
    world.write("root/etc/leakwarden/config.yaml", "");
    world.write("root/etc/leakwarden/smtp-password", "");
    let mut users = Command::new("systemd-sysusers");
    users.args([&root, "leakwarden.conf"]);
    answer(users, b"").expect(0);
    let passwd = fs::read_to_string(world.path("root/etc/passwd")).unwrap();
    let line = passwd.lines().find(|line| line.starts_with("leakwarden:")).expect("a user");
    let words: Vec<&str> = line.split(':').collect();
    assert_eq!(words[5..], ["/var/lib/leakwarden", "/usr/sbin/nologin"]);
    if !rustix::process::getuid().is_root() {
        eprintln!("NOT CHECKED: folders of other users are made by root only");
        return;
    }
    let mut folders = Command::new("systemd-tmpfiles");
    folders.args(["--create", &root, "leakwarden.conf"]);
    answer(folders, b"").expect(0);
    let (user, group) = (words[2].parse().unwrap(), words[3].parse().unwrap());
    for (name, mode, owner) in [
        ("etc/leakwarden", 0o750, 0),
        ("etc/leakwarden/config.yaml", 0o640, 0),
        ("etc/leakwarden/smtp-password", 0o600, user),
        ("var/lib/leakwarden", 0o700, user),
    ] {
        let meta = fs::metadata(world.path(&format!("root/{name}"))).unwrap();
        let mode_is = meta.permissions().mode() & 0o7777;
        assert_eq!((mode_is, meta.uid(), meta.gid()), (mode, owner, group), "{name}");
    }
}

#[test]
fn the_pepper_and_the_password_may_be_credentials() {
    let world = World::new();
    let server = Server::start(&world, "smtp", &["--auth", "leakwarden:from-the-manager"]);
    let key = world.key("k", "disable", &[]);
    fs::create_dir(world.path("inbox")).unwrap();
    let config = format!(
        "registry: ./registry\nwatch: [{{ files: [\"./inbox/**\"] }}]\nresponse: {{ mode: act }}\n\
         mail: {{ smtp: {{ host: 127.0.0.1, port: {}, tls: none, username: leakwarden, \
         from: lw@example.com }} }}\n",
        server.port
    );
    world.write("config.yaml", config);
    let check = world.run(&["config", "check", "config.yaml"]).expect(0);
    assert!(check.err.contains("leakwarden.smtp-password"), "{}", check.err);
    let refused = world.run(&["watch", "--config", "config.yaml"]).expect(2);
    assert!(refused.err.contains("needs a `password_file`, or the credential"), "{}", refused.err);

    // As systemd hands them over: readable for the group by an access control list.
    world.write("credentials/leakwarden.smtp-password", "from-the-manager\n");
    fs::rename(world.path("registry/pepper"), world.path("credentials/leakwarden.pepper")).unwrap();
    let pepper = fs::Permissions::from_mode(0o440);
    fs::set_permissions(world.path("credentials/leakwarden.pepper"), pepper).unwrap();
    let refused = world.run(&["key", "list"]).expect(2);
    assert!(refused.err.contains("pepper is missing"), "{}", refused.err);
    let folder = world.path("credentials");
    let with = |arguments: &[&str]| {
        let mut command = world.command(arguments);
        command.env("CREDENTIALS_DIRECTORY", &folder);
        answer(command, b"")
    };
    with(&["config", "check", "config.yaml"]).expect(0);
    assert!(with(&["key", "list"]).expect(0).out.contains('k'));
    let refused = with(&["registry", "rotate-pepper", "--force", "--reason", "x"]).expect(2);
    assert!(refused.err.contains("the pepper is the credential"), "{}", refused.err);
    let daemon = world.watch_with(vec![("CREDENTIALS_DIRECTORY", PathBuf::from(&folder))]);
    world.write("inbox/a.txt", &key);
    wait(|| (server.messages().len() == 2).then_some(())).expect("two mails");
    daemon.stop();
}

#[test]
fn a_crash_leaves_no_core() {
    let world = World::new();
    world.configure("{ mode: act }", "{ directory: ./mail }");
    let unlimited = "ulimit -c \"$(ulimit -H -c)\" && exec \"$0\" \"$@\"";
    let mut daemon = world.watch_under(&["sh", "-c", unlimited], Vec::new());
    // The first one is taken by the standard library, which looks for an overflow of the stack.
    let status = wait(|| {
        daemon.signal(Signal::SEGV);
        daemon.child.try_wait().unwrap()
    });
    let status = status.expect("it ends");
    assert_eq!(status.signal(), Some(Signal::SEGV.as_raw()));
    assert!(!status.core_dumped());
    let cores = fs::read_dir(world.path("")).unwrap().flatten();
    let cores: Vec<_> =
        cores.filter(|file| file.file_name().to_string_lossy().starts_with("core")).collect();
    assert!(cores.is_empty(), "{cores:?}");
}
