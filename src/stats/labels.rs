//! The values of labels: which there may be, so that no client can make the statistics grow.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use crate::config::Config;
use crate::pool::Pool;

/// The value for what is not known.
pub const UNKNOWN: Label = Label(0);

/// Models that endpoints print and that become values where none are configured: more than a pool serves.
pub(super) const MAX_PRINTED_MODELS: usize = 256;

/// Endpoints that become values, ever: four times a pool's. Envoy forgets no statistic, and endpoints come and go.
pub(super) const MAX_ENDPOINT_LABELS: usize = 16_384;

/// A value, by its place among all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label(u32);

/// All values. No client can add one, so none need be hashed with a secret.
#[derive(Debug)]
pub struct Labels {
    texts: Vec<String>,
    models: HashMap<String, Label, FixedState>,
    targets: HashMap<String, Label, FixedState>,
    pools: Vec<Label>,
    tenants: HashMap<String, Label, FixedState>,
    endpoints: HashMap<String, Label, FixedState>,
    /// Words of the program's own, such as the codes of errors.
    words: HashMap<&'static str, Label, FixedState>,
    /// Whether models that endpoints print are values.
    learns_models: bool,
}

impl Labels {
    /// What the configuration names.
    pub fn new(config: &Config) -> Labels {
        let mut labels = Labels {
            texts: vec!["unknown".to_owned()],
            models: HashMap::default(),
            targets: HashMap::default(),
            pools: Vec::new(),
            tenants: HashMap::default(),
            endpoints: HashMap::default(),
            words: HashMap::default(),
            learns_models: config.models.is_empty(),
        };
        for model in &config.models {
            // Several pools may have a model of this name, and several models a target.
            if !labels.models.contains_key(&model.name) {
                let label = labels.add(&model.name);
                labels.models.insert(model.name.clone(), label);
            }
            let targets = model.targets.iter().map(|target| target.name.as_str());
            for name in targets.chain([model.name.as_str()]) {
                if !labels.targets.contains_key(name) {
                    let label = labels.add(name);
                    labels.targets.insert(name.to_owned(), label);
                }
            }
        }
        for target in config.pools.iter().flat_map(|pool| &pool.default_targets) {
            if !labels.targets.contains_key(&target.name) {
                let label = labels.add(&target.name);
                labels.targets.insert(target.name.clone(), label);
            }
        }
        for tenant in config.fairness.iter().flat_map(|fairness| &fairness.tenants) {
            let label = labels.add(tenant);
            labels.tenants.insert(tenant.clone(), label);
        }
        labels.pools = config.pools.iter().map(|pool| labels.add(&pool.name)).collect();
        labels
    }

    /// The model of this name, where clients may ask for it: a published one, or one that the pool's endpoints print.
    pub fn model(&mut self, name: &str, pool: Option<&Pool>) -> Label {
        self.models.get(name).copied().unwrap_or_else(|| self.learn(name, pool))
    }

    /// The model of this name at the servers.
    pub fn target(&mut self, name: &str, pool: Option<&Pool>) -> Label {
        self.targets.get(name).copied().unwrap_or_else(|| self.learn(name, pool))
    }

    fn learn(&mut self, name: &str, pool: Option<&Pool>) -> Label {
        let has_room = self.learns_models && self.models.len() < MAX_PRINTED_MODELS;
        if !(has_room && pool.is_some_and(|pool| pool.names(name))) {
            return UNKNOWN;
        }
        let label = self.add(name);
        self.models.insert(name.to_owned(), label);
        self.targets.insert(name.to_owned(), label);
        label
    }

    /// The tenant of this name, where the configuration names it.
    pub fn tenant(&self, name: &str) -> Label {
        self.tenants.get(name).copied().unwrap_or(UNKNOWN)
    }

    /// The pool at a place of the configuration.
    pub fn pool(&self, place: usize) -> Label {
        self.pools.get(place).copied().unwrap_or(UNKNOWN)
    }

    /// The endpoint of this address, by whatever name Envoy has for it.
    pub fn endpoint(&mut self, name: &str) -> Label {
        let address = name.rsplit('/').next().unwrap_or(name);
        if let Some(label) = self.endpoints.get(address) {
            return *label;
        }
        if self.endpoints.len() >= MAX_ENDPOINT_LABELS {
            return UNKNOWN;
        }
        let label = self.add(address);
        self.endpoints.insert(address.to_owned(), label);
        label
    }

    /// A word of the program's own.
    pub fn word(&mut self, word: &'static str) -> Label {
        if let Some(label) = self.words.get(word) {
            return *label;
        }
        let label = self.add(word);
        self.words.insert(word, label);
        label
    }

    /// The value's text.
    pub fn text(&self, label: Label) -> &str {
        self.texts.get(label.0 as usize).map_or("", String::as_str)
    }

    /// What ends a value in a name, or a line in a log, may not be in it.
    fn add(&mut self, text: &str) -> Label {
        let label = Label(self.texts.len() as u32);
        self.texts.push(text.replace(|letter: char| letter == ';' || letter.is_control(), "_"));
        label
    }
}
