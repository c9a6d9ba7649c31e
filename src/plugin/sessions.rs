//! Where conversations were served last, in shared data: who has stored what, and where sessions were.

use std::net::SocketAddr;

use super::shared::{self, BucketsOf};
use crate::config::Config;
use crate::hash::digest;
use crate::load::EndpointKey;
use crate::sessions::{Entry, Forgotten, KnownBy, Last, Name, SessionKey, Table};

/// Both tables.
pub struct Conversations {
    stored: Table,
    sessions: Table,
    /// A hash of each pool's name.
    pools: Vec<u64>,
    /// What chooses the buckets, once it is known.
    secret: Option<u64>,
}

impl Conversations {
    pub fn new(config: &Config) -> Conversations {
        shared::draw_secret();
        Conversations {
            stored: Table::new(config.stored),
            sessions: Table::new(config.sessions),
            pools: config.pools.iter().map(|pool| digest(pool.name.as_bytes())).collect(),
            secret: None,
        }
    }

    /// The key of the session of this name in the pool at this place.
    pub fn session_key(&self, pool: usize, name: Name) -> Option<SessionKey> {
        Some(SessionKey::of_session(*self.pools.get(pool)?, name))
    }

    /// Where a conversation was served last, if that is remembered.
    pub fn last(&mut self, by: KnownBy, key: SessionKey, now_ms: u64) -> Option<Last> {
        let buckets = self.buckets(by)?;
        self.table(by).get(&buckets, key, now_ms).map(Last::from)
    }

    /// Notes where a conversation was served last; what was forgotten for it.
    pub fn note(&mut self, by: KnownBy, entry: &Entry) -> Forgotten {
        let Some(buckets) = self.buckets(by) else { return Forgotten::default() };
        self.table(by).put(&buckets, entry)
    }

    fn table(&mut self, by: KnownBy) -> &mut Table {
        match by {
            KnownBy::Stored => &mut self.stored,
            KnownBy::Name => &mut self.sessions,
        }
    }

    /// The secret is read when it is first needed: when the first workers begin, several may have drawn one.
    fn buckets(&mut self, by: KnownBy) -> Option<BucketsOf> {
        if self.secret.is_none() {
            self.secret = shared::secret();
        }
        Some(BucketsOf { by, secret: self.secret? })
    }
}

/// Forgets what an endpoint has stored whose server was started anew. What a session had cached there its own count shows.
pub fn forget(address: SocketAddr) -> Forgotten {
    Table::forget(&BucketsOf { by: KnownBy::Stored, secret: 0 }, EndpointKey::of(address))
}
