//! Speed of matching, of start-up, and from leak to action. `cargo bench`.
//!
//! Every throughput stands beside a floor taken in the same run: counting the newlines of the same
//! bytes. Compare ratios, machines differ.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a benchmark that cannot run should stop, and prints what it measured"
)]

use std::fs;
use std::hint::black_box;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use leakwarden::matcher::Matcher;
use leakwarden::registry::tags::Tags;
use leakwarden::rule::RuleSet;
use leakwarden::secret::Keyring;
use leakwarden::shape::{Alphabet, Known, Shape, ShapeSet, is_strong};
use rusqlite::{Connection, OpenFlags};
use shared::{scan, scan_for};

mod shared;

const PROGRAM: &str = env!("CARGO_BIN_EXE_leakwarden");
const CORPUS_BYTES: usize = 64 << 20;

/// Access log lines, always the same ones.
fn log() -> Vec<u8> {
    const PAGES: [&str; 6] = ["index", "login", "api/v1/orders", "static/app.js", "cart", "search"];
    const AGENTS: [&str; 3] = [
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0",
        "curl/8.5.0",
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_2 like Mac OS X) AppleWebKit/605.1.15 Version/17.2",
    ];
    let mut text = String::with_capacity(CORPUS_BYTES + 512);
    let mut seed = 1u64;
    let mut next = |limit: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % limit
    };
    let pick = |words: &[&'static str], at: u64| words[usize::try_from(at).unwrap() % words.len()];
    while text.len() < CORPUS_BYTES {
        let (a, b, c) = (next(256), next(256), next(60));
        let (page, agent) = (pick(&PAGES, next(6)), pick(&AGENTS, next(3)));
        let (id, size) = (next(100_000), next(1_000_000));
        text.push_str(&format!(
            "203.{a}.{b}.7 - - [21/Nov/2026:12:{c:02}:07 +0000] \"GET /{page}/{id}?page={b} \
             HTTP/1.1\" 200 {size} \"https://shop.example.com/{page}\" \"{agent}\"\n"
        ));
    }
    text.into_bytes()
}

/// Source text: what crates are unpacked on this machine, this one's otherwise.
fn source() -> Vec<u8> {
    let home = std::env::var("CARGO_HOME")
        .map(PathBuf::from)
        .unwrap_or_else(|_| PathBuf::from(std::env::var("HOME").unwrap()).join(".cargo"));
    let mut text = Vec::with_capacity(CORPUS_BYTES);
    for root in [home.join("registry/src"), PathBuf::from("src"), PathBuf::from("tests")] {
        for entry in ignore::WalkBuilder::new(root).sort_by_file_name(Ord::cmp).build().flatten() {
            let is_source = entry.path().extension().is_some_and(|extension| extension == "rs");
            if is_source && text.len() < CORPUS_BYTES {
                text.extend(fs::read(entry.path()).unwrap_or_default());
            }
        }
    }
    text
}

/// Random bytes in base64, 76 characters a line.
fn base64() -> Vec<u8> {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut seed = 7u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        DIGITS[usize::try_from(seed >> 58).unwrap()]
    };
    (0..CORPUS_BYTES).map(|at| if at % 77 == 76 { b'\n' } else { next() }).collect()
}

/// Shapes as a registry with keys of four forms has them.
fn shapes() -> ShapeSet {
    let keys: [&[u8]; 4] = [
        b"lw_user_0a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R",
        b"-a1B2c3D4e5F6g7H8i9J_0k1L2m3N4o5P6q7R8s9T0u_",
        b"3f2b8c1d-9e4a-4f6b-8d7c-1a2b3c4d5e6f",
        b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    ];
    // A quarter of random base64url keys has neither `_` nor `-`.
    let plain = Shape { alphabet: Alphabet::Alphanumeric, len: 44 };
    // Of many keys, the weakest has about a third of the digits and capitals of one of them.
    let strong = |key: &[u8]| key.iter().filter(|byte| is_strong(**byte)).count() / 3;
    let of = |key: &&[u8]| (Shape::of(key).unwrap(), u32::try_from(strong(key)).unwrap());
    ShapeSet::of_strong(keys.iter().map(of).chain([(plain, 11)]))
}

/// The filter of 100,000 keys that are nowhere.
struct Registry(Keyring, Tags);

impl Registry {
    fn new() -> Self {
        let keyring = Keyring::generate().unwrap();
        let tags = (0..100_000u64).map(|key| keyring.tag(&key.to_le_bytes())).collect();
        Self(keyring, Tags::default().with(tags))
    }
}

impl Known for Registry {
    fn knows(&self, bytes: &[u8]) -> bool {
        self.1.contains(self.0.tag(bytes))
    }

    fn which(&self, text: &[u8], windows: &[Range<usize>], found: &mut dyn FnMut(usize)) {
        let tags: Vec<u64> =
            windows.iter().map(|window| self.0.tag(&text[window.clone()])).collect();
        self.1.which(&tags, found);
    }
}

fn matcher() -> Matcher {
    Matcher::new(Arc::new(RuleSet::builtin()), shapes())
}

fn throughput(criterion: &mut Criterion) {
    let (matcher, registry) = (matcher(), Registry::new());
    let mut few = RuleSet::builtin();
    let first: Vec<Box<str>> = few.rules().take(60).map(|rule| (&*rule.id).into()).collect();
    few.retain(|rule| first.iter().any(|id| **id == *rule.id));
    let few = Matcher::new(Arc::new(few), shapes());
    for (name, text) in [("log", log()), ("source", source()), ("base64", base64())] {
        let mut group = criterion.benchmark_group(name);
        group.throughput(Throughput::Bytes(text.len() as u64)).sample_size(10);
        group.bench_function("floor: count newlines", |bencher| {
            bencher.iter(|| memchr::memchr_iter(b'\n', black_box(&text)).count());
        });
        group.bench_function("match: all rules, four shapes", |bencher| {
            bencher.iter(|| scan(&matcher, black_box(&text)));
        });
        group.bench_function("match: all rules, 100,000 keys of four shapes", |bencher| {
            bencher.iter(|| scan_for(&matcher, &registry, black_box(&text)));
        });
        // Both by turns, as the hours of a shared machine differ by more than the rules cost.
        let (time, mut more) = (|matcher: &_| timed(|| scan(matcher, &text)), Vec::new());
        group.bench_function("match: 60 rules and all, by turns", |bencher| {
            bencher.iter_custom(|rounds| {
                let turns: Vec<_> = (0..rounds).map(|_| [&few, &matcher].map(time)).collect();
                more.extend(turns.iter().map(|[few, all]| all.as_secs_f64() / few.as_secs_f64()));
                turns.iter().flatten().sum()
            });
        });
        group.finish();
        more.sort_by(f64::total_cmp);
        if let Some(middle) = more.get(more.len() / 2) {
            let turns = more.len();
            println!("{name}: all rules take {middle:.3} times as long as 60, middle of {turns}\n");
        }
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begun = Instant::now();
    black_box(work());
    begun.elapsed()
}

/// Tags that are in no filter, asked of filters; and the hashing before it.
fn filter(criterion: &mut Criterion) {
    let mut seed = 3u64;
    let mut next = move || {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (seed ^ seed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb)
    };
    let keyring = Keyring::generate().unwrap();
    let mut group = criterion.benchmark_group("filter");
    group.sample_size(20);
    for keys in [100_000, 10_000_000] {
        let tags = Tags::default().with((0..keys).map(|_| next()).collect());
        group.throughput(Throughput::Elements(1));
        group.bench_function(format!("a miss among {keys} keys"), |bencher| {
            bencher.iter(|| tags.contains(black_box(next())));
        });
        // As the matcher asks.
        let asked: Vec<[u64; 64]> = (0..1 << 14).map(|_| std::array::from_fn(|_| next())).collect();
        let mut turns = asked.iter().cycle();
        group.throughput(Throughput::Elements(64));
        group.bench_function(format!("64 misses together among {keys} keys"), |bencher| {
            bencher.iter(|| {
                let mut found = 0;
                tags.which(black_box(turns.next().unwrap()), &mut |_| found += 1);
                found
            });
        });
    }
    let key = b"-a1B2c3D4e5F6g7H8i9J_0k1L2m3N4o5P6q7R8s9T0u_";
    group.throughput(Throughput::Elements(1));
    group.bench_function("the tag of 44 bytes", |bencher| {
        bencher.iter(|| keyring.tag(black_box(key)));
    });
    group.bench_function("the digest of 44 bytes, for keys known by their SHA-256", |bencher| {
        bencher.iter(|| keyring.digest(black_box(key)));
    });
    group.finish();
}

fn run(folder: &Path, arguments: &[&str]) {
    let status = Command::new(PROGRAM)
        .args(arguments)
        .current_dir(folder)
        .env("LEAKWARDEN_REGISTRY", folder.join("registry"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.code().is_some_and(|code| code < 2), "{arguments:?}");
}

fn start_up(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder, &["init", "--dir", "registry"]);
    run(folder, &["key", "create", "k", "--file", "k"]);
    fs::write(folder.join("small.txt"), "nothing to see here\n").unwrap();
    let mut group = criterion.benchmark_group("start-up");
    group.bench_function("floor: an empty process", |bencher| {
        bencher.iter(|| Command::new("true").status().unwrap());
    });
    group.bench_function("scan of one small file, with a registry", |bencher| {
        bencher.iter(|| run(folder, &["scan", "small.txt"]));
    });
    group.finish();
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

/// Polls the database until so many actions took effect.
fn wait_for_actions(database: &Connection, wanted: u64) {
    let mut statement =
        database.prepare_cached("SELECT count(*) FROM actions WHERE state = 'done'").unwrap();
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let done: i64 = statement.query_row([], |row| row.get(0)).unwrap();
        if done.unsigned_abs() >= wanted {
            return;
        }
        assert!(Instant::now() < end, "the daemon did not act");
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// From a key's bytes being written to a watched file to the committed action.
fn leak_to_action(criterion: &mut Criterion) {
    const KEYS: u64 = 5_000;
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    run(folder, &["init", "--dir", "registry"]);
    let mut lines = String::new();
    let key = |number: u64| format!("{}Zx81Qw92Er03Ty14Ui25Op36As47{number:06}", "bench_key_");
    for number in 0..KEYS {
        lines.push_str(&format!(
            "{{\"name\":\"k{number}\",\"key\":\"{}\",\"owner\":\"o{number}@example.com\",\
             \"leak_action\":\"disable\"}}\n",
            key(number)
        ));
    }
    fs::write(folder.join("keys.jsonl"), lines).unwrap();
    run(folder, &["key", "import", "keys.jsonl"]);
    fs::create_dir(folder.join("inbox")).unwrap();
    fs::write(
        folder.join("config.yaml"),
        "registry: ./registry\nwatch: [{ files: [\"./inbox/**\"] }]\n\
         response: { mode: act, brake: { max: 100000, per_owner: 9, per_source: 9 } }\n",
    )
    .unwrap();
    let child = Command::new(PROGRAM)
        .args(["watch", "--config", "config.yaml"])
        .current_dir(folder)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _daemon = Daemon(child);
    let database = Connection::open_with_flags(
        folder.join("registry/registry.db"),
        OpenFlags::SQLITE_OPEN_READ_ONLY,
    )
    .unwrap();
    fs::write(folder.join("inbox/warm-up"), key(0)).unwrap();
    wait_for_actions(&database, 1);
    let mut leaked = 1;
    let mut group = criterion.benchmark_group("leak to action");
    group.sample_size(20).warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_secs(3));
    group.bench_function("a file in a watched folder", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut spent = Duration::ZERO;
            for _ in 0..rounds {
                let started = Instant::now();
                assert!(leaked < KEYS, "more rounds than keys");
                fs::write(folder.join(format!("inbox/{leaked}")), key(leaked)).unwrap();
                leaked += 1;
                wait_for_actions(&database, leaked);
                spent += started.elapsed();
            }
            spent
        });
    });
    group.finish();
}

criterion_group!(benches, throughput, filter, start_up, leak_to_action);
criterion_main!(benches);
