//! Reads and checks the built-in rules, so that no YAML is parsed and no pattern is analysed when
//! leakwarden starts. Shares the reader of rule files with the crate.

#[path = "src/rule/hir.rs"]
mod hir;
#[allow(dead_code, unreachable_pub, reason = "the crate uses what this script does not")]
#[path = "src/rule/file.rs"]
mod rule;

/// The parts of the matcher that say what is looked for.
#[allow(dead_code, unused_imports, reason = "the crate uses what this script does not")]
#[path = "src/matcher"]
mod matcher {
    mod runs {
        mod sets;

        pub(super) use sets::*;
    }
    mod sought;

    use runs::{Beginning, Common, divide};

    /// How often beginnings are put into better sets than they are in.
    const ROUNDS: usize = 8;

    /// What is looked for of some rules, as the run finder wants it, as Rust. Or the number of the line
    /// of `common` that is wrong.
    pub(crate) fn divided(rules: &[sought::Read<'_>], common: &str) -> Result<String, usize> {
        let lines = common.lines().zip(1usize..).map(|(line, number)| commons(line).ok_or(number));
        let common = lines.collect::<Result<Vec<_>, _>>()?.concat();
        let divide = |all: &[Beginning], sets| divide(all, sets, &common, ROUNDS);
        let prefixes = sought::prefixes(rules).0;
        let firsts = sought::firsts(&prefixes, &divide);
        let wanted = sought::wanted(rules, &sought::announcing(rules));
        let (offsets, needles) = sought::needles(&wanted, &divide);
        let seen_of_prefixes: Vec<u64> = sought::seen_of_prefixes(&prefixes).collect();
        let seen_of_wanted: Vec<u64> = sought::seen_of_wanted(&wanted).collect();
        Ok(format!(
            "static FIRSTS: (&[u64], [Sets; TABLES]) = (&{seen_of_prefixes:?}, {firsts:?});\n\
             static NEEDLES: (&[u64], &[usize], [Sets; NEEDLE_TABLES]) = (&{seen_of_wanted:?}, \
             &{offsets:?}, {needles:?});\n",
        ))
    }

    /// A line: how often these four bytes are met in a mebibyte, a colon, and which.
    fn commons(line: &str) -> Option<Vec<Common>> {
        let (places, all) = line.split_once(':')?;
        let places = places.parse().ok()?;
        let common =
            |bytes: &str| Some(Common { bytes: bytes.as_bytes().try_into().ok()?, places });
        all.split_whitespace().map(common).collect()
    }
}

use std::error::Error;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

/// Whether the program is built for glibc on Linux, for the machine it is built on.
fn is_for_this_glibc() -> bool {
    let is = |name: &str, value: &str| env::var(name).is_ok_and(|found| found == value);
    let here = env::var("HOST").ok() == env::var("TARGET").ok();
    here && is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu")
}

fn answer(command: &str, argument: &str) -> Option<String> {
    let output = Command::new(command).arg(argument).output().ok()?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}

/// Packs the addresses in the program, so that it starts a fifth faster: glibc can load that from
/// 2.36 on.
fn pack_relocations() {
    let version = answer("getconf", "GNU_LIBC_VERSION");
    let numbers = version.as_deref().and_then(|version| version.strip_prefix("glibc "));
    let mut numbers = numbers.into_iter().flat_map(|numbers| numbers.split('.'));
    let mut next = || numbers.next().and_then(|number| number.parse::<u32>().ok());
    if matches!((next(), next()), (Some(2), Some(minor)) if minor >= 36) {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}

/// Takes the unwinder into the program where the compiler has it as an archive. The shared library
/// asks the processor some ten times what it can when it is loaded; on a virtual machine each takes
/// the hypervisor's time, a twentieth of a start in all.
fn take_in_unwinder() -> Result<(), Box<dyn Error>> {
    let archive = answer("cc", "-print-file-name=libgcc_eh.a").map(PathBuf::from);
    let builtins = answer("cc", "-print-libgcc-file-name").map(PathBuf::from);
    if let (Some(archive), Some(builtins)) = (archive, builtins)
        && archive.is_absolute()
        && builtins.is_absolute()
    {
        let dir = PathBuf::from(env::var("OUT_DIR")?).join("unwinder");
        fs::create_dir_all(&dir)?;
        // A linker takes a text by a library's name as a list of what to link instead.
        let list = format!("GROUP ( {} {} )\n", archive.display(), builtins.display());
        fs::write(dir.join("libgcc_s.so"), list)?;
        println!("cargo::rustc-link-search=native={}", dir.display());
    }
    Ok(())
}

/// Groups of four characters that are common in text.
const COMMON: &str = "src/matcher/runs/common.txt";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=rules");
    println!("cargo::rerun-if-changed=src/rule/file.rs");
    println!("cargo::rerun-if-changed=src/rule/hir.rs");
    println!("cargo::rerun-if-changed=src/matcher/sought.rs");
    println!("cargo::rerun-if-changed=src/matcher/runs/sets.rs");
    println!("cargo::rerun-if-changed={COMMON}");
    if is_for_this_glibc() {
        pack_relocations();
        take_in_unwinder()?;
    }
    let mut files: Vec<PathBuf> = fs::read_dir("rules")?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    files.sort();
    let mut code = String::new();
    let (mut ids, mut all) = (Vec::new(), Vec::new());
    for path in &files {
        let name = path.display();
        let text = fs::read_to_string(path)?;
        let rules = rule::parse(&text).map_err(|faults| {
            let faults = faults.iter().map(|(line, why)| format!("{name}:{line}: {why}"));
            faults.collect::<Vec<_>>().join("\n")
        })?;
        for (index, (entry, facts)) in rules.into_iter().enumerate() {
            if ids.contains(&entry.id) {
                let line = rule::line_of(&text, index);
                return Err(
                    format!("{name}:{line}: {}: the id stands there already", entry.id).into()
                );
            }
            write(&mut code, path, &entry, &facts)?;
            ids.push(entry.id.clone());
            all.push((entry, facts));
        }
    }
    code = format!("static BUILTIN: [Rule; {}] = [\n{code}];\n", all.len());
    let entries = || all.iter().map(|(entry, _): &(rule::Entry, _)| entry);
    let prefixes = shortest(entries().flat_map(|entry| entry.prefixes.iter()));
    let keywords = shortest(entries().flat_map(|entry| entry.keywords.iter()));
    writeln!(code, "static PREFIXES: &[&str] = &{prefixes:?};")?;
    writeln!(code, "static KEYWORDS: &[&str] = &{keywords:?};")?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("builtin.rs"), code)?;
    let read: Vec<_> = all.iter().map(|(entry, facts)| (entry, facts)).collect();
    let code = matcher::divided(&read, &fs::read_to_string(COMMON)?).map_err(|line| {
        format!(
            "{COMMON}:{line}: expected `places: four four …`; `benches/common` makes such lines"
        )
    })?;
    fs::write(out.join("divided.rs"), code)?;
    Ok(())
}

/// Debug output of strings and numbers is Rust; that of enums needs their names.
fn write(
    code: &mut String,
    file: &Path,
    entry: &rule::Entry,
    facts: &rule::Facts,
) -> std::fmt::Result {
    let rule::Facts { within, match_min, match_max, alphabet, required_byte } = facts;
    writeln!(
        code,
        "Rule {{ file: {}, builtin: true, compiled: OnceLock::new(), facts: Facts {{ \
         within: Within::{within:?}, match_min: {match_min:?}, match_max: {match_max:?}, \
         alphabet: {alphabet:?}, required_byte: {required_byte:?} }}, entry: Entry {{ \
         id: {}, provider: {}, name: {}, prefixes: {}, keywords: {}, beside: {}, before: {:?}, \
         after: {:?}, lines: {:?}, offsets: Cow::Borrowed(&{:?}), pattern: {}, checksum: {}, \
         confidence: Confidence::{:?}, left: Left::{:?}, right: Right::{:?}, lone: {:?}, needs: {}, \
         kind: Kind::{:?}, min_entropy: {:?}, json_parts: {:?}, examples: {}, \
         negative_examples: {}, source: {} }} }},",
        text(&file.display().to_string()),
        text(&entry.id),
        text(&entry.provider),
        text(&entry.name),
        texts(&entry.prefixes),
        texts(&entry.keywords),
        texts(&entry.beside),
        entry.before,
        entry.after,
        entry.lines,
        entry.offsets,
        text(&entry.pattern),
        entry
            .checksum
            .map_or_else(|| "None".to_owned(), |kind| format!("Some(Checksum::{kind:?})")),
        entry.confidence,
        entry.left,
        entry.right,
        entry.lone,
        list(entry.needs.iter().map(|need| format!("Need::{need:?}"))),
        entry.kind,
        entry.min_entropy,
        entry.json_parts,
        texts(&entry.examples),
        texts(&entry.negative_examples),
        text(&entry.source),
    )
}

/// Texts in order, without those that begin with another one.
fn shortest<'a>(texts: impl Iterator<Item = &'a rule::Text>) -> Vec<&'a str> {
    let mut all: Vec<&str> = texts.map(|text| &**text).collect();
    all.sort_unstable();
    all.dedup_by(|next, kept| next.starts_with(&**kept));
    all
}

fn text(text: &str) -> String {
    format!("Cow::Borrowed({text:?})")
}

fn texts(texts: &[rule::Text]) -> String {
    list(texts.iter().map(|one| text(one)))
}

fn list(members: impl Iterator<Item = String>) -> String {
    format!("Cow::Borrowed(&[{}])", members.collect::<Vec<_>>().join(", "))
}
