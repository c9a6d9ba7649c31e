//! PREFIX_CACHE: the endpoint where the request costs least, given what is cached there; what is new
//! begins where a rendezvous hash puts it (`rendezvous.rs`).
//!
//! ```text
//! cost           = that of DEFAULT, where prompt tokens − matched tokens are not cached
//! matched tokens = prompt tokens × bytes of the matched blocks ÷ bytes of the prompt, in whole blocks of the server
//! ```
//!
//! The cost lets a prompt follow its prefix as long as that saves more than waiting there costs: a hot prefix spreads by
//! itself.

use super::Demand;
use crate::pool::Endpoint;
use crate::prefix::BLOCK_BYTES;

/// The tokens of a prompt that are cached at an endpoint where so many blocks of it are; servers share whole blocks of their own.
pub(super) fn matched_tokens(demand: Demand<'_>, matched_blocks: usize, endpoint: &Endpoint) -> u32 {
    let Some(blocks) = demand.blocks.filter(|_| matched_blocks > 0) else { return 0 };
    let share = (matched_blocks * BLOCK_BYTES) as f64 / blocks.bytes.max(1) as f64;
    let tokens = (f64::from(demand.prompt_tokens) * share) as u32;
    tokens - tokens % endpoint.cache_block_tokens()
}
