//! Prints the plugin's configuration, or the Istio resources that carry it: files in, text out.

#![forbid(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use inference_picker_config::arguments::{Arguments, Command, Inputs};
use inference_picker_config::document::Draft;
use inference_picker_config::findings::Findings;
use inference_picker_config::resources::{self, Inventory};
use inference_picker_config::settings::Settings;
use inference_picker_config::{input, istio, validation};

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
    let options = &inputs.options;
    let settings = Settings::read(options.settings.as_deref())?;
    let inventory = inventory(inputs, findings)?;
    if let Command::Check(_) = command {
        findings.be_strict();
    }
    let draft = Draft::new(&inventory, options, inputs.make_services, &settings, findings);
    let Some(config) = validation::validate(&draft, &settings, findings)? else {
        return Ok(String::new());
    };
    match (command, gateway) {
        (Command::Check(_), _) => {
            Ok(format!("pools: {}, models: {}\n", config.pools.len(), config.models.len()))
        }
        (_, Some(gateway)) => istio::resources(&draft, &inventory.routes, &config, options, gateway),
        (_, None) => Ok(format!("{}\n", serde_json::to_string_pretty(&draft.document)?)),
    }
}

fn inventory(inputs: &Inputs, findings: &mut Findings) -> anyhow::Result<Inventory> {
    let mut found = Vec::new();
    for text in input::read(&inputs.files)? {
        for document in text.documents()? {
            found.extend(resources::in_document(document, &text.source, &inputs.namespace, findings));
        }
    }
    Ok(Inventory::new(found, findings))
}
