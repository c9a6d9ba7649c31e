//! Which of a server's engines runs a request, where the gateway says so (data parallelism, `dataParallel: ranks`).
//!
//! ```text
//! load(rank) = its requests at the last scrape + this worker's that were sent since − those that ended since
//! room(rank) = load(rank) < max(⌈BALANCE × (all loads + 1) ÷ ranks⌉, FEW)
//! rank       = of those with room, the one with the highest hash(key, endpoint, rank)
//!
//! key        = the request's session, else its first KEY_BLOCKS blocks; without either, drawn for each request
//! ```
//!
//! Each engine has a prefix cache of its own, so what begins alike is to go to the same one. Consistent hashing with bounded
//! loads (Mirrokni, Thorup and Zadimoghaddam, 2016) does that without remembering anything, alike in all workers and gateways.

use crate::hash::mix;
use crate::prefix::PromptBlocks;

/// How much above the mean an engine's load may be: with 1 hashes decide nothing, and without bound a popular prefix fills one
/// engine while others idle. 1.25 is what its authors' users run it with.
const BALANCE: f64 = 1.25;

/// Requests of which an engine runs so many beside each other that none notices the others.
const FEW: f64 = 4.0;

/// Blocks by which prompts are distinguished that name no session: 4 KB, about a thousand tokens. Fewer are often a system prompt
/// that all have, and with more the turns of one conversation differ.
const KEY_BLOCKS: usize = 16;

/// By what a prompt belongs to an engine.
pub fn key(session: Option<u64>, blocks: Option<&PromptBlocks>) -> Option<u64> {
    let hashes = blocks.map(|blocks| blocks.hashes.as_slice()).unwrap_or_default();
    let last = hashes.get(..KEY_BLOCKS).unwrap_or(hashes).last();
    session.or_else(|| last.map(|hash| u64::from(u32::from_le_bytes(*hash))))
}

/// The engine for a request; `loads` are the requests of the endpoint's engines, `endpoint_score` its own in a rendezvous choice by the
/// request's key. `None`: there are no engines to choose from.
pub fn choose(loads: &[u32], endpoint_score: u64) -> Option<u32> {
    let total: f64 = loads.iter().copied().map(f64::from).sum();
    let limit = (BALANCE * (total + 1.0) / loads.len().max(1) as f64).ceil().max(FEW);
    let with_room = loads.iter().zip(0..).filter(|(load, _)| f64::from(**load) < limit);
    let score = |rank: u32| mix(endpoint_score ^ u64::from(rank));
    with_room.map(|(_, rank)| rank).max_by_key(|rank| score(*rank))
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The engine of one endpoint for a request with this key.
    fn chosen(loads: &[u32], key: u64) -> Option<u32> {
        choose(loads, mix(key ^ 0x1234_5678_9abc_def0))
    }

    #[test]
    fn what_has_one_key_goes_to_one_engine_while_that_has_room() {
        for key in 0..100 {
            let first = chosen(&[0; 4], key).unwrap();
            assert_eq!(chosen(&[9, 9, 9, 9], key), Some(first), "{key}");
            let mut loads = [8; 4];
            loads[first as usize] = 12;
            assert_ne!(chosen(&loads, key), Some(first), "{key}");
        }
    }

    #[test]
    fn keys_spread_and_one_key_alone_fills_no_engine() {
        let mut loads = [0_u32; 4];
        for key in 0..4_000 {
            loads[chosen(&[0; 4], mix(key)).unwrap() as usize] += 1;
        }
        assert!(loads.iter().all(|load| load.abs_diff(1_000) < 150), "{loads:?}");
        let mut loads = [0_u32; 4];
        for _ in 0..4_000 {
            loads[chosen(&loads, 7).unwrap() as usize] += 1;
        }
        assert!(loads.iter().all(|load| *load <= 1_251), "{loads:?}");
    }

    #[test]
    fn there_is_always_one_with_room_if_there_is_any() {
        for loads in [&[u32::MAX][..], &[u32::MAX, u32::MAX], &[0, u32::MAX], &[5, 5, 5, 5, 5]] {
            assert!((0..50).all(|key| chosen(loads, key).is_some()), "{loads:?}");
        }
        assert_eq!(chosen(&[], 1), None);
    }
}
