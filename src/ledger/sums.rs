//! What is in flight, by endpoint: a list in the order of its keys. There are few, and a list is looked through and copied
//! without a call that can panic.

use serde::{Deserialize, Serialize};

use crate::load::{EndpointKey, EndpointLoad};

/// See the module's documentation.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    loads: Vec<(EndpointKey, EndpointLoad)>,
}

impl Sums {
    /// Nothing.
    pub const fn new() -> Sums {
        Sums { loads: Vec::new() }
    }

    /// How many endpoints there are.
    pub fn len(&self) -> usize {
        self.loads.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.loads.is_empty()
    }

    /// What is in flight at this one, if it is there.
    pub fn get(&self, key: EndpointKey) -> Option<&EndpointLoad> {
        let place = self.place(key).ok()?;
        self.loads.get(place).map(|(_, load)| load)
    }

    /// Puts this in place of what was there.
    pub fn set(&mut self, key: EndpointKey, load: EndpointLoad) {
        match self.place(key) {
            Ok(place) => self.loads.iter_mut().skip(place).take(1).for_each(|(_, old)| old.clone_from(&load)),
            Err(place) => {
                let mut moved = (key, load);
                self.loads.iter_mut().skip(place).for_each(|next| std::mem::swap(next, &mut moved));
                self.loads.push(moved);
            }
        }
    }

    /// Adds this to what is there.
    pub fn add(&mut self, key: EndpointKey, load: &EndpointLoad) {
        let mut sum = self.get(key).cloned().unwrap_or_default();
        sum.add(load);
        self.set(key, sum);
    }

    /// Those where something is in flight stay.
    pub fn keep_busy(&mut self) {
        self.loads.retain(|(_, load)| !load.is_idle());
    }

    /// In the order of the keys.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (EndpointKey, &EndpointLoad)> {
        self.loads.iter().map(|(key, load)| (*key, load))
    }

    /// To be changed.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut EndpointLoad> {
        self.loads.iter_mut().map(|(_, load)| load)
    }

    fn place(&self, key: EndpointKey) -> Result<usize, usize> {
        self.loads.binary_search_by_key(&key, |(known, _)| *known)
    }
}

impl IntoIterator for Sums {
    type Item = (EndpointKey, EndpointLoad);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.loads.into_iter()
    }
}

impl FromIterator<(EndpointKey, EndpointLoad)> for Sums {
    fn from_iter<T: IntoIterator<Item = (EndpointKey, EndpointLoad)>>(loads: T) -> Sums {
        let mut sums = Sums::new();
        loads.into_iter().for_each(|(key, load)| sums.set(key, load));
        sums
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::load::InFlight;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn load(requests: u32) -> EndpointLoad {
        EndpointLoad { in_flight: InFlight { requests, ..InFlight::default() }, adapters: vec![] }
    }

    #[test]
    fn it_holds_what_a_map_would() {
        let mut rng = fastrand::Rng::with_seed(1);
        let (mut sums, mut map) = (Sums::new(), BTreeMap::new());
        for _ in 0..2_000 {
            let (key, requests) = (EndpointKey::of_queue(&rng.u8(..40).to_string()), rng.u32(..3));
            if rng.bool() {
                sums.set(key, load(requests));
                map.insert(key, requests);
            } else {
                sums.add(key, &load(requests));
                *map.entry(key).or_insert(0) += requests;
            }
            if rng.u8(..20) == 0 {
                sums.keep_busy();
                map.retain(|_, requests| *requests > 0);
            }
            let held: Vec<_> = sums.iter().map(|(key, load)| (key, load.in_flight.requests)).collect();
            assert_eq!(held, map.clone().into_iter().collect::<Vec<_>>());
            assert_eq!(sums.get(key).map(|load| load.in_flight.requests), map.get(&key).copied());
        }
    }
}
