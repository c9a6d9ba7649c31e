//! A listener that is pushed to a running Envoy, as a control plane does it: Envoy reads it from a file, and again
//! whenever another is moved into its place.

use super::access_log::finished_lines;
use super::{Configuration, free_address};
use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use tempfile::TempDir;

/// The plugin's configuration in a listener.
const PLUGIN: &str =
    "/filter_chains/0/filters/0/typed_config/http_filters/0/typed_config/config/configuration/value";

const ACCESS_LOG: &str = "access.log";

/// The first listener of a configuration, which holds no other.
pub struct PushedListener {
    address: SocketAddr,
    listener: Value,
    folder: TempDir,
}

impl PushedListener {
    /// Moves the listener out of the configuration into a file of its own, on a free port.
    pub fn take(configuration: &mut Configuration) -> Result<Self> {
        let address = free_address()?;
        configuration.set_listener_address(0, address);
        let folder = tempfile::tempdir()?;
        // Envoy's own settings reach only what is not pushed.
        configuration.set_access_log_file(&folder.path().join(ACCESS_LOG));
        let mut listener = configuration.at("/static_resources/listeners/0").take();
        configuration.at("/static_resources")["listeners"] = json!([]);
        listener["@type"] = "type.googleapis.com/envoy.config.listener.v3.Listener".into();
        let pushed = Self { address, listener, folder };
        pushed.push()?;
        let watched = json!({"path": pushed.file(), "watched_directory": {"path": pushed.folder.path()}});
        configuration.at("")["dynamic_resources"] =
            json!({"lds_config": {"path_config_source": watched, "resource_api_version": "V3"}});
        // Envoy asks for listeners only under a name of its own.
        configuration.at("")["node"] = json!({"id": "gateway", "cluster": "gateway"});
        Ok(pushed)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The finished lines of its access log.
    pub fn access_log(&self) -> Result<Vec<String>> {
        let text = fs::read_to_string(self.folder.path().join(ACCESS_LOG))?;
        Ok(finished_lines(&text).map(str::to_owned).collect())
    }

    /// The text of the plugin's configuration, to be changed and pushed.
    pub fn plugin_text(&mut self) -> Result<&mut Value> {
        self.listener.pointer_mut(PLUGIN).context("the listener's first filter is not the plugin")
    }

    /// Changes the plugin's configuration, which is pushed with the next [`PushedListener::push`].
    pub fn edit_plugin(&mut self, edit: impl FnOnce(&mut Value)) -> Result<()> {
        let text = self.plugin_text()?;
        let mut plugin = serde_json::from_str(text.as_str().unwrap_or_default())?;
        edit(&mut plugin);
        *text = plugin.to_string().into();
        Ok(())
    }

    /// Writes the listener where Envoy reads it: a file moved into place, which is what Envoy watches for.
    pub fn push(&self) -> Result<()> {
        let next = self.folder.path().join("next.json");
        fs::write(&next, json!({"resources": [self.listener]}).to_string())?;
        Ok(fs::rename(next, self.file())?)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("listener.json")
    }
}
