//! The controller and a real Kubernetes API server, with no more rights than `istio/controller` gives it; and istiod and an Envoy
//! behind it. `make test-kubernetes` builds these and runs the tests, in a network of their own: Kubernetes takes no loopback
//! addresses for pods.

#![expect(clippy::disallowed_methods, reason = "waits for what happens in other processes")]

mod chart;
mod cluster;
mod controllers;
mod istiod;
mod kubernetes;
mod quick_starts;
mod traffic;
