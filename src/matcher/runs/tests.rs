use super::*;
use crate::rule::{is_run_byte, is_wide_byte};

/// Places from which a run goes on, and runs: what [`Found`] is told.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    /// What is asked for as a whole, and where it was told to be.
    whole: Lengths,
    within: Range<usize>,
    starts: Vec<usize>,
    narrow: Vec<(Range<usize>, Option<Marks>)>,
    wide: Vec<(Range<usize>, Option<Marks>)>,
}

impl Found for Seen {
    fn starts(&mut self, at: usize, bits: u64) {
        assert_ne!(bits, 0);
        self.starts.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| at + bit));
    }
    fn whole(&mut self, places: Range<usize>, blocks: usize) -> Lengths {
        assert!((1..=blocks::BATCH).contains(&blocks));
        assert!(places.start >= self.within.start, "{places:?} after {:?}", self.within);
        self.within = places;
        self.whole
    }
    fn run(&mut self, width: Width, run: Range<usize>, marks: Option<Marks>) {
        assert!(self.within.start <= run.start && run.end <= self.within.end, "{run:?}");
        let runs = if width == Width::Narrow { &mut self.narrow } else { &mut self.wide };
        runs.push((run, marks));
    }
}

/// `ab`, `abc_` and `k+`, which count where a word begins, and `xyz.`, which counts anywhere.
fn firsts() -> Firsts {
    let mut firsts = Firsts::new();
    for (table, set, prefix) in [(1, 0, "ab"), (1, 0, "abc_"), (1, 3, "k+"), (0, 7, "xyz.")] {
        for at in 0..FIRST {
            let bytes = match prefix.as_bytes().get(at) {
                Some(byte) => *byte..=*byte,
                None => 0..=127,
            };
            for byte in bytes {
                firsts.tables[table][at].low[usize::from(byte & 15)] |= 1 << set;
                firsts.tables[table][at].high[usize::from(byte >> 4)] |= 1 << set;
            }
        }
    }
    firsts
}

/// By which sets of a table a place passes.
fn sets(text: &[u8], at: usize, table: &Sets) -> u8 {
    let sets = table.iter().enumerate().map(|(position, halves)| {
        let byte = text.get(at + position).copied().unwrap_or_default();
        halves.low[usize::from(byte & 15)] & halves.high[usize::from(byte >> 4)]
    });
    sets.fold(u8::MAX, |all, sets| all & sets)
}

/// Whether a word may begin there: this one may say yes too often.
fn begins(text: &[u8], at: usize) -> bool {
    let escape =
        |back: usize| at.checked_sub(back).is_some_and(|at| matches!(text[at], b'\\' | b'%'));
    at == 0 || !word_bytes(text[at - 1]) || (2..=6).any(escape)
}

/// Whether a place passes.
fn passes(text: &[u8], at: usize, firsts: &Firsts) -> bool {
    let [anywhere, begun] = firsts.tables.each_ref().map(|table| sets(text, at, table) != 0);
    anywhere || begun && begins(text, at)
}

/// A byte at a time.
fn naive(
    text: &[u8],
    places: Range<usize>,
    firsts: &Firsts,
    (lengths, whole): (Lengths, Lengths),
) -> Seen {
    let mut seen = Seen { whole, ..Seen::default() };
    let classes: [fn(u8) -> bool; 2] = [is_run_byte, is_wide_byte];
    let after =
        |at: usize, class: usize| text[at..].iter().take_while(|b| classes[class](**b)).count();
    // Whole blocks are looked at: up to 63 places more may be told.
    let last = (places.start + places.len().div_ceil(BLOCK) * BLOCK).min(text.len());
    for at in places.start..last {
        let long = |class: usize| lengths[class].is_some_and(|length| after(at, class) >= length);
        if (long(0) || long(1)) && passes(text, at, firsts) {
            seen.starts.push(at);
        }
        for class in 0..2 {
            let begins = at == places.start || !classes[class](text[at - 1]);
            let told = whole[class].is_some_and(|whole| after(at, class) >= whole);
            if told && long(class) && begins {
                let runs = if class == 0 { &mut seen.narrow } else { &mut seen.wide };
                let run = at..at + after(at, class);
                let joints = text[run.clone()].iter().rev().fold(0u128, |joints, byte| {
                    joints.wrapping_shl(1) | u128::from(!byte.is_ascii_alphanumeric())
                });
                let has_digit = text[run.clone()].iter().any(u8::is_ascii_digit);
                let marks = Marks { joints, has_digit };
                runs.push((run.clone(), (run.len() <= 128).then_some(marks)));
            }
        }
    }
    seen
}

type Each = fn(&[u8], Range<usize>, (&Classes, &Firsts), Lengths, &mut Seen);

/// Every implementation this machine can run.
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
        if has_avx2() && std::arch::is_x86_feature_detected!("avx512bw") {
            #[expect(unsafe_code, reason = "the features were detected")]
            all.push(("avx512", |text, places, tables, wanted, seen| {
                // SAFETY: the processor has AVX-512 BW, AVX2, BMI1 and BMI2, as was just asked.
                unsafe { x86::each_avx512(text, places, tables, wanted, seen) }
            }));
        }
        if has_avx2() {
            #[expect(unsafe_code, reason = "the features were detected")]
            all.push(("avx2", |text, places, tables, wanted, seen| {
                // SAFETY: the processor has AVX2, BMI1 and BMI2, as was just asked.
                unsafe { x86::each_avx2(text, places, tables, wanted, seen) }
            }));
        }
    }
    all
}

fn check(text: &[u8], places: Range<usize>, wanted: (Lengths, Lengths)) {
    let classes = Classes::new(is_run_byte, is_wide_byte);
    let mut firsts_alone = Vec::new();
    each_first(text, places.clone(), &firsts(), &mut |at, bits| {
        firsts_alone.extend((0..64).filter(|bit| bits >> bit & 1 == 1).map(|bit| at + bit));
    });
    let firsts_here = |at: &usize| firsts().tables.iter().any(|table| sets(text, *at, table) != 0);
    let expected: Vec<usize> = places.clone().filter(firsts_here).collect();
    assert_eq!(firsts_alone, expected);
    // Some prefixes, and any.
    let ascii = std::array::from_fn(|half| u8::from(half < 8));
    let any = [Halves { low: [1; 16], high: ascii }; FIRST];
    let with = |tables| Firsts { tables, ..Firsts::new() };
    for firsts in [firsts(), with([Sets::default(), any]), with([any, Sets::default()])] {
        let expected = naive(text, places.clone(), &firsts, wanted);
        for (name, each) in all() {
            let mut seen = Seen { whole: wanted.1, ..Seen::default() };
            each(text, places.clone(), (&classes, &firsts), wanted.0, &mut seen);
            seen.within = expected.within.clone();
            assert_eq!(seen, expected, "{name}, {} bytes, {places:?}, {wanted:?}", text.len());
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
        assert_eq!(classes.bits(byte), if byte.is_ascii_graphic() { 3 } else { 0 });
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

#[test]
fn newlines_are_counted() {
    let text: Vec<u8> = (0..700u32).map(|at| if at * at % 7 == 1 { b'\n' } else { 0x8a }).collect();
    for start in 0..65 {
        for end in start..text.len() {
            let expected = text[start..end].iter().filter(|byte| **byte == b'\n').count() as u64;
            assert_eq!(newlines(&text[start..end]), expected);
        }
    }
}

proptest::proptest! {
    #[test]
    fn the_same_as_looking_at_every_byte(
        parts in proptest::collection::vec(("[abckmnxyz27_.+]{0,90}", "[ =%\\\\\\n\u{e9}]{0,3}"), 0..12),
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
    fn on_random_bytes(bytes in proptest::collection::vec(0u8..=255, 0..400), length in 1usize..8) {
        check(&bytes, 0..bytes.len(), both(length));
    }
}
