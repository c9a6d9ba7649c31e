//! LLMRoute: ASM's route from a gateway to pools. Istio does not know it; a VirtualService takes its place, whose
//! matches have the same form.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Identity, Resource};
use crate::findings::Findings;

#[derive(Debug)]
pub struct Route {
    pub identity: Identity,
    pub host: String,
    pub gateways: Vec<String>,
    pub rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
struct Spec {
    host: String,
    #[serde(default)]
    gateways: Vec<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rule {
    pub name: Option<String>,
    #[serde(default)]
    pub matches: Vec<Match>,
    pub backend_refs: Vec<WeightedBackend>,
}

/// Conditions in the form that they also have in a VirtualService. One that is not known here is refused: without it the
/// route would be for more.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    #[serde(skip_serializing_if = "Option::is_none")]
    headers: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source_labels: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateways: Option<Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WeightedBackend {
    pub backend_ref: Option<Backend>,
    provider_host: Option<String>,
    pub weight: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub struct Backend {
    #[serde(rename = "group")]
    _group: Option<String>,
    pub kind: Option<String>,
    pub name: String,
    pub namespace: Option<String>,
}

impl Route {
    /// Reads it. A route with a part that leads to an LLM provider outside is passed over: the plugin has no part in it.
    pub fn read(resource: &Resource, findings: &mut Findings) -> Option<Route> {
        let spec: Spec = resource.spec(findings)?;
        let mut backends = spec.rules.iter().flat_map(|rule| &rule.backend_refs);
        if backends.any(|backend| backend.provider_host.is_some()) {
            findings.pass_over(&resource.identity, "it leads to a provider outside");
            return None;
        }
        let Spec { host, gateways, rules } = spec;
        Some(Route { identity: resource.identity.clone(), host, gateways, rules })
    }

    /// Its references to backends, each with its path.
    pub fn backends(&self) -> impl Iterator<Item = (String, Option<&Backend>)> {
        self.rules.iter().enumerate().flat_map(|(rule_index, rule)| {
            rule.backend_refs.iter().enumerate().map(move |(index, backend)| {
                (
                    format!("spec.rules[{rule_index}].backendRefs[{index}].backendRef"),
                    backend.backend_ref.as_ref(),
                )
            })
        })
    }
}
