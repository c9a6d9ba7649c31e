//! The plugin in a real Envoy, in front of simulated model servers: what a user would see.

mod answers;
mod bench_routing;
mod configurations;
mod discovery;
mod failing_plugin;
mod failing_pods;
mod faults;
mod gateway;
mod hostile;
mod log;
mod models;
mod observability;
mod overload;
mod peers;
mod picking;
mod prefixes;
mod pushes;
mod readme;
mod recorded;
mod requests;
mod run;
mod scraping;
mod spans;
mod statistics;
mod tokens;
mod top;
