//! The kinds of resources that are read, each with its fields in a file of its own, and the inventory of what there is.
//!
//! Contract: fields of `metadata` other than name, namespace and annotations, and `status`, are what the cluster adds
//! and are not looked at; in `spec`, a field that is not known is refused.

mod inference_model;
mod inference_model_rewrite;
mod inference_objective;
mod inference_pool;
mod llm_route;
mod resource;

use std::collections::HashMap;

use crate::findings::Findings;
pub use inference_model::{Model, PoolRef, Target};
pub use inference_model_rewrite::{Rewrite, Rule};
pub use inference_objective::Objective;
pub use inference_pool::{Pool, STRATEGY_ANNOTATION};
pub use llm_route::{Backend, Match, Route, Rule as RouteRule, WeightedBackend};
pub use resource::{Identity, Resource, in_document};

/// The API group of the inference resources while they are experimental.
const EXPERIMENTAL: &str = "inference.networking.x-k8s.io";
/// Their group once they are stable.
const STABLE: &str = "inference.networking.k8s.io";
/// The group of ASM's resources.
const ASM: &str = "istio.alibabacloud.com";

/// All that was read, by kind.
#[derive(Debug, Default)]
pub struct Inventory {
    pub pools: Vec<Pool>,
    pub models: Vec<(Identity, Model)>,
    pub objectives: Vec<Objective>,
    pub rewrites: Vec<Rewrite>,
    pub routes: Vec<Route>,
    /// Where each resource was read, by kind, namespace and name.
    sources: HashMap<(String, String, String), String>,
}

impl Inventory {
    /// Reads a resource by its kind.
    pub fn add(&mut self, resource: Resource, findings: &mut Findings) {
        let identity = resource.identity.clone();
        let (group, version) = identity.api_version.split_once('/').unwrap_or(("", &identity.api_version));
        match (group, identity.kind.as_str()) {
            (
                EXPERIMENTAL | STABLE,
                "InferencePool" | "InferenceModel" | "InferenceObjective" | "InferenceModelRewrite",
            )
            | (ASM, "LLMRoute") => {
                if self.is_first(&identity, findings) {
                    self.add_known(group, version, &resource, findings);
                }
            }
            _ => findings.pass_over(&format!("{identity} ({})", identity.api_version)),
        }
    }

    fn add_known(&mut self, group: &str, version: &str, resource: &Resource, findings: &mut Findings) {
        match (group, version, resource.identity.kind.as_str()) {
            (EXPERIMENTAL, "v1alpha1" | "v1alpha2", "InferencePool") => {
                self.pools.extend(Pool::experimental(resource, findings));
            }
            (STABLE, "v1", "InferencePool") => self.pools.extend(Pool::stable(resource, findings)),
            (EXPERIMENTAL, "v1alpha1" | "v1alpha2", "InferenceModel") => {
                self.models.extend(Model::read(resource, findings));
            }
            (EXPERIMENTAL, "v1alpha2", "InferenceObjective") => {
                self.objectives.extend(Objective::read(resource, findings));
            }
            (EXPERIMENTAL, "v1alpha2", "InferenceModelRewrite") => {
                self.rewrites.extend(Rewrite::read(resource, findings));
            }
            (ASM, "v1" | "v1beta1", "LLMRoute") => self.routes.extend(Route::read(resource, findings)),
            _ => findings.refuse(
                &resource.identity,
                "apiVersion",
                format!("`{group}/{version}` is not a version of this kind that is known here"),
            ),
        }
    }

    /// Refuses a resource that was read before, also in another version of its API.
    fn is_first(&mut self, identity: &Identity, findings: &mut Findings) -> bool {
        let key = (identity.kind.clone(), identity.namespace.clone(), identity.name.clone());
        match self.sources.insert(key, identity.source.clone()) {
            None => true,
            Some(source) => {
                findings.refuse(identity, "metadata.name", format!("is there twice, before in {source}"));
                false
            }
        }
    }

    /// Whether no pool was read, not even one that was refused.
    pub fn is_without_pools(&self) -> bool {
        self.sources.keys().all(|(kind, _, _)| kind != "InferencePool")
    }

    /// Whether there is a pool of this name, also one that was refused.
    pub fn has_pool(&self, namespace: &str, name: &str) -> bool {
        self.sources.contains_key(&("InferencePool".to_owned(), namespace.to_owned(), name.to_owned()))
    }
}
