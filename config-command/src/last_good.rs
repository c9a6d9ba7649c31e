//! Resources as they were when they were last right, for as long as they are there; and as texts, so that who works next knows
//! them too.

use std::collections::{BTreeMap, HashMap, HashSet};

use crate::findings::{Finding, Findings, Severity};
use crate::resources::{Key, Resource, in_document};
use serde_json::Value;

/// Bytes that are kept of a namespace's resources; a ConfigMap may have 1 MiB. What is beyond is not known to who works next.
const MAX_TEXT_BYTES: usize = 512 * 1024;
/// What they are called in messages.
const SOURCE: &str = "last good";

/// Resources as they were when they were last right.
#[derive(Debug, Default)]
pub struct LastGood(BTreeMap<Key, Resource>);

impl LastGood {
    /// This resource as it was when it was last right. One that was made anew under its name is another one.
    pub fn of(&self, resource: &Resource) -> Option<Resource> {
        let known = self.0.get(&resource.identity.key());
        known.filter(|known| known.identity.uid == resource.identity.uid).cloned()
    }

    /// Takes note of what is right, and forgets what is not there any more.
    pub fn learn(&mut self, resources: &[Resource], findings: &[Finding]) {
        let errors = findings.iter().filter(|finding| finding.severity == Severity::Error);
        let refused: HashSet<&Key> = errors.filter_map(|finding| finding.resource.as_ref()).collect();
        let keys: HashMap<Key, &Resource> =
            resources.iter().map(|resource| (resource.identity.key(), resource)).collect();
        self.0.retain(|key, _| keys.contains_key(key));
        let good = keys.into_iter().filter(|(key, _)| !refused.contains(key));
        self.0.extend(good.map(|(key, resource)| (key, resource.clone())));
    }

    /// The inference resources, a text for each namespace.
    pub fn texts(&self) -> BTreeMap<String, String> {
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        for resource in self.0.values().filter(|resource| resource.identity.kind != "Service") {
            let line = format!("{}\n", resource.document());
            let text = texts.entry(resource.identity.namespace.clone()).or_default();
            if text.len() + line.len() <= MAX_TEXT_BYTES {
                text.push_str(&line);
            }
        }
        texts
    }

    /// What was written of a namespace, if nobody has spoilt it: lines that are nothing are passed over.
    pub fn read(&mut self, namespace: &str, text: &str) {
        let mut findings = Findings::default();
        let documents = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let read = documents.flat_map(|document| in_document(document, SOURCE, namespace, &mut findings));
        let read = read.filter(|resource| resource.identity.namespace == namespace);
        self.0.extend(read.map(|resource| (resource.identity.key(), resource)));
    }
}
