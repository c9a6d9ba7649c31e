//! What every Kubernetes resource has, and lists of resources.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::identity::Identity;
use crate::findings::Findings;

/// A resource whose spec has not been looked at.
#[derive(Debug, Clone)]
pub struct Resource {
    pub identity: Identity,
    /// Its annotations.
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
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    annotations: Option<Map<String, Value>>,
    creation_timestamp: Option<String>,
    uid: Option<String>,
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
            created: metadata.creation_timestamp,
            uid: metadata.uid,
        },
        annotations: metadata.annotations.unwrap_or_default(),
        spec: object.spec,
    }
}

impl Resource {
    /// The document that it is read from again: what is looked at, and nothing else.
    pub fn document(&self) -> Value {
        let Identity { api_version, kind, namespace, name, created, uid, .. } = &self.identity;
        let known = |(key, _): &(&String, &Value)| super::ANNOTATIONS.contains(&key.as_str());
        let annotations: Map<String, Value> =
            self.annotations.iter().filter(known).map(|(key, value)| (key.clone(), value.clone())).collect();
        json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace,
            "annotations": annotations, "creationTimestamp": created, "uid": uid}, "spec": self.spec})
    }

    /// Its spec; one that is not right is refused by field path, and a field that is not known is warned of.
    pub fn spec<Spec: DeserializeOwned>(&self, findings: &mut Findings) -> Option<Spec> {
        let mut unknown = Vec::new();
        let mut track = serde_path_to_error::Track::new();
        let deserializer = serde_path_to_error::Deserializer::new(&self.spec, &mut track);
        let read = serde_ignored::deserialize(deserializer, |path| unknown.push(path.to_string()));
        for path in unknown {
            let problem = "is not known here, perhaps of a newer release, and counts for nothing";
            findings.warn(&self.identity, &format!("spec.{}", with_brackets(&path)), problem);
        }
        read.map_err(|error| {
            let path = match track.path().to_string().as_str() {
                "." | "?" => "spec".to_owned(),
                path => format!("spec.{path}"),
            };
            findings.refuse(&self.identity, &path, error);
        })
        .ok()
    }
}

/// `rules.0.matches` as `rules[0].matches`, which is how the other paths are written. Steps into what may be left out are
/// question marks.
fn with_brackets(path: &str) -> String {
    let steps = path.split('.').filter(|step| *step != "?");
    steps.fold(String::new(), |text, step| match step.parse::<usize>() {
        Ok(index) => format!("{text}[{index}]"),
        Err(_) if text.is_empty() => step.to_owned(),
        Err(_) => format!("{text}.{step}"),
    })
}
