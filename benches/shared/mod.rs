//! What several benchmarks do.

use leakwarden::matcher::{Matcher, Scanner};
use leakwarden::shape::{Known, NoKeys};

/// Scans a text as a file is scanned, without registered keys.
///
/// Tells how many findings there are.
pub(crate) fn scan(matcher: &Matcher, text: &[u8]) -> usize {
    scan_for(matcher, &NoKeys, text)
}

/// The same with registered keys.
pub(crate) fn scan_for(matcher: &Matcher, known: &dyn Known, text: &[u8]) -> usize {
    let mut found = 0;
    let mut scanner = Scanner::new();
    let mut rest = text;
    while !rest.is_empty() {
        let space = scanner.space();
        let (now, later) = rest.split_at(space.len().min(rest.len()));
        space.iter_mut().zip(now).for_each(|(to, from)| *to = *from);
        scanner.filled(now.len(), matcher, known, &mut |_| found += 1);
        rest = later;
    }
    scanner.finish(matcher, known, &mut |_| found += 1);
    found
}
