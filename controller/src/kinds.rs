//! Which kinds are watched, and which are made.

use inference_picker_config::status::Conditions;
use kube::core::ApiResource;
use kube::core::GroupVersionKind;

/// A kind of resource that is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watched {
    /// Its group; empty for the core API.
    pub group: &'static str,
    /// Its versions, the one that is wanted most first.
    pub versions: &'static [&'static str],
    /// Its kind.
    pub kind: &'static str,
    /// Its name in paths.
    pub plural: &'static str,
    /// Where its status has conditions, if it gets any.
    pub conditions: Option<Conditions>,
}

const EXPERIMENTAL: &str = inference_picker_config::resources::EXPERIMENTAL;
const STABLE: &str = inference_picker_config::resources::STABLE;
const LLM_D: &str = inference_picker_config::resources::LLM_D;

/// What the inference resources are, and what says where they are served.
pub const WATCHED: [Watched; 9] = [
    watched(STABLE, &["v1"], "InferencePool", "inferencepools", Some(Conditions::Parents)),
    watched(
        EXPERIMENTAL,
        &["v1alpha2", "v1alpha1"],
        "InferencePool",
        "inferencepools",
        Some(Conditions::Parent),
    ),
    watched(
        EXPERIMENTAL,
        &["v1alpha2", "v1alpha1"],
        "InferenceModel",
        "inferencemodels",
        Some(Conditions::Own),
    ),
    watched(LLM_D, &["v1alpha2"], "InferenceObjective", "inferenceobjectives", Some(Conditions::Own)),
    watched(EXPERIMENTAL, &["v1alpha2"], "InferenceObjective", "inferenceobjectives", Some(Conditions::Own)),
    watched(LLM_D, &["v1alpha2"], "InferenceModelRewrite", "inferencemodelrewrites", Some(Conditions::Own)),
    watched(
        EXPERIMENTAL,
        &["v1alpha2"],
        "InferenceModelRewrite",
        "inferencemodelrewrites",
        Some(Conditions::Own),
    ),
    watched("", &["v1"], "Service", "services", None),
    watched("gateway.networking.k8s.io", &["v1"], "Gateway", "gateways", None),
];

const fn watched(
    group: &'static str,
    versions: &'static [&'static str],
    kind: &'static str,
    plural: &'static str,
    conditions: Option<Conditions>,
) -> Watched {
    Watched { group, versions, kind, plural, conditions }
}

impl Watched {
    /// How the API server is asked for the version at this place, after the last the first again.
    pub fn resource(&self, version: usize) -> ApiResource {
        let version = self.versions.iter().cycle().nth(version).copied().unwrap_or_default();
        let kind = GroupVersionKind::gvk(self.group, version, self.kind);
        ApiResource::from_gvk_with_plural(&kind, self.plural)
    }

    /// The kind of a resource of this API version.
    pub fn of(api_version: &str, kind: &str) -> Option<&'static Watched> {
        let group = api_version.split_once('/').map_or("", |(group, _)| group);
        WATCHED.iter().find(|watched| watched.group == group && watched.kind == kind)
    }
}

/// The kinds that are made in a gateway's namespace.
pub const MADE: [(&str, &str, &str, &str); 3] = [
    ("extensions.istio.io", "v1alpha1", "WasmPlugin", "wasmplugins"),
    ("extensions.istio.io", "v1alpha1", "TrafficExtension", "trafficextensions"),
    ("networking.istio.io", "v1alpha3", "EnvoyFilter", "envoyfilters"),
];

/// How the API server is asked for a kind that is made.
pub fn made_resource(api_version: &str, kind: &str) -> Option<ApiResource> {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let plural = match kind {
        "Service" => "services",
        _ => MADE.iter().find(|made| made.0 == group && made.2 == kind)?.3,
    };
    Some(ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural))
}
