//! PREFIX_CACHE: the endpoint where the request costs least, given what is cached there; what is new has its place.
//!
//! ```text
//! cost           = that of DEFAULT, where prompt tokens − matched tokens are not cached
//! matched tokens = prompt tokens × bytes of the matched blocks ÷ bytes of the prompt, in whole blocks of the server
//!
//! place = of the endpoints whose cost is at most PLACEMENT_SLACK × the least:
//!         the one with the highest hash(first block that no endpoint holds, endpoint)
//! ```
//!
//! The cost lets a prompt follow its prefix as long as that saves more than waiting there costs: a hot prefix spreads by
//! itself. The place is bounded-load consistent hashing: where several endpoints are about as good, workers and gateways
//! that have not told each other yet send what begins alike to the same one, and few prompts move when an endpoint comes
//! or goes.

use super::{Contender, Demand, lesser};
use crate::hash::mix;
use crate::pool::Endpoint;
use crate::prefix::BLOCK_BYTES;

/// How much more than the least an endpoint's cost may be for a prompt to go where it belongs.
const PLACEMENT_SLACK: f64 = 1.05;

/// The tokens of a prompt that are cached at an endpoint where so many blocks of it are; servers share whole blocks of their own.
pub(super) fn matched_tokens(demand: Demand<'_>, matched_blocks: usize, endpoint: &Endpoint) -> u32 {
    let Some(blocks) = demand.blocks.filter(|_| matched_blocks > 0) else { return 0 };
    let share = (matched_blocks * BLOCK_BYTES) as f64 / blocks.bytes.max(1) as f64;
    let tokens = (f64::from(demand.prompt_tokens) * share) as u32;
    tokens - tokens % endpoint.cache_block_tokens()
}

/// Marks the endpoint to which the prompt's first block that is nowhere cached belongs, if there is such a block.
pub(super) fn place(mut contenders: Vec<Contender<'_>>, first_new: Option<u64>) -> Vec<Contender<'_>> {
    let freshest = contenders.iter().map(|contender| contender.freshness).min();
    let Some((first_new, freshest)) = first_new.zip(freshest) else { return contenders };
    let eligible = |contender: &&mut Contender<'_>| contender.freshness == freshest;
    let costs = contenders.iter_mut().filter(eligible).map(|contender| contender.cost);
    let least = costs.fold(f64::INFINITY, lesser);
    let near =
        contenders.iter_mut().filter(eligible).filter(|contender| contender.cost <= least * PLACEMENT_SLACK);
    if let Some(place) = near.max_by_key(|contender| mix(first_new ^ contender.endpoint.place)) {
        place.placed = true;
    }
    contenders
}
