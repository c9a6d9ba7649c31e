//! LLMRoutes: whether they lead to pools, and the VirtualServices that take their place.

use serde::Serialize;

use crate::findings::Findings;
use crate::pools::PlannedPool;
use crate::resources::{Backend, Inventory, Match, Route, RouteRule as Rule, WeightedBackend};

/// A VirtualService in Istio's form.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct VirtualService<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: Spec<'a>,
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
}

#[derive(Debug, Serialize)]
struct Spec<'a> {
    hosts: [&'a str; 1],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    gateways: &'a [String],
    http: Vec<HttpRoute<'a>>,
}

#[derive(Debug, Serialize)]
struct HttpRoute<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(rename = "match", skip_serializing_if = "<[Match]>::is_empty")]
    matches: &'a [Match],
    route: Vec<WeightedDestination<'a>>,
}

#[derive(Debug, Serialize)]
struct WeightedDestination<'a> {
    destination: Destination<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<i64>,
}

#[derive(Debug, Serialize)]
struct Destination<'a> {
    host: &'a str,
    port: Port,
}

#[derive(Debug, Serialize)]
struct Port {
    number: u16,
}

/// Refuses references that lead to no pool.
pub fn check(inventory: &Inventory, findings: &mut Findings) {
    for route in &inventory.routes {
        for (path, backend) in route.backends() {
            if let Some(problem) = problem(route, backend, inventory) {
                findings.refuse(&route.identity, &path, problem);
            }
        }
    }
}

fn problem(route: &Route, backend: Option<&Backend>, inventory: &Inventory) -> Option<String> {
    let Some(backend) = backend else {
        return Some("is missing".to_owned());
    };
    let namespace = namespace(route, backend);
    match backend.kind.as_deref() {
        Some(kind) if kind != "InferencePool" => Some(format!("`{kind}` is not InferencePool")),
        _ if inventory.has_pool(namespace, &backend.name) => None,
        _ => Some(format!("there is no InferencePool `{}` in namespace `{namespace}`", backend.name)),
    }
}

fn namespace<'a>(route: &'a Route, backend: &'a Backend) -> &'a str {
    backend.namespace.as_deref().unwrap_or(&route.identity.namespace)
}

/// The VirtualService in the place of a route whose references are right, as YAML.
pub fn virtual_service(route: &Route, pools: &[PlannedPool<'_>]) -> anyhow::Result<String> {
    let virtual_service = VirtualService {
        api_version: "networking.istio.io/v1",
        kind: "VirtualService",
        metadata: Metadata { name: &route.identity.name, namespace: &route.identity.namespace },
        spec: Spec {
            hosts: [&route.host],
            gateways: &route.gateways,
            http: route.rules.iter().map(|rule| http_route(route, rule, pools)).collect(),
        },
    };
    let yaml = serde_saphyr::to_string(&virtual_service)?;
    Ok(format!("# In the place of the LLMRoute of this name, which only ASM knows.\n{yaml}"))
}

fn http_route<'a>(route: &'a Route, rule: &'a Rule, pools: &'a [PlannedPool<'a>]) -> HttpRoute<'a> {
    // Istio wants weights where there are several destinations.
    let default_weight = (rule.backend_refs.len() > 1).then_some(1);
    let destination = |weighted: &'a WeightedBackend| {
        let service = &pool(route, weighted.backend_ref.as_ref()?, pools)?.service;
        Some(WeightedDestination {
            destination: Destination { host: &service.host, port: Port { number: service.port } },
            weight: weighted.weight.or(default_weight),
        })
    };
    HttpRoute {
        name: rule.name.as_deref(),
        matches: &rule.matches,
        route: rule.backend_refs.iter().filter_map(destination).collect(),
    }
}

fn pool<'a>(route: &Route, backend: &Backend, pools: &'a [PlannedPool<'a>]) -> Option<&'a PlannedPool<'a>> {
    pools.iter().find(|planned| {
        let identity = &planned.pool.identity;
        identity.name == backend.name && identity.namespace == namespace(route, backend)
    })
}
