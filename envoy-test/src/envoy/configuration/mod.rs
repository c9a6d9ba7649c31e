//! A complete Envoy configuration as a tree of values that tests edit before Envoy reads it.
//!
//! Reading and writing return errors. An edit that finds nothing to change panics: a test that believes it changed
//! something, and did not, would claim what it never checked.

mod network;
mod plugin;

use super::binary::project_root;
use anyhow::{Context, Result};
use serde_json::{Map, Value};
use std::fs;
use std::path::{Path, PathBuf};

pub use plugin::FilterPosition;

#[derive(Debug, Clone)]
pub struct Configuration {
    document: Value,
}

impl Configuration {
    pub fn load(path: &Path) -> Result<Self> {
        let yaml = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
        Self::parse(&yaml).with_context(|| format!("in {}", path.display()))
    }

    /// The one that the project ships in this folder of `filter-config/`.
    pub fn shipped(folder: &str) -> Result<Self> {
        Self::shipped_in(project_root(), folder)
    }

    /// The same in another checkout of the project.
    pub fn shipped_in(root: &Path, folder: &str) -> Result<Self> {
        Self::load(&root.join("filter-config").join(folder).join("envoy.yaml"))
    }

    pub fn parse(yaml: &str) -> Result<Self> {
        let document = serde_saphyr::from_str(yaml).context("Envoy's configuration is not valid YAML")?;
        Ok(Self { document })
    }

    /// The value at a JSON pointer such as `/static_resources/listeners/0/name`, to read or replace.
    #[track_caller]
    pub fn at(&mut self, pointer: &str) -> &mut Value {
        match self.document.pointer_mut(pointer) {
            Some(value) => value,
            None => panic!("the configuration has nothing at {pointer}"),
        }
    }

    /// Writes it where Envoy can read it. As JSON: every JSON text means the same to Envoy, whatever YAML it was.
    pub fn write(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join("envoy.json");
        let text = serde_json::to_string_pretty(&self.document)?;
        fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }

    /// The elements of the list at `pointer`; none where there is no such list.
    fn list(&mut self, pointer: &str) -> impl Iterator<Item = &mut Value> {
        self.document.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
    }

    /// Calls `edit` with every object of the tree, parents first; returns on how many it said it did something.
    fn edit_objects(&mut self, mut edit: impl FnMut(&mut Map<String, Value>) -> bool) -> usize {
        let mut edited_count = 0;
        let mut waiting = vec![&mut self.document];
        while let Some(value) = waiting.pop() {
            match value {
                Value::Object(object) => {
                    edited_count += usize::from(edit(object));
                    waiting.extend(object.values_mut());
                }
                Value::Array(elements) => waiting.extend(elements),
                _ => {}
            }
        }
        edited_count
    }
}
