//! The bytes of an answer between server and client: they pass as they came, wait until it is known what becomes of
//! them, or are replaced before they pass.

use std::borrow::Cow;

/// The most that waits, in bytes, from any [`Mark`] on. An event with usage has 400, and the name of a model, of at most
/// [`MAX_MODEL_NAME_BYTES`](crate::openai::MAX_MODEL_NAME_BYTES), six times that when it is spelled with escapes.
pub(super) const MAX_HELD_BYTES: usize = 8 * 1024;

/// Room for what is put in place of something shorter, so that the copy need not grow: the model's name, mostly.
const ROOM_BYTES: usize = 64;

/// What waits between two pieces of an answer.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// Bytes that have gone on, ahead of those that wait.
    passed_bytes: u64,
    /// Bytes that were taken, as the server sent them.
    read_bytes: u64,
}

impl Held {
    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// So many bytes have come and gone on, and nothing waits.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.passed_bytes = self.passed_bytes.saturating_add(number(bytes));
        self.read_bytes = self.read_bytes.saturating_add(number(bytes));
    }
}

/// One piece on its way, behind what waits. It is copied when it has to be: most pieces pass as they came.
#[derive(Debug)]
pub(super) struct Passage<'a> {
    /// What waits, and what of this piece has been copied.
    held: Held,
    piece: &'a [u8],
    /// How much of the piece has come.
    read: usize,
    /// How much of it has been copied.
    copied: usize,
    /// How often something was replaced.
    changes: usize,
}

/// A place in an answer, as it goes to the client.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    place: u64,
    /// How much of the server's bytes stands ahead of it: what is held is measured by these, however they were cut.
    read_bytes: u64,
}

impl Mark {
    /// How many bytes the client sees from the other place to this one.
    pub(super) fn since(self, other: Mark) -> usize {
        usize::try_from(self.place.saturating_sub(other.place)).unwrap_or(usize::MAX)
    }
}

impl<'a> Passage<'a> {
    pub(super) fn new(held: Held, piece: &'a [u8]) -> Passage<'a> {
        Passage { held, piece, read: 0, copied: 0, changes: 0 }
    }

    /// How much of the piece has come.
    pub(super) fn read(&self) -> usize {
        self.read
    }

    /// How often something of this piece has been replaced.
    pub(super) fn changes(&self) -> usize {
        self.changes
    }

    /// So many bytes of the piece come next.
    pub(super) fn pass(&mut self, bytes: usize) {
        self.read += bytes;
    }

    /// The place behind what has come.
    pub(super) fn mark(&self) -> Mark {
        let written = self.held.bytes.len() + self.read.saturating_sub(self.copied);
        Mark {
            place: self.held.passed_bytes.saturating_add(number(written)),
            read_bytes: self.held.read_bytes.saturating_add(number(self.read)),
        }
    }

    /// The place ahead of the last byte that has come.
    pub(super) fn mark_before_last(&self) -> Mark {
        let Mark { place, read_bytes } = self.mark();
        Mark { place: place.saturating_sub(1), read_bytes: read_bytes.saturating_sub(1) }
    }

    /// What has come since, if it is no more than may wait.
    pub(super) fn since(&mut self, mark: Mark) -> Option<&[u8]> {
        self.copy();
        self.held.bytes.get(self.index_of(mark)?..)
    }

    /// Puts `bytes` in place of all that has come since, if that is no more than may wait. Says whether it was.
    pub(super) fn replace_since(&mut self, mark: Mark, bytes: &[u8]) -> bool {
        self.copy();
        let index = self.index_of(mark);
        if let Some(index) = index {
            self.changes += 1;
            self.held.bytes.truncate(index);
            self.held.bytes.extend_from_slice(bytes);
        }
        index.is_some()
    }

    /// So many bytes of the piece come next, and these go on instead.
    pub(super) fn pass_as<'p>(&mut self, bytes: usize, parts: impl Iterator<Item = &'p [u8]>) {
        self.copy();
        self.read += bytes;
        self.copied = self.read;
        parts.for_each(|part| self.held.bytes.extend_from_slice(part));
    }

    /// Puts `bytes` at this place, if what has come since is no more than may wait.
    pub(super) fn insert(&mut self, mark: Mark, bytes: &[u8]) {
        self.copy();
        if let Some(index) = self.index_of(mark) {
            let behind = self.held.bytes.get(index..).unwrap_or_default().to_vec();
            self.held.bytes.truncate(index);
            self.held.bytes.extend_from_slice(bytes);
            self.held.bytes.extend_from_slice(&behind);
        }
    }

    /// The piece has come: what may go on now is all that stands ahead of these places, and of those behind which too much
    /// has come; and what waits.
    pub(super) fn release(mut self, held: impl Iterator<Item = Mark>) -> (Cow<'a, [u8]>, Held) {
        let first = held.filter_map(|mark| self.index_of(mark)).min();
        let is_as_it_came = self.held.bytes.is_empty() && self.copied == 0 && first.is_none();
        let released = if is_as_it_came {
            Cow::Borrowed(self.piece)
        } else {
            self.copy();
            let first = first.unwrap_or(self.held.bytes.len());
            let waiting = self.held.bytes.get(first..).unwrap_or_default().to_vec();
            self.held.bytes.truncate(first);
            Cow::Owned(std::mem::replace(&mut self.held.bytes, waiting))
        };
        self.held.passed_bytes = self.held.passed_bytes.saturating_add(number(released.len()));
        self.held.read_bytes = self.held.read_bytes.saturating_add(number(self.read));
        (released, self.held)
    }

    fn copy(&mut self) {
        if self.held.bytes.capacity() == 0 {
            self.held.bytes.reserve(self.piece.len() + ROOM_BYTES);
        }
        self.held.bytes.extend_from_slice(self.piece.get(self.copied..self.read).unwrap_or_default());
        self.copied = self.read;
    }

    /// Where among what waits, and what will when the rest of the piece is copied.
    fn index_of(&self, mark: Mark) -> Option<usize> {
        let now = self.mark();
        let read_bytes = usize::try_from(now.read_bytes.saturating_sub(mark.read_bytes)).ok()?;
        let index = usize::try_from(mark.place.checked_sub(self.held.passed_bytes)?).ok()?;
        (read_bytes <= MAX_HELD_BYTES && mark.place <= now.place).then_some(index)
    }
}

fn number(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn release<'a>(passage: Passage<'a>, marks: &[Mark], released: &[u8]) -> (bool, Held) {
        let (bytes, held) = passage.release(marks.iter().copied());
        assert_eq!(*bytes, *released);
        (matches!(bytes, Cow::Borrowed(_)), held)
    }

    #[test]
    fn what_is_held_can_be_replaced_and_added_to_until_it_passes() {
        let mut passage = Passage::new(Held::default(), b"onetwo");
        passage.pass(3);
        let (before, mark) = (passage.mark_before_last(), passage.mark());
        passage.pass(3);
        assert_eq!(passage.since(mark), Some(&b"two"[..]));
        let (_, held) = release(passage, &[mark, before], b"on");
        let mut passage = Passage::new(held, b"three");
        assert!(passage.replace_since(mark, b"2"));
        passage.insert(before, b"!");
        passage.pass_as(5, [&b"a"[..], b"b"].into_iter());
        let (_, held) = release(passage, &[], b"!e2ab");
        assert!(held.bytes.is_empty());
        let mut passage = Passage::new(held, b"");
        assert!(passage.since(before).is_none() && !passage.replace_since(mark, b""));
    }

    #[test]
    fn what_grows_too_large_passes() {
        let large = vec![b'a'; MAX_HELD_BYTES];
        let mut passage = Passage::new(Held::default(), &large);
        let mark = passage.mark();
        passage.pass(large.len());
        let (_, held) = release(passage, &[mark], b"");
        let mut passage = Passage::new(held, b"b");
        passage.pass(1);
        release(passage, &[mark], &[&large[..], b"b"].concat());
    }

    #[test]
    fn what_is_neither_held_nor_changed_is_not_copied() {
        let mut passage = Passage::new(Held::default(), b"one");
        let mark = passage.mark();
        passage.pass(3);
        let (is_borrowed, held) = release(passage, &[], b"one");
        assert!(is_borrowed);
        let mut passage = Passage::new(held, b"two");
        passage.pass(3);
        assert!(passage.since(mark).is_none());
        let (is_borrowed, _) = release(passage, &[], b"two");
        assert!(!is_borrowed, "somebody has looked at it");
    }
}
