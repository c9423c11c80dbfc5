//! What can be read off the syntax tree of a pattern. The build script compiles this file too.

use regex_syntax::hir::{Class, Hir, HirKind};

/// The largest product of counts that stand within each other, where a text can be counted in more
/// than one way: so many states a search may have to follow at once.
pub(super) fn nested(hir: &Hir) -> u32 {
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 1,
        HirKind::Capture(capture) => nested(&capture.sub),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(nested).max().unwrap_or(1)
        }
        HirKind::Repetition(repetition) => {
            let inner = nested(&repetition.sub);
            let properties = repetition.sub.properties();
            let (shortest, longest) = (properties.minimum_len(), properties.maximum_len());
            let once = repetition.max.is_some_and(|most| most <= 1);
            if once || shortest == longest || is_separated(&repetition.sub) {
                return inner;
            }
            let longest = longest.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(u32::MAX);
            repetition.max.unwrap_or(u32::MAX).saturating_mul(inner.max(longest))
        }
    }
}

/// About how many ways to match a text a search may have to follow at once: where a byte does not
/// tell whether a part of variable length goes on or the next one has begun, each length of it is one,
/// but not more than there are places behind it.
pub(super) fn ways(hir: &Hir) -> u32 {
    let longest = |hir: &Hir| hir.properties().maximum_len().unwrap_or(usize::MAX);
    let spread =
        |hir: &Hir| longest(hir).saturating_sub(hir.properties().minimum_len().unwrap_or_default());
    match hir.kind() {
        HirKind::Empty | HirKind::Literal(_) | HirKind::Class(_) | HirKind::Look(_) => 1,
        HirKind::Capture(capture) => ways(&capture.sub),
        HirKind::Repetition(repetition) => ways(&repetition.sub),
        HirKind::Alternation(parts) => {
            parts.iter().map(ways).fold(0, |all, part| all.saturating_add(part))
        }
        HirKind::Concat(parts) => {
            let mut rest = parts.as_slice();
            let (mut widest, mut unclear) = (1, 0u32);
            while let Some((part, after)) = rest.split_first() {
                widest = widest.max(ways(part));
                // What may follow: up to the first part that cannot be empty.
                let last = after.iter().position(|next| next.properties().minimum_len() > Some(0));
                let next = after.get(..last.map_or(after.len(), |last| last + 1));
                let follows =
                    |byte| next.unwrap_or_default().iter().any(|part| may_begin_with(part, byte));
                if (0..=u8::MAX).any(|byte| may_hold(part, byte) && follows(byte)) {
                    let behind = after.iter().map(longest).fold(0, usize::saturating_add);
                    let count = u32::try_from(spread(part).min(behind)).unwrap_or(u32::MAX);
                    unclear = unclear.saturating_add(count);
                }
                rest = after;
            }
            widest.saturating_add(unclear)
        }
    }
}

/// Whether a part of each repetition holds a byte that no other part can: it tells where one ends.
fn is_separated(hir: &Hir) -> bool {
    let parts = match hir.kind() {
        HirKind::Capture(capture) => return is_separated(&capture.sub),
        HirKind::Alternation(parts) => return is_code(parts),
        HirKind::Concat(parts) => parts,
        _ => return false,
    };
    parts.iter().enumerate().any(|(at, part)| {
        let others = || parts.iter().enumerate().filter(|(other, _)| *other != at);
        // One that repeats must have something else between its last and its next.
        let repeats = matches!(part.kind(), HirKind::Repetition(part) if part.max != Some(1));
        let between = others().any(|(_, other)| other.properties().minimum_len() > Some(0));
        (!repeats || between)
            && has_foreign(part, &|byte| others().any(|(_, other)| may_hold(other, byte)))
    })
}

/// Whether the first byte tells which of the alternatives it is, and so how long it is.
fn is_code(parts: &[Hir]) -> bool {
    let fixed = |part: &Hir| {
        let properties = part.properties();
        properties.minimum_len() > Some(0) && properties.minimum_len() == properties.maximum_len()
    };
    parts.iter().all(fixed)
        && (0..=u8::MAX)
            .all(|byte| parts.iter().filter(|part| may_begin_with(part, byte)).count() <= 1)
}

/// Whether some match begins with the byte; of what may be empty, no is not said.
fn may_begin_with(hir: &Hir, byte: u8) -> bool {
    match hir.kind() {
        HirKind::Literal(literal) => literal.0.first() == Some(&byte),
        HirKind::Capture(capture) => may_begin_with(&capture.sub, byte),
        HirKind::Concat(parts) => parts.first().is_none_or(|part| may_begin_with(part, byte)),
        HirKind::Alternation(parts) => parts.iter().any(|part| may_begin_with(part, byte)),
        HirKind::Repetition(repetition) if repetition.min > 0 => {
            may_begin_with(&repetition.sub, byte)
        }
        HirKind::Class(_) => may_hold(hir, byte),
        HirKind::Empty | HirKind::Look(_) | HirKind::Repetition(_) => true,
    }
}

/// Whether every match holds a byte that is none of `known`.
fn has_foreign(hir: &Hir, known: &dyn Fn(u8) -> bool) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.iter().any(|byte| !known(*byte)),
        HirKind::Class(_) => (0..=u8::MAX).all(|byte| !may_hold(hir, byte) || !known(byte)),
        HirKind::Repetition(repetition) => {
            repetition.min > 0 && has_foreign(&repetition.sub, known)
        }
        HirKind::Capture(capture) => has_foreign(&capture.sub, known),
        HirKind::Concat(parts) => parts.iter().any(|part| has_foreign(part, known)),
        HirKind::Alternation(parts) => parts.iter().all(|part| has_foreign(part, known)),
    }
}

/// Whether some match holds the byte.
pub(super) fn may_hold(hir: &Hir, byte: u8) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => false,
        HirKind::Literal(literal) => literal.0.contains(&byte),
        HirKind::Class(Class::Bytes(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&byte))
        }
        HirKind::Class(Class::Unicode(class)) => {
            class.iter().any(|range| (range.start()..=range.end()).contains(&char::from(byte)))
        }
        HirKind::Repetition(repetition) => may_hold(&repetition.sub, byte),
        HirKind::Capture(capture) => may_hold(&capture.sub, byte),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().any(|part| may_hold(part, byte))
        }
    }
}

/// Whether matches hold no other bytes.
pub(super) fn all_bytes(hir: &Hir, wanted: fn(u8) -> bool) -> bool {
    hir.properties().look_set().is_empty()
        && (0..=u8::MAX).all(|byte| wanted(byte) || !may_hold(hir, byte))
}
