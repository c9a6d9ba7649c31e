//! Runs the plugin in a real Envoy, in front of model servers: what the end-to-end tests, the benchmarks and `make run`
//! are made of.
//!
//! - [`envoy`] starts an Envoy on a configuration, and talks to it as a client and as an operator.
//! - [`model_server`] simulates model servers that behave like vLLM as far as routing can see.
//! - [`real_server`] starts real ones.
//! - [`peer`] starts other gateways for model servers, [`endpoint_picker`] the reference endpoint picker behind an Envoy.
//! - [`live`] compares picks in real time, behind a real Envoy.
//! - [`load`] has clients send and counts what they see; [`faults`] does something to the gateway meanwhile.
//! - [`simulation`] compares picks in virtual time, without an Envoy.
//! - [`statistics`] reads what the plugin counts from Envoy's admin, for `make run` and `make top`.
//! - [`observability`] runs a real Prometheus on the scrape job, alerts and dashboard that the project ships.
//! - [`demonstration`] is the setting that `make run` and `make top` show.
//! - [`sequence`] draws who sends what to whom.
//! - [`times`] are the figures by which comparisons say how long something took.
//! - [`document`] puts what was measured into the pages of `docs/`, [`table`] into tables.

pub mod demonstration;
pub mod document;
pub mod endpoint_picker;
pub mod envoy;
pub mod faults;
pub mod live;
pub mod load;
pub mod model_server;
pub mod observability;
pub mod peer;
mod plots;
pub mod real_server;
pub mod sequence;
pub mod simulation;
pub mod statistics;
pub mod table;
pub mod times;
