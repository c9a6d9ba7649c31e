//! Where a conversation was served last: which endpoint has stored a response, and where a session's last request went.
//!
//! It is kept in a [`Table`] of a fixed number of buckets, each of which is one small value in shared data: all workers see at
//! once what one of them has written, nothing of it is in a worker's memory, it outlives a configuration, and how large it can
//! grow is known. A request reads a bucket only if it names a session, or something that a server has stored.
//!
//! Contract: no host calls. Whoever holds the buckets ([`Buckets`]) writes them by compare-and-swap. What is read is decoded as
//! bytes from a stranger.
//!
//! No client gains by the names that it chooses. A name decides nothing but which entry is read: where a session begins is a
//! matter of cost, as for any other request. Names are hashed with their pool's, and the bucket is chosen by a secret that is
//! drawn at random, so that nobody can aim at the entries of others.

mod bucket;
mod note;
mod source;
mod table;
mod token;
mod unanswered;

use crate::hash::{digest, mix};
use crate::load::EndpointKey;

pub use bucket::{Bucket, Entry};
pub use note::Note;
pub use source::{Field, Name, Source};
pub use table::{BUCKETS, Buckets, Forgotten, Retention, Table};
pub use token::TokenKey;
pub use unanswered::Unanswered;

/// A session, or something that a server has stored, by a hash of its name that is the same in every worker and gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SessionKey(u64);

impl SessionKey {
    /// Something that a server has stored under this id. The id is of a server's choosing, and all pools have their ids in common.
    pub fn of_stored(id: &[u8]) -> SessionKey {
        SessionKey(mix(digest(id)))
    }

    /// The session of this name, in the pool of which this is a hash.
    pub fn of_session(pool: u64, name: Name) -> SessionKey {
        SessionKey(mix(name.digest ^ pool))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> SessionKey {
        SessionKey(bits)
    }
}

/// What a request says of the conversation that it belongs to, and what is known of that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conversation {
    /// By what it is known.
    pub by: KnownBy,
    /// Where it was served last, if that is known.
    pub last: Option<Last>,
    /// Whether it goes there as long as it may, whatever that costs.
    pub is_strict: bool,
}

/// Where a conversation was served last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Last {
    /// By whom.
    pub endpoint: EndpointKey,
    /// The tokens of it that the endpoint has by the end of the last request.
    pub tokens: u32,
    /// The low bits of how many tokens the endpoint's cache has turned over by the end of that request.
    pub turnover_tokens: u32,
}

/// The part of what a conversation had at its last request that a prompt must have to be taken for its continuation.
const ASIDE_SHARE: u32 = 2;

impl Last {
    /// It was there, and it is not known what of it is left.
    pub fn at(endpoint: EndpointKey) -> Last {
        Last { endpoint, tokens: 0, turnover_tokens: 0 }
    }

    /// Whether a prompt of so many tokens is none that continues the conversation: it is much shorter than what was there, as a
    /// title is that an agent has made on the side, or the summary of what has grown too long.
    pub fn is_aside(&self, prompt_tokens: u32) -> bool {
        prompt_tokens < self.tokens / ASIDE_SHARE
    }

    /// What of a prompt of so many tokens is taken to be cached where the conversation was.
    pub fn cached_tokens(&self, prompt_tokens: u32) -> u32 {
        if self.is_aside(prompt_tokens) { 0 } else { self.tokens.min(prompt_tokens) }
    }

    /// What is known of the conversation once a prompt was sent that does not continue it: it is still there, and less certain.
    /// So one that was summed up goes by its new length after a few turns.
    #[must_use]
    pub fn after_aside(self) -> Last {
        Last { tokens: self.tokens / ASIDE_SHARE, ..self }
    }
}

impl From<Entry> for Last {
    fn from(Entry { endpoint, tokens, turnover_tokens, .. }: Entry) -> Last {
        Last { endpoint, tokens, turnover_tokens }
    }
}

/// A request of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Visit {
    /// Which session.
    pub key: SessionKey,
    /// Where it is all the same, if the prompt does not continue it.
    pub aside_of: Option<Last>,
}

impl Visit {
    /// A prompt of so many tokens in a session that was last here.
    pub fn new(key: SessionKey, last: Option<Last>, prompt_tokens: u32) -> Visit {
        Visit { key, aside_of: last.filter(|last| last.is_aside(prompt_tokens)) }
    }
}

/// By what a conversation is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownBy {
    /// The id of something that a server has stored.
    Stored,
    /// The name of a session.
    Name,
}

/// What became of a request that names a session, or something that a server has stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It goes where the one before went.
    Kept,
    /// It goes elsewhere.
    Moved,
    /// Nothing is known of it.
    New,
}

impl Outcome {
    /// As it is logged and counted.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Kept => "kept",
            Outcome::Moved => "moved",
            Outcome::New => "new",
        }
    }
}
