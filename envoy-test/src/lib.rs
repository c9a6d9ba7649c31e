//! The harness.

pub mod model_server;

pub mod envoy;
