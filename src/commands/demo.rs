//! `leakwarden demo`: the whole way in a temporary folder. Every step is this very program, called
//! as a user would call it; nothing is mocked. The exit code is 0 only if all of it happened.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{Exit, output};

/// Longest wait for one thing to happen.
const PATIENCE: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(5);

pub(super) fn run() -> anyhow::Result<Exit> {
    let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
    let mut demo = Demo {
        program: std::env::current_exe().context("cannot find this program")?,
        root: folder.path().to_owned(),
        step: 0,
    };
    demo.run()?;
    folder.close().context("cannot clean up")?;
    say("\nAll of it happened as it should. The folder is gone; nothing else was touched.")?;
    Ok(Exit::Clean)
}

struct Demo {
    program: PathBuf,
    root: PathBuf,
    step: u32,
}

/// A key of the demo: its name, its leak action, and what `verify` says after the leak.
const KEYS: [(&str, &str, &str); 3] = [
    ("newsletter", "none", "active"),
    ("deploy", "disable", "disabled"),
    ("billing", "delete", "deleted"),
];

impl Demo {
    fn run(&mut self) -> anyhow::Result<()> {
        say(&format!("leakwarden demo, in {}", self.root.display()))?;
        self.install()?;
        self.issue()?;
        let mut daemon = self.watch()?;
        self.leak()?;
        self.show_mail()?;
        self.verify()?;
        daemon.stop()?;
        self.refuse_commit()
    }

    fn install(&mut self) -> anyhow::Result<()> {
        self.title("A new installation: registry, pepper, configuration")?;
        let dir = self.path("registry");
        self.show(&["init", "--dir", "registry", "--admin", "admin@example.com"])?;
        ensure!(dir.join("registry.db").exists(), "init made no registry");
        for folder in ["inbox", "logs"] {
            fs::create_dir(self.path(folder)).context("cannot make a folder")?;
        }
        fs::write(self.path("logs/app.log"), "service started\n").context("cannot write a log")?;
        fs::write(
            self.path("config.yaml"),
            "registry: ./registry\n\
             watch:\n  - files: [\"./inbox/**\"]\n  - logs: [\"./logs/*.log\"]\n\
             response: { mode: act }\n\
             mail: { directory: ./mail }\n",
        )
        .context("cannot write the configuration")
    }

    fn issue(&mut self) -> anyhow::Result<()> {
        self.title("Three keys; each owner chose what happens when theirs leaks")?;
        for (name, action, _) in KEYS {
            let owner = format!("{name}@example.com");
            let file = format!("{name}.key");
            let mut arguments = vec!["key", "create", name, "-d", "made by the demo", "--owner"];
            arguments.extend([owner.as_str(), "--action-if-leaked", action, "--file", &file]);
            if name == "deploy" {
                // The form of IBM Cloud's keys: no prefix that a pattern could find.
                arguments.extend(["--like", "ibm"]);
            }
            self.command_line(&arguments)?;
            self.succeed(&arguments)?;
        }
        self.show(&["key", "list"]).map(|_| ())
    }

    fn watch(&mut self) -> anyhow::Result<Daemon> {
        self.title("The daemon")?;
        let arguments = ["watch", "--config", "config.yaml"];
        self.command_line(&arguments)?;
        let log = fs::File::create(self.path("daemon.log")).context("cannot write a log")?;
        let child =
            self.command(&arguments).stderr(log).spawn().context("cannot start the daemon")?;
        let mut daemon = Daemon(child);
        let ready = wait(|| {
            ensure!(daemon.0.try_wait()?.is_none(), "the daemon ended: {}", self.daemon_log());
            Ok(self.daemon_log().contains("ready").then_some(()))
        });
        ready.context("the daemon did not get ready")?;
        say("    ready")?;
        Ok(daemon)
    }

    fn leak(&mut self) -> anyhow::Result<()> {
        self.title("Three leaks: two files and a log line")?;
        let newsletter = self.key("newsletter")?;
        let deploy = self.key("deploy")?;
        let billing = self.key("billing")?;
        let leaks = [
            ("newsletter", "none", "inbox/notes.txt", format!("token for Ann: {newsletter}\n")),
            ("deploy", "disable", "logs/app.log", format!("GET /v1/run?apikey={deploy}&x=1 200\n")),
            ("billing", "delete", "inbox/app/.env", format!("BILLING_KEY=\"{billing}\"\n")),
        ];
        for (name, action, file, line) in leaks {
            let path = self.path(file);
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder).context("cannot make a folder")?;
            }
            let started = Instant::now();
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)
                .and_then(|mut file| file.write_all(line.as_bytes()))
                .with_context(|| format!("cannot write {file}"))?;
            let result = wait(|| self.incident(name)).with_context(|| {
                format!("the leak of {name} was not dealt with; {}", self.daemon_log())
            })?;
            let elapsed = started.elapsed().as_millis();
            ensure!(result.0 == action, "{name}: {} instead of {action}", result.0);
            say(&format!(
                "    {name:<10} leaked in {file:<16} on leak: {action:<8} -> {} after {elapsed} ms",
                if action == "none" { "people told" } else { result.1.as_str() }
            ))?;
        }
        say("")?;
        self.show(&["leak", "list"]).map(|_| ())
    }

    /// Kind and result of the action of a key's incident, once its notices are out.
    fn incident(&self, name: &str) -> anyhow::Result<Option<(String, String)>> {
        let answer = self.succeed(&["leak", "list", "--format", "json"])?;
        let answer: Value = serde_json::from_slice(&answer.stdout).context("not JSON")?;
        let incidents =
            answer.pointer("/incidents").and_then(Value::as_array).context("no incidents")?;
        let Some(incident) = incidents.iter().find(|i| text_at(i, "/key/name") == name) else {
            return Ok(None);
        };
        let notices = incident.pointer("/notices").and_then(Value::as_array);
        let told = notices.is_some_and(|notices| {
            !notices.is_empty() && notices.iter().all(|notice| text_at(notice, "/state") == "sent")
        });
        let kind = text_at(incident, "/action/kind");
        let result = text_at(incident, "/action/result");
        let finished = result == "done" || kind == "none";
        Ok((told && finished).then(|| (kind.to_owned(), result.to_owned())))
    }

    fn show_mail(&mut self) -> anyhow::Result<()> {
        self.title("The mail to the owner of the deleted key")?;
        let mut count = 0;
        let mut found = None;
        for entry in fs::read_dir(self.path("mail")).context("no mail was written")? {
            let text = fs::read_to_string(entry?.path()).context("cannot read a mail")?;
            count += 1;
            if text.contains("To: billing@example.com") {
                found = Some(text);
            }
        }
        let mail = found.context("no mail to billing@example.com")?;
        let key = self.key("billing")?;
        ensure!(!mail.contains(&key), "the mail holds the key itself");
        for line in readable(&mail) {
            say(&format!("    | {line}"))?;
        }
        say(&format!("    ({count} mails in all: owners and the administrator)"))
    }

    fn verify(&mut self) -> anyhow::Result<()> {
        self.title("What a service hears that asks whether the keys are valid")?;
        for (name, _, expected) in KEYS {
            let key = fs::File::open(self.path(&format!("{name}.key")))?;
            let answer = self.command(&["key", "verify"]).stdin(key).output()?;
            let text = String::from_utf8_lossy(&answer.stdout);
            say(&format!("    leakwarden key verify < {name}.key  ->  {}", text.trim_end()))?;
            ensure!(text.starts_with(expected), "{name}: expected {expected}");
            ensure!(answer.status.success() == (expected == "active"), "wrong exit code");
        }
        Ok(())
    }

    fn refuse_commit(&mut self) -> anyhow::Result<()> {
        self.title("A commit with a key, in a repository with the hook")?;
        let repository = self.path("repository");
        fs::create_dir(&repository).context("cannot make a folder")?;
        let git = |arguments: &[&str]| {
            Command::new("git")
                .args(["-c", "user.name=Demo", "-c", "user.email=demo@example.com"])
                .args(["-c", "init.defaultBranch=main"])
                .args(arguments)
                .current_dir(&repository)
                .env("LEAKWARDEN_REGISTRY", self.path("registry"))
                .stdin(Stdio::null())
                .output()
                .context("cannot start git; is it installed?")
        };
        ensure!(git(&["init", "-q"])?.status.success(), "git init failed");
        let install = self.command(&["hook", "install"]).current_dir(&repository).output()?;
        ensure!(install.status.success(), "hook install failed: {}", text_of(&install));
        say("  $ leakwarden hook install")?;
        let key = self.key("newsletter")?;
        fs::write(repository.join("settings.py"), format!("TOKEN = '{key}'\n"))?;
        ensure!(git(&["add", "settings.py"])?.status.success(), "git add failed");
        say("  $ git commit -m 'add settings'")?;
        let commit = git(&["commit", "-m", "add settings"])?;
        say(&indented(&text_of(&commit)))?;
        ensure!(!commit.status.success(), "the commit went through");
        ensure!(!git(&["rev-parse", "--verify", "-q", "HEAD"])?.status.success(), "HEAD was made");
        Ok(())
    }

    fn title(&mut self, text: &str) -> anyhow::Result<()> {
        self.step += 1;
        say(&format!("\n\x1b[1m{}. {text}\x1b[0m", self.step))
    }

    fn command_line(&self, arguments: &[&str]) -> anyhow::Result<()> {
        let words: Vec<String> = arguments
            .iter()
            .map(|word| if word.contains(' ') { format!("'{word}'") } else { (*word).to_owned() })
            .collect();
        say(&format!("  $ leakwarden {}", words.join(" ")))
    }

    /// Runs a command and shows both it and its answer.
    fn show(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        self.command_line(arguments)?;
        let answer = self.succeed(arguments)?;
        say(&indented(&text_of(&answer)))?;
        Ok(answer)
    }

    fn succeed(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let answer = self.command(arguments).output().context("cannot run this program")?;
        if !answer.status.success() {
            bail!("`leakwarden {}` failed: {}", arguments.join(" "), text_of(&answer));
        }
        Ok(answer)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.root)
            .env("LEAKWARDEN_REGISTRY", self.path("registry"))
            .env_remove("NOTIFY_SOCKET")
            .stdin(Stdio::null());
        command
    }

    fn key(&self, name: &str) -> anyhow::Result<String> {
        let key = fs::read_to_string(self.path(&format!("{name}.key")))?;
        Ok(key.trim_end().to_owned())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn daemon_log(&self) -> String {
        fs::read_to_string(self.path("daemon.log")).unwrap_or_default()
    }
}

/// The daemon; killed if the demo fails on the way.
struct Daemon(Child);

impl Daemon {
    fn stop(&mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("the daemon has no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = wait(|| Ok(self.0.try_wait()?)).context("the daemon did not end")?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // After `stop` there is nothing left to kill.
        let _killed = self.0.kill().and_then(|()| self.0.wait()).is_ok();
    }
}

/// Asks again until there is an answer.
fn wait<T>(mut ask: impl FnMut() -> anyhow::Result<Option<T>>) -> anyhow::Result<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < end, "nothing within {} s", PATIENCE.as_secs());
        std::thread::sleep(POLL);
    }
}

/// Headers and the plain text of a mail, its line breaks and umlauts decoded.
fn readable(mail: &str) -> Vec<String> {
    let mail = mail.replace("=\r\n", "").replace("=E2=80=A6", "…").replace("=3D", "=");
    let headers = ["From:", "To:", "Subject:", "Date:"];
    let mut lines: Vec<String> = mail
        .lines()
        .filter(|line| headers.iter().any(|header| line.starts_with(header)))
        .map(str::to_owned)
        .collect();
    lines.push(String::new());
    let body = mail.split("quoted-printable").nth(1).unwrap_or_default();
    let body = body.split("\r\n--").next().unwrap_or_default();
    lines.extend(body.trim().lines().map(str::to_owned));
    lines
}

fn text_at<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn text_of(answer: &Output) -> String {
    let mut text = String::from_utf8_lossy(&answer.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&answer.stderr));
    text
}

fn indented(text: &str) -> String {
    text.trim_end().lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

fn say(text: &str) -> anyhow::Result<()> {
    output::print(&format!("{text}\n"))
}
