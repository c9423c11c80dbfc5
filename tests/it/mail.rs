//! Notices over a real SMTP server that behaves well or badly. Actions never wait for it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::world::{World, answer, header, python, wait};

/// A server; it ends with its standard input.
pub struct Server {
    child: Child,
    folder: PathBuf,
    pub port: u16,
}

impl Server {
    pub fn start(world: &World, name: &str, options: &[&str]) -> Self {
        let folder = world.path(name);
        fs::create_dir_all(&folder).unwrap();
        let port_file = folder.join("port");
        let child = python()
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/smtp_server.py"))
            .arg("--folder")
            .arg(&folder)
            .arg("--port-file")
            .arg(&port_file)
            .args(options)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let port = wait(|| fs::read_to_string(&port_file).ok()?.trim().parse().ok());
        Self { child, folder, port: port.expect("the server listens") }
    }

    /// Messages it took: the message and its envelope.
    pub fn messages(&self) -> Vec<(String, Value)> {
        let mut names: Vec<_> = fs::read_dir(&self.folder)
            .unwrap()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "eml"))
            .collect();
        names.sort();
        names
            .iter()
            .map(|path| {
                let envelope = fs::read_to_string(path.with_extension("json")).unwrap();
                let message = String::from_utf8(fs::read(path).unwrap()).unwrap();
                (message, serde_json::from_str(&envelope).unwrap())
            })
            .collect()
    }

    pub fn connections(&self) -> usize {
        fs::read_to_string(self.folder.join("connections.log")).unwrap_or_default().lines().count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

fn smtp(port: u16, tls: &str, more: &str) -> String {
    format!(
        "{{ smtp: {{ host: localhost, port: {port}, tls: {tls}, from: leakwarden@example.com, \
         deadline: 2s }}{more} }}"
    )
}

fn acted(leak: &Value) -> bool {
    leak["action"]["result"] == "done"
}

fn notice(leak: &Value, state: &str) -> bool {
    let notices = leak["notices"].as_array().unwrap();
    !notices.is_empty() && notices.iter().all(|notice| notice["state"] == state)
}

/// A world whose daemon mails to a server that behaves so, with one leaked key.
fn leak(options: &[&str], more: &str) -> (World, Server, super::world::Daemon) {
    let world = World::new();
    let server = Server::start(&world, "smtp", options);
    world.configure("{ mode: act }", &smtp(server.port, "none", more));
    let key = world.key("k", "disable", &[]);
    let daemon = world.watch();
    world.write("inbox/a.txt", &key);
    world.leak_of("k", acted);
    assert_eq!(world.verify(&key), "disabled");
    (world, server, daemon)
}

/// Most memory the daemon ever had, in KiB.
fn peak_kib(daemon: &super::world::Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    peak.trim().trim_end_matches(" kB").parse().unwrap()
}

/// A certificate for localhost, and its key.
fn certificate(world: &World) -> (PathBuf, PathBuf) {
    let (certificate, key_file) = (world.path("cert.pem"), world.path("key.pem"));
    let mut openssl = Command::new("openssl");
    openssl
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .arg("-keyout")
        .arg(&key_file)
        .arg("-out")
        .arg(&certificate);
    answer(openssl, b"").expect(0);
    (certificate, key_file)
}

#[test]
fn owner_and_admin_are_told_everything_but_the_key() {
    let (world, server, daemon) = leak(&[], "");
    world.leak_of("k", |leak| notice(leak, "sent"));
    let messages = server.messages();
    assert_eq!(messages.len(), 2);
    let mut recipients: Vec<&str> =
        messages.iter().map(|(_, envelope)| envelope["to"][0].as_str().unwrap()).collect();
    recipients.sort_unstable();
    assert_eq!(recipients, ["admin@example.com", "k@example.com"]);
    for (message, envelope) in &messages {
        assert_eq!(envelope["from"], "leakwarden@example.com");
        assert_eq!(header(message, "Auto-Submitted"), "auto-generated");
        assert_eq!(header(message, "Subject"), "key \"k\" leaked [leak-1]");
        assert!(message.contains("text/plain") && message.contains("text/html"));
        let text = message.replace("=\r\n", "").replace("=\n", "");
        for part in ["inbox/a.txt:1", "disable: done", "Issue a new key", "ApiKey-", "lw_user_"] {
            assert!(text.contains(part), "`{part}` not in {text}");
        }
    }
    daemon.stop();
}

#[test]
fn a_greylisting_server_delays_a_notice() {
    let (world, server, daemon) = leak(&["--behaviour", "greylist:2"], ", retry_after: 1s");
    let leak = world.leak_of("k", |leak| notice(leak, "sent"));
    assert_eq!(server.messages().len(), 2);
    assert_eq!(leak["notices"][0]["attempts"], 2);
    daemon.stop();
}

#[test]
fn a_refused_notice_is_given_up_and_shown() {
    let (world, server, daemon) = leak(&["--behaviour", "reject"], "");
    let leak = world.leak_of("k", |leak| notice(leak, "failed"));
    assert!(leak["notices"][0]["why"].as_str().unwrap().contains("550"), "{leak:#}");
    assert_eq!(server.connections(), 2);
    daemon.stop();
}

#[test]
fn servers_that_hang_or_flood_end_an_attempt_and_nothing_else() {
    for behaviour in ["hang-greeting", "drip", "flood"] {
        let (world, server, daemon) = leak(&["--behaviour", behaviour], ", retry_after: 1s");
        let leak = world.leak_of("k", |leak| {
            leak["notices"].as_array().unwrap().iter().all(|notice| notice["attempts"] != 0)
        });
        assert!(notice(&leak, "due"), "{behaviour}: {leak:#}");
        let kib = peak_kib(&daemon);
        assert!(kib < 128 * 1024, "{behaviour}: {kib} KiB at the peak");
        assert!(server.messages().is_empty());
        let (time, code) = daemon.stop();
        assert!(time.as_secs() < 5 && code == 0, "{behaviour}: {time:?}, {code}");
    }
}

/// Nobody can know whether the mail arrived: it goes out a second time and not a third, with the
/// same Message-ID.
#[test]
fn a_doubtful_mail_goes_out_at_most_twice() {
    for behaviour in ["close-after-dot", "accept-then-hang"] {
        let (world, server, daemon) = leak(&["--behaviour", behaviour], ", retry_after: 1s");
        let leak = world.leak_of("k", |leak| notice(leak, "failed"));
        let why = leak["notices"][0]["why"].as_str().unwrap();
        assert!(why.contains("perhaps delivered"), "{behaviour}: {why}");
        let mut ids: Vec<String> =
            server.messages().iter().map(|(message, _)| header(message, "Message-ID")).collect();
        ids.sort();
        assert_eq!(ids.len(), 4, "{behaviour}");
        assert!(ids[0] == ids[1] && ids[2] == ids[3] && ids[1] != ids[2], "{ids:?}");
        daemon.stop();
    }
}

#[test]
fn mail_goes_over_tls_or_not_at_all() {
    let world = World::new();
    let (certificate, key_file) = certificate(&world);
    let pair = ["--cert", certificate.to_str().unwrap(), "--key", key_file.to_str().unwrap()];
    for (offered, wanted, trusted, delivered) in [
        ("implicit", "implicit", true, true),
        ("starttls", "starttls", true, true),
        ("starttls", "starttls", false, false),
        ("none", "starttls", true, false),
    ] {
        let world = World::new();
        let mut options = vec!["--tls", offered];
        options.extend(pair);
        let server = Server::start(&world, "smtp", &options);
        world.configure("{ mode: act }", &smtp(server.port, wanted, ""));
        let key = world.key("k", "disable", &[]);
        let daemon = world.watch_with(if trusted {
            vec![("SSL_CERT_FILE", certificate.clone())]
        } else {
            Vec::new()
        });
        world.write("inbox/a.txt", &key);
        let case = format!("{offered}, {wanted}, trusted {trusted}");
        if delivered {
            world.leak_of("k", |leak| notice(leak, "sent"));
            assert!(server.messages().iter().all(|(_, e)| e["tls"] == true), "{case}");
        } else {
            world.leak_of("k", |leak| {
                leak["notices"].as_array().unwrap().iter().all(|notice| notice["attempts"] != 0)
            });
            assert!(server.messages().is_empty(), "{case}");
        }
        assert_eq!(world.verify(&key), "disabled", "{case}");
        daemon.stop();
    }
}

/// Over TLS too a server cannot fill the memory.
#[test]
fn a_flood_over_tls_ends_an_attempt() {
    let world = World::new();
    let (certificate, key_file) = certificate(&world);
    let options = [
        "--tls",
        "implicit",
        "--behaviour",
        "flood",
        "--cert",
        certificate.to_str().unwrap(),
        "--key",
        key_file.to_str().unwrap(),
    ];
    let server = Server::start(&world, "smtp", &options);
    world.configure("{ mode: act }", &smtp(server.port, "implicit", ", retry_after: 1s"));
    let key = world.key("k", "disable", &[]);
    let daemon = world.watch_with(vec![("SSL_CERT_FILE", certificate)]);
    world.write("inbox/a.txt", &key);
    let leak = world.leak_of("k", |leak| {
        leak["notices"].as_array().unwrap().iter().all(|notice| notice["attempts"] != 0)
    });
    assert!(leak["notices"][0]["why"].as_str().unwrap().contains("without end"), "{leak:#}");
    let peak = peak_kib(&daemon);
    assert!(peak < 128 * 1024, "{peak} KiB at the peak");
    daemon.stop();
}

/// Names come from other people: they reach neither a header nor HTML unescaped.
#[test]
fn a_hostile_name_breaks_no_mail() {
    let world = World::new();
    let server = Server::start(&world, "smtp", &[]);
    world.configure("{ mode: act }", &smtp(server.port, "none", ""));
    let name = "x Bcc: evil@example.com <script>alert(1)</script>\u{202e}";
    let forged = ["key", "create", "x\r\nBcc: evil@example.com", "--owner", "o@example.com"];
    let refused = world.run(&forged).expect(2);
    assert!(refused.err.contains("control character"), "{}", refused.err);
    let key = world.key_of("owner", name, "disable", &[]);
    let daemon = world.watch();
    world.write("inbox/<b>.txt", &key);
    world.leak_of(name, |leak| notice(leak, "sent"));
    let messages = server.messages();
    assert_eq!(messages.len(), 2);
    for (message, envelope) in messages {
        assert_eq!(envelope["to"].as_array().unwrap().len(), 1);
        assert!(!message.lines().any(|line| line.starts_with("Bcc:")), "{message}");
        assert!(!message.contains("\u{202e}"));
        let html = message.split("text/html").nth(1).unwrap();
        assert!(!html.contains("<script>") && !html.contains("<b>.txt"), "{html}");
    }
    daemon.stop();
}
