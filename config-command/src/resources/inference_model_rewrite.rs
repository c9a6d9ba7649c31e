//! InferenceModelRewrite: rules that send a model's requests to other models, by weight.

use serde::Deserialize;

use super::{Identity, PoolRef, Resource, Target};
use crate::findings::Findings;

#[derive(Debug)]
pub struct Rewrite {
    pub identity: Identity,
    pub pool_ref: PoolRef,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    pool_ref: PoolRef,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
pub struct Rule {
    #[serde(default)]
    matches: Vec<Match>,
    targets: Option<Vec<WeightedModel>>,
}

/// What a rule is for. A condition that is not known here is refused: without it the rule would be for more.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Match {
    model: ModelMatch,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelMatch {
    #[serde(rename = "type", default)]
    _kind: MatchKind,
    value: String,
}

/// The published schema knows one kind of match.
#[derive(Debug, Default, Deserialize)]
enum MatchKind {
    #[default]
    Exact,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WeightedModel {
    model_rewrite: String,
    weight: Option<i64>,
}

impl Rewrite {
    pub fn read(resource: &Resource, findings: &mut Findings) -> Option<Rewrite> {
        let spec: Spec = resource.spec(findings)?;
        Some(Rewrite { identity: resource.identity.clone(), pool_ref: spec.pool_ref, rules: spec.rules })
    }
}

impl Rule {
    /// Whether it is for every model.
    pub fn is_generic(&self) -> bool {
        self.matches.is_empty()
    }

    /// The names of the models it is for.
    pub fn model_names(&self) -> impl Iterator<Item = &str> {
        self.matches.iter().map(|matched| matched.model.value.as_str())
    }

    /// Where they are sent.
    pub fn targets(&self) -> Option<Vec<Target>> {
        let target =
            |target: &WeightedModel| Target { name: target.model_rewrite.clone(), weight: target.weight };
        self.targets.as_ref().map(|targets| targets.iter().map(target).collect())
    }
}
