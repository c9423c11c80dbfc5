//! Memory that text is read into. It is wiped when it is given back.

use zeroize::Zeroizing;

/// The kernel copies to addresses that are multiples of this several times as fast as to others.
const ALIGNMENT: usize = 64;

/// Text, and room behind it.
#[derive(Default)]
pub(super) struct Buffer {
    bytes: Zeroizing<Vec<u8>>,
    /// Where in the bytes the text lies.
    start: usize,
    end: usize,
}

impl Buffer {
    /// The text.
    pub(super) fn text(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn len(&self) -> usize {
        self.end - self.start
    }

    /// How much memory there is, in bytes.
    pub(super) fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Drops the text.
    pub(super) fn clear(&mut self) {
        self.drop_front(self.len());
    }

    /// Room for so many bytes behind the text: aligned after [`Self::drop_front`], if what was read
    /// into it since was.
    pub(super) fn space(&mut self, wanted: usize) -> &mut [u8] {
        if self.end + wanted > self.bytes.len() {
            let length = self.len();
            let mut more = vec![0; length + wanted + 2 * ALIGNMENT];
            let start = behind(&more, length);
            if let Some(to) = more.get_mut(start..start + length) {
                to.copy_from_slice(self.text());
            }
            self.bytes = Zeroizing::new(more);
            (self.start, self.end) = (start, start + length);
        }
        self.bytes.get_mut(self.end..self.end + wanted).unwrap_or_default()
    }

    /// So many bytes of the room were filled.
    pub(super) fn filled(&mut self, count: usize) {
        self.end = self.bytes.len().min(self.end + count);
    }

    /// Drops so many bytes at the start of the text.
    pub(super) fn drop_front(&mut self, count: usize) {
        let kept = self.start + count.min(self.len())..self.end;
        let start = behind(&self.bytes, kept.len());
        let end = start + kept.len();
        if end <= self.bytes.len() {
            self.bytes.copy_within(kept, start);
            (self.start, self.end) = (start, end);
        } else {
            self.start = kept.start;
        }
    }
}

/// Where a text of this length has to begin so that it ends at an aligned address.
fn behind(bytes: &[u8], length: usize) -> usize {
    let first = bytes.as_ptr().align_offset(ALIGNMENT);
    // A platform that cannot tell is as slow as without.
    let first = if first < ALIGNMENT { first } else { 0 };
    first + length.next_multiple_of(ALIGNMENT) - length
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn holds_what_was_put_in_and_reads_to_aligned_addresses(
            steps in proptest::collection::vec((0usize..300, 0usize..300, 0usize..400), 0..30),
        ) {
            let (mut buffer, mut model) = (Buffer::default(), Vec::new());
            let mut next = 0u8;
            for (wanted, filled, dropped) in steps {
                let filled = filled.min(wanted);
                let space = buffer.space(wanted);
                assert_eq!(space.len(), wanted);
                for byte in space.iter_mut().take(filled) {
                    next = next.wrapping_add(1);
                    *byte = next;
                    model.push(next);
                }
                buffer.filled(filled);
                assert_eq!((buffer.text(), buffer.len()), (model.as_slice(), model.len()));
                buffer.drop_front(dropped);
                model.drain(..dropped.min(model.len()));
                assert_eq!(buffer.text(), model.as_slice());
                assert_eq!(buffer.space(64).as_ptr().align_offset(ALIGNMENT), 0);
            }
        }
    }
}
