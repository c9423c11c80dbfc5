//! One text: what the run finder tells of it, and what becomes of that.

use std::ops::Range;

use super::announced::{Member, Place, Places, Run, STRETCH_MAX, Stretches, Word};
use super::memories::Memories;
use super::runs::{self, Lengths, Marks, Tables, WINDOW_MAX, Width, Windows};
use super::sought::Needle;
use super::windows;
use super::{Before, Hit, Matcher};
use crate::rule::{Confidence, MATCH_MAX, Rule};
use crate::shape::{Alphabet, Alphabets, Known, Stretch, is_uuid};

/// So many windows are looked up together.
const MANY_WINDOWS: usize = 64;
/// Bytes between two parts of a text that are looked at as one.
const CLOSE: usize = 256;

/// One call of [`Matcher::find`].
pub(super) struct Search<'a> {
    matcher: &'a Matcher,
    text: &'a [u8],
    starts: Range<usize>,
    known: &'a dyn Known,
    out: &'a mut Vec<Hit>,
    /// How many hits there were before.
    earlier: usize,
    stretches: Stretches<'a>,
    /// What may be a registered key, to be looked up.
    windows: Vec<Range<usize>>,
    /// Where words and ids stand that announce keys.
    signs: Vec<Place>,
    /// The same, when all are known.
    places: Places,
    /// By byte of [`Automata::before`]: up to where lines were searched before it.
    before: Vec<usize>,
    memories: Memories,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        matcher: &'a Matcher,
        text: &'a [u8],
        starts: Range<usize>,
        known: &'a dyn Known,
        out: &'a mut Vec<Hit>,
    ) -> Self {
        Self {
            matcher,
            text,
            starts,
            known,
            earlier: out.len(),
            out,
            stretches: Vec::new(),
            windows: Vec::new(),
            signs: Vec::new(),
            places: Places::default(),
            before: Vec::new(),
            memories: Memories::default(),
        }
    }

    /// Looks for all there is. Answers how many newlines lie within `starts`.
    pub(super) fn all(&mut self) -> u64 {
        let (automata, shapes) = (&*self.matcher.automata, &self.matcher.shapes);
        let text = self.text;
        // What begins before `starts` begins in its first byte's run, if it matters at all; words
        // that announce keys may stand before that.
        let reach = automata.announced.reach;
        let first = self.starts.start.saturating_sub(reach.before.max(1));
        let behind = automata.offset.max(reach.after + STRETCH_MAX);
        let last = text.len().min(self.starts.end + behind);
        let wanted = |rules: Option<usize>, stretch| {
            let all = rules.into_iter().chain(shapes.shortest(stretch, 0));
            all.min().map(|length| length.min(runs::LENGTH_MAX))
        };
        let lengths =
            [wanted(automata.narrow, Stretch::Run), wanted(automata.wide, Stretch::WideRun)];
        let tables = Tables {
            classes: &automata.classes,
            firsts: &automata.prefixes.firsts,
            needles: &automata.needles.tables,
            windows: self.windows_in([Some(Stretch::Run), Some(Stretch::WideRun)]),
        };
        self.before = vec![first; automata.before.len()];
        let newlines = runs::each(text, first..last, tables, lengths, self);
        let seen = text.len().min(runs::behind(first..last));
        // A byte behind all starts may belong to a match that starts before.
        for Before { byte, .. } in &automata.before {
            for at in memchr::memchr_iter(*byte, text.get(seen..).unwrap_or_default()) {
                self.before(*byte, seen + at);
            }
        }
        self.announced(tables);
        let words = [wanted(None, Stretch::Word), None];
        if words != [None; 2] {
            let tables = Tables {
                classes: &automata.words,
                needles: &Default::default(),
                windows: self.windows_in([Some(Stretch::Word), None]),
                ..tables
            };
            runs::each(text, first..last, tables, words, &mut Words(self));
        }
        self.look_up();
        self.distrust();
        let others = [first..self.starts.start, self.starts.end..seen];
        newlines - others.map(|part| newlines_in(text, part)).iter().sum::<u64>()
    }

    /// Checks one rule at one literal, at each of its offsets: which of them lie within `starts`
    /// must make no difference to the others.
    fn check(&mut self, literal: usize, index: usize) {
        let Some(rule) = self.matcher.rules.rule(index) else { return };
        for (offset, &bytes) in rule.offsets.iter().enumerate() {
            let start = literal.checked_sub(bytes).filter(|start| self.starts.contains(start));
            let Some(start) = start else { continue };
            let Some(memory) = self.memories.of((index, rule), offset) else { continue };
            if let Some(span) = rule.next_match_at(self.text, start, memory) {
                self.take(span, (index, rule), offset);
            }
        }
    }

    /// Takes a match of a rule.
    fn take(&mut self, span: Range<usize>, (index, rule): (usize, &Rule), offset: usize) {
        let Some(memory) = self.memories.of((index, rule), offset) else { return };
        // What no key is as long as need not be hashed.
        let known = self.matcher.shapes.has_length(span.len())
            && self.known.knows(self.text.get(span.clone()).unwrap_or_default());
        let confidence = rule.assess(self.text, &span, memory);
        self.out.push(Hit { span, rule: Some(index), confidence, known });
    }

    /// Checks a rule without a literal where one of its matches may begin.
    fn check_announced(&mut self, start: usize, member: &Member, places: &Places) {
        let Some(rule) = self.matcher.rules.rule(member.rule) else { return };
        if !self.starts.contains(&start) {
            return;
        }
        let Some(memory) = self.memories.of((member.rule, rule), 0) else { return };
        let Some(span) = rule.next_match_at(self.text, start, memory) else { return };
        if member.is_near(rule.near(self.text, &span), places) {
            self.take(span, (member.rule, rule), 0);
        }
    }

    /// Looks for literals before a byte of [`Automata::before`], in its line: every literal whose
    /// match can hold the byte stands before the first one that follows it.
    fn before(&mut self, byte: u8, at: usize) {
        let (all, text) = (&self.matcher.automata.before, self.text);
        let sought = all.iter().zip(&mut self.before).find(|(before, _)| before.byte == byte);
        let Some((before, done)) = sought else { return };
        let last = at.checked_sub(1).and_then(|last| text.get(last));
        if !last.is_some_and(|last| before.counts_behind(*last)) {
            return;
        }
        let from = (*done).max(at.saturating_sub(MATCH_MAX)).min(at);
        *done = at;
        // None holds the byte, so that none begins before the last one.
        if at - from < before.shortest {
            return;
        }
        let line = text.get(from..at).and_then(|part| memchr::memrchr(b'\n', part));
        let from = line.map_or(from, |newline| from + newline + 1);
        before.literals.each(text, from..at, &mut |at, index, prefix| {
            // Of what was looked for by a shared needle, no more than that is known to stand there.
            let rule = self.matcher.rules.rule(index);
            let prefix = rule.and_then(|rule| rule.prefixes.get(prefix));
            let rest = text.get(at..).unwrap_or_default();
            if prefix.is_some_and(|prefix| rest.starts_with(prefix.as_bytes())) {
                self.check(at, index);
            }
        });
    }

    /// Remembers a word that announces keys; of the beginning of an id, whether it is one.
    fn word(&mut self, word: usize, start: usize) {
        match self.matcher.automata.announced.word(word) {
            None => {}
            Some(Word::Keyword { sign, length }) => {
                self.signs.push(Place { sign: *sign, start, end: start + length });
            }
            Some(Word::Ids(ids)) => {
                for (sign, index) in ids {
                    let Some(rule) = self.matcher.rules.rule(*index) else { continue };
                    for (offset, bytes) in rule.offsets.iter().enumerate() {
                        let Some(start) = start.checked_sub(*bytes) else { continue };
                        let Some(memory) = self.memories.of((*index, rule), offset) else {
                            continue;
                        };
                        let id = rule.next_match_at(self.text, start, memory);
                        let place = |id: Range<usize>| Place { sign: *sign, start, end: id.end };
                        self.signs.extend(id.map(place));
                    }
                }
            }
        }
    }

    /// Looks for keys near the words that announce them.
    fn announced(&mut self, tables: Tables<'_>) {
        if self.signs.is_empty() {
            return;
        }
        let announced = &self.matcher.automata.announced;
        self.places = Places::of(std::mem::take(&mut self.signs));
        let clipped = |place: &Place| {
            let near = announced.starts(place);
            near.start.max(self.starts.start.saturating_sub(1))..near.end.min(self.starts.end)
        };
        let mut near: Vec<Range<usize>> = self.places.all().iter().map(clipped).collect();
        near.retain(|places| !places.is_empty());
        near.sort_unstable_by_key(|places| places.start);
        near.dedup_by(|next, before| {
            // Each part is begun with anew: what lies close together is one.
            let close = next.start <= before.end + CLOSE;
            if close {
                before.end = before.end.max(next.end);
            }
            close
        });
        let shortest = |width| announced.shortest(width).map(|least| least.min(runs::LENGTH_MAX));
        let lengths = [shortest(Width::Narrow), shortest(Width::Wide)];
        let tables = Tables { needles: &Default::default(), windows: Windows::NONE, ..tables };
        for places in near {
            // What goes on for longer is too long for a match: that it seems to end makes none of it.
            let end = self.text.len().min(places.end + STRETCH_MAX);
            let text = self.text.get(..end).unwrap_or_default();
            runs::each(text, places, tables, lengths, &mut Near(self));
        }
    }

    /// Windows that may be registered keys, by class of what they lie in.
    fn windows_in(&self, stretches: [Option<Stretch>; 2]) -> Windows<'a> {
        Windows::of(&self.matcher.shapes, stretches, self.matcher.deep)
    }

    /// By class, the shortest registered key of more than [`WINDOW_MAX`] bytes in such stretches.
    fn long_in(&self, stretches: [Option<Stretch>; 2]) -> Lengths {
        let shapes = &self.matcher.shapes;
        stretches.map(|stretch| shapes.shortest(stretch?, WINDOW_MAX + 1))
    }

    /// Looks for keys of more than [`WINDOW_MAX`] bytes in a run.
    fn long(&mut self, stretch: Stretch, run: &Range<usize>) {
        let matcher = self.matcher;
        let alphabets = Alphabets::of(self.text.get(run.clone()).unwrap_or_default());
        let groups = matcher.shapes.groups(stretch).iter();
        for (alphabet, lengths) in groups.filter(|(alphabet, _)| alphabets.leave(*alphabet)) {
            let short = lengths.partition_point(|length| length.bytes <= WINDOW_MAX);
            let lengths = lengths.get(short..).unwrap_or_default();
            windows::each(self.text, run.clone(), (*alphabet, lengths), matcher.deep, |window| {
                self.window(*alphabet, window);
            });
        }
    }

    /// Takes a window that may be a registered key.
    #[inline]
    fn window(&mut self, alphabet: Alphabet, window: Range<usize>) {
        let is_one = || {
            let bytes = self.text.get(window.clone()).unwrap_or_default();
            alphabet != Alphabet::Uuid || is_uuid(bytes)
        };
        if self.starts.contains(&window.start) && is_one() {
            self.windows.push(window);
            // A long run may have any number of them.
            if self.windows.len() >= MANY_WINDOWS {
                self.look_up();
            }
        }
    }

    /// Lowers what is but the beginning of a longer match whose check digits are wrong.
    fn distrust(&mut self) {
        let rules = &*self.matcher.rules;
        let has_digits = |hit: &Hit| {
            hit.rule.and_then(|rule| rules.rule(rule)).is_some_and(|rule| rule.checksum.is_some())
        };
        let hits = self.out.get_mut(self.earlier..).unwrap_or_default();
        let wrong = hits.iter().filter(|hit| hit.confidence == Confidence::Low && has_digits(hit));
        let mut wrong: Vec<(usize, usize)> =
            wrong.map(|hit| (hit.span.start, hit.span.end)).collect();
        if wrong.is_empty() {
            return;
        }
        wrong.sort_unstable();
        // The longest of those that begin there.
        let end = |start: usize| {
            let behind = wrong.partition_point(|(other, _)| *other <= start);
            let (other, end) = *wrong.get(behind.checked_sub(1)?)?;
            (other == start).then_some(end)
        };
        for hit in hits.iter_mut().filter(|hit| hit.rule.is_some() && !has_digits(hit)) {
            if end(hit.span.start).is_some_and(|end| end > hit.span.end) {
                hit.confidence = Confidence::Low;
            }
        }
    }

    /// Asks for the windows that were found.
    #[inline(never)] // it would stand wherever windows are found, and these are hot
    fn look_up(&mut self) {
        let (windows, out) = (&self.windows, &mut self.out);
        self.known.which(self.text, windows, &mut |index| {
            out.extend(windows.get(index).map(|window| Hit {
                span: window.clone(),
                rule: None,
                confidence: Confidence::High,
                known: true,
            }));
        });
        self.windows.clear();
    }
}

impl runs::Found for Search<'_> {
    fn needles(&mut self, at: usize, bits: u64) {
        let (text, automata) = (self.text, &*self.matcher.automata);
        let mut rest = bits;
        while rest != 0 {
            let place = at + rest.trailing_zeros() as usize;
            rest &= rest - 1;
            automata.needles.each(text, place, &mut |what, start| match what {
                Needle::Literal(rule) => self.check(start, rule),
                Needle::Byte(byte) => self.before(byte, start),
                Needle::Word(word) => self.word(word, start),
            });
        }
    }

    fn starts(&mut self, at: usize, bits: u64) {
        let automata = &*self.matcher.automata;
        automata.prefixes.each(self.text, at, bits, &mut |literal, prefix| {
            for rule in automata.owners.get(prefix) {
                self.check(literal, *rule);
            }
        });
    }

    fn whole(&mut self) -> Lengths {
        self.long_in([Some(Stretch::Run), Some(Stretch::WideRun)])
    }

    fn run(&mut self, width: Width, run: Range<usize>, _marks: Option<Marks>) {
        let stretch = if width == Width::Narrow { Stretch::Run } else { Stretch::WideRun };
        self.long(stretch, &run);
    }

    fn window(&mut self, alphabet: Alphabet, window: Range<usize>) {
        Search::window(self, alphabet, window);
    }
}

/// Looks for keys that are announced.
struct Near<'a, 'b>(&'a mut Search<'b>);

impl runs::Found for Near<'_, '_> {
    fn needles(&mut self, _at: usize, _bits: u64) {}

    fn starts(&mut self, _at: usize, _bits: u64) {}

    fn whole(&mut self) -> Lengths {
        let announced = &self.0.matcher.automata.announced;
        [Width::Narrow, Width::Wide].map(|width| announced.shortest(width))
    }

    fn run(&mut self, width: Width, run: Range<usize>, marks: Option<Marks>) {
        let (text, announced) = (self.0.text, &self.0.matcher.automata.announced);
        let run = Run { span: run, marks };
        if !announced.may_hold(width, &run) {
            return;
        }
        let mut stretches = std::mem::take(&mut self.0.stretches);
        let places = std::mem::take(&mut self.0.places);
        announced.each(text, (width, &run), &places, &mut stretches, &mut |start, member| {
            self.0.check_announced(start, member, &places);
        });
        (self.0.stretches, self.0.places) = (stretches, places);
    }

    fn window(&mut self, _alphabet: Alphabet, _window: Range<usize>) {}
}

fn newlines_in(text: &[u8], part: Range<usize>) -> u64 {
    memchr::memchr_iter(b'\n', text.get(part).unwrap_or_default()).count() as u64
}

/// Words are looked into for registered keys alone.
struct Words<'a, 'b>(&'a mut Search<'b>);

impl runs::Found for Words<'_, '_> {
    fn needles(&mut self, _at: usize, _bits: u64) {}

    fn starts(&mut self, _at: usize, _bits: u64) {}

    fn whole(&mut self) -> Lengths {
        self.0.long_in([Some(Stretch::Word), None])
    }

    fn run(&mut self, _width: Width, run: Range<usize>, _marks: Option<Marks>) {
        self.0.long(Stretch::Word, &run);
    }

    fn window(&mut self, alphabet: Alphabet, window: Range<usize>) {
        self.0.window(alphabet, window);
    }
}
