//! The ledger's rows, and their bytes: numbers of eight bytes in little-endian order, so that one is read and written at once,
//! whatever it holds.

use crate::load::{
    AdapterId, EndpointKey, EndpointLoad, FailureNote, Failures, InFlight, Missing, MissingNote, Oldest,
};

/// What stands for the time of none.
const NEVER: u64 = u64::MAX;

/// Requests that can be added up.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub requests: u32,
    pub waiting: u32,
    pub waiting_tokens: u64,
}

impl Counts {
    pub fn of(load: InFlight) -> Counts {
        Counts { requests: load.requests, waiting: load.waiting, waiting_tokens: load.waiting_tokens }
    }

    /// Takes out of this sum what one worker had, and adds what it has.
    pub fn replace(&mut self, old: Counts, new: Counts) {
        self.requests = self.requests.saturating_sub(old.requests).saturating_add(new.requests);
        self.waiting = self.waiting.saturating_sub(old.waiting).saturating_add(new.waiting);
        let tokens = self.waiting_tokens.saturating_sub(old.waiting_tokens);
        self.waiting_tokens = tokens.saturating_add(new.waiting_tokens);
    }

    fn words(self) -> [u64; 2] {
        [both(self.requests, self.waiting), self.waiting_tokens]
    }

    fn from_words([counts, waiting_tokens]: [u64; 2]) -> Counts {
        let (requests, waiting) = halves(counts);
        Counts { requests, waiting, waiting_tokens }
    }
}

/// What workers have in flight on one endpoint, or what waits for one pool, in both generations.
///
/// The oldest waiting request is a hint. Of several workers the one that has it says so; when it is answered, its worker says
/// what it has next, and another that has an older one says so with its next change. So the hint is younger than the truth
/// for some milliseconds, which moves a backlog by what an endpoint computes in that time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    pub key: EndpointKey,
    pub current: Counts,
    pub next: Counts,
    pub oldest: Option<Oldest>,
    pub last_output_ms: u64,
}

/// Words of a row.
pub(super) const ROW_WORDS: usize = 8;

impl Row {
    pub fn new(key: EndpointKey) -> Row {
        let none = Counts::default();
        Row { key, current: none, next: none, oldest: None, last_output_ms: 0 }
    }

    pub fn is_idle(&self) -> bool {
        self.current.requests == 0 && self.next.requests == 0
    }

    /// One worker says what it has in place of what it had, in the generations that have that.
    pub fn replace(&mut self, in_current: Option<InFlight>, in_next: Option<InFlight>, new: InFlight) {
        if let Some(old) = in_current {
            self.current.replace(Counts::of(old), Counts::of(new));
        }
        if let Some(old) = in_next {
            self.next.replace(Counts::of(old), Counts::of(new));
        }
        let old = in_current.or(in_next).unwrap_or_default();
        let oldest = if self.oldest == old.oldest {
            new.oldest
        } else {
            self.oldest.into_iter().chain(new.oldest).min()
        };
        self.oldest = oldest.filter(|_| self.current.waiting > 0);
        self.last_output_ms = self.last_output_ms.max(new.last_output_ms);
    }

    /// What all workers have there.
    pub fn in_flight(&self) -> InFlight {
        self.without(InFlight::default())
    }

    /// What others have there than the worker that has this.
    pub fn without(&self, own: InFlight) -> InFlight {
        let mut counts = self.current;
        counts.replace(Counts::of(own), Counts::default());
        let Counts { requests, waiting, waiting_tokens } = counts;
        let oldest = self.oldest.filter(|oldest| waiting > 0 && Some(*oldest) != own.oldest);
        InFlight { requests, waiting, waiting_tokens, oldest, last_output_ms: self.last_output_ms }
    }

    pub fn words(&self) -> [u64; ROW_WORDS] {
        let ([current, current_tokens], [next, next_tokens]) = (self.current.words(), self.next.words());
        let (sent_ms, tokens) = self.oldest.map_or((NEVER, 0), |oldest| (oldest.sent_ms, oldest.tokens));
        let key = self.key.to_bits();
        [key, current, current_tokens, next, next_tokens, sent_ms, tokens.into(), self.last_output_ms]
    }

    pub fn from_words(words: [u64; ROW_WORDS]) -> Row {
        let [key, current, current_tokens, next, next_tokens, sent_ms, tokens, last_output_ms] = words;
        Row {
            key: EndpointKey::from_bits(key),
            current: Counts::from_words([current, current_tokens]),
            next: Counts::from_words([next, next_tokens]),
            oldest: (sent_ms != NEVER).then(|| Oldest { sent_ms, tokens: halves(tokens).0 }),
            last_output_ms,
        }
    }
}

/// How many requests for an adapter workers have in flight on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AdapterRow {
    pub key: EndpointKey,
    pub adapter: AdapterId,
    pub current: u32,
    pub next: u32,
}

/// Words of such a row.
pub(super) const ADAPTER_WORDS: usize = 3;

impl AdapterRow {
    pub fn is_idle(&self) -> bool {
        self.current == 0 && self.next == 0
    }

    pub fn words(&self) -> [u64; ADAPTER_WORDS] {
        [self.key.to_bits(), self.adapter.to_bits(), both(self.current, self.next)]
    }

    pub fn from_words([key, adapter, counts]: [u64; ADAPTER_WORDS]) -> AdapterRow {
        let (current, next) = halves(counts);
        AdapterRow { key: EndpointKey::from_bits(key), adapter: AdapterId::from_bits(adapter), current, next }
    }
}

/// What somebody has noted of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoteRow {
    pub note: MissingNote,
    /// Whether another gateway has noted it. What was received is not published again.
    pub is_remote: bool,
}

/// Words of such a row.
pub(super) const NOTE_WORDS: usize = 4;

impl NoteRow {
    pub fn words(&self) -> [u64; NOTE_WORDS] {
        let MissingNote { endpoint, model, missing } = self.note;
        let how = both(missing.times.into(), self.is_remote.into());
        [endpoint.to_bits(), model.to_bits(), missing.noted_ms, how]
    }

    pub fn from_words([endpoint, model, noted_ms, how]: [u64; NOTE_WORDS]) -> NoteRow {
        let (times, is_remote) = halves(how);
        let missing = Missing { noted_ms, times: u8::try_from(times).unwrap_or(u8::MAX) };
        let (endpoint, model) = (EndpointKey::from_bits(endpoint), AdapterId::from_bits(model));
        NoteRow { note: MissingNote { endpoint, model, missing }, is_remote: is_remote != 0 }
    }
}

/// Words of a note of failures.
pub(super) const FAILURE_WORDS: usize = 3;

pub(super) fn failure_words(note: &FailureNote) -> [u64; FAILURE_WORDS] {
    let Failures { noted_ms, requests, answers } = note.failures;
    [note.endpoint.to_bits(), noted_ms, both(requests, answers)]
}

pub(super) fn failure_from_words([endpoint, noted_ms, failures]: [u64; FAILURE_WORDS]) -> FailureNote {
    let (requests, answers) = halves(failures);
    let endpoint = EndpointKey::from_bits(endpoint);
    FailureNote { endpoint, failures: Failures { noted_ms, requests, answers } }
}

/// A load, without adapters that nobody uses.
pub(super) fn load(in_flight: InFlight, adapters: impl Iterator<Item = (AdapterId, u32)>) -> EndpointLoad {
    EndpointLoad { in_flight, adapters: adapters.filter(|(_, count)| *count > 0).collect() }
}

fn both(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << u32::BITS
}

fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> u32::BITS) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A worker's requests, each by when it was sent and its tokens, all of them waiting.
    fn waiting(sent: &[(u64, u32)]) -> InFlight {
        InFlight {
            requests: sent.len() as u32,
            waiting: sent.len() as u32,
            waiting_tokens: sent.iter().map(|(_, tokens)| u64::from(*tokens)).sum(),
            oldest: sent.iter().min().map(|&(sent_ms, tokens)| Oldest { sent_ms, tokens }),
            last_output_ms: 0,
        }
    }

    fn row(loads: &[InFlight]) -> Row {
        let mut row = Row::new(EndpointKey::from_bits(1));
        loads.iter().for_each(|load| row.replace(Some(InFlight::default()), None, *load));
        row
    }

    #[test]
    fn what_a_worker_has_is_put_in_place_of_what_it_had() {
        let (one, other) = (waiting(&[(5, 100), (9, 10)]), waiting(&[(7, 50)]));
        let mut sum = row(&[one, other]);
        assert_eq!(sum.in_flight(), waiting(&[(5, 100), (9, 10), (7, 50)]));
        assert_eq!(sum.without(one).waiting_tokens, 50);
        let next = waiting(&[(9, 10)]);
        sum.replace(Some(one), None, next);
        assert_eq!(sum.oldest, Some(Oldest { sent_ms: 9, tokens: 10 }), "until the other says so");
        sum.replace(Some(other), None, other);
        assert_eq!(sum.oldest, Some(Oldest { sent_ms: 7, tokens: 50 }));
        sum.replace(Some(next), None, InFlight::default());
        sum.replace(Some(other), None, InFlight::default());
        assert!(sum.is_idle());
        assert_eq!(sum.oldest, None);
    }

    #[test]
    fn what_was_never_added_cannot_make_a_sum_negative() {
        let mut sum = row(&[waiting(&[(5, 100)])]);
        sum.replace(Some(waiting(&[(1, 500), (2, 500)])), None, InFlight::default());
        assert_eq!((sum.current.requests, sum.current.waiting_tokens), (0, 0));
    }
}
