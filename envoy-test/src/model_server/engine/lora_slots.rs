//! LoRA adapters: how many run at once, and which are loaded.
//!
//! An adapter in use holds a slot until its last sequence stops running. It stays loaded afterwards, until its
//! slot is needed by another: the one used longest ago goes first.

use std::collections::BTreeMap;

/// The adapter slots of one engine.
#[derive(Debug, Clone)]
pub struct LoraSlots {
    slots: usize,
    /// Running sequences by adapter; no entry is zero.
    in_use: BTreeMap<String, usize>,
    /// Loaded adapters, the one used longest ago first; never more than `slots`.
    loaded: Vec<String>,
}

impl LoraSlots {
    pub fn new(slots: usize) -> Self {
        Self { slots, in_use: BTreeMap::new(), loaded: Vec::new() }
    }

    /// Whether a sequence with this adapter (or none) could run now.
    pub fn has_room_for(&self, adapter: Option<&str>) -> bool {
        adapter.is_none_or(|name| self.in_use.contains_key(name) || self.in_use.len() < self.slots)
    }

    /// A sequence with this adapter starts to run. True if the adapter had to be loaded.
    pub fn acquire(&mut self, adapter: Option<&str>) -> bool {
        let Some(name) = adapter else { return false };
        debug_assert!(self.has_room_for(adapter), "no slot for {name}");
        *self.in_use.entry(name.to_owned()).or_default() += 1;
        self.touch(name)
    }

    /// A sequence with this adapter no longer runs.
    pub fn release(&mut self, adapter: Option<&str>) {
        let Some(name) = adapter else { return };
        if let Some(sequences) = self.in_use.get_mut(name) {
            *sequences -= 1;
            if *sequences == 0 {
                self.in_use.remove(name);
            }
        }
    }

    fn touch(&mut self, name: &str) -> bool {
        let position = self.loaded.iter().position(|loaded| loaded == name);
        let was_loaded = position.map(|index| self.loaded.remove(index)).is_some();
        if !was_loaded && self.loaded.len() == self.slots {
            self.unload_one();
        }
        self.loaded.push(name.to_owned());
        !was_loaded
    }

    fn unload_one(&mut self) {
        if let Some(idle) = self.loaded.iter().position(|name| !self.in_use.contains_key(name)) {
            self.loaded.remove(idle);
        }
    }
}
