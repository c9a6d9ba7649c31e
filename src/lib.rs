//! Inference Picker: a proxy-wasm filter that sends each LLM request to the model server best able to take it.
//!
//! # The way of one request
//!
//! 1. The host has the headers. If the route leads to a pool's cluster, the filter waits for the body ([`openai`]).
//! 2. The body is read: model, stream flag, size of the prompt.
//! 3. [`decide`] orders the steps: which model to send ([`models`]), which endpoints can take it ([`pool`]), and which
//!    is best ([`strategy`]), from what was scraped ([`metrics`]) and what the gateway has in flight ([`load`]).
//! 4. The shell writes the pick and lets the request go; Envoy's load balancer obeys.
//! 5. The first output and the end of the answer give the load back.
//!
//! Apart from requests, [`scrape`] says when to ask each endpoint for its metrics, and [`lease`] which worker does it
//! where there is no companion service. Where several gateways serve the same pools, [`peers`] says what they publish to each
//! other.
//!
//! # Invariants
//!
//! - The core knows no host, no clock and no randomness: they are arguments. Only `plugin` speaks to the host, and
//!   it compiles for no other target.
//! - Only [`config`], [`openai`], [`metrics`], [`pool`] and [`peers`] know a wire format.
//! - Any bytes, from clients, model servers, other gateways or shared data, are read in bounded memory and without a panic.
//! - Data that is missing or old is a value with a defined decision, never an error of a request.

#![cfg_attr(not(target_os = "wasi"), forbid(unsafe_code))]
#![cfg_attr(target_os = "wasi", deny(unsafe_code))]
// Nothing that ships panics.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![warn(missing_docs)]

pub mod admission;
pub mod config;
pub mod decayed_ratio;
pub mod decide;
pub mod empty_pool;
pub mod explanation;
pub mod fallback;
pub mod first_pass;
pub mod hash;
pub mod header_pairs;
pub mod interval;
pub mod lease;
pub mod ledger;
pub mod limits;
pub mod load;
pub mod log_budget;
pub mod log_fields;
pub mod metrics;
pub mod models;
pub mod openai;
pub mod peers;
pub mod picker;
pub mod pool;
pub mod prefill;
pub mod prefix;
pub mod promise;
pub mod queue;
pub mod scrape;
pub mod sessions;
pub mod slots;
pub mod stats;
pub mod strategy;
pub mod token_estimator;

#[cfg(target_os = "wasi")]
mod plugin;
