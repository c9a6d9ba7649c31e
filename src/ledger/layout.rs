//! A ledger's bytes: the format's number, then lists, each of them its length and its items one after the other. Words are
//! eight bytes in little-endian order. Reading and writing it is part of every pick, so there is nothing in it that has to be
//! looked at byte by byte.

const WORD_BYTES: usize = size_of::<u64>();

/// Writes lists one after the other.
pub(super) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub fn new(format: u8, capacity: usize) -> Writer {
        let mut bytes = Vec::with_capacity(capacity);
        bytes.push(format);
        Writer { bytes }
    }

    pub fn word(&mut self, word: u64) {
        self.bytes.extend_from_slice(&word.to_le_bytes());
    }

    pub fn list<const WORDS: usize>(&mut self, items: impl ExactSizeIterator<Item = [u64; WORDS]>) {
        self.word(items.len() as u64);
        for item in items {
            self.bytes.extend_from_slice(item.map(u64::to_le_bytes).as_flattened());
        }
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        self.bytes.extend_from_slice(bytes);
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads them again; each is `None` where there are too few bytes.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// `None` for bytes of another format.
    pub fn new(format: u8, bytes: &'a [u8]) -> Option<Reader<'a>> {
        let (found, rest) = bytes.split_first()?;
        (*found == format).then_some(Reader { rest })
    }

    pub fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(u64::from_le_bytes(*word))
    }

    pub fn list<const WORDS: usize, T>(&mut self, item: impl Fn([u64; WORDS]) -> T) -> Option<Vec<T>> {
        let length = self.length()?;
        let bytes = self.take(length.checked_mul(WORDS * WORD_BYTES)?)?;
        let (words, _) = bytes.as_chunks::<WORD_BYTES>();
        let (items, _) = words.as_chunks::<WORDS>();
        Some(items.iter().map(|words| item(words.map(u64::from_le_bytes))).collect())
    }

    pub fn bytes(&mut self) -> Option<Vec<u8>> {
        let length = self.length()?;
        self.take(length).map(<[u8]>::to_vec)
    }

    /// Whether all is read.
    pub fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn length(&mut self) -> Option<usize> {
        usize::try_from(self.word()?).ok()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}
