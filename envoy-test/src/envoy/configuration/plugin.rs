//! Edits of the plugin's settings and of the chain of HTTP filters around it.

use super::Configuration;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::Path;

const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
const WASM_FILTER: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// Where a filter is put in the chain of the first listener.
#[derive(Debug, Clone, Copy)]
pub enum FilterPosition<'a> {
    First,
    Before(&'a str),
    After(&'a str),
}

impl Configuration {
    /// Calls `edit` with the plugin's own configuration wherever there is one: in the HTTP filter and in the
    /// bootstrap extension. Envoy hands it over as JSON text in a StringValue; this takes it apart and writes it anew.
    #[track_caller]
    pub fn edit_plugin(&mut self, mut edit: impl FnMut(&mut Value)) {
        let edited_count = self.edit_objects(|object| {
            let Some(text) = plugin_settings(object) else {
                return false;
            };
            let Some(mut settings) = text.as_str().and_then(|text| serde_json::from_str(text).ok()) else {
                return false;
            };
            edit(&mut settings);
            *text = settings.to_string().into();
            true
        });
        assert!(edited_count > 0, "the configuration has no plugin with JSON text as its configuration");
    }

    /// Has the plugin publish every field of the access log, whatever the shipped log format reads.
    pub fn publish_all(&mut self) {
        self.edit_plugin(|plugin| {
            if let Some(settings) = plugin.as_object_mut() {
                settings.remove("publish");
            }
        });
    }

    /// Puts these endpoints in place of those of the plugin's pools, shared among them, and of their clusters. Pools
    /// that discover their endpoints have them in the cluster alone.
    pub fn place_endpoints(&mut self, endpoints: &[SocketAddr]) {
        let mut clusters: Vec<String> = Vec::new();
        let share_length = |pools: usize| endpoints.len().div_ceil(pools.max(1)).max(1);
        self.edit_plugin(|plugin| {
            let Some(pools) = plugin["pools"].as_array_mut() else { return };
            let shares = endpoints.chunks(share_length(pools.len())).cycle();
            for (pool, share) in pools.iter_mut().zip(shares) {
                if pool.get("endpoints").is_some() {
                    pool["endpoints"] = share.iter().map(SocketAddr::to_string).collect();
                }
            }
            clusters = pools.iter().filter_map(|pool| pool["cluster"].as_str().map(str::to_owned)).collect();
        });
        let shares = endpoints.chunks(share_length(clusters.len())).cycle();
        for (cluster, share) in clusters.iter().zip(shares) {
            self.set_endpoints(cluster, share);
        }
    }

    /// Makes every virtual machine that loads its code from a file load it from `path`. Returns how many do.
    pub fn set_plugin_file(&mut self, path: &Path) -> usize {
        self.edit_objects(|object| {
            let file =
                object.get_mut("vm_config").and_then(|machine| machine.pointer_mut("/code/local/filename"));
            file.map(|name| *name = path.to_string_lossy().into()).is_some()
        })
    }

    /// Takes the plugin out: every wasm filter of the first listener, and all bootstrap extensions.
    pub fn remove_plugin(&mut self) {
        *self.at("/bootstrap_extensions") = Value::Array(Vec::new());
        if let Some(filters) = self.at(FILTERS).as_array_mut() {
            filters.retain(|filter| filter["typed_config"]["@type"] != WASM_FILTER);
        }
    }

    /// Has the filter behind the plugin copy one more field that it publishes, as `wasm.FIELD`, into a header of the request, in deferred
    /// mode.
    #[track_caller]
    pub fn copy_to_header(&mut self, field: &str, header: &str) {
        let Some(filters) = self.at(FILTERS).as_array_mut() else { panic!("{FILTERS} is not a list") };
        let mutations = filters.iter_mut().find_map(|filter| {
            filter.pointer_mut("/typed_config/mutations/request_mutations")?.as_array_mut()
        });
        let Some(mutations) = mutations else {
            panic!("the first listener has no filter that changes headers")
        };
        mutations.push(json!({"append": {
            "header": {"key": header, "value": format!("%FILTER_STATE(wasm.{field}:PLAIN)%")},
            "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
        }}));
    }

    /// Adds an HTTP filter to the first listener.
    #[track_caller]
    pub fn insert_filter(&mut self, position: FilterPosition, filter: Value) {
        let Some(filters) = self.at(FILTERS).as_array_mut() else { panic!("{FILTERS} is not a list") };
        let index = match position {
            FilterPosition::First => 0,
            FilterPosition::Before(name) => index_of(filters, name),
            FilterPosition::After(name) => index_of(filters, name) + 1,
        };
        filters.insert(index, filter);
    }
}

/// The plugin's own configuration, if `object` is a wasm PluginConfig.
fn plugin_settings(object: &mut Map<String, Value>) -> Option<&mut Value> {
    object.contains_key("vm_config").then_some(())?;
    object.get_mut("configuration")?.get_mut("value")
}

#[track_caller]
fn index_of(filters: &[Value], name: &str) -> usize {
    match filters.iter().position(|filter| filter["name"] == name) {
        Some(index) => index,
        None => panic!("the first listener has no HTTP filter {name}"),
    }
}
