//! Which pick is good: the routing core and other pickers in front of simulated engines, in virtual time.
//!
//! A [`Scenario`] names the traffic, the pool and the picker; [`simulate`] plays it and gives a [`Record`] of every
//! answer. There is no Envoy, no socket and no wall clock in it: the same scenario gives the same record, bit for bit. Only
//! what a pick takes is measured, where [`scale`] asks for it.
//!
//! It deliberately does not model what lies between gateway and engine: a request is there the moment it is sent, and
//! a first output is known the moment it appears. What the plugin itself costs is measured elsewhere.

pub mod comparison;
pub mod disaggregation;
pub mod objective;
pub mod picker;
pub mod pool;
pub mod promises;
pub mod replay;
pub mod report;
mod run;
pub mod scale;
mod scenario;
#[cfg(test)]
mod tests;
pub mod workload;

pub use run::{Answer, Record};
pub use scenario::{Scenario, simulate};
