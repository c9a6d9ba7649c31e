//! The kinds of resources that are read, each with its fields in a file of its own, and the inventory of what there is.
//!
//! Contract: fields of `metadata` other than name, namespace, annotations, age and uid, and `status`, are what the cluster
//! adds and are not looked at; in `spec`, a field that is not known is warned of. In whatever order resources come, the
//! inventory has them by age, then by namespace and name, so that the same resources always give the same text.

pub(crate) mod identity;
mod inference_model;
mod inference_model_rewrite;
mod inference_objective;
mod inference_pool;
mod llm_route;
mod resource;
mod service;

use std::collections::{BTreeMap, HashMap};

use crate::findings::Findings;
pub use identity::{Identity, Key};
pub use inference_model::{Model, PoolRef, Target};
pub use inference_model_rewrite::{Rewrite, Rule};
pub use inference_objective::Objective;
pub use inference_pool::{ANNOTATIONS, PREFILL_ANNOTATION, Pool, STRATEGY_ANNOTATION};
pub use llm_route::{Backend, Match, Route, Rule as RouteRule, WeightedBackend};
pub use resource::{Resource, in_document};
pub use service::Service;

/// The API group of the inference resources while they are experimental.
pub const EXPERIMENTAL: &str = "inference.networking.x-k8s.io";
/// The pools' group once they are stable.
pub const STABLE: &str = "inference.networking.k8s.io";
/// The group of llm-d, which has the objectives and rewrites that were experimental.
pub const LLM_D: &str = "llm-d.ai";
/// The group of ASM's resources.
const ASM: &str = "istio.alibabacloud.com";

/// All that was read, by kind.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Pools, of either version.
    pub pools: Vec<Pool>,
    /// InferenceModels.
    pub models: Vec<(Identity, Model)>,
    /// InferenceObjectives.
    pub objectives: Vec<Objective>,
    /// InferenceModelRewrites.
    pub rewrites: Vec<Rewrite>,
    /// LLMRoutes.
    pub routes: Vec<Route>,
    /// Services, of which some are pools'.
    pub services: Vec<Service>,
    /// Pools by namespace and name, also those that were refused.
    pool_names: BTreeMap<(String, String), ()>,
}

/// What is known of a kind: whether it is one, and how it is read.
type Read = fn(&mut Inventory, &Resource, &mut Findings);

/// How a kind is read, in a version of its group.
fn reader(group: &str, version: &str, kind: &str) -> Option<Read> {
    Some(match (group, version, kind) {
        (EXPERIMENTAL, "v1alpha1" | "v1alpha2", "InferencePool") => |inventory, resource, findings| {
            inventory.pools.extend(Pool::experimental(resource, findings));
        },
        (STABLE, "v1", "InferencePool") => |inventory, resource, findings| {
            inventory.pools.extend(Pool::stable(resource, findings));
        },
        (EXPERIMENTAL, "v1alpha1" | "v1alpha2", "InferenceModel") => |inventory, resource, findings| {
            inventory.models.extend(Model::read(resource, findings));
        },
        (EXPERIMENTAL | LLM_D, "v1alpha2", "InferenceObjective") => |inventory, resource, findings| {
            inventory.objectives.extend(Objective::read(resource, findings));
        },
        (EXPERIMENTAL | LLM_D, "v1alpha2", "InferenceModelRewrite") => |inventory, resource, findings| {
            inventory.rewrites.extend(Rewrite::read(resource, findings));
        },
        (ASM, "v1" | "v1beta1", "LLMRoute") => |inventory, resource, findings| {
            inventory.routes.extend(Route::read(resource, findings));
        },
        ("", "v1", "Service") => |inventory, resource, _| inventory.services.extend(Service::read(resource)),
        _ => return None,
    })
}

/// The groups whose kinds should all be understood here.
fn is_inference(group: &str) -> bool {
    [EXPERIMENTAL, STABLE, LLM_D].contains(&group)
}

impl Inventory {
    /// Reads all resources by their kinds.
    pub fn new(mut resources: Vec<Resource>, findings: &mut Findings) -> Inventory {
        resources.sort_by(|one, other| one.identity.age().cmp(&other.identity.age()));
        let resources = without_older_groups(resources, findings);
        let mut inventory = Inventory::default();
        for resource in &resources {
            inventory.add(resource, findings);
        }
        inventory
    }

    fn add(&mut self, resource: &Resource, findings: &mut Findings) {
        let identity = &resource.identity;
        let (group, version) = identity.api_version.split_once('/').unwrap_or(("", &identity.api_version));
        if identity.kind == "InferencePool" {
            self.pool_names.insert((identity.namespace.clone(), identity.name.clone()), ());
        }
        match reader(group, version, &identity.kind) {
            Some(read) => read(self, resource, findings),
            None if is_known_kind(group, &identity.kind) => findings.refuse(
                identity,
                "apiVersion",
                format!("`{group}/{version}` is not a version of this kind that is known here"),
            ),
            None if is_inference(group) => {
                findings.not_known(identity, format!("`{}` of {group} is not known here", identity.kind));
            }
            None => findings.pass_over(identity, &identity.api_version),
        }
        if identity.kind == "Service" && group.is_empty() {
            findings.pass_over(identity, &identity.api_version);
        }
    }

    /// Whether no pool was read, not even one that was refused.
    pub fn is_without_pools(&self) -> bool {
        self.pool_names.is_empty()
    }

    /// Whether there is a pool of this name, also one that was refused.
    pub fn has_pool(&self, namespace: &str, name: &str) -> bool {
        self.pool_names.contains_key(&(namespace.to_owned(), name.to_owned()))
    }
}

fn is_known_kind(group: &str, kind: &str) -> bool {
    let versions = ["v1", "v1alpha1", "v1alpha2", "v1beta1"];
    versions.into_iter().any(|version| !group.is_empty() && reader(group, version, kind).is_some())
}

/// Of one resource in two groups the one of the newer group counts; one that is there twice in a group is refused.
fn without_older_groups(resources: Vec<Resource>, findings: &mut Findings) -> Vec<Resource> {
    let place =
        |identity: &Identity| (identity.kind.clone(), identity.namespace.clone(), identity.name.clone());
    let rank = |identity: &Identity| identity.group() != EXPERIMENTAL;
    let mut kept: Vec<Resource> = Vec::new();
    let mut places: HashMap<_, usize> = HashMap::new();
    for resource in resources {
        let identity = &resource.identity;
        let is_ours = is_inference(identity.group()) || identity.group() == ASM;
        let known = places.get(&place(identity)).and_then(|index| kept.get_mut(*index));
        match known.filter(|_| is_ours) {
            Some(before) if before.identity.group() == identity.group() => {
                let problem = format!("is there twice, before in {}", before.identity.source);
                findings.refuse(identity, "metadata.name", problem);
            }
            Some(before) => {
                let (newer, older) = if rank(identity) {
                    (resource.clone(), std::mem::replace(before, resource))
                } else {
                    (before.clone(), resource)
                };
                let problem =
                    format!("counts for nothing, as {} has the same name", newer.identity.api_version);
                findings.warn(&older.identity, "apiVersion", problem);
            }
            None => {
                if is_ours {
                    places.insert(place(identity), kept.len());
                }
                kept.push(resource);
            }
        }
    }
    kept
}
