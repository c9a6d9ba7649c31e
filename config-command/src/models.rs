//! One list of models, from InferenceModels, InferenceModelRewrites and InferenceObjectives.
//!
//! - An InferenceModel is a model as it is.
//! - A rule of an InferenceModelRewrite is one model for each of its matches; of two rules of one resource for the same
//!   model the first counts, as its documentation says.
//! - An InferenceObjective tells the criticality of the model that bears the objective's name. In the Gateway API
//!   Inference Extension it is the client that names the objective, by a header, which the plugin does not read.

use std::collections::HashMap;

use crate::findings::Findings;
use crate::resources::{Identity, Inventory, Model, Objective, PoolRef, Rewrite, Rule};

/// The kind that a reference to a pool may name.
const POOL_KIND: &str = "InferencePool";

/// A model, and the resource that tells of it.
#[derive(Debug)]
pub struct Published {
    pub model: Model,
    pub identity: Identity,
    part: Part,
}

/// Where in the resource the model is.
#[derive(Debug)]
enum Part {
    Spec,
    Rule { rule: usize, matched: usize },
    Name,
}

impl Published {
    /// The resource's path for a field of the model.
    pub fn path(&self, field: &str) -> String {
        match self.part {
            Part::Spec => format!("spec.{field}"),
            Part::Rule { rule, matched } if field == "modelName" => {
                format!("spec.rules[{rule}].matches[{matched}].model.value")
            }
            Part::Rule { rule, .. } => match field.strip_prefix("targetModels") {
                Some(rest) => format!("spec.rules[{rule}].targets{}", rest.replace(".name", ".modelRewrite")),
                None => format!("spec.{field}"),
            },
            Part::Name if field == "modelName" => "metadata.name".to_owned(),
            Part::Name => format!("spec.{field}"),
        }
    }
}

/// All models; references to pools that are not there are refused.
pub fn published(inventory: &Inventory, findings: &mut Findings) -> Vec<Published> {
    let mut models: Vec<Published> = inventory
        .models
        .iter()
        .map(|(identity, model)| Published {
            model: model.clone(),
            identity: identity.clone(),
            part: Part::Spec,
        })
        .collect();
    for rewrite in &inventory.rewrites {
        models.extend(rewritten(rewrite, findings));
    }
    for objective in &inventory.objectives {
        apply(objective, &mut models, findings);
    }
    for model in &models {
        check_pool(model, inventory, findings);
    }
    refuse_same(&models, findings);
    models
}

fn rewritten(rewrite: &Rewrite, findings: &mut Findings) -> Vec<Published> {
    let mut models: Vec<Published> = Vec::new();
    for (rule_index, rule) in rewrite.rules.iter().enumerate() {
        for (match_index, name) in rule.model_names().enumerate() {
            let part = Part::Rule { rule: rule_index, matched: match_index };
            let model =
                Published { model: of_rule(rewrite, rule, name), identity: rewrite.identity.clone(), part };
            if models.iter().any(|before| before.model.model_name == name) {
                let problem = format!("an earlier rule is for `{name}` too, and counts");
                findings.warn(&model.identity, &model.path("modelName"), problem);
            } else {
                models.push(model);
            }
        }
    }
    models
}

fn of_rule(rewrite: &Rewrite, rule: &Rule, name: &str) -> Model {
    Model {
        model_name: name.to_owned(),
        criticality: None,
        pool_ref: rewrite.pool_ref.clone(),
        target_models: rule.targets(),
    }
}

fn apply(objective: &Objective, models: &mut Vec<Published>, findings: &mut Findings) {
    let identity = &objective.identity;
    let is_meant = |published: &&mut Published| {
        published.model.model_name == identity.name
            && published.identity.namespace == identity.namespace
            && published.model.pool_ref.name == objective.pool_ref.name
    };
    match models.iter_mut().find(is_meant) {
        Some(Published { model: Model { criticality: Some(criticality), .. }, .. }) => {
            let problem = format!("its InferenceModel says {criticality}, which counts");
            findings.warn(identity, "spec.priority", problem);
        }
        Some(published) => published.model.criticality = Some(objective.criticality().to_owned()),
        None => {
            let problem =
                "is taken as the name of a model; the header with which clients name objectives is not read";
            findings.warn(identity, "metadata.name", problem);
            models.push(of_objective(objective));
        }
    }
}

fn of_objective(objective: &Objective) -> Published {
    Published {
        model: Model {
            model_name: objective.identity.name.clone(),
            criticality: Some(objective.criticality().to_owned()),
            pool_ref: objective.pool_ref.clone(),
            target_models: None,
        },
        identity: objective.identity.clone(),
        part: Part::Name,
    }
}

fn check_pool(published: &Published, inventory: &Inventory, findings: &mut Findings) {
    let PoolRef { name, kind, .. } = &published.model.pool_ref;
    let identity = &published.identity;
    if let Some(kind) = kind.as_ref().filter(|kind| *kind != POOL_KIND) {
        findings.refuse(identity, "spec.poolRef.kind", format!("`{kind}` is not {POOL_KIND}"));
    } else if !inventory.has_pool(&identity.namespace, name) {
        let problem = format!("there is no InferencePool `{name}` in namespace `{}`", identity.namespace);
        findings.refuse(identity, "spec.poolRef.name", problem);
    }
}

/// A model's name stands for one model in a pool. Several pools may each have one: then the route decides.
fn refuse_same(models: &[Published], findings: &mut Findings) {
    let mut first = HashMap::new();
    for published in models {
        let (name, pool) = (published.model.model_name.as_str(), published.model.pool_ref.name.as_str());
        if let Some(before) = first.insert((name, pool), &published.identity) {
            let problem =
                format!("the model `{name}` is published twice for the pool `{pool}`, also by {before}");
            findings.refuse(&published.identity, &published.path("modelName"), problem);
        }
    }
}
