//! What one gateway publishes of a conversation. Its bytes, with numbers in little-endian order:
//!
//! ```text
//! 0 for something stored, 1 for a session | key: 8 bytes | endpoint: 8 | tokens: 4 | turned over: 4
//! ```

use super::{EndpointKey, Entry, KnownBy, SessionKey};

const STORED: u8 = 0;
const SESSION: u8 = 1;

/// Where a conversation was served last, as another gateway has seen it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Note {
    /// By what it is known.
    pub by: KnownBy,
    /// Where it was served; when is not published, as gateways have clocks of their own.
    pub entry: Entry,
}

impl Note {
    /// Appends its bytes.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(match self.by {
            KnownBy::Stored => STORED,
            KnownBy::Name => SESSION,
        });
        bytes.extend(self.entry.key.to_bits().to_le_bytes());
        bytes.extend(self.entry.endpoint.to_bits().to_le_bytes());
        bytes.extend(self.entry.tokens.to_le_bytes());
        bytes.extend(self.entry.turnover_tokens.to_le_bytes());
    }

    /// Reads one, of a time that is not known; `None` for bytes that are none.
    pub fn read(bytes: &[u8]) -> Option<Note> {
        let (kind, rest) = bytes.split_first()?;
        let (key, rest) = rest.split_first_chunk()?;
        let (endpoint, rest) = rest.split_first_chunk()?;
        let (tokens, rest) = rest.split_first_chunk()?;
        let by = match *kind {
            STORED => KnownBy::Stored,
            SESSION => KnownBy::Name,
            _ => return None,
        };
        let entry = Entry {
            key: SessionKey::from_bits(u64::from_le_bytes(*key)),
            endpoint: EndpointKey::from_bits(u64::from_le_bytes(*endpoint)),
            used_ms: 0,
            tokens: u32::from_le_bytes(*tokens),
            turnover_tokens: u32::from_le_bytes(rest.try_into().ok()?),
        };
        Some(Note { by, entry })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_read_is_what_was_written_and_nothing_else() {
        for by in [KnownBy::Stored, KnownBy::Name] {
            let (key, endpoint) = (SessionKey::from_bits(u64::MAX - 1), EndpointKey::from_bits(7));
            let entry = Entry { key, endpoint, used_ms: 0, tokens: 3, turnover_tokens: u32::MAX };
            let mut bytes = Vec::new();
            Note { by, entry }.write(&mut bytes);
            assert_eq!(Note::read(&bytes), Some(Note { by, entry }));
            for length in 0..bytes.len() {
                assert_eq!(Note::read(&bytes[..length]), None, "cut at {length}");
            }
            assert_eq!(Note::read(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Note::read(&[&[2], &bytes[1..]].concat()), None);
        }
    }
}
