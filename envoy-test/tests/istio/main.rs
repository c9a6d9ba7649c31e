//! The deployments of `istio/` in front of simulated model servers: configured by istiod's own generators, run by a real
//! Envoy. `make test-istio` builds what this needs and runs it; `cargo test` alone skips it and says so.
//!
//! No Kubernetes, and Envoy's own build, not Istio's: what only that one has is left out (`control_plane::ENVIRONMENT`).

mod agent;
mod changes;
mod cluster;
mod control_plane;
mod envoy_gateway;
mod fallback;
mod from_resources;
mod gateway;
mod manifests;
mod picking;
mod places;
mod pools;
mod programs;
mod registry;
mod requests;
mod resources;
mod setup;
mod several_gateways;
mod telemetry;
mod under_the_agent;
