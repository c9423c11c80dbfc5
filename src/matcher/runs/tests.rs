use std::collections::BTreeSet;

use super::*;
use crate::rule::{is_run_byte, is_wide_byte};
use crate::shape::{KEY_MIN, Shape, ShapeSet, Stretch, is_strong};

/// What [`Found`] is told, and the count of newlines.
#[derive(Debug, Default, PartialEq)]
struct Told {
    /// What is asked for as a whole.
    whole: Lengths,
    needles: Vec<usize>,
    starts: Vec<usize>,
    narrow: Vec<(Range<usize>, Option<Marks>)>,
    wide: Vec<(Range<usize>, Option<Marks>)>,
    windows: BTreeSet<(Alphabet, usize, usize)>,
    newlines: u64,
}

fn places(at: usize, bits: u64) -> impl Iterator<Item = usize> {
    assert_ne!(bits, 0);
    (0..64).filter(move |bit| bits >> bit & 1 == 1).map(move |bit| at + bit)
}

impl Found for Told {
    fn needles(&mut self, at: usize, bits: u64) {
        self.needles.extend(places(at, bits));
    }
    fn starts(&mut self, at: usize, bits: u64) {
        self.starts.extend(places(at, bits));
    }
    fn whole(&mut self) -> Lengths {
        self.whole
    }
    fn run(&mut self, width: Width, run: Range<usize>, marks: Option<Marks>) {
        let runs = if width == Width::Narrow { &mut self.narrow } else { &mut self.wide };
        runs.push((run, marks));
    }
    fn window(&mut self, alphabet: Alphabet, window: Range<usize>) {
        assert!(self.windows.insert((alphabet, window.start, window.end)), "told twice");
    }
}

fn of(text: &str, any_case: bool) -> Beginning {
    beginning(text.as_bytes(), any_case, u128::MAX)
}

fn placed((table, set, beginning): &(usize, usize, Beginning)) -> (&Beginning, usize) {
    (beginning, table * SETS + set)
}

/// In the first table `xyz.`, which counts anywhere, and `k+` and `ab`, which count where a word
/// begins; in the others `kk`, anywhere, and `abc_` and `n`.
fn firsts() -> Firsts {
    let prefixes =
        [(0, 7, "xyz."), (0, 3, "k+"), (0, 0, "ab"), (1, 1, "kk"), (2, 0, "abc_"), (1, 0, "n")];
    let all = prefixes.map(|(table, set, prefix)| (table, set, of(prefix, false)));
    let tables = Sets::tables(all.iter().map(placed));
    Firsts::new(tables, [0x80, 0x02, 0])
}

/// `Mn` in any case, `.+` and `2`.
fn needles() -> [Sets; NEEDLE_TABLES] {
    let needles = [(0, 0, "Mn", true), (1, 3, ".+", false), (0, 3, "2", false)];
    let all = needles.map(|(table, set, needle, any_case)| (table, set, of(needle, any_case)));
    Sets::tables(all.iter().map(placed))
}

/// By which sets of a table a place passes, and by which it may: halves of bytes may be those of
/// different ones.
fn sets(text: &[u8], at: usize, table: &Sets) -> [u8; 2] {
    let byte = |position| text.get(at + position).copied().unwrap_or_default();
    let exact = table.of(&std::array::from_fn(byte));
    let loose =
        table.exact.iter().zip(&table.halves).enumerate().map(|(position, (exact, halves))| {
            let byte = byte(position) % 128;
            let by_halves =
                halves.low[usize::from(byte & 15)] & halves.high[usize::from(byte >> 4)];
            exact[usize::from(byte)] | by_halves
        });
    [exact, loose.fold(u8::MAX, |all, sets| all & sets)]
}

/// Whether a word may begin there: this one may say yes too often.
fn begins(text: &[u8], at: usize) -> bool {
    let escape =
        |back: usize| at.checked_sub(back).is_some_and(|at| matches!(text[at], b'\\' | b'%'));
    at == 0 || !word_bytes(text[at - 1]) || (2..=6).any(escape)
}

/// Whether a place passes, and whether it may; of long runs, or of all.
fn passes(text: &[u8], at: usize, firsts: &Firsts, is_long: bool) -> [bool; 2] {
    let mut passing = [false; 2];
    for (table, anywhere) in
        firsts.tables.iter().zip(firsts.anywhere).take(if is_long { TABLES } else { 1 })
    {
        let sets = sets(text, at, table);
        let counted = if begins(text, at) { u8::MAX } else { anywhere };
        for (passing, sets) in passing.iter_mut().zip(sets) {
            *passing |= sets & counted != 0;
        }
    }
    passing
}

/// A byte at a time: what is to be told, and what may be.
fn naive(
    text: &[u8],
    places: Range<usize>,
    (firsts, needles): (&Firsts, &[Sets; NEEDLE_TABLES]),
    (shapes, deep): (&ShapeSet, bool),
    (lengths, whole): (Lengths, Lengths),
) -> [Told; 2] {
    let mut seen = Told { whole, ..Told::default() };
    let mut may = Told::default();
    let classes: [fn(u8) -> bool; 2] = [is_run_byte, is_wide_byte];
    let after =
        |at: usize, class: usize| text[at..].iter().take_while(|b| classes[class](**b)).count();
    // Whole blocks are looked at: up to 63 places more may be told.
    let last = behind(places.clone()).min(text.len());
    seen.newlines = text[places.start..last].iter().filter(|byte| **byte == b'\n').count() as u64;
    for at in places.start..last {
        let long = |class: usize, length: Option<usize>| {
            length.is_some_and(|length| after(at, class) >= length)
        };
        let wide = long(1, lengths[1]);
        let is_long = wide || long(0, lengths[0].map(|_| LENGTH_MAX));
        let [pass, may_pass] = passes(text, at, firsts, is_long);
        let [needle, may_be] = [0, 1].map(|of| needles.iter().any(|n| sets(text, at, n)[of] != 0));
        let starts = long(0, lengths[0]) || wide;
        for (seen, starts, needle) in
            [(&mut seen, starts && pass, needle), (&mut may, starts && may_pass, may_be)]
        {
            seen.starts.extend(starts.then_some(at));
            seen.needles.extend(needle.then_some(at));
        }
        for class in 0..2 {
            let begins = at == places.start || !classes[class](text[at - 1]);
            if long(class, whole[class]) && long(class, lengths[class]) && begins {
                let runs = if class == 0 { &mut seen.narrow } else { &mut seen.wide };
                let run = at..at + after(at, class);
                let joints = text[run.clone()].iter().rev().fold(0u128, |joints, byte| {
                    joints.wrapping_shl(1) | u128::from(!byte.is_ascii_alphanumeric())
                });
                let has_digit = text[run.clone()].iter().any(u8::is_ascii_digit);
                let marks = (run.len() <= 128).then_some(Marks { joints, has_digit });
                runs.push((run, marks));
            }
        }
    }
    seen.windows = windows(text, places.start..last, shapes, deep);
    [seen, may]
}

/// The same of windows.
fn windows(
    text: &[u8],
    places: Range<usize>,
    shapes: &ShapeSet,
    deep: bool,
) -> BTreeSet<(Alphabet, usize, usize)> {
    let all = [Stretch::Run, Stretch::WideRun].map(|stretch| shapes.groups(stretch)).concat();
    let mut told = BTreeSet::new();
    for (alphabet, lengths) in all {
        let letters = alphabet.letters();
        let is_letter =
            |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(|b| letters.holds(*b));
        for (start, length) in places.clone().flat_map(|at| lengths.iter().map(move |l| (at, l))) {
            let end = start + length.bytes;
            let Some(window) = text.get(start..end).filter(|w| w.len() <= WINDOW_MAX) else {
                continue;
            };
            let has_edge = deep || !is_letter(start.checked_sub(1)) || !is_letter(Some(end));
            let is_narrower = alphabet
                .narrower()
                .is_some_and(|narrower| window.iter().all(|byte| narrower.holds(*byte)));
            let strong = window.iter().filter(|byte| is_strong(**byte)).count();
            if window.iter().all(|byte| alphabet.holds(*byte))
                && has_edge
                && !is_narrower
                && strong >= length.strong as usize
            {
                told.insert((alphabet, start, end));
            }
        }
    }
    told
}

/// Shapes of all alphabets that lie in runs, none shorter than the runs that are asked for; some too
/// long to be told.
fn shapes(lengths: Lengths) -> ShapeSet {
    let all = Alphabet::ALL.into_iter().filter(|alphabet| *alphabet != Alphabet::Graphic);
    let shapes = all.zip(0u32..).flat_map(|(alphabet, strong)| {
        let least = lengths[usize::from(alphabet.stretch() == Stretch::WideRun)];
        let more = strong as usize;
        let least = least.unwrap_or(WINDOW_MAX + 1).max(KEY_MIN + more);
        [0, 1, 5, 9 + more, 64 - least.min(64), 70]
            .map(|more| (Shape { alphabet, len: least + more }, strong * 2))
    });
    ShapeSet::of_strong(shapes)
}

type Each = fn(&[u8], Range<usize>, Tables<'_>, Lengths, &mut Told) -> u64;

/// Every implementation this machine can run. The first one lets nothing pass that it need not.
fn all() -> Vec<(&'static str, Each)> {
    let mut all: Vec<(&'static str, Each)> = vec![("portable", portable_blocks), ("chosen", each)];
    #[cfg(target_arch = "x86_64")]
    {
        if std::arch::is_x86_feature_detected!("ssse3") {
            #[expect(unsafe_code, reason = "the feature was detected")]
            all.push(("ssse3", |text, places, tables, wanted, seen| {
                // SAFETY: the processor has SSSE3, as was just asked.
                unsafe { x86::each_ssse3(text, places, tables, wanted, seen) }
            }));
        }
        if has_avx2() {
            #[expect(unsafe_code, reason = "the features were detected")]
            all.push(("avx2", |text, places, tables, wanted, seen| {
                // SAFETY: the processor has AVX2, BMI1, BMI2 and POPCNT, as was just asked.
                unsafe { x86::each_avx2(text, places, tables, wanted, seen) }
            }));
        }
        if has_avx512() {
            #[expect(unsafe_code, reason = "the features were detected")]
            all.push(("avx512", |text, places, tables, wanted, seen| {
                // SAFETY: the processor has AVX-512 BW, VBMI and VBMI2 and what comes with AVX2, as was
                // just asked.
                unsafe { x86::each_avx512(text, places, tables, wanted, seen) }
            }));
        }
    }
    all
}

/// Whether one list holds the other; both ascend.
fn holds(one: &[usize], other: &[usize]) -> bool {
    other.iter().all(|at| one.binary_search(at).is_ok())
}

fn check(text: &[u8], places: Range<usize>, wanted: (Lengths, Lengths)) {
    let classes = Classes::new(is_run_byte, is_wide_byte);
    // Some prefixes, and any.
    let any = |set| Sets::tables([(&[u128::MAX; FIRST], set)].into_iter());
    let shapes = shapes(wanted.0);
    let any_begun = Firsts::new(any(0), [0; TABLES]);
    let anywhere = Firsts::new(any(SETS), [0, 1, 0]);
    for (firsts, deep) in [(firsts(), false), (any_begun, false), (anywhere, true)] {
        let needles = needles();
        let [expected, may] =
            naive(text, places.clone(), (&firsts, &needles), (&shapes, deep), wanted);
        let stretches = [Some(Stretch::Run), Some(Stretch::WideRun)];
        let windows = Windows::of(&shapes, stretches, deep);
        let tables = Tables { classes: &classes, firsts: &firsts, needles: &needles, windows };
        for (name, each) in all() {
            let mut seen = Told { whole: wanted.1, ..Told::default() };
            seen.newlines = each(text, places.clone(), tables, wanted.0, &mut seen);
            let what = || format!("{name}, {} bytes, {places:?}, {wanted:?}", text.len());
            for (told, exact, loose) in [
                (&mut seen.starts, &expected.starts, &may.starts),
                (&mut seen.needles, &expected.needles, &may.needles),
            ] {
                assert!(holds(told, exact), "{}: {told:?}, not all of {exact:?}", what());
                assert!(holds(loose, told), "{}: {told:?}, more than {loose:?}", what());
                assert!(name != "portable" || told == exact, "{}", what());
                told.clone_from(exact);
            }
            assert_eq!(seen, expected, "{}", what());
        }
    }
}

fn both(length: usize) -> (Lengths, Lengths) {
    ([Some(length); 2], [Some(length); 2])
}

#[test]
fn every_byte_is_classed_as_it_should() {
    for byte in 0..=u8::MAX {
        check(&[byte], 0..1, both(1));
        check(&[byte; 200], 0..200, both(17));
    }
    let classes = Classes::new(|b| b.is_ascii_graphic(), |b| b.is_ascii_graphic());
    for byte in 0..=u8::MAX {
        let both = classes.bits(byte) & (NARROW | WIDE);
        assert_eq!(both, if byte.is_ascii_graphic() { NARROW | WIDE } else { 0 });
    }
}

#[test]
fn every_length_and_every_alignment() {
    let text: Vec<u8> = (0..400u32)
        .map(|at| {
            if at % 53 == 52 {
                b' '
            } else if at % 31 == 30 {
                b'/'
            } else if at % 67 == 66 {
                b'\n'
            } else {
                b'k'
            }
        })
        .collect();
    for length in 0..=320 {
        for start in 0..64.min(length + 1) {
            check(&text[..length], start..length, both(20));
        }
    }
    for wanted in 1..=LENGTH_MAX {
        check(&text, 0..text.len(), both(wanted));
        check(&[b'k'; 300], 7..300, both(wanted));
        check(&text, 0..text.len(), ([None, Some(wanted)], [None, Some(wanted + 9)]));
    }
}

/// Blocks are looked at 64 at a time, and windows in eight blocks, which may lie in several of these.
#[test]
fn over_the_borders_of_batches() {
    let pieces = ["kM8", "2b", "A-", "abc_", "9f.", "0a1b2c3d4e5f", "z0Z1y2Y3x4X5", "/", " ", "\n"];
    let mut state = 1u32;
    for spaces in [0, 40, 400] {
        let mut text = String::new();
        while text.len() < 3 * 4096 {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let piece = pieces[(state >> 16) as usize % pieces.len()];
            text.push_str(piece);
            text.push_str(&" ".repeat(if state >> 28 == 0 { spaces } else { 0 }));
        }
        check(text.as_bytes(), 3..text.len(), both(20));
    }
}

proptest::proptest! {
    #[test]
    fn the_same_as_looking_at_every_byte(
        parts in proptest::collection::vec(("[abckmnxyzMN27_.+]{0,90}", "[ =%\\\\\\n\u{e9}]{0,3}"), 0..12),
        from in 0usize..20,
        upto in 0usize..400,
        lengths in (1usize..=LENGTH_MAX, 1usize..=LENGTH_MAX),
        whole in proptest::option::of(0usize..90),
    ) {
        let text: String = parts.iter().map(|(run, gap)| format!("{run}{gap}")).collect();
        let upto = upto.min(text.len());
        let lengths = [lengths.0, lengths.1].map(Some);
        let wholes = lengths.map(|length| whole.max(length).filter(|_| whole.is_some()));
        check(text.as_bytes(), from.min(upto)..upto, (lengths, wholes));
    }

    #[test]
    fn on_text_of_keys(
        parts in proptest::collection::vec(("[0-9a-fA-F]{0,40}|[0-9a-zA-Z]{0,70}|[a-z]{20,30}", "[-_.+/=]|[ \n\u{e9}]?"), 0..9),
        from in 0usize..70,
        lengths in (1usize..=LENGTH_MAX, 1usize..=LENGTH_MAX),
    ) {
        let text: String = parts.iter().map(|(run, gap)| format!("{run}{gap}")).collect();
        let lengths = [lengths.0, lengths.1].map(Some);
        check(text.as_bytes(), from.min(text.len())..text.len(), (lengths, [None; 2]));
    }

    #[test]
    fn on_random_bytes(bytes in proptest::collection::vec(0u8..=255, 0..400), length in 1usize..8) {
        check(&bytes, 0..bytes.len(), both(length));
    }
}
