//! What a scan tells: findings, and the proof of what was read. No plain key gets here.

mod aside;

use std::io;

use serde::{Deserialize, Serialize};

use crate::registry::key::{Key, LeakAction, Status};
use crate::rule::Confidence;
use crate::source::Kind;
use aside::Aside;

/// What a finding says of a registered key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundKey {
    /// `ApiKey-<uuid>`.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Mail address of its identity.
    pub owner: String,
    /// Whether it is valid now.
    pub state: Status,
    /// What its owner wants done.
    pub leak_action: LeakAction,
}

impl FoundKey {
    /// What a finding says of this key.
    #[must_use]
    pub fn of(key: &Key, now: jiff::Timestamp) -> Self {
        Self {
            id: key.id.clone(),
            name: key.name.clone(),
            owner: key.owner.clone(),
            state: key.status(now),
            leak_action: key.leak_action,
        }
    }
}

/// One key at one place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Finding {
    /// Id of the rule; `registry` where only the registry knows it.
    pub rule: String,
    /// The issuer.
    pub provider: String,
    /// What kind of key it is, in words.
    pub description: String,
    /// The registered key; `None`: it only looks like one.
    pub key: Option<FoundKey>,
    /// An exported filter knows it: a live key of the registry that the filter is of.
    pub probable: bool,
    /// By the rule's checks.
    pub confidence: Confidence,
    /// Public prefix and last four characters.
    pub hint: String,
    /// 16 hex digits, the same for the same value.
    pub fingerprint: String,
    /// Cleaned and redacted.
    pub path: String,
    /// Counted from 1.
    pub line: u64,
    /// In bytes, counted from 1.
    pub column: u64,
    /// First byte, from the start of the stream.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
    /// In what it was found.
    pub source: Kind,
    /// The first commit that has it, or the commit or tag itself.
    #[serde(skip)] // of what is in git, nothing is set aside
    pub commit: Option<FoundCommit>,
    /// Where git has it.
    #[serde(skip)]
    pub git: Option<InGit>,
}

impl Finding {
    /// By what findings are ordered.
    fn place(&self) -> (&str, u64, u64) {
        (&self.path, self.line, self.start)
    }
}

/// Where git has a finding. All words are cleaned and redacted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InGit {
    /// Name of the object that holds it.
    pub object: String,
    /// Whether `HEAD` has the object at this path; `None`: that is not asked of such objects.
    pub in_head: Option<bool>,
    /// Objects that hold the same key at the same path: versions of a file.
    pub versions: u64,
}

/// Who made a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundCommit {
    /// Its name.
    pub id: String,
    /// Name of the author.
    pub author: String,
    /// The author's mail address.
    pub email: String,
    /// When it was written.
    pub date: Option<jiff::Timestamp>,
}

/// What a scan of a repository read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// Objects of all kinds.
    pub objects: u64,
    /// Entries for other repositories, which were not read.
    pub submodules: u64,
}

/// Something that was not read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// Cleaned and redacted.
    pub path: String,
    /// In words.
    pub why: String,
}

/// What the keys were looked for with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KnownKeys {
    /// Rules only.
    #[default]
    Rules,
    /// A registry of so many keys.
    Registry(u64),
    /// An exported filter.
    Filter {
        /// Keys in it.
        count: u64,
        /// When it was made.
        made: jiff::Timestamp,
    },
}

/// What was read and what was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Those that are at hand.
    pub findings: Vec<Finding>,
    /// The others.
    aside: Aside,
    /// What the keys were looked for with.
    pub known: KnownKeys,
    /// Files, or files of a diff, that were read.
    pub files: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Commits that were read.
    pub commits: u64,
    /// There was nothing to read, and that is known.
    pub empty: bool,
    /// Findings under the asked confidence, not among the findings.
    pub below_confidence: u64,
    /// Entries that `.gitignore` names.
    pub ignored: u64,
    /// What was read of a repository.
    pub history: Option<History>,
    /// What was not read, and why.
    pub skipped: Vec<Skipped>,
    /// Wall time.
    pub seconds: f64,
}

impl Report {
    /// Whether everything that was asked for was read, and something was, if there was something.
    #[must_use]
    pub fn complete(&self) -> bool {
        let read = self.history.map_or(self.files > 0, |history| history.objects > 0);
        self.skipped.is_empty() && (read || self.empty)
    }

    /// How many findings there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.findings.len() as u64 + self.aside.count
    }

    /// Findings that are registered keys.
    #[must_use]
    pub fn registered(&self) -> u64 {
        let at_hand = self.findings.iter().filter(|finding| finding.key.is_some()).count();
        at_hand as u64 + self.aside.registered
    }

    /// Takes findings, none of which is in git, into a temporary file. Where that cannot be, they stay
    /// at hand.
    pub fn set_aside(&mut self, mut findings: Vec<Finding>) {
        findings.sort_by(|a, b| a.place().cmp(&b.place()));
        if self.aside.put(&findings).is_err() {
            self.findings.append(&mut findings);
        }
    }

    /// Orders what is at hand by path and place.
    pub fn sort(&mut self) {
        self.findings.sort_by(|a, b| a.place().cmp(&b.place()));
        self.skipped.sort_by(|a, b| (&a.path, &a.why).cmp(&(&b.path, &b.why)));
    }

    /// Calls with each finding, once they are [sorted](Self::sort), in order.
    pub fn each(&self, tell: &mut dyn FnMut(&Finding) -> io::Result<()>) -> io::Result<()> {
        self.aside.each(&self.findings, tell)
    }
}
