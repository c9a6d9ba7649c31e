//! InferenceObjective: how much requests matter that name it, as a number.

use serde::Deserialize;

use super::{Identity, PoolRef, Resource};
use crate::findings::Findings;

#[derive(Debug)]
pub struct Objective {
    pub identity: Identity,
    pub priority: i64,
    pub pool_ref: PoolRef,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    priority: Option<i64>,
    pool_ref: PoolRef,
}

impl Objective {
    pub fn read(resource: &Resource, findings: &mut Findings) -> Option<Objective> {
        let spec: Spec = resource.spec(findings)?;
        let priority = spec.priority.unwrap_or(0);
        Some(Objective { identity: resource.identity.clone(), priority, pool_ref: spec.pool_ref })
    }
}
