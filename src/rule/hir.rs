//! What can be read off the syntax tree of a pattern. The build script compiles this file too.

use regex_syntax::hir::{Class, Hir, HirKind};

/// The syntax tree of a pattern over bytes.
pub(super) fn parse(pattern: &str) -> Result<Hir, Box<regex_syntax::Error>> {
    let mut parser = regex_syntax::ParserBuilder::new();
    parser.unicode(false).utf8(false).build().parse(pattern).map_err(Box::new)
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
