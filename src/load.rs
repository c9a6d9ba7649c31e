//! What this gateway has in flight on each endpoint, over all its workers.
//!
//! An endpoint's load is three sums over the requests sent to it and not yet ended:
//! - `requests`: all of them;
//! - `waiting`: those that have had no output yet;
//! - `waiting_tokens`: the prompt tokens of those.
//!
//! Besides, it is known which adapters have requests in flight there: an endpoint loads an adapter with its first
//! request, which a scrape shows only later.
//!
//! A worker counts its own and publishes them as a [`LoadTable`] under a key that only it writes; it reads the
//! tables of its peers. A worker that dies takes nothing with it: its table grows old and is left out.

use std::collections::HashMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

/// A table not published for this long, in milliseconds, is that of a worker that is gone.
pub const TABLE_EXPIRES_AFTER_MS: u64 = 2_000;

/// Adapters that are told apart on one endpoint; an endpoint holds fewer at a time.
const MAX_ADAPTERS: usize = 64;

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

/// An adapter, by a hash of its name that is the same in every worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AdapterId(u64);

impl AdapterId {
    /// The adapter of this name.
    pub fn of(name: &str) -> AdapterId {
        AdapterId(crate::hash::fnv1a(name.as_bytes()))
    }
}

/// One request's share of the load; give it back with [`LoadBook::end`].
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    id: LoadId,
    prompt_tokens: u32,
    adapter: Option<AdapterId>,
    waiting: bool,
}

#[derive(Debug)]
struct Row {
    address: SocketAddr,
    own: InFlight,
    peers: InFlight,
    /// This worker's requests by adapter.
    own_adapters: Vec<(AdapterId, u32)>,
    peers_adapters: Vec<AdapterId>,
    /// First outputs of this worker's requests, ever.
    own_outputs: u64,
}

impl Row {
    fn new(address: SocketAddr) -> Row {
        Row {
            address,
            own: InFlight::default(),
            peers: InFlight::default(),
            own_adapters: Vec::new(),
            peers_adapters: Vec::new(),
            own_outputs: 0,
        }
    }

    fn count_adapter(&mut self, adapter: AdapterId) {
        if let Some((_, requests)) = self.own_adapters.iter_mut().find(|(known, _)| *known == adapter) {
            *requests += 1;
        } else if self.own_adapters.len() < MAX_ADAPTERS {
            self.own_adapters.push((adapter, 1));
        }
    }

    fn discount_adapter(&mut self, adapter: AdapterId) {
        self.own_adapters.retain_mut(|(known, requests)| {
            *requests -= u32::from(*known == adapter);
            *requests > 0
        });
    }
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
    /// The adapters with requests in flight, and where.
    pub adapters: Vec<(SocketAddr, AdapterId)>,
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
        let row = Some(Row::new(address));
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
        self.row(id).map_or(InFlight::default(), |row| row.own + row.peers)
    }

    /// What all workers have in flight on the endpoint of this address.
    pub fn in_flight_at(&self, address: &SocketAddr) -> InFlight {
        self.ids.get(address).map(|&id| self.in_flight(id)).unwrap_or_default()
    }

    /// Whether any worker has a request for this adapter in flight there.
    pub fn has_adapter(&self, id: LoadId, adapter: AdapterId) -> bool {
        self.row(id).is_some_and(|row| {
            row.own_adapters.iter().any(|(known, _)| *known == adapter)
                || row.peers_adapters.contains(&adapter)
        })
    }

    /// The adapters with requests in flight there, some of them perhaps twice.
    pub fn adapters(&self, id: LoadId) -> impl Iterator<Item = AdapterId> {
        let row = self.row(id).into_iter();
        row.flat_map(|row| {
            row.own_adapters.iter().map(|(adapter, _)| *adapter).chain(row.peers_adapters.iter().copied())
        })
    }

    /// This worker's requests there that have had no output, and how many have had one, ever.
    pub fn own_progress(&self, id: LoadId) -> (u32, u64) {
        self.row(id).map_or((0, 0), |row| (row.own.waiting, row.own_outputs))
    }

    /// A request is sent to an endpoint, for an adapter if it needs one.
    pub fn start(&mut self, id: LoadId, prompt_tokens: u32, adapter: Option<AdapterId>) -> Ticket {
        if let Some(row) = self.row_mut(id) {
            row.own.requests += 1;
            row.own.waiting += 1;
            row.own.waiting_tokens += u64::from(prompt_tokens);
            if let Some(adapter) = adapter {
                row.count_adapter(adapter);
            }
        }
        Ticket { id, prompt_tokens, adapter, waiting: true }
    }

    /// The request has gone to another endpoint than it was meant for.
    pub fn move_to(&mut self, ticket: &mut Ticket, id: LoadId) {
        let moved = self.start(id, ticket.prompt_tokens, ticket.adapter);
        self.end(std::mem::replace(ticket, moved));
    }

    /// The request has its first output: its prompt is done with.
    pub fn first_output(&mut self, ticket: &mut Ticket) {
        if !std::mem::take(&mut ticket.waiting) {
            return;
        }
        if let Some(row) = self.row_mut(ticket.id) {
            row.own.waiting = row.own.waiting.saturating_sub(1);
            row.own.waiting_tokens = row.own.waiting_tokens.saturating_sub(u64::from(ticket.prompt_tokens));
            row.own_outputs += 1;
        }
    }

    /// The request is over, however it ended.
    pub fn end(&mut self, mut ticket: Ticket) {
        self.first_output(&mut ticket);
        if let Some(row) = self.row_mut(ticket.id) {
            row.own.requests = row.own.requests.saturating_sub(1);
            if let Some(adapter) = ticket.adapter {
                row.discount_adapter(adapter);
            }
        }
    }

    /// What this worker has in flight, to be published.
    pub fn table(&self, now_ms: u64) -> LoadTable {
        let busy = || self.rows.iter().flatten().filter(|row| !row.own.is_idle());
        let adapters =
            busy().flat_map(|row| row.own_adapters.iter().map(|(adapter, _)| (row.address, *adapter)));
        LoadTable {
            published_ms: now_ms,
            rows: busy().map(|row| (row.address, row.own)).collect(),
            adapters: adapters.collect(),
        }
    }

    /// Takes over what the peers have published, in place of what was known of them. Tables that have expired
    /// are left out.
    pub fn set_peers<'a>(&mut self, tables: impl Iterator<Item = &'a LoadTable>, now_ms: u64) {
        for row in self.rows.iter_mut().flatten() {
            row.peers = InFlight::default();
            row.peers_adapters.clear();
        }
        for table in tables.filter(|table| table.is_alive(now_ms)) {
            for (address, load) in table.rows.iter().take(MAX_TABLE_ROWS) {
                if let Some(row) = self.row_at(address) {
                    row.peers = row.peers + *load;
                }
            }
            for (address, adapter) in table.adapters.iter().take(MAX_TABLE_ROWS) {
                if let Some(row) = self.row_at(address).filter(|row| row.peers_adapters.len() < MAX_ADAPTERS)
                {
                    row.peers_adapters.push(*adapter);
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

    fn row(&self, id: LoadId) -> Option<&Row> {
        self.rows.get(id.0)?.as_ref()
    }

    fn row_mut(&mut self, id: LoadId) -> Option<&mut Row> {
        self.rows.get_mut(id.0)?.as_mut()
    }

    fn row_at(&mut self, address: &SocketAddr) -> Option<&mut Row> {
        let id = *self.ids.get(address)?;
        self.row_mut(id)
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
        let mut ticket = book.start(id, 100, None);
        let other = book.start(id, 7, None);
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
        let mut ticket = book.start(meant, 10, None);
        book.move_to(&mut ticket, served);
        assert_eq!((book.in_flight(meant), book.in_flight(served)), (load(0, 0, 0), load(1, 1, 10)));
        book.end(ticket);
        assert_eq!(book.in_flight(served), load(0, 0, 0));
    }

    #[test]
    fn peers_add_up_and_a_worker_that_is_gone_does_not_count() {
        let mut book = LoadBook::default();
        let id = book.id(address(1));
        let _own = book.start(id, 10, None);
        let table = |published_ms| LoadTable {
            published_ms,
            rows: vec![(address(1), load(2, 1, 50)), (address(9), load(1, 1, 1))],
            adapters: vec![],
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
        let ticket = book.start(busy, 10, None);
        book.set_peers(
            [LoadTable { published_ms: 1, rows: vec![(address(2), load(1, 1, 1))], adapters: vec![] }].iter(),
            1,
        );
        assert_eq!(book.in_flight(idle).requests, 1);
        assert_eq!(
            book.table(9),
            LoadTable { published_ms: 9, rows: vec![(address(1), load(1, 1, 10))], adapters: vec![] }
        );
        book.end(ticket);
        assert_eq!(book.table(9).rows, []);
    }

    #[test]
    fn an_endpoint_that_is_gone_is_kept_until_its_last_request_ends() {
        let mut book = LoadBook::default();
        let id = book.id(address(1));
        let ticket = book.start(id, 10, None);
        book.keep_only(|_| false);
        assert_eq!(book.in_flight(id), load(1, 1, 10));
        book.end(ticket);
        book.keep_only(|_| false);
        assert_eq!(book.id(address(2)), id, "the place is used again");
    }

    #[test]
    fn an_adapter_is_there_as_long_as_any_worker_has_a_request_for_it() {
        let (sql, chat) = (AdapterId::of("sql"), AdapterId::of("chat"));
        let (mut book, mut peer) = (LoadBook::default(), LoadBook::default());
        let id = book.id(address(1));
        let tickets = [book.start(id, 10, Some(sql)), book.start(id, 10, Some(sql))];
        let peers_id = peer.id(address(1));
        let _peers = peer.start(peers_id, 10, Some(chat));
        book.set_peers([peer.table(1)].iter(), 1);
        assert!(book.has_adapter(id, sql) && book.has_adapter(id, chat));
        let [first, second] = tickets;
        book.end(first);
        assert!(book.has_adapter(id, sql));
        book.end(second);
        book.set_peers([].iter(), 1);
        assert!(!book.has_adapter(id, sql) && !book.has_adapter(id, chat));
    }

    #[test]
    fn progress_is_what_waits_and_what_has_had_an_output() {
        let mut book = LoadBook::default();
        let id = book.id(address(1));
        let mut tickets: Vec<Ticket> = (0..3).map(|_| book.start(id, 1, None)).collect();
        book.first_output(&mut tickets[0]);
        assert_eq!(book.own_progress(id), (2, 1));
        tickets.drain(..).for_each(|ticket| book.end(ticket));
        assert_eq!(book.own_progress(id), (0, 3));
    }
}
