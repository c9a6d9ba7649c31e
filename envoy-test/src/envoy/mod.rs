//! Runs a real Envoy for tests and talks to it.
//!
//! A test takes a complete `envoy.yaml`, changes what it needs ([`Configuration`]), starts Envoy with it ([`Envoy`]),
//! sends requests ([`Client`]), and looks at the answers, the statistics and the access log. Every Envoy has ports
//! and files of its own, so tests run side by side; it ends when its [`Envoy`] is dropped.
//!
//! Envoy is never downloaded here: `make setup` does that. Where it is missing, tests fail and say so.

mod access_log;
pub mod binary;
pub mod blocking;
pub mod client;
pub mod configuration;
mod instructions;
pub mod little_memory;
mod load;
mod observation;
mod ports;
mod process;
mod pushed_listener;

#[cfg(test)]
mod tests;

pub use access_log::parse_access_log;
pub use binary::{NEWEST, OLDEST};
pub use client::{Client, Connection, Protocol, RawConnection, Request, Response, WebSocket};
pub use configuration::Configuration;
pub use instructions::Instructions;
pub use load::Load;
pub use observation::{process_cpu_time_us, process_memory_bytes};
pub use ports::free_address;
pub use process::{Envoy, EnvoySettings, appended, log_tail, validate};
pub use pushed_listener::PushedListener;
