//! Prints the plugin's configuration, or the Istio resources that carry it, from the Kubernetes resources that users
//! of an inference gateway already have.
//!
//! # The way through
//!
//! [`input`] reads YAML, [`resources`] knows the kinds and their fields, [`models`] makes one list of models of the
//! three kinds that tell of models, [`pools`] finds the Envoy cluster of each pool, [`document`] puts the plugin's
//! configuration together, [`validation`] has the plugin's own parser judge it, and [`istio`] fills the templates.
//!
//! # Contract
//!
//! - Nothing is printed that the plugin would refuse.
//! - What is wrong is said by file, kind, name and field path, all of it where it can be told at once.
//! - A field that is not known is refused, a kind that is not known is passed over with a line on stderr.
//!
//! It deliberately speaks to no cluster: files in, text out.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod arguments;
mod document;
mod findings;
mod input;
mod istio;
mod models;
mod pools;
mod resources;
mod routes;
mod settings;
mod validation;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use arguments::{Arguments, Command, Inputs};
use document::Draft;
use findings::Findings;
use resources::Inventory;
use settings::Settings;

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            // There is nothing to be done where not even this can be said.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command) -> anyhow::Result<ExitCode> {
    let mut findings = Findings::default();
    let text = text(command, &mut findings)?;
    findings.write(io::stderr())?;
    if findings.has_errors() {
        return Ok(ExitCode::FAILURE);
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What the command prints; it counts only if the findings have no errors.
fn text(command: &Command, findings: &mut Findings) -> anyhow::Result<String> {
    let (inputs, gateway) = match command {
        Command::Plugin(inputs) | Command::Check(inputs) => (inputs, None),
        Command::Istio { inputs, gateway } => (inputs, Some(gateway)),
    };
    let settings = Settings::read(inputs.settings.as_deref())?;
    let inventory = inventory(inputs, findings)?;
    let draft = Draft::new(&inventory, inputs, &settings, findings);
    let Some(config) = validation::validate(&draft, &settings, findings)? else {
        return Ok(String::new());
    };
    match (command, gateway) {
        (Command::Check(_), _) => {
            Ok(format!("pools: {}, models: {}\n", config.pools.len(), config.models.len()))
        }
        (_, Some(gateway)) => istio::resources(&draft, &inventory.routes, &config, inputs, gateway),
        (_, None) => Ok(format!("{}\n", serde_json::to_string_pretty(&draft.document)?)),
    }
}

fn inventory(inputs: &Inputs, findings: &mut Findings) -> anyhow::Result<Inventory> {
    let mut inventory = Inventory::default();
    for text in input::read(&inputs.files)? {
        for document in text.documents()? {
            for resource in resources::in_document(document, &text.source, &inputs.namespace, findings) {
                inventory.add(resource, findings);
            }
        }
    }
    Ok(inventory)
}
