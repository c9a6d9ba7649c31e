//! From the Kubernetes resources that users of an inference gateway already have to the plugin's configuration, and to the
//! Istio resources that carry it. The command prints it, the controller applies it.
//!
//! # The way through
//!
//! [`input`] reads YAML, [`resources`] knows the kinds and their fields, [`pools`] finds the Envoy cluster of each pool,
//! [`models`] makes one list of models of the kinds that name models, [`document`] puts the plugin's configuration
//! together, [`share`] bounds what one namespace may put into it, [`validation`] has the plugin's own parser check it, and
//! [`istio`] fills the templates. For the controller, [`plan`] has whatever is right count whatever else is wrong ([`tolerant`],
//! [`last_good`]), and [`status`] says what became of each resource.
//!
//! # Contract
//!
//! - Nothing is given out that the plugin would refuse.
//! - What is wrong is said by file, kind, name and field path, all of it where it can be reported at once.
//! - A field that is not known is warned of, a kind that is not known is passed over with a line.
//! - The same resources give the same bytes, in whatever order they come.
//!
//! It deliberately speaks to no cluster: resources in, text out.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

pub mod arguments;
pub mod command;
pub mod document;
pub mod draft;
pub mod findings;
pub mod input;
pub mod istio;
pub mod last_good;
pub mod models;
pub mod plan;
pub mod pools;
pub mod resources;
pub mod routes;
pub mod services;
pub mod settings;
pub mod share;
pub mod status;
pub mod tolerant;
pub mod validation;
