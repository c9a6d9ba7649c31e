//! One list of models, from InferenceModels and InferenceModelRewrites; each pool's default targets, from rewrites without
//! matches; and the objectives that requests may name.
//!
//! - An InferenceModel is a model as it is.
//! - A rule of an InferenceModelRewrite is one model for each of its matches, and without matches the default of its pool.
//!   Of two rules for the same model of a pool, also in two resources, the older resource's counts, and in it the first.
//! - What a pool or a model is called is decided before: resources come by age ([`Inventory`]).

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use crate::findings::Findings;
use crate::pools::PlannedPool;
use crate::resources::{EXPERIMENTAL, Identity, Inventory, Model, PoolRef, Rewrite, STABLE, Target};

/// The kind that a reference to a pool may name.
const POOL_KIND: &str = "InferencePool";

/// A model, and the resource that names it.
#[derive(Debug)]
pub struct Published {
    /// The model, its pool by the plugin's name for it.
    pub model: Model,
    /// The resource.
    pub identity: Identity,
    part: Part,
}

/// Where models of a pool go that have no entry, and the rule that says so.
#[derive(Debug)]
pub struct Default {
    /// The pool, by the plugin's name for it.
    pub pool: String,
    /// The targets.
    pub targets: Vec<Target>,
    /// The resource.
    pub identity: Identity,
    rule: usize,
}

/// An objective as the plugin reads it, and its resource.
#[derive(Debug)]
pub struct Named {
    /// The entry.
    pub objective: Objective,
    /// The resource.
    pub identity: Identity,
}

/// An entry of the plugin's `objectives`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objective {
    /// What requests call it.
    pub name: String,
    /// Higher is more important.
    pub priority: i64,
    /// The pool, by the plugin's name for it.
    pub pool_ref: PoolRef,
}

/// Where in the resource the model is.
#[derive(Debug)]
enum Part {
    Spec,
    Rule { rule: usize, matched: usize },
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
                Some(rest) => path_of_targets(rule, rest),
                None => format!("spec.{field}"),
            },
        }
    }
}

impl Default {
    /// The resource's path for what is in the targets.
    pub fn path(&self, rest: &str) -> String {
        path_of_targets(self.rule, rest)
    }
}

fn path_of_targets(rule: usize, rest: &str) -> String {
    format!("spec.rules[{rule}].targets{}", rest.replace(".name", ".modelRewrite"))
}

/// What requests may ask for, and what they may name.
#[derive(Debug, std::default::Default)]
pub struct Models {
    /// The models.
    pub published: Vec<Published>,
    /// Of pools, at most one each.
    pub defaults: Vec<Default>,
    /// The objectives.
    pub objectives: Vec<Named>,
}

impl Models {
    /// All of them; references to pools that are not there are refused.
    pub fn new(inventory: &Inventory, pools: &[PlannedPool<'_>], findings: &mut Findings) -> Models {
        let mut models = Models::default();
        let pool_of = |identity: &Identity, pool: &PoolRef, findings: &mut Findings| {
            check_pool(identity, pool, inventory, findings);
            resolved(identity, pool, pools)
        };
        for (identity, model) in &inventory.models {
            let pool_ref = pool_of(identity, &model.pool_ref, findings);
            let model = Model { pool_ref, ..model.clone() };
            models.published.push(Published { model, identity: identity.clone(), part: Part::Spec });
        }
        let mut rewritten = HashSet::new();
        for rewrite in &inventory.rewrites {
            let pool_ref = pool_of(&rewrite.identity, &rewrite.pool_ref, findings);
            models.add_rewrite(rewrite, &pool_ref, &mut rewritten, findings);
        }
        for objective in &inventory.objectives {
            let pool_ref = pool_of(&objective.identity, &objective.pool_ref, findings);
            let (name, priority) = (objective.identity.name.clone(), objective.priority);
            models.objectives.push(Named {
                objective: Objective { name, priority, pool_ref },
                identity: objective.identity.clone(),
            });
        }
        models.refuse_same(findings);
        models
    }

    /// Each of a rewrite's rules, unless a rule of the same pool came before for the same model, or for all.
    fn add_rewrite(
        &mut self,
        rewrite: &Rewrite,
        pool_ref: &PoolRef,
        rewritten: &mut HashSet<(String, String)>,
        findings: &mut Findings,
    ) {
        let identity = &rewrite.identity;
        for (rule_index, rule) in rewrite.rules.iter().enumerate() {
            if rule.is_generic() {
                self.add_default(rewrite, rule_index, &pool_ref.name, findings);
            }
            for (matched, name) in rule.model_names().enumerate() {
                let model = Model {
                    model_name: name.to_owned(),
                    criticality: None,
                    pool_ref: pool_ref.clone(),
                    target_models: rule.targets(),
                };
                let part = Part::Rule { rule: rule_index, matched };
                let published = Published { model, identity: identity.clone(), part };
                if rewritten.insert((pool_ref.name.clone(), name.to_owned())) {
                    self.published.push(published);
                } else {
                    let problem = format!("an earlier rule is for `{name}` too, and counts");
                    findings.warn(identity, &published.path("modelName"), problem);
                }
            }
        }
    }

    fn add_default(&mut self, rewrite: &Rewrite, rule: usize, pool: &str, findings: &mut Findings) {
        let path = format!("spec.rules[{rule}].matches");
        if self.defaults.iter().any(|before| before.pool == pool) {
            findings.warn(
                &rewrite.identity,
                &path,
                "an earlier rule is for every model of the pool too, and counts",
            );
            return;
        }
        let Some(targets) = rewrite.rules.get(rule).and_then(crate::resources::Rule::targets) else { return };
        self.defaults.push(Default {
            pool: pool.to_owned(),
            targets,
            identity: rewrite.identity.clone(),
            rule,
        });
    }

    /// A model's name stands for one model in a pool. Several pools may each have one: then the route decides.
    fn refuse_same(&self, findings: &mut Findings) {
        let mut first = HashMap::new();
        for published in &self.published {
            let key = (published.model.model_name.as_str(), published.model.pool_ref.name.as_str());
            let before: &Identity = first.entry(key).or_insert(&published.identity);
            if before.key() != published.identity.key() {
                let (name, pool) = key;
                let problem =
                    format!("the model `{name}` is published twice for the pool `{pool}`, also by {before}");
                findings.refuse(&published.identity, &published.path("modelName"), problem);
            }
        }
    }
}

/// The reference by the plugin's name of the pool.
fn resolved(identity: &Identity, reference: &PoolRef, pools: &[PlannedPool<'_>]) -> PoolRef {
    let found = pools.iter().find(|planned| {
        let pool = &planned.pool.identity;
        pool.namespace == identity.namespace && pool.name == reference.name
    });
    let name = found.map_or_else(|| reference.name.clone(), |planned| planned.name.clone());
    PoolRef { name, ..reference.clone() }
}

fn check_pool(identity: &Identity, reference: &PoolRef, inventory: &Inventory, findings: &mut Findings) {
    let PoolRef { name, kind, group } = reference;
    if let Some(kind) = kind.as_ref().filter(|kind| *kind != POOL_KIND) {
        findings.refuse(identity, "spec.poolRef.kind", format!("`{kind}` is not {POOL_KIND}"));
    } else if let Some(group) =
        group.as_ref().filter(|group| ![EXPERIMENTAL, STABLE, ""].contains(&group.as_str()))
    {
        findings.refuse(identity, "spec.poolRef.group", format!("`{group}` is no group that has pools"));
    } else if !inventory.has_pool(&identity.namespace, name) {
        let problem = format!("there is no InferencePool `{name}` in namespace `{}`", identity.namespace);
        findings.refuse(identity, "spec.poolRef.name", problem);
    }
}
