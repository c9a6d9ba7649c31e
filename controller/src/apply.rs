//! Writes what there should be, and deletes what there should not be any more; writes statuses.
//!
//! Every object that is made has a label, by which it is found again. Nothing without the label is touched.

use std::collections::HashSet;

use anyhow::Context;
use futures::StreamExt;
use inference_picker_config::findings::Finding;
use inference_picker_config::{input, status};
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use crate::kinds::{MADE, Watched, made_resource};
use crate::log::{Level, log};
use crate::serve::Counters;

/// Who writes, where the API server keeps account of it.
pub const MANAGER: &str = "inference-picker-controller";
/// The label of what was made.
pub const LABEL: &str = "app.kubernetes.io/managed-by";
/// Statuses that are written before it is looked again at what has changed.
const MAX_STATUSES: usize = 200;
/// Of these, at a time.
const STATUSES_AT_ONCE: usize = 8;

/// Kind, namespace and name.
type Made = (String, String, String);

/// The API server, for who writes.
pub struct Writer<'a> {
    /// How it is reached.
    pub client: &'a Client,
    /// What is counted.
    pub counters: &'a Counters,
}

impl Writer<'_> {
    /// Writes the objects of these texts. Gives what they are.
    ///
    /// # Errors
    /// The first one that the API server refuses; those before it are there.
    pub async fn apply(&self, texts: &[String]) -> anyhow::Result<HashSet<Made>> {
        let mut made = HashSet::new();
        for text in texts {
            for mut object in input::documents(text, "the plan")? {
                made.insert(self.apply_one(&mut object).await?);
            }
        }
        Ok(made)
    }

    async fn apply_one(&self, object: &mut Value) -> anyhow::Result<Made> {
        let field = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, namespace, name) = (field("/kind"), field("/metadata/namespace"), field("/metadata/name"));
        let resource =
            made_resource(&field("/apiVersion"), &kind).with_context(|| format!("{kind} is not made"))?;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            let labels = metadata.entry("labels").or_insert_with(|| json!({}));
            if let Some(labels) = labels.as_object_mut() {
                labels.insert(LABEL.to_owned(), json!(MANAGER));
            }
        }
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        let parameters = PatchParams::apply(MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&*object))
            .await
            .with_context(|| format!("writing {kind} {namespace}/{name}"))?;
        Counters::add(&self.counters.writes);
        Ok((kind, namespace, name))
    }

    /// Deletes what was made once and is not among these: Istio's resources in these namespaces, and Services.
    ///
    /// # Errors
    /// Where the API server does not answer as it should.
    pub async fn clean_up(
        &self,
        made: &HashSet<Made>,
        namespaces: &HashSet<String>,
        objects: &[Value],
    ) -> anyhow::Result<()> {
        let ours = ListParams::default().labels(&format!("{LABEL}={MANAGER}"));
        for namespace in namespaces {
            for (group, version, kind, plural) in MADE {
                let kind_of = GroupVersionKind::gvk(group, version, kind);
                let resource = ApiResource::from_gvk_with_plural(&kind_of, plural);
                let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), namespace, &resource);
                // A kind that is not there has nothing to be deleted.
                let listed = api.list(&ours).await.map(|list| list.items).unwrap_or_default();
                for name in listed.into_iter().filter_map(|object| object.metadata.name) {
                    self.delete(&api, (kind.to_owned(), namespace.clone(), name), made).await?;
                }
            }
        }
        for service in objects.iter().filter(|object| is_made_service(object)) {
            let field =
                |path: &str| service.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (namespace, name) = (field("/metadata/namespace"), field("/metadata/name"));
            let Some(resource) = made_resource("v1", "Service") else { continue };
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
            self.delete(&api, ("Service".to_owned(), namespace, name), made).await?;
        }
        Ok(())
    }

    async fn delete(
        &self,
        api: &Api<DynamicObject>,
        object: Made,
        made: &HashSet<Made>,
    ) -> anyhow::Result<()> {
        if made.contains(&object) {
            return Ok(());
        }
        let (kind, namespace, name) = object;
        match api.delete(&name, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(()),
            deleted => drop(deleted.with_context(|| format!("deleting {kind} {namespace}/{name}"))?),
        }
        log(Level::Info, "deleted", json!({"kind": kind, "namespace": namespace, "name": name}));
        Counters::add(&self.counters.writes);
        Ok(())
    }

    /// Writes resources' status. Gives whether all have it that should.
    pub async fn write_statuses(&self, objects: &[Value], findings: &[Finding]) -> bool {
        let now = Timestamp::now().round(k8s_openapi::jiff::Unit::Second).unwrap_or_default().to_string();
        let mut due = objects.iter().filter_map(|object| {
            let field = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let watched = Watched::of(field("/apiVersion"), field("/kind"))?;
            let is_about = |finding: &&Finding| {
                finding.resource.as_ref().is_some_and(|key| {
                    key.api_version == field("/apiVersion")
                        && key.kind == field("/kind")
                        && key.namespace == field("/metadata/namespace")
                        && key.name == field("/metadata/name")
                })
            };
            let about: Vec<&Finding> = findings.iter().filter(is_about).collect();
            let status = status::status(object, &about, watched.conditions?, &now)?;
            Some((object, watched, status))
        });
        let first: Vec<_> = due.by_ref().take(MAX_STATUSES).collect();
        let are_all = due.next().is_none();
        let writes =
            first.into_iter().map(|(object, watched, status)| self.write_status(object, watched, status));
        futures::stream::iter(writes).buffer_unordered(STATUSES_AT_ONCE).for_each(|()| async {}).await;
        are_all
    }

    async fn write_status(&self, object: &Value, watched: &Watched, status: Value) {
        let field = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (namespace, name) = (field("/metadata/namespace"), field("/metadata/name"));
        let (group, version) = field("/apiVersion")
            .split_once('/')
            .map(|(one, two)| (one.to_owned(), two.to_owned()))
            .unwrap_or_default();
        let kind = GroupVersionKind::gvk(&group, &version, watched.kind);
        let resource = ApiResource::from_gvk_with_plural(&kind, watched.plural);
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &namespace, &resource);
        // The version that it was made from: others write to the same list.
        let metadata = json!({"resourceVersion": field("/metadata/resourceVersion")});
        let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
        match api.patch_status(&name, &PatchParams::default(), &patch).await {
            Ok(_) => Counters::add(&self.counters.statuses),
            // It has changed in the meantime, or gone: the next look has it.
            Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => {}
            Err(error) => {
                let fields = json!({"kind": watched.kind, "namespace": namespace, "name": name, "error": error.to_string()});
                log(Level::Warn, "a status could not be written", fields);
            }
        }
    }
}

fn is_made_service(object: &Value) -> bool {
    object.get("kind").and_then(Value::as_str) == Some("Service")
        && object.pointer("/metadata/labels").and_then(|labels| labels.get(LABEL)).and_then(Value::as_str)
            == Some(MANAGER)
}
