//! What the scraper publishes of a pool, and its bytes in shared data.
//!
//! Shared data can hold anything: another version of this plugin or a co-tenant may have written the key. So the
//! bytes begin with a format number, and decoding takes any bytes without panicking or growing beyond their size.

use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::EnvoyHost;
use crate::config::MAX_ENDPOINTS;
use crate::metrics::EndpointMetrics;

/// Changes whenever the meaning of published bytes does.
pub const FORMAT: u8 = 10;

/// What the scraper knows of a pool.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The endpoints; `None` as long as discovery has not answered.
    pub endpoints: Option<Vec<EndpointReading>>,
    /// Whether its cluster has hosts that cannot be named: picks among the others would leave these without requests.
    pub has_unnamed: bool,
    /// The longest from one scrape of an endpoint to the next that is meant, in milliseconds.
    pub interval_ms: u64,
}

/// What the scraper knows of one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointReading {
    /// Where it listens.
    pub address: SocketAddr,
    /// How Envoy knows it.
    pub host: EnvoyHost,
    /// Scrapes in a row that nobody answered.
    pub scrape_failures: u32,
    /// When it last answered a scrape, if not with metrics that can be read, in milliseconds of the host's monotonic clock.
    pub unreadable_ms: Option<u64>,
    /// When it was last seen to have started anew, in milliseconds of the host's monotonic clock. Whoever reads only some of
    /// the snapshots would not see it by the counters.
    pub restarted_ms: Option<u64>,
    /// The last good scrape.
    pub reading: Option<Reading>,
}

impl EndpointReading {
    /// One of which nothing is known.
    pub fn new(address: SocketAddr) -> EndpointReading {
        let host = EnvoyHost::default();
        EndpointReading {
            address,
            host,
            scrape_failures: 0,
            unreadable_ms: None,
            restarted_ms: None,
            reading: None,
        }
    }
}

/// One good scrape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// When the answer came, in milliseconds of the host's monotonic clock.
    pub scraped_ms: u64,
    /// What it said.
    pub metrics: EndpointMetrics,
    /// Requests queued there, as far as they can be: no more than those of others and those that this gateway had there.
    pub waiting: u32,
    /// This gateway's requests there that had had no output then.
    pub own_waiting: u32,
    /// Queued requests that this gateway did not send.
    pub external_waiting: u32,
    /// All requests there, queued or running, that this gateway did not send.
    pub external_requests: u32,
}

/// The bytes to publish.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_extend(value, vec![FORMAT]).unwrap_or_default()
}

/// What was published; `None` for bytes that are not in today's format.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    let (&format, rest) = bytes.split_first()?;
    if format != FORMAT {
        return None;
    }
    postcard::from_bytes(rest).ok()
}

impl Snapshot {
    /// Reads published bytes; `None` when they are not a snapshot.
    pub fn from_bytes(bytes: &[u8]) -> Option<Snapshot> {
        let snapshot: Snapshot = decode(bytes)?;
        let count = snapshot.endpoints.as_ref().map_or(0, Vec::len);
        (count <= MAX_ENDPOINTS).then_some(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LoraState;
    use crate::pool::HostHealth;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn snapshot() -> Snapshot {
        let lora = LoraState::named(vec!["sql-lora".into(), "tweet-summary".into()], 4);
        let metrics =
            EndpointMetrics { waiting: 3, running: 7, lora: Some(lora), ..EndpointMetrics::default() };
        let reading = Reading {
            scraped_ms: 12_345,
            metrics,
            waiting: 3,
            own_waiting: 4,
            external_waiting: 1,
            external_requests: 2,
        };
        let endpoint = |address: &str| EndpointReading::new(address.parse().unwrap());
        let read = EndpointReading { reading: Some(reading), ..endpoint("10.0.0.1:8000") };
        let host = EnvoyHost { health: HostHealth::Degraded, priority: 1, name: Some("envoy://l/x".into()) };
        let unread = EndpointReading {
            host,
            unreadable_ms: Some(7),
            restarted_ms: Some(5),
            ..endpoint("[fd00::1]:8000")
        };
        Snapshot { endpoints: Some(vec![read, unread]), has_unnamed: true, ..Snapshot::default() }
    }

    #[test]
    fn what_is_published_is_what_is_read() {
        assert_eq!(Snapshot::from_bytes(&encode(&snapshot())), Some(snapshot()));
        assert_eq!(Snapshot::from_bytes(&encode(&Snapshot::default())), Some(Snapshot::default()));
    }

    #[test]
    fn bytes_of_another_format_or_cut_short_are_no_snapshot() {
        let bytes = encode(&snapshot());
        for length in 0..bytes.len() {
            assert_eq!(Snapshot::from_bytes(&bytes[..length]), None, "cut at {length}");
        }
        let mut other = bytes.clone();
        other[0] = FORMAT + 1;
        assert_eq!(Snapshot::from_bytes(&other), None);
    }

    #[test]
    fn any_byte_changed_is_read_or_refused_without_harm() {
        let bytes = encode(&snapshot());
        for position in 0..bytes.len() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut changed = bytes.clone();
                changed[position] = value;
                if let Some(snapshot) = Snapshot::from_bytes(&changed) {
                    assert!(snapshot.endpoints.is_none_or(|endpoints| endpoints.len() <= bytes.len()));
                }
            }
        }
    }
}
