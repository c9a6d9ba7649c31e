//! What this gateway has in flight on each endpoint, over all its workers.
//!
//! An endpoint's load is three sums over the requests sent to it and not yet ended:
//! - `requests`: all of them;
//! - `waiting`: those that have had no output yet;
//! - `waiting_tokens`: the prompt tokens of those.
//!
//! A worker counts its own and publishes them as a [`LoadTable`] under a key that only it writes; it reads the
//! tables of its peers. A worker that dies takes nothing with it: its table grows old and is left out.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A table not published for this long, in milliseconds, is that of a worker that is gone.
pub const TABLE_EXPIRES_AFTER_MS: u64 = 2_000;

/// Rows one table may have: more than one worker can have endpoints.
const MAX_TABLE_ROWS: usize = 65_536;

/// What is in flight on one endpoint.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// Requests sent and not ended.
    pub requests: u32,
    /// Requests without a first output.
    pub waiting: u32,
    /// Prompt tokens of the waiting requests.
    pub waiting_tokens: u64,
}

impl InFlight {
    fn is_idle(&self) -> bool {
        *self == InFlight::default()
    }
}

impl std::ops::Add for InFlight {
    type Output = InFlight;

    fn add(self, other: InFlight) -> InFlight {
        InFlight {
            requests: self.requests.saturating_add(other.requests),
            waiting: self.waiting.saturating_add(other.waiting),
            waiting_tokens: self.waiting_tokens.saturating_add(other.waiting_tokens),
        }
    }
}

/// The place of an endpoint in the [`LoadBook`]; holds until [`LoadBook::keep_only`] drops the endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoadId(usize);

/// One request's share of the load; give it back with [`LoadBook::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    id: LoadId,
    prompt_tokens: u32,
    waiting: bool,
}

#[derive(Debug, Clone, Copy)]
struct Row {
    address: SocketAddr,
    own: InFlight,
    peers: InFlight,
}

impl Ticket {
    /// The endpoint it counts on.
    pub fn load_id(&self) -> LoadId {
        self.id
    }
}

/// The load of every endpoint as one worker knows it.
#[derive(Debug, Default)]
pub struct LoadBook {
    rows: Vec<Option<Row>>,
    ids: HashMap<SocketAddr, LoadId>,
}

/// What one worker has in flight, as it is published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoadTable {
    /// When it was published, in milliseconds of the host's monotonic clock.
    pub published_ms: u64,
    /// The endpoints that are not idle.
    pub rows: Vec<(SocketAddr, InFlight)>,
}

impl LoadTable {
    /// Whether its worker still publishes.
    pub fn is_alive(&self, now_ms: u64) -> bool {
        now_ms.saturating_sub(self.published_ms) < TABLE_EXPIRES_AFTER_MS
    }
}

impl LoadBook {
    /// The place of an endpoint, made when it is new.
    pub fn id(&mut self, address: SocketAddr) -> LoadId {
        if let Some(&id) = self.ids.get(&address) {
            return id;
        }
        let row = Some(Row { address, own: InFlight::default(), peers: InFlight::default() });
        let index = self.rows.iter().position(Option::is_none).unwrap_or(self.rows.len());
        match self.rows.get_mut(index) {
            Some(free) => *free = row,
            None => self.rows.push(row),
        }
        self.ids.insert(address, LoadId(index));
        LoadId(index)
    }

    /// What all workers have in flight on an endpoint.
    pub fn in_flight(&self, id: LoadId) -> InFlight {
        match self.rows.get(id.0) {
            Some(Some(row)) => row.own + row.peers,
            _ => InFlight::default(),
        }
    }

    /// What all workers have in flight on the endpoint of this address.
    pub fn in_flight_at(&self, address: &SocketAddr) -> InFlight {
        self.ids.get(address).map(|&id| self.in_flight(id)).unwrap_or_default()
    }

    /// A request is sent to an endpoint.
    pub fn start(&mut self, id: LoadId, prompt_tokens: u32) -> Ticket {
        if let Some(own) = self.own(id) {
            own.requests += 1;
            own.waiting += 1;
            own.waiting_tokens += u64::from(prompt_tokens);
        }
        Ticket { id, prompt_tokens, waiting: true }
    }

    /// The request has gone to another endpoint than it was meant for.
    pub fn move_to(&mut self, ticket: &mut Ticket, id: LoadId) {
        let moved = self.start(id, ticket.prompt_tokens);
        self.end(std::mem::replace(ticket, moved));
    }

    /// The request has its first output: its prompt is done with.
    pub fn first_output(&mut self, ticket: &mut Ticket) {
        if !std::mem::take(&mut ticket.waiting) {
            return;
        }
        if let Some(own) = self.own(ticket.id) {
            own.waiting = own.waiting.saturating_sub(1);
            own.waiting_tokens = own.waiting_tokens.saturating_sub(u64::from(ticket.prompt_tokens));
        }
    }

    /// The request is over, however it ended.
    pub fn end(&mut self, mut ticket: Ticket) {
        self.first_output(&mut ticket);
        if let Some(own) = self.own(ticket.id) {
            own.requests = own.requests.saturating_sub(1);
        }
    }

    /// What this worker has in flight, to be published.
    pub fn table(&self, now_ms: u64) -> LoadTable {
        let busy = self.rows.iter().flatten().filter(|row| !row.own.is_idle());
        LoadTable { published_ms: now_ms, rows: busy.map(|row| (row.address, row.own)).collect() }
    }

    /// Takes over what the peers have published, in place of what was known of them. Tables that have expired
    /// are left out.
    pub fn set_peers<'a>(&mut self, tables: impl Iterator<Item = &'a LoadTable>, now_ms: u64) {
        for row in self.rows.iter_mut().flatten() {
            row.peers = InFlight::default();
        }
        for table in tables.filter(|table| table.is_alive(now_ms)) {
            for (address, load) in table.rows.iter().take(MAX_TABLE_ROWS) {
                let id = self.ids.get(address).copied();
                if let Some(Some(row)) = id.and_then(|id| self.rows.get_mut(id.0)) {
                    row.peers = row.peers + *load;
                }
            }
        }
    }

    /// Forgets the endpoints that are gone and have nothing of this worker's in flight.
    pub fn keep_only(&mut self, known: impl Fn(&SocketAddr) -> bool) {
        for slot in &mut self.rows {
            if let Some(row) = slot
                && row.own.is_idle()
                && !known(&row.address)
            {
                self.ids.remove(&row.address);
                *slot = None;
            }
        }
    }

    fn own(&mut self, id: LoadId) -> Option<&mut InFlight> {
        self.rows.get_mut(id.0)?.as_mut().map(|row| &mut row.own)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn address(last: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, last], 8000))
    }

    fn load(requests: u32, waiting: u32, waiting_tokens: u64) -> InFlight {
        InFlight { requests, waiting, waiting_tokens }
    }

    #[test]
    fn tokens_are_given_back_at_the_first_output_and_the_request_at_its_end() {
        let mut book = LoadBook::default();
        let id = book.id(address(1));
        let mut ticket = book.start(id, 100);
        let other = book.start(id, 7);
        assert_eq!(book.in_flight(id), load(2, 2, 107));
        book.first_output(&mut ticket);
        book.first_output(&mut ticket);
        assert_eq!(book.in_flight(id), load(2, 1, 7));
        book.end(ticket);
        book.end(other);
        assert_eq!(book.in_flight(id), load(0, 0, 0));
    }

    #[test]
    fn a_request_that_went_elsewhere_counts_there() {
        let mut book = LoadBook::default();
        let (meant, served) = (book.id(address(1)), book.id(address(2)));
        let mut ticket = book.start(meant, 10);
        book.move_to(&mut ticket, served);
        assert_eq!((book.in_flight(meant), book.in_flight(served)), (load(0, 0, 0), load(1, 1, 10)));
        book.end(ticket);
        assert_eq!(book.in_flight(served), load(0, 0, 0));
    }

    #[test]
    fn peers_add_up_and_a_worker_that_is_gone_does_not_count() {
        let mut book = LoadBook::default();
        let id = book.id(address(1));
        let _own = book.start(id, 10);
        let table = |published_ms| LoadTable {
            published_ms,
            rows: vec![(address(1), load(2, 1, 50)), (address(9), load(1, 1, 1))],
        };
        book.set_peers([table(5_000), table(4_000), table(1_000)].iter(), 5_000);
        assert_eq!(book.in_flight(id), load(5, 3, 110));
        assert_eq!(book.in_flight_at(&address(9)), load(0, 0, 0));
        book.set_peers([].iter(), 5_000);
        assert_eq!(book.in_flight(id), load(1, 1, 10));
    }

    #[test]
    fn a_table_lists_own_requests_only() {
        let mut book = LoadBook::default();
        let (busy, idle) = (book.id(address(1)), book.id(address(2)));
        let ticket = book.start(busy, 10);
        book.set_peers([LoadTable { published_ms: 1, rows: vec![(address(2), load(1, 1, 1))] }].iter(), 1);
        assert_eq!(book.in_flight(idle).requests, 1);
        assert_eq!(book.table(9), LoadTable { published_ms: 9, rows: vec![(address(1), load(1, 1, 10))] });
        book.end(ticket);
        assert_eq!(book.table(9).rows, []);
    }

    #[test]
    fn an_endpoint_that_is_gone_is_kept_until_its_last_request_ends() {
        let mut book = LoadBook::default();
        let id = book.id(address(1));
        let ticket = book.start(id, 10);
        book.keep_only(|_| false);
        assert_eq!(book.in_flight(id), load(1, 1, 10));
        book.end(ticket);
        book.keep_only(|_| false);
        assert_eq!(book.id(address(2)), id, "the place is used again");
    }
}
