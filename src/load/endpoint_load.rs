//! The load of one endpoint as workers publish it: a sum, from which a worker's part can be taken out and put in anew.
//!
//! ```text
//! sum' = sum − what the worker had + what it has
//! ```
//!
//! Counts are exact; whose request is the oldest is a hint, as in the [ledger](crate::ledger).

use serde::{Deserialize, Serialize};

use super::row::MAX_ADAPTERS;
use super::{AdapterId, InFlight, Oldest};

/// An endpoint, by a hash of its address that is the same in every worker and every gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointKey(u64);

impl EndpointKey {
    /// The endpoint of this address.
    pub fn of(address: std::net::SocketAddr) -> EndpointKey {
        EndpointKey(crate::hash::fnv1a(address.to_string().as_bytes()))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }

    pub(crate) fn from_bits(bits: u64) -> EndpointKey {
        EndpointKey(bits)
    }

    /// The place of those that wait for the pool of this name.
    pub fn of_queue(pool: &str) -> EndpointKey {
        EndpointKey(crate::hash::fnv1a(format!("queue of {pool}").as_bytes()))
    }
}

/// What is in flight on an endpoint, of one worker or of several.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointLoad {
    /// The requests.
    pub in_flight: InFlight,
    /// The adapters they are for, and how many are for each; above zero.
    pub adapters: Vec<(AdapterId, u32)>,
}

impl EndpointLoad {
    /// Nothing in flight.
    pub const IDLE: EndpointLoad = EndpointLoad { in_flight: InFlight::NONE, adapters: Vec::new() };

    /// Whether nothing is in flight there.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_idle() && self.adapters.is_empty()
    }

    /// Takes out of this sum what one worker had there, and adds what it has.
    pub fn replace(&mut self, old: &EndpointLoad, new: &EndpointLoad) {
        self.in_flight = self.in_flight.replaced(old.in_flight, new.in_flight);
        for (adapter, count) in &old.adapters {
            if let Some((_, sum)) = self.adapters.iter_mut().find(|(known, _)| known == adapter) {
                *sum = sum.saturating_sub(*count);
            }
        }
        for (adapter, count) in &new.adapters {
            if let Some((_, sum)) = self.adapters.iter_mut().find(|(known, _)| known == adapter) {
                *sum = sum.saturating_add(*count);
            } else if self.adapters.len() < MAX_ADAPTERS {
                self.adapters.push((*adapter, *count));
            }
        }
        self.adapters.retain(|(_, count)| *count > 0);
    }

    /// What is left of this sum without one worker's part.
    pub fn without(&self, part: &EndpointLoad) -> EndpointLoad {
        let mut rest = self.clone();
        rest.replace(part, &EndpointLoad::default());
        rest
    }
}

impl InFlight {
    fn replaced(self, old: InFlight, new: InFlight) -> InFlight {
        let sum = |sum: u32, old: u32, new: u32| sum.saturating_sub(old).saturating_add(new);
        let waiting = sum(self.waiting, old.waiting, new.waiting);
        let waiting_tokens = self.waiting_tokens.saturating_sub(old.waiting_tokens);
        let oldest = if self.oldest == old.oldest {
            new.oldest
        } else {
            self.oldest.into_iter().chain(new.oldest).min_by_key(|oldest: &Oldest| oldest.sent_ms)
        };
        InFlight {
            requests: sum(self.requests, old.requests, new.requests),
            waiting,
            waiting_tokens: waiting_tokens.saturating_add(new.waiting_tokens),
            oldest: oldest.filter(|_| waiting > 0),
            last_output_ms: self.last_output_ms.max(new.last_output_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const SQL: AdapterId = AdapterId(1);
    const CHAT: AdapterId = AdapterId(2);

    /// A worker's requests, each by when it was sent and its tokens, all of them waiting.
    fn load(sent: &[(u64, u32)], adapters: &[(AdapterId, u32)]) -> EndpointLoad {
        let oldest = sent.iter().min().map(|&(sent_ms, tokens)| Oldest { sent_ms, tokens });
        let in_flight = InFlight {
            requests: sent.len() as u32,
            waiting: sent.len() as u32,
            waiting_tokens: sent.iter().map(|(_, tokens)| u64::from(*tokens)).sum(),
            oldest,
            last_output_ms: 0,
        };
        EndpointLoad { in_flight, adapters: adapters.to_vec() }
    }

    #[test]
    fn what_a_worker_has_is_put_in_place_of_what_it_had() {
        let (one, other) = (load(&[(5, 100), (9, 10)], &[(SQL, 2)]), load(&[(7, 50)], &[(SQL, 1)]));
        let mut sum = EndpointLoad::default();
        sum.replace(&EndpointLoad::default(), &one);
        sum.replace(&EndpointLoad::default(), &other);
        assert_eq!(sum, load(&[(5, 100), (9, 10), (7, 50)], &[(SQL, 3)]));
        assert_eq!(sum.without(&one).in_flight.waiting_tokens, 50);
        let next = load(&[(9, 10)], &[(CHAT, 1)]);
        sum.replace(&one, &next);
        assert_eq!(sum.adapters, [(SQL, 1), (CHAT, 1)]);
        assert_eq!(sum.in_flight.oldest, Some(Oldest { sent_ms: 9, tokens: 10 }), "until the other says so");
        sum.replace(&other, &other);
        assert_eq!(sum.in_flight.oldest, Some(Oldest { sent_ms: 7, tokens: 50 }));
        sum.replace(&next, &EndpointLoad::default());
        sum.replace(&other, &EndpointLoad::default());
        assert!(sum.is_idle());
        assert_eq!(sum.in_flight.oldest, None);
    }

    #[test]
    fn what_was_never_added_cannot_make_a_sum_negative() {
        let mut sum = load(&[(5, 100)], &[]);
        sum.replace(&load(&[(1, 500), (2, 500)], &[(SQL, 4)]), &EndpointLoad::default());
        assert_eq!((sum.in_flight.requests, sum.in_flight.waiting_tokens), (0, 0));
        assert_eq!(sum.adapters, []);
    }
}
