//! What the API server has, as one watch a kind reports it.
//!
//! While it cannot be reached, what is known stays. A kind whose CRD is not there has no resources; it is asked for again
//! once in a while.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use kube::api::{Api, DynamicObject};
use kube::runtime::watcher;
use kube::{Client, Error};
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::kinds::{WATCHED, Watched};
use crate::log::{Level, log};

/// Between two tries to watch what cannot be watched.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// So often a kind that had resources has to be missed before it is believed that its CRD has gone, and they with it.
const MISSED_AT_LEAST: u32 = 10;

/// Namespace and name.
type Place = (String, String);

/// All resources of the watched kinds.
#[derive(Debug, Default)]
pub struct Store {
    kinds: Mutex<[Kind; WATCHED.len()]>,
    /// Something has changed.
    pub changed: Notify,
}

#[derive(Debug, Default)]
struct Kind {
    resources: BTreeMap<Place, Value>,
    /// Of a list that is being read.
    listed: BTreeMap<Place, Value>,
    is_ready: bool,
    /// How often in a row there was no such kind.
    missed: u32,
}

impl Store {
    /// Whether every kind has been listed once.
    pub fn is_ready(&self) -> bool {
        self.kinds().iter().all(|kind| kind.is_ready)
    }

    /// All of them.
    pub fn all(&self) -> Vec<Value> {
        self.kinds().iter().flat_map(|kind| kind.resources.values().cloned()).collect()
    }

    fn kinds(&self) -> std::sync::MutexGuard<'_, [Kind; WATCHED.len()]> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, index: usize, change: impl FnOnce(&mut Kind) -> bool) {
        let changed = self.kinds().get_mut(index).is_some_and(change);
        if changed {
            self.changed.notify_one();
        }
    }

    /// Watches all kinds, without end.
    pub fn watch(self: &Arc<Store>, client: &Client) {
        for (index, kind) in WATCHED.iter().enumerate() {
            tokio::spawn(Arc::clone(self).watch_kind(index, *kind, client.clone()));
        }
    }

    async fn watch_kind(self: Arc<Store>, index: usize, kind: Watched, client: Client) {
        let (mut version, mut is_failing) = (0, false);
        loop {
            let resource = kind.resource(version);
            let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
            let mut events = std::pin::pin!(watcher(api, watcher::Config::default()));
            while let Some(event) = events.next().await {
                match event {
                    Ok(event) => {
                        is_failing &= matches!(event, watcher::Event::Init);
                        self.update(index, |known| known.take(event, &resource));
                    }
                    Err(error) if is_not_there(&error) => {
                        self.update(index, Kind::is_not_there);
                        version += 1;
                        break;
                    }
                    Err(error) => {
                        let fields =
                            json!({"kind": kind.kind, "group": kind.group, "error": error.to_string()});
                        // Once, until it works again.
                        if !std::mem::replace(&mut is_failing, true) {
                            log(Level::Warn, "a watch has failed", fields);
                        }
                        break;
                    }
                }
            }
            tokio::time::sleep(RETRY_EVERY).await;
        }
    }
}

fn is_not_there(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(Error::Api(status)) if status.code == 404)
}

impl Kind {
    /// Whether anything that matters has changed.
    fn take(&mut self, event: watcher::Event<DynamicObject>, resource: &kube::core::ApiResource) -> bool {
        let entry = |object: DynamicObject| {
            let place = (
                object.metadata.namespace.clone().unwrap_or_default(),
                object.metadata.name.clone().unwrap_or_default(),
            );
            let mut value = serde_json::to_value(object).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                fields.insert("apiVersion".to_owned(), json!(resource.api_version));
                fields.insert("kind".to_owned(), json!(resource.kind));
            }
            (place, value)
        };
        match event {
            watcher::Event::Init => self.listed.clear(),
            watcher::Event::InitApply(object) => self.listed.extend([entry(object)]),
            watcher::Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let is_same = self.is_ready && same_entries(&listed, &self.resources);
                (self.resources, self.is_ready, self.missed) = (listed, true, 0);
                return !is_same;
            }
            watcher::Event::Apply(object) => {
                let (place, value) = entry(object);
                let is_same = self.resources.get(&place).is_some_and(|before| is_same(before, &value));
                self.resources.insert(place, value);
                return !is_same;
            }
            watcher::Event::Delete(object) => return self.resources.remove(&entry(object).0).is_some(),
        }
        false
    }

    fn is_not_there(&mut self) -> bool {
        self.missed = self.missed.saturating_add(1);
        if !self.resources.is_empty() && self.missed < MISSED_AT_LEAST {
            return false;
        }
        let was_ready = std::mem::replace(&mut self.is_ready, true);
        let had_any = !std::mem::take(&mut self.resources).is_empty();
        had_any || !was_ready
    }
}

fn same_entries(one: &BTreeMap<Place, Value>, other: &BTreeMap<Place, Value>) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| one.0 == other.0 && is_same(one.1, other.1))
}

/// Whether only the status differs, or what the API server notes of who has written what.
fn is_same(one: &Value, other: &Value) -> bool {
    let metadata = |value: &Value, field: &str| value.get("metadata").and_then(|of| of.get(field)).cloned();
    one.get("spec") == other.get("spec")
        && ["annotations", "labels", "uid", "deletionTimestamp"]
            .into_iter()
            .all(|field| metadata(one, field) == metadata(other, field))
}
