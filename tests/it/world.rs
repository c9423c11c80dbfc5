//! A world of its own for each test: a temporary folder with a registry, and helpers that run the
//! binary in it.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// Longest wait for anything.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    folder: TempDir,
}

pub struct Answer {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Answer {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.out, self.err);
        self
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).expect("JSON on stdout")
    }

    pub fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect()
    }

    pub fn both(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl World {
    /// A folder without a registry.
    pub fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// A folder with a registry in `registry`.
    pub fn new() -> Self {
        let world = Self::empty();
        world.run(&["init", "--dir", "registry", "--admin", "admin@example.com"]).expect(0);
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    pub fn append(&self, name: &str, content: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(content.as_ref()).unwrap();
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        self.under(&[], arguments)
    }

    /// leakwarden, run by another program, whose words come first.
    pub fn under(&self, program: &[&str], arguments: &[&str]) -> Command {
        let words = [program, &[env!("CARGO_BIN_EXE_leakwarden")], arguments].concat();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.folder.path());
        command.env_remove("NOTIFY_SOCKET").env_remove("LEAKWARDEN_REGISTRY").env("TZ", "UTC");
        command.env_remove("WATCHDOG_USEC").env_remove("CREDENTIALS_DIRECTORY");
        if self.path("registry").exists() {
            command.env("LEAKWARDEN_REGISTRY", self.path("registry"));
        }
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Answer {
        self.run_with(arguments, b"")
    }

    pub fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Answer {
        answer(self.command(arguments), stdin)
    }

    /// Makes a key, owned by who has its name, and answers it.
    pub fn key(&self, name: &str, action: &str, more: &[&str]) -> String {
        self.key_of(name, name, action, more)
    }

    pub fn key_of(&self, owner: &str, name: &str, action: &str, more: &[&str]) -> String {
        let owner = format!("{owner}@example.com");
        let mut arguments = vec!["key", "create", name, "-d", "for a test", "--format", "json"];
        arguments.extend(["--owner", &owner, "--action-if-leaked", action]);
        arguments.extend(more);
        let answer = self.run(&arguments).expect(0);
        answer.json()["key"].as_str().unwrap().to_owned()
    }

    /// The first word that `key verify` says.
    pub fn verify(&self, key: &str) -> String {
        let answer = self.run_with(&["key", "verify"], key.as_bytes());
        assert_eq!(answer.code == 0, answer.out.starts_with("active"), "{}", answer.both());
        answer.out.split_whitespace().next().unwrap_or_default().to_owned()
    }

    pub fn leaks(&self) -> Vec<Value> {
        let answer = self.run(&["leak", "list", "--all", "--format", "json"]).expect(0);
        answer.json()["incidents"].as_array().unwrap().clone()
    }

    /// The incident of a key once `wanted` holds for it.
    #[track_caller]
    pub fn leak_of(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        wait(|| {
            let found = self.leaks().into_iter().find(|leak| leak["key"]["name"] == name);
            last = found.clone().unwrap_or(Value::Null);
            found.filter(&wanted)
        })
        .unwrap_or_else(|| panic!("no such incident of {name}: {last:#}\n{}", self.log()))
    }

    /// Mails in the folder, by recipient.
    pub fn mails(&self) -> BTreeMap<String, Vec<String>> {
        let mut mails: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in fs::read_dir(self.path("mail")).into_iter().flatten().flatten() {
            if entry.path().extension().is_some_and(|extension| extension == "eml") {
                let text = fs::read_to_string(entry.path()).unwrap();
                mails.entry(header(&text, "To")).or_default().push(text);
            }
        }
        mails
    }

    /// Writes a configuration that watches `inbox` and `logs`.
    pub fn configure(&self, response: &str, mail: &str) {
        for folder in ["inbox", "logs"] {
            fs::create_dir_all(self.path(folder)).unwrap();
        }
        let config = format!(
            "registry: ./registry\n\
             watch:\n  - files: [\"./inbox/**\"]\n  - logs: [\"./logs/*.log\"]\n\
             response: {response}\nmail: {mail}\n"
        );
        self.write("config.yaml", config);
    }

    /// Starts the daemon and waits until it says READY.
    pub fn watch(&self) -> Daemon {
        self.watch_with(Vec::new())
    }

    /// The same, with more in its environment.
    pub fn watch_with(&self, environment: Vec<(&str, PathBuf)>) -> Daemon {
        self.watch_under(&[], environment)
    }

    /// The same, run by another program, whose words come first.
    pub fn watch_under(&self, program: &[&str], environment: Vec<(&str, PathBuf)>) -> Daemon {
        let mut command = self.under(program, &["watch", "--config", "config.yaml"]);
        command.envs(environment);
        self.start(command)
    }

    /// The same, where some calls to the system fail: `calls` as strace's `inject` has them.
    pub fn watch_where_calls_fail(&self, calls: &str) -> Daemon {
        let inject = format!("inject={calls}");
        // Another process traces, so that the daemon is our child.
        let tracer = ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &inject];
        self.watch_under(&tracer, Vec::new())
    }

    fn start(&self, mut command: Command) -> Daemon {
        let socket = self.path("notify.sock");
        if socket.exists() {
            fs::remove_file(&socket).unwrap();
        }
        let ready = UnixDatagram::bind(&socket).unwrap();
        ready.set_read_timeout(Some(PATIENCE)).unwrap();
        let log = OpenOptions::new().create(true).append(true).open(self.path("log")).unwrap();
        let child = command
            .env("NOTIFY_SOCKET", &socket)
            .env("LEAKWARDEN_LOG", "trace")
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut daemon = Daemon { child, ready };
        daemon.wait_ready(self);
        daemon
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }
}

pub struct Daemon {
    pub child: Child,
    ready: UnixDatagram,
}

impl Daemon {
    fn wait_ready(&mut self, world: &World) {
        self.wait_told("READY=1", world);
    }

    /// Waits until it tells the service manager this.
    pub fn wait_told(&mut self, line: &str, world: &World) {
        let mut buffer = [0; 256];
        loop {
            let count = match self.ready.recv(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!("no {line} ({error}); its log: {}", world.log()),
            };
            if String::from_utf8_lossy(&buffer[..count]).lines().any(|told| told == line) {
                return;
            }
        }
    }

    /// SIGHUP; waits until what is configured now is watched.
    pub fn reload(&mut self, world: &World) {
        self.signal(Signal::HUP);
        self.wait_told("RELOADING=1", world);
        self.wait_ready(world);
    }

    pub fn signal(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// SIGTERM; answers how long it took to end, and its exit code.
    pub fn stop(mut self) -> (Duration, i32) {
        self.stop_in_place()
    }

    pub fn stop_in_place(&mut self) -> (Duration, i32) {
        let started = Instant::now();
        self.signal(Signal::TERM);
        let status = self.child.wait().unwrap();
        (started.elapsed(), status.code().unwrap_or(-1))
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

pub fn answer(mut command: Command, stdin: &[u8]) -> Answer {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program starts");
    let mut pipe = child.stdin.take().unwrap();
    let bytes = stdin.to_vec();
    let writer = std::thread::Builder::new().spawn(move || {
        // Programs that refuse early do not read their input.
        let _written = pipe.write_all(&bytes).is_ok();
    });
    let output = child.wait_with_output().unwrap();
    writer.unwrap().join().unwrap();
    Answer {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).expect("UTF-8 on stdout"),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A Python with an SMTP server and the pre-commit framework, as `tests/run` made it.
pub fn python() -> Command {
    let python = std::env::var("LEAKWARDEN_TEST_PYTHON").unwrap_or_else(|_| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-venv/bin/python").to_owned()
    });
    assert!(exists(Path::new(&python)), "no {python}; run the tests with tests/run");
    Command::new(python)
}

/// Asks until there is an answer; `None` after [`PATIENCE`].
pub fn wait<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until no daemon works on a registry: what was waited for may have been strace.
pub fn wait_for_end(registry: &Path) {
    if let Ok(lock) = fs::File::open(registry.join("daemon.lock")) {
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    }
}

/// The value of a mail header.
pub fn header(mail: &str, name: &str) -> String {
    let prefix = format!("{name}: ");
    mail.lines().find_map(|line| line.strip_prefix(&prefix)).unwrap_or_default().trim().to_owned()
}

/// Text that looks like a GitHub token with right check digits; nobody's.
pub fn github_token() -> String {
    let mut token = format!("{}{}", "ghp_", "0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o");
    let digits = leakwarden::rule::Checksum::Crc32Base62.digits(token.as_bytes());
    token.push_str(std::str::from_utf8(&digits).unwrap());
    token
}

pub fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
