//! Which log a file holds, told by its bytes: how it begins, what stands before the place up to which
//! the log was read, and, for a copy, the sum of all before.

use std::fs::File;
use std::io;

use super::{Followed, SLICE};
use crate::source::{CONTEXT_MAX, Head, Position, marker, reader};

/// The first bytes of a log that are summed: lines that are all the same begin and go on alike.
const SUM_MAX: u64 = SLICE;
/// How far the sum of a log may be behind; more is not made up for.
const BEHIND_MAX: u64 = 2 * SLICE;
const PART: usize = 256 * 1024;

pub(super) fn context_before(position: &Position) -> usize {
    usize::try_from(position.offset).unwrap_or(CONTEXT_MAX).min(CONTEXT_MAX)
}

/// Whether a file still holds what was read of it: an inode is used again, and a file that was cut
/// may have grown past the old end.
pub(super) fn holds(file: &File, followed: &Followed) -> io::Result<bool> {
    let Followed { position, head, .. } = followed;
    let context = context_before(position);
    let before = reader::read_at(file, position.offset - context as u64, context)?;
    // Nothing is before the first byte, and no marker needed.
    if before.len() < context || (context > 0 && marker(&before) != position.marker) {
        return Ok(false);
    }
    Ok(head.is_of(&reader::read_at(file, 0, usize::from(head.length))?))
}

/// Whether another file holds what was read of a log.
pub(super) fn is_copy(file: &File, followed: &Followed) -> io::Result<bool> {
    if !holds(file, followed)? {
        return Ok(false);
    }
    let mut head = Head::default();
    sum_to(file, &mut head, followed.head.summed)?;
    Ok((head.summed, head.sum) == (followed.head.summed, followed.head.sum))
}

/// How a file begins, if that is known better now.
pub(super) fn head_of(file: &File, known: Head) -> io::Result<Head> {
    if usize::from(known.length) == CONTEXT_MAX {
        return Ok(known);
    }
    let Head { summed, sum, .. } = known;
    Ok(Head { summed, sum, ..Head::of(&reader::read_at(file, 0, CONTEXT_MAX)?) })
}

/// Takes what was read since into the sum of a log.
pub(super) fn sum_up(file: &File, followed: &mut Followed) -> io::Result<()> {
    let Followed { position, head, .. } = followed;
    match position.offset.checked_sub(head.summed) {
        Some(behind) if behind <= BEHIND_MAX => sum_to(file, head, position.offset),
        // Nobody read what is before.
        _ => Ok(()),
    }
}

fn sum_to(file: &File, head: &mut Head, to: u64) -> io::Result<()> {
    let to = to.min(SUM_MAX);
    while head.summed < to {
        let length = usize::try_from(to - head.summed).unwrap_or(PART).min(PART);
        let part = reader::read_at(file, head.summed, length)?;
        if part.is_empty() {
            break;
        }
        add(head, &part);
    }
    Ok(())
}

/// Takes the next bytes of a log into its sum.
pub(super) fn add(head: &mut Head, bytes: &[u8]) {
    let room = usize::try_from(SUM_MAX.saturating_sub(head.summed)).unwrap_or(usize::MAX);
    let bytes = bytes.get(..room).unwrap_or(bytes);
    let mut sum = crc32fast::Hasher::new_with_initial(head.sum);
    sum.update(bytes);
    head.sum = sum.finalize();
    head.summed += bytes.len() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_the_same_however_it_was_made() {
        let bytes: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        let mut whole = Head::default();
        add(&mut whole, &bytes);
        let mut parts = Head::default();
        bytes.chunks(777).for_each(|part| add(&mut parts, part));
        assert_eq!(whole, parts);
        assert_eq!((whole.summed, whole.sum), (400_000, crc32fast::hash(&bytes)));
        add(&mut parts, &vec![0; 8 << 20]);
        assert_eq!(parts.summed, SUM_MAX);
    }
}
