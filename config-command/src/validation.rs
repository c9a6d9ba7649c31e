//! The plugin's own parser checks the document, and its refusals are reported by the resource's field instead of the
//! document's.
//!
//! The parser stops at the first thing that is wrong. So that all is reported at once, the parts are then checked each alone:
//! the head, every pool, every model.

use inference_picker::config::{Config, ConfigError};
use serde::Serialize;
use serde_json::json;

use crate::document::Document;
use crate::draft::Draft;
use crate::findings::Findings;
use crate::models::{Default, Published};
use crate::pools::PlannedPool;
use crate::resources::STRATEGY_ANNOTATION;
use crate::settings::Settings;

/// The configuration, or nothing and findings with errors.
pub fn validate(
    draft: &Draft<'_>,
    settings: &Settings,
    findings: &mut Findings,
) -> anyhow::Result<Option<Config>> {
    match parse(&draft.document)? {
        Ok(config) => Ok((!findings.has_errors()).then_some(config)),
        Err(error) => {
            refuse_parts(draft, settings, findings)?;
            if !findings.has_errors() {
                findings.refuse(&"the plugin's configuration", &error.path, error.problem);
            }
            Ok(None)
        }
    }
}

fn parse(document: &impl Serialize) -> anyhow::Result<Result<Config, ConfigError>> {
    Ok(Config::parse(&serde_json::to_vec(document)?).map_err(without_position))
}

/// A position in a text that nobody sees helps nobody.
fn without_position(error: ConfigError) -> ConfigError {
    let problem = error.problem.split(" at line ").next().unwrap_or_default().to_owned();
    ConfigError { problem, ..error }
}

fn refuse_parts(draft: &Draft<'_>, settings: &Settings, findings: &mut Findings) -> anyhow::Result<()> {
    if let Err(error) = parse(&with_stand_in_pool(&draft.document))? {
        let subject = if settings.fields.contains_key(first_field(&error.path)) {
            settings.source.as_str()
        } else {
            "options"
        };
        findings.refuse(&subject, &error.path, error.problem);
    }
    for (planned, pool) in draft.pools.iter().zip(&draft.document.pools) {
        let alone = crate::document::Pool { default_targets: None, ..pool.clone() };
        let pools = std::iter::once(json!(alone)).chain(planned.prefill.as_deref().map(stand_in_pool));
        let pools: Vec<_> = pools.collect();
        if let Err(error) = parse(&json!({"adminCluster": "admin", "pools": pools}))? {
            refuse_pool(planned, settings, &error, findings);
        }
    }
    for of_pool in &draft.models.defaults {
        let mut pool = stand_in_pool(&of_pool.pool);
        if let Some(fields) = pool.as_object_mut() {
            fields.insert("defaultTargets".to_owned(), json!(of_pool.targets));
        }
        if let Err(error) = parse(&json!({"pools": [pool]}))? {
            refuse_default(of_pool, &error, findings);
        }
    }
    for named in &draft.models.objectives {
        let document = json!({"pools": [stand_in_pool(&named.objective.pool_ref.name)], "objectives": [named.objective]});
        if let Err(error) = parse(&document)?
            && let Some(field) = error.path.strip_prefix("objectives[0].")
        {
            let path = if field == "name" { "metadata.name".to_owned() } else { format!("spec.{field}") };
            findings.refuse(&named.identity, &path, &error.problem);
        }
    }
    for published in &draft.models.published {
        let document =
            json!({"pools": [stand_in_pool(&published.model.pool_ref.name)], "models": [published.model]});
        if let Err(error) = parse(&document)? {
            refuse_model(published, &error, findings);
        }
    }
    Ok(())
}

/// A pool that is right.
fn stand_in_pool(name: &str) -> serde_json::Value {
    json!({"name": name, "cluster": "cluster", "endpoints": ["127.0.0.1:1"]})
}

fn with_stand_in_pool(document: &Document) -> serde_json::Value {
    let mut head = json!(document);
    if let Some(fields) = head.as_object_mut() {
        fields.remove("models");
        fields.remove("objectives");
        fields.insert("pools".to_owned(), json!([stand_in_pool("pool")]));
    }
    head
}

fn first_field(path: &str) -> &str {
    path.split(['.', '[']).next().unwrap_or(path)
}

fn refuse_pool(planned: &PlannedPool<'_>, settings: &Settings, error: &ConfigError, findings: &mut Findings) {
    let identity = &planned.pool.identity;
    let field = error.path.strip_prefix("pools[0].").unwrap_or(&error.path);
    match (field, settings.pool(&planned.name)) {
        ("name", _) => findings.refuse(identity, "metadata.name", &error.problem),
        ("routingStrategy", _) => {
            let path = format!("metadata.annotations['{STRATEGY_ANNOTATION}']");
            findings.refuse(identity, &path, &error.problem);
        }
        (field, Some((index, pool))) if pool.fields.contains_key(first_field(field)) => {
            findings.refuse(&settings.source, &format!("pools[{index}].{field}"), &error.problem);
        }
        _ => findings.refuse(identity, field, &error.problem),
    }
}

fn refuse_default(of_pool: &Default, error: &ConfigError, findings: &mut Findings) {
    if let Some(rest) = error.path.strip_prefix("pools[0].defaultTargets") {
        findings.refuse(&of_pool.identity, &of_pool.path(rest), &error.problem);
    }
}

fn refuse_model(published: &Published, error: &ConfigError, findings: &mut Findings) {
    // What the pool's name may be was said of the pool.
    if let Some(field) = error.path.strip_prefix("models[0].") {
        findings.refuse(&published.identity, &published.path(field), &error.problem);
    }
}
