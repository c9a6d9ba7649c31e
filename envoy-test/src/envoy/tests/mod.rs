//! The harness itself, tried on a real Envoy without the plugin.

mod client;
mod configuration;
mod echo;
mod process;

use super::Configuration;
use super::process::{Envoy, EnvoySettings};
use echo::EchoServer;

fn plain() -> Configuration {
    Configuration::parse(include_str!("plain.yaml")).unwrap()
}

/// An Envoy in front of an echo server.
fn plain_envoy() -> Envoy {
    let mut configuration = plain();
    configuration.set_endpoints("echo", &[EchoServer::start().address]);
    Envoy::start(EnvoySettings::new(configuration)).unwrap()
}
