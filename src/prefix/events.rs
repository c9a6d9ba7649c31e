//! What workers publish to each other about prompts: where one was sent, and what became of it.
//!
//! An event is, with numbers in little-endian order:
//!
//! ```text
//! sent:     0 or 1 | number: 8 bytes | IPv4 or IPv6 address: 4 or 16 | port: 2 | tokens of a block: 4 | hashes: 4 each
//! answered: 2      | number: 8 bytes | other tokens: 4
//! dropped:  3      | number: 8 bytes
//! ```

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use super::blocks::BlockHash;

/// Blocks of prompts that wait to be published: a quarter of a megabyte. Prompts that a worker sends beyond that before it has
/// published them stay its own knowledge.
pub const MAX_UNPUBLISHED_BLOCKS: usize = 65_536;

const SENT_V4: u8 = 0;
const SENT_V6: u8 = 1;
const ANSWERED: u8 = 2;
const DROPPED: u8 = 3;

/// Something that happened to a prompt. A worker numbers its prompts; numbers are not used again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PromptEvent<'a> {
    /// It was sent to an endpoint, which will soon have its blocks.
    Sent {
        /// The worker's number for it.
        number: u64,
        /// Where.
        address: SocketAddr,
        /// Tokens in one of its blocks.
        block_tokens: u32,
        /// Its blocks; the model is in them, so that no other pool's prompts match them.
        hashes: Cow<'a, [BlockHash]>,
    },
    /// It is answered: its blocks are free to be used again, or to be dropped for others.
    Answered {
        /// The worker's number for it.
        number: u64,
        /// Tokens that take room there besides: those behind its last block, and the answer's.
        other_tokens: u32,
    },
    /// It failed, or went elsewhere: nothing is known of what it left.
    Dropped {
        /// The worker's number for it.
        number: u64,
    },
}

impl<'a> PromptEvent<'a> {
    /// Appends its bytes.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        match self {
            PromptEvent::Sent { number, address, block_tokens, hashes } => {
                write_address(*number, address, bytes);
                bytes.extend_from_slice(&block_tokens.to_le_bytes());
                bytes.extend_from_slice(hashes.as_flattened());
            }
            PromptEvent::Answered { number, other_tokens } => {
                write_kind(ANSWERED, *number, bytes);
                bytes.extend_from_slice(&other_tokens.to_le_bytes());
            }
            PromptEvent::Dropped { number } => write_kind(DROPPED, *number, bytes),
        }
    }

    /// Reads one; `None` for bytes that are none.
    pub fn read(bytes: &'a [u8]) -> Option<PromptEvent<'a>> {
        let (kind, rest) = bytes.split_first()?;
        let (number, rest) = rest.split_first_chunk()?;
        let number = u64::from_le_bytes(*number);
        match *kind {
            SENT_V4 => rest.split_first_chunk::<4>().and_then(|(ip, rest)| read_sent(number, *ip, rest)),
            SENT_V6 => rest.split_first_chunk::<16>().and_then(|(ip, rest)| read_sent(number, *ip, rest)),
            ANSWERED => {
                let other_tokens = u32::from_le_bytes(rest.try_into().ok()?);
                Some(PromptEvent::Answered { number, other_tokens })
            }
            DROPPED => rest.is_empty().then_some(PromptEvent::Dropped { number }),
            _ => None,
        }
    }

    /// What it counts of what waits to be published.
    fn blocks(&self) -> usize {
        match self {
            PromptEvent::Sent { hashes, .. } => hashes.len().max(1),
            _ => 1,
        }
    }
}

fn write_kind(kind: u8, number: u64, bytes: &mut Vec<u8>) {
    bytes.push(kind);
    bytes.extend_from_slice(&number.to_le_bytes());
}

fn write_address(number: u64, address: &SocketAddr, bytes: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(ip) => {
            write_kind(SENT_V4, number, bytes);
            bytes.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            write_kind(SENT_V6, number, bytes);
            bytes.extend_from_slice(&ip.octets());
        }
    }
    bytes.extend_from_slice(&address.port().to_le_bytes());
}

fn read_sent(number: u64, ip: impl Into<IpAddr>, rest: &[u8]) -> Option<PromptEvent<'_>> {
    let (port, rest) = rest.split_first_chunk()?;
    let (block_tokens, rest) = rest.split_first_chunk()?;
    let (hashes, []) = rest.as_chunks() else { return None };
    Some(PromptEvent::Sent {
        number,
        address: SocketAddr::new(ip.into(), u16::from_le_bytes(*port)),
        block_tokens: u32::from_le_bytes(*block_tokens),
        hashes: Cow::Borrowed(hashes),
    })
}

/// What has happened at a worker and was not published yet, in the order in which it happened.
#[derive(Debug, Default)]
pub struct Unpublished {
    events: Vec<PromptEvent<'static>>,
    blocks: usize,
}

impl Unpublished {
    /// Adds an event, if there is room for it; of a prompt, as much of its start as there is room for.
    pub fn push(&mut self, mut event: PromptEvent<'static>) {
        let room = MAX_UNPUBLISHED_BLOCKS.saturating_sub(self.blocks);
        if let PromptEvent::Sent { hashes, .. } = &mut event
            && let Some((start, [_, ..])) = hashes.split_at_checked(room)
        {
            *hashes = Cow::Owned(start.to_vec());
        }
        if event.blocks() <= room {
            self.blocks += event.blocks();
            self.events.push(event);
        }
    }

    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes out what is to be published.
    pub fn take(&mut self) -> Vec<PromptEvent<'static>> {
        self.blocks = 0;
        std::mem::take(&mut self.events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn sent_to(address: &str, blocks: usize) -> PromptEvent<'static> {
        let (address, hashes) = (address.parse().unwrap(), Cow::Owned(vec![[7, 8, 9, 0]; blocks]));
        PromptEvent::Sent { number: 7, address, block_tokens: 64, hashes }
    }

    fn sent(blocks: usize) -> PromptEvent<'static> {
        sent_to("10.0.0.1:8000", blocks)
    }

    fn bytes_of(event: &PromptEvent<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        event.write(&mut bytes);
        bytes
    }

    fn any_events() -> [PromptEvent<'static>; 5] {
        [
            sent(0),
            sent(28),
            sent_to("[2001:db8::7]:65535", 3),
            PromptEvent::Answered { number: u64::MAX, other_tokens: 300 },
            PromptEvent::Dropped { number: 1 << 40 },
        ]
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        for event in any_events() {
            assert_eq!(PromptEvent::read(&bytes_of(&event)), Some(event));
        }
        assert_eq!(bytes_of(&sent(28)).len(), 19 + 4 * 28);
    }

    #[test]
    fn bytes_that_are_no_event_are_none() {
        for event in any_events() {
            let mut bytes = bytes_of(&event);
            let cut: Vec<_> =
                (0..bytes.len()).filter_map(|length| PromptEvent::read(&bytes[..length])).collect();
            let is_shorter = |cut: &PromptEvent<'_>| cut.blocks() < event.blocks();
            assert!(cut.iter().all(is_shorter), "cut between two hashes it has fewer: {cut:?}");
            bytes.push(0);
            assert_eq!(PromptEvent::read(&bytes), None);
            bytes[0] = 4;
            assert_eq!(PromptEvent::read(&bytes), None);
        }
    }

    #[test]
    fn what_is_taken_is_what_has_happened_since() {
        let mut unpublished = Unpublished::default();
        assert_eq!(unpublished.take(), []);
        for _ in 0..3 {
            unpublished.push(sent(2));
            unpublished.push(PromptEvent::Dropped { number: 7 });
            assert_eq!(unpublished.take(), [sent(2), PromptEvent::Dropped { number: 7 }]);
        }
        assert_eq!(unpublished.take(), []);
    }

    #[test]
    fn no_more_waits_to_be_published_than_the_limit() {
        let mut unpublished = Unpublished::default();
        for _ in 0..5 {
            unpublished.push(sent(MAX_UNPUBLISHED_BLOCKS - 7));
        }
        assert_eq!(unpublished.take(), [sent(MAX_UNPUBLISHED_BLOCKS - 7), sent(7)], "cut at the end");
    }
}
