//! The document and what its parts come from, put together from all that was read.

use crate::arguments::Options;
use crate::document::{self, Document};
use crate::findings::Findings;
use crate::models::Models;
use crate::pools::{self, PlannedPool};
use crate::resources::Inventory;
use crate::routes;
use crate::settings::Settings;
use crate::share;

/// The document, and what its parts come from, in the same order.
#[derive(Debug)]
pub struct Draft<'a> {
    pub document: Document,
    pub pools: Vec<PlannedPool<'a>>,
    pub models: Models,
}

impl<'a> Draft<'a> {
    /// Puts it together from all that was read. `makes_services`: for pools that have none.
    pub fn new(
        inventory: &'a Inventory,
        options: &Options,
        makes_services: bool,
        settings: &Settings,
        findings: &mut Findings,
    ) -> Draft<'a> {
        if inventory.is_without_pools() {
            findings.refuse(&"resources", "InferencePool", "there is none; the plugin needs at least one");
        }
        let pools = pools::plan(inventory, options, makes_services, findings);
        let models = Models::new(inventory, &pools, findings);
        routes::check(inventory, findings);
        refuse_settings_of_no_pool(settings, &pools, findings);
        let mut document = document::head(options, settings);
        document.unknown_models = unknown_models(inventory, &models, settings);
        document.pools =
            pools.iter().map(|planned| document::pool(planned, &models.defaults, settings)).collect();
        document.models = models.published.iter().map(|published| published.model.clone()).collect();
        document.objectives = models.objectives.iter().map(|named| named.objective.clone()).collect();
        let draft = Draft { document, pools, models };
        share::refuse_surplus(&draft.document, &draft.pools, &draft.models, findings);
        draft
    }
}

/// Only an InferenceModel says which models there are; the other kinds leave what they do not name as it is.
fn unknown_models(inventory: &Inventory, models: &Models, settings: &Settings) -> Option<&'static str> {
    let is_said = settings.fields.contains_key("unknownModels");
    (!is_said && !models.published.is_empty() && inventory.models.is_empty()).then_some("passthrough")
}

fn refuse_settings_of_no_pool(settings: &Settings, pools: &[PlannedPool<'_>], findings: &mut Findings) {
    for (index, pool) in settings.pools.iter().enumerate() {
        if !pools.iter().any(|planned| planned.name == pool.name) {
            let problem = format!("there is no InferencePool `{}`", pool.name);
            findings.refuse(&settings.source, &format!("pools[{index}].name"), problem);
        }
    }
}
