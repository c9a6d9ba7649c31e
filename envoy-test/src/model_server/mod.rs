//! Simulated model servers that behave like vLLM V1 as far as routing can see: latency that grows with load, a prefix
//! cache that pays, gauges that lag, adapters that take slots, and failures on demand.
//!
//! [`ModelServers::start`] runs any number of them in this process, each on its own loopback address.
//! `engine` is the model itself, in virtual time, usable without any server.
//!
//! They speak the OpenAI API (chat, completions, embeddings, responses), the Anthropic form of it and vLLM's
//! `/metrics`, in the shape recorded from a real vLLM in `tests/fixtures/vllm-0.32/`. They do not sample, stop
//! early, call tools or return several choices: the output is filler of exactly the length asked for.
//!
//! ```no_run
//! use envoy_test::model_server::{ModelServers, ServerSettings};
//!
//! let servers = ModelServers::start(vec![ServerSettings::default(); 3])?;
//! println!("{:?}", servers.addresses());
//! servers.server(0).set(|knobs| knobs.fail_status = Some(500));
//! assert_eq!(servers.server(0).counters().completed, 0);
//! # std::io::Result::Ok(())
//! ```

mod answers;
mod api;
mod control;
mod counters;
pub mod engine;
mod event_stream;
mod fleet;
mod inference;
mod knobs;
mod listener;
mod live_engine;
mod load_header;
mod metrics;
mod models;
mod multipart;
mod prompt;
mod ranks;
mod realtime;
mod request;
mod response;
mod routes;
mod scrape;
mod server;
mod settings;
mod sidecar;
mod small_requests;
mod stored;
pub mod tokens;

pub use counters::{Counters, ReportedTokens};
pub use fleet::{ModelServer, ModelServers};
pub use knobs::{FailInside, FixedGauges, InnerFailure, Knobs, MetricsMode, Sleep};
pub use metrics::{MetricsPage, SglangRanks};
pub use routes::RENDER_REFUSED;
pub use settings::{DEFAULT_LORA_SLOTS, Dialect, ServerSettings};
pub use sidecar::Sidecar;
