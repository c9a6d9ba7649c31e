//! What the command prints, from its arguments.

use crate::arguments::{Command, Inputs};
use crate::draft::Draft;
use crate::findings::Findings;
use crate::resources::{self, Inventory};
use crate::settings::Settings;
use crate::{input, istio, validation};

/// What the command prints; it counts only if the findings have no errors.
///
/// # Errors
/// Where files cannot be read.
pub fn text(command: &Command, findings: &mut Findings) -> anyhow::Result<String> {
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
