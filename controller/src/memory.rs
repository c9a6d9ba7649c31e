//! Where it is written what was last good: a ConfigMap for each namespace that has inference resources, beside the Lease, which
//! only controllers may change.

use std::collections::BTreeMap;

use anyhow::Context;
use inference_picker_config::last_good::LastGood;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use serde_json::json;

use crate::apply::{LABEL, MANAGER};

/// The ConfigMaps' names begin with this; the namespace follows.
const PREFIX: &str = "last-good-";
/// Where in a ConfigMap the text is.
const FIELD: &str = "resources";

/// The ConfigMaps, and what is in them.
pub struct Memory {
    api: Api<ConfigMap>,
    written: BTreeMap<String, String>,
}

impl Memory {
    /// What was written, in this namespace.
    ///
    /// # Errors
    /// Where the API server does not answer as it should.
    pub async fn read(client: &Client, namespace: &str) -> anyhow::Result<(Memory, LastGood)> {
        let api: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        let ours = ListParams::default().labels(&format!("{LABEL}={MANAGER}"));
        let listed = api.list(&ours).await.context("reading what was last good")?;
        let written: BTreeMap<String, String> = listed.items.into_iter().filter_map(text_of).collect();
        let mut last_good = LastGood::default();
        for (namespace, text) in &written {
            last_good.read(namespace, text);
        }
        Ok((Memory { api, written }, last_good))
    }

    /// Writes what has changed of it.
    ///
    /// # Errors
    /// Where the API server does not answer as it should.
    pub async fn write(&mut self, last_good: &LastGood) -> anyhow::Result<()> {
        let texts = last_good.texts();
        let is_new = |(namespace, text): &(&String, &String)| self.written.get(*namespace) != Some(*text);
        for (namespace, text) in texts.iter().filter(is_new) {
            let name = format!("{PREFIX}{namespace}");
            let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {FIELD: text},
                "metadata": {"name": name, "labels": {LABEL: MANAGER}}});
            let parameters = PatchParams::apply(MANAGER).force();
            self.api
                .patch(&name, &parameters, &Patch::Apply(object))
                .await
                .context("writing what was last good")?;
        }
        for namespace in self.written.keys().filter(|namespace| !texts.contains_key(*namespace)) {
            match self.api.delete(&format!("{PREFIX}{namespace}"), &DeleteParams::default()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                deleted => drop(deleted.context("deleting what was last good")?),
            }
        }
        self.written = texts;
        Ok(())
    }
}

fn text_of(map: ConfigMap) -> Option<(String, String)> {
    let namespace = map.metadata.name?.strip_prefix(PREFIX)?.to_owned();
    Some((namespace, map.data?.remove(FIELD)?))
}
