//! What every Kubernetes resource has, and lists of resources.

use std::fmt;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::findings::Findings;

/// Which resource it is, and where it was read.
#[derive(Debug, Clone)]
pub struct Identity {
    pub source: String,
    pub api_version: String,
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} {}/{}", self.source, self.kind, self.namespace, self.name)
    }
}

/// A resource whose spec has not been looked at.
#[derive(Debug)]
pub struct Resource {
    pub identity: Identity,
    pub annotations: Map<String, Value>,
    spec: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    api_version: Option<String>,
    kind: String,
    metadata: Option<Metadata>,
    #[serde(default)]
    spec: Value,
    items: Option<Vec<Value>>,
}

#[derive(Debug, Default, Deserialize)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    annotations: Option<Map<String, Value>>,
}

/// The resources of one document: one, or those of a list as kubectl prints it.
pub fn in_document(document: Value, source: &str, namespace: &str, findings: &mut Findings) -> Vec<Resource> {
    let object: Object = match serde_path_to_error::deserialize(document) {
        Ok(object) => object,
        Err(error) => {
            let path = match error.path().to_string().as_str() {
                "." | "?" => "a document".to_owned(),
                path => path.to_owned(),
            };
            findings.refuse(&source, &path, format!("is not a Kubernetes resource: {}", error.inner()));
            return Vec::new();
        }
    };
    match object.items {
        Some(items) if object.kind.ends_with("List") => {
            items.into_iter().flat_map(|item| in_document(item, source, namespace, findings)).collect()
        }
        _ => vec![resource(object, source, namespace)],
    }
}

fn resource(object: Object, source: &str, namespace: &str) -> Resource {
    let metadata = object.metadata.unwrap_or_default();
    Resource {
        identity: Identity {
            source: source.to_owned(),
            api_version: object.api_version.unwrap_or_default(),
            kind: object.kind,
            namespace: metadata.namespace.unwrap_or_else(|| namespace.to_owned()),
            name: metadata.name.unwrap_or_default(),
        },
        annotations: metadata.annotations.unwrap_or_default(),
        spec: object.spec,
    }
}

impl Resource {
    /// Its spec; one that is not right is refused by field path.
    pub fn spec<Spec: DeserializeOwned>(&self, findings: &mut Findings) -> Option<Spec> {
        serde_path_to_error::deserialize(&self.spec)
            .map_err(|error| {
                let path = match error.path().to_string().as_str() {
                    "." | "?" => "spec".to_owned(),
                    path => format!("spec.{path}"),
                };
                findings.refuse(&self.identity, &path, error.inner());
            })
            .ok()
    }
}
