//! Envoy's ring hash by a header that names the session: consistent hashing, which knows nothing of load.
//!
//! ```text
//! ring = for each of n hosts, 1024 ÷ n (rounded up) points XXH64("address_0"), XXH64("address_1"), …
//! pick = the host of the first point at or after XXH64(name of the session); at random without a name
//! ```

use std::time::Duration;

use fastrand::Rng;
use twox_hash::XxHash64;

use super::setting::address_of;
use super::{Picker, Request};
use crate::model_server::engine::Engine;

/// Envoy's `minimum_ring_size`.
const RING_POINTS: usize = 1024;

pub struct RingHash {
    pods: usize,
    /// With the pod of each, in order.
    ring: Vec<(u64, usize)>,
    rng: Rng,
}

impl RingHash {
    pub fn new(engines: &[Engine], rng: Rng) -> RingHash {
        let pods = engines.len();
        let points = RING_POINTS.div_ceil(pods.max(1));
        let of_pod =
            |pod: usize| (0..points).map(move |point| (hash(&format!("{}_{point}", address_of(pod))), pod));
        let mut ring: Vec<_> = (0..pods).flat_map(of_pod).collect();
        ring.sort_unstable();
        RingHash { pods, ring, rng }
    }
}

fn hash(text: &str) -> u64 {
    XxHash64::oneshot(0, text.as_bytes())
}

impl Picker for RingHash {
    fn pick(&mut self, request: &Request<'_>, _engines: &[Engine], _now: Duration) -> usize {
        let Some(session) = request.session else { return self.rng.usize(..self.pods) };
        let hash = hash(&super::gateway::name_of(session));
        let next = self.ring.partition_point(|(point, _)| *point < hash);
        self.ring[next % self.ring.len()].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_server::engine::EngineSettings;

    #[test]
    fn a_session_has_its_pod_and_sessions_are_spread() {
        let engines = vec![Engine::new(EngineSettings::default()); 4];
        let mut ring = RingHash::new(&engines, Rng::with_seed(1));
        let mut pick = |session| {
            let request = Request { key: 0, prompt: &[1], adapter: None, session: Some(session) };
            ring.pick(&request, &engines, Duration::ZERO)
        };
        let mut counts = [0; 4];
        for session in 0..1_000 {
            let pod = pick(session);
            assert_eq!(pick(session), pod);
            counts[pod] += 1;
        }
        assert!(counts.iter().all(|count| (150..=350).contains(count)), "{counts:?}");
    }
}
