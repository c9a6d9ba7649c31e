//! InferenceModel: the plugin's configuration has its spec unchanged, so that this is also the form in which models
//! are printed, wherever they come from.
//!
//! One word differs: the first versions of v1alpha1 said `Default`, and put it where nothing was said, for what has
//! been `Standard` since.

use serde::{Deserialize, Serialize};

use super::{Identity, Resource};
use crate::findings::Findings;

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Model {
    pub model_name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub criticality: Option<String>,
    pub pool_ref: PoolRef,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target_models: Option<Vec<Target>>,
}

impl Model {
    pub fn read(resource: &Resource, findings: &mut Findings) -> Option<(Identity, Model)> {
        let mut model: Model = resource.spec(findings)?;
        model.criticality =
            model.criticality.map(|name| if name == "Default" { "Standard".to_owned() } else { name });
        Some((resource.identity.clone(), model))
    }
}

/// A reference to a pool in the same namespace.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PoolRef {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    pub name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
}
