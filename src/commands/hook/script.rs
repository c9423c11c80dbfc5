//! The shell text of hooks: a file of our own that also calls what was there before, or a few marked
//! lines in a file of the project.

use std::path::Path;

use anyhow::Context as _;

use crate::cli::HookName;

/// By this line a hook of ours is recognised.
const MARK: &str = "# installed by leakwarden";
const BEGIN: &str = "# >>> leakwarden";
const END: &str = "# <<< leakwarden";
/// What was there before, beside ours.
const KEPT: &str = ".before-leakwarden";
/// Only a hook that hands over to the hooks of a repository.
const PASSES_ON: &str = "# hands over to the repository's own hook";

impl HookName {
    pub(super) const ALL: [Self; 4] =
        [Self::PreCommit, Self::PrePush, Self::PreReceive, Self::Update];

    /// As git names it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::PreCommit => "pre-commit",
            Self::PrePush => "pre-push",
            Self::PreReceive => "pre-receive",
            Self::Update => "update",
        }
    }

    /// git writes refs to its standard input.
    fn reads_refs(self) -> bool {
        matches!(self, Self::PrePush | Self::PreReceive)
    }
}

/// The name under which a hook is kept that was there before.
pub(super) fn kept_name(name: HookName) -> String {
    format!("{}{KEPT}", name.as_str())
}

/// Whether a file is one of ours, and ours alone.
pub(super) fn is_ours(text: &[u8]) -> bool {
    holds(text, MARK)
}

/// Whether a file of somebody else has our lines in it.
pub(super) fn has_block(text: &[u8]) -> bool {
    holds(text, BEGIN) && holds(text, END)
}

/// Whether it calls this hook, whoever wrote it.
pub(super) fn calls(text: &[u8], name: HookName) -> bool {
    holds(text, "leakwarden") && holds(text, &format!("hook {}", name.as_str()))
}

fn holds(text: &[u8], what: &str) -> bool {
    memchr::memmem::find(text, what.as_bytes()).is_some()
}

/// A text as one word of a shell script.
pub(super) fn word(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/._:=@%+-".contains(&b);
    if !text.is_empty() && !text.starts_with('-') && text.bytes().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// A path as one word of a shell script.
pub(super) fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path.to_str().with_context(|| format!("{} is not UTF-8", path.display()))?;
    Ok(format!("'{}'", text.replace('\'', r"'\''")))
}

/// What comes between the start of our hook and its own call.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    /// The hook that was there, and how it is started.
    pub(super) kept: Option<Kept>,
    /// The hook of the repository is called too: this one is that of all repositories.
    pub(super) passes_on: bool,
}

/// A hook that was there before ours.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    /// The shell that it names in its first line. It is read by that shell under our name, as some
    /// go by the name under which they are called.
    pub(super) shell: Option<String>,
}

impl Kept {
    pub(super) fn of(text: &[u8]) -> Self {
        Self { shell: shell_of(text) }
    }
}

/// The words of the first line of a shell script.
fn shell_of(text: &[u8]) -> Option<String> {
    let line = text.strip_prefix(b"#!")?.split(|&b| b == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let mut words = line.split_whitespace();
    let program = words.next()?.rsplit('/').next()?;
    let shell = if program == "env" { words.next()? } else { program };
    let fit = matches!(shell, "sh" | "bash" | "dash" | "ksh")
        && line.bytes().all(|b| b.is_ascii_alphanumeric() || b"/._- ".contains(&b));
    fit.then(|| line.to_owned())
}

/// A hook file of ours. `command`: what it calls at its end.
pub(super) fn file(name: HookName, command: &str, before: &Before) -> String {
    let mut text = format!("#!/bin/sh\n{MARK}; `leakwarden hook uninstall` takes it out again\n");
    let refs = name.reads_refs();
    let others = before.kept.is_some() || before.passes_on;
    if refs && others {
        text.push_str("refs=$(cat)\n");
    }
    let given = if refs { "printf '%s\\n' \"$refs\" | " } else { "" };
    if let Some(kept) = &before.kept {
        text.push_str(&format!("kept=$(dirname -- \"$0\")/{}\n", kept_name(name)));
        let call = match &kept.shell {
            Some(shell) => {
                format!("LEAKWARDEN_KEPT=$kept {shell} -c '. \"$LEAKWARDEN_KEPT\"' \"$0\" \"$@\"")
            }
            None => "\"$kept\" \"$@\"".to_owned(),
        };
        text.push_str(&format!("[ ! -x \"$kept\" ] || {given}{call} || exit $?\n"));
    }
    if before.passes_on {
        text.push_str(OWN);
        text.push_str(&format!("{IS_OWN} || {given}\"$own\" \"$@\" || exit $?\n"));
    }
    let given = if others { given } else { "" };
    let exec = if given.is_empty() { "exec " } else { "" };
    text.push_str(&format!("{given}{exec}{command}{}\n", arguments(name)));
    text
}

/// What git gives a hook on its command line, handed on where it is needed.
fn arguments(name: HookName) -> &'static str {
    match name {
        HookName::PreCommit | HookName::PreReceive => "",
        HookName::PrePush | HookName::Update => " \"$@\"",
    }
}

const OWN: &str = "own=$(git rev-parse --git-common-dir)/hooks/$(basename -- \"$0\")\n";
/// True where there is none. A folder of hooks that is a link to this one would call itself.
const IS_OWN: &str = "[ ! -x \"$own\" ] || [ \"$own\" -ef \"$0\" ]";

/// A hook for all repositories that does nothing but call that of the repository.
pub(super) fn passes_on() -> String {
    format!(
        "#!/bin/sh\n{MARK}; `leakwarden hook uninstall --global` takes it out again\n\
         {PASSES_ON}\n{OWN}{IS_OWN} || exec \"$own\" \"$@\"\n"
    )
}

/// Whether a file of ours hands over to the hooks of repositories.
pub(super) fn hands_over(text: &[u8]) -> bool {
    is_ours(text) && holds(text, "--git-common-dir")
}

/// A file of the project with our lines in it, at its beginning: what follows may leave the script.
/// `None`: it is no shell script.
pub(super) fn with_block(text: &[u8], name: HookName, command: &str) -> Option<Vec<u8>> {
    let shebang = text.starts_with(b"#!");
    if shebang && shell_of(text).is_none() || text.contains(&0) {
        return None;
    }
    let first =
        if shebang { memchr::memchr(b'\n', text).map_or(text.len(), |at| at + 1) } else { 0 };
    let (head, tail) = text.split_at(first);
    let mut out = head.to_vec();
    if head.last().is_some_and(|last| *last != b'\n') {
        out.push(b'\n');
    }
    let call = format!("{command}{} || exit $?", arguments(name));
    let lines = if name.reads_refs() {
        format!(
            "leakwarden_refs=$(cat)\nprintf '%s\\n' \"$leakwarden_refs\" | {call}\n\
             [ -z \"$leakwarden_refs\" ] || exec <<LEAKWARDEN\n$leakwarden_refs\nLEAKWARDEN\n"
        )
    } else {
        format!("{call}\n")
    };
    out.extend(format!("{BEGIN}\n{lines}{END}\n").bytes());
    out.extend_from_slice(tail);
    Some(out)
}

/// The same file without our lines.
pub(super) fn without_block(text: &[u8]) -> Vec<u8> {
    let mut within = false;
    let mut out = Vec::with_capacity(text.len());
    for line in text.split_inclusive(|&b| b == b'\n') {
        let bare = line.strip_suffix(b"\n").unwrap_or(line);
        within |= bare == BEGIN.as_bytes();
        if !within {
            out.extend_from_slice(line);
        }
        within &= bare != END.as_bytes();
    }
    out
}

/// The program that a hook of ours calls, as it stands there in quotes.
pub(super) fn program(text: &[u8], name: HookName) -> Option<String> {
    let text = std::str::from_utf8(text).ok()?;
    let call = format!("' hook {}", name.as_str());
    let line = text.lines().find(|line| line.contains(&call))?;
    let (before, _) = line.split_once(&call)?;
    // A quote within is written as '\'', which the last opening quote is not.
    let (_, path) =
        before.replace(r"'\''", "\u{0}").rsplit_once('\'').map(|(a, b)| (a.len(), b.to_owned()))?;
    Some(path.replace('\u{0}', "'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_goes_in_after_the_first_line_and_out_again() {
        for text in ["#!/usr/bin/env bash\nset -e\nexit 0\n", "npx lint-staged\n", "", "#!/bin/sh"]
        {
            let with =
                with_block(text.as_bytes(), HookName::PreCommit, "lw hook pre-commit").unwrap();
            assert!(has_block(&with) && calls(&with, HookName::PreCommit));
            let without = String::from_utf8(without_block(&with)).unwrap();
            assert_eq!(without.trim_end(), text.trim_end());
        }
        assert_eq!(with_block(b"#!/usr/bin/python3\n", HookName::PreCommit, "lw"), None);
    }

    #[test]
    fn the_program_of_a_hook_is_read_back() {
        let path = Path::new("/a b/it's/leakwarden");
        let command = format!("{} hook pre-push --registry '/r'", quoted(path).unwrap());
        let text = file(HookName::PrePush, &command, &Before { kept: None, passes_on: true });
        assert_eq!(program(text.as_bytes(), HookName::PrePush).as_deref(), path.to_str());
    }
}
