//! Fields of the plugin's configuration that no resource holds: one document of the same form, from the user.

use std::path::Path;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::input;

/// Fields that the resources or the deployment decide, and settings may not.
const DECIDED_FIELDS: [&str; 6] = ["role", "pickTo", "scrapeBy", "scrapeCluster", "models", "objectives"];
const DECIDED_POOL_FIELDS: [&str; 3] = ["cluster", "routingStrategy", "defaultTargets"];

/// The document, taken apart.
#[derive(Debug, Default, Deserialize)]
pub struct Settings {
    /// The file's path, for messages.
    #[serde(skip)]
    pub source: String,
    #[serde(default)]
    pub pools: Vec<PoolSettings>,
    /// The other fields, as they are.
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

/// Further fields of one pool.
#[derive(Debug, Deserialize)]
pub struct PoolSettings {
    pub name: String,
    #[serde(flatten)]
    pub fields: Map<String, Value>,
}

impl Settings {
    pub fn read(path: Option<&Path>) -> anyhow::Result<Settings> {
        let Some(path) = path else {
            return Ok(Settings::default());
        };
        let source = path.display().to_string();
        let document = input::read_document(path)?;
        let settings: Settings =
            serde_path_to_error::deserialize(document).with_context(|| source.clone())?;
        settings.refuse_decided_fields().with_context(|| source.clone())?;
        Ok(Settings { source, ..settings })
    }

    fn refuse_decided_fields(&self) -> anyhow::Result<()> {
        if let Some(field) = DECIDED_FIELDS.iter().find(|field| self.fields.contains_key(**field)) {
            bail!("{field}: is decided by the resources, the deployment or an option, not by settings");
        }
        for (index, pool) in self.pools.iter().enumerate() {
            if let Some(field) = DECIDED_POOL_FIELDS.iter().find(|field| pool.fields.contains_key(**field)) {
                bail!(
                    "pools[{index}].{field}: is decided by the InferencePool or an option, not by settings"
                );
            }
        }
        Ok(())
    }

    /// The position and the fields of the settings of a pool.
    pub fn pool(&self, name: &str) -> Option<(usize, &PoolSettings)> {
        self.pools.iter().enumerate().find(|(_, pool)| pool.name == name)
    }
}
