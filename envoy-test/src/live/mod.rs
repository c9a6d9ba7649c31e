//! Which pick is good, in real time: a real Envoy in front of simulated model servers, requests that come whether or not
//! those before them were answered, and what clients see of it.
//!
//! Every [`Column`] gets the same [`Traffic`] from the same seed: Envoy's own policies without the plugin, the plugin, and
//! two that pick in the process that sends. A [`Cell`] is one of them under one kind of traffic. The same requests can be
//! sent to a [`Gateway`] that somebody else runs.
//!
//! The servers are [`SPEED`] times as fast as those of the simulation in virtual time, and everything that comes at an
//! interval comes as much more often, so that a few seconds hold as much as half a minute would. What is measured is
//! wall time. It deliberately does not reject a run on a machine that was too busy: a cell whose requests were sent
//! late is measured anew, and left out if that does not help.

mod cell;
mod chooser;
mod column;
mod comparison;
mod front;
mod gateway;
mod machine;
mod measures;
mod play;
mod pods;
pub mod report;
mod request;
mod sending;
#[cfg(test)]
mod tests;
mod traffic;

pub use cell::Cell;
pub use column::Column;
pub use comparison::{Comparison, Played};
pub use front::Front;
pub use gateway::Gateway;
pub use measures::{Measures, Objective};
pub use play::{Outcome, Play};
pub use pods::PodsWatch;
pub use traffic::Traffic;

/// How many times faster than by default the simulated servers are.
pub const SPEED: f64 = 4.0;
