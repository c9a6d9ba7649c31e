//! What is counted and measured, and under which names: as data, which the shell hands to the host.
//!
//! A name begins with its labels, as `LABEL=.=VALUE;.;`, which `stats_config` in Envoy's bootstrap takes apart into real
//! labels, or Istio's `extraStatTags`, which knows this form alone. [`Statistic`] is the table of names; which values labels may have is bounded
//! ([`Labels`]): a client must not be able to make the statistics grow.

mod labels;
mod request;
mod statistic;

pub use labels::{Label, Labels, UNKNOWN};
pub use request::{EndedAnswer, EndedRequest, ReadAnswer, RequestLabels};
pub use statistic::{Definition, Kind, Statistic};

use std::net::SocketAddr;

use crate::config::Config;
use crate::limits::Limit;
use crate::load::InFlight;
use crate::pool::{EndpointReading, Pool};
use crate::prefill::PromptBy;
use crate::sessions::{Forgotten, KnownBy, Outcome};

/// The most labels that a statistic has.
const MAX_LABELS: usize = 3;

/// A statistic with the values of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Series {
    /// The statistic.
    pub statistic: Statistic,
    labels: [Label; MAX_LABELS],
}

/// A number for a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurement {
    /// Where it belongs.
    pub series: Series,
    /// What is added, set or sorted in, as the statistic's kind is.
    pub value: i64,
}

/// Names, and what to record when.
#[derive(Debug)]
pub struct Stats {
    labels: Labels,
}

impl Stats {
    /// Nothing has been recorded.
    pub fn new(config: &Config) -> Stats {
        Stats { labels: Labels::new(config) }
    }

    /// The name by which the host knows a series.
    pub fn name(&self, series: &Series) -> String {
        let Definition { name, labels, .. } = series.statistic.definition();
        let values = series.labels.iter().map(|label| self.labels.text(*label));
        let labels = labels.iter().zip(values).map(|(label, value)| format!("{label}=.={value};.;"));
        labels.collect::<String>() + name
    }

    /// What a request for `model` that goes as `target` to this pool is counted under.
    pub fn request_labels(&mut self, model: &str, target: &str, pool: Option<&Pool>) -> RequestLabels {
        RequestLabels { model: self.labels.model(model, pool), target: self.labels.target(target, pool) }
    }

    /// A request that was read is sent to an endpoint.
    pub fn request_sent(&self, labels: RequestLabels) -> Measurement {
        measure(Statistic::RequestsSent, &[labels.model, labels.target], 1)
    }

    /// So many prompt tokens are sent for a tenant.
    pub fn tenant_sent(&self, tenant: &str, prompt_tokens: u32) -> Measurement {
        measure(Statistic::TenantPromptTokens, &[self.labels.tenant(tenant)], prompt_tokens)
    }

    /// A request goes to an endpoint of the pool; `prompt`: so many tokens, of which so many are taken to be cached,
    /// where the strategy goes by prefixes.
    pub fn picked(
        &mut self,
        pool: usize,
        endpoint: &str,
        prompt: Option<(u32, u32)>,
    ) -> impl Iterator<Item = Measurement> + use<> {
        let pool = self.labels.pool(pool);
        let pick = measure(Statistic::Picks, &[pool, self.labels.endpoint(endpoint)], 1);
        let prefixes = prompt.into_iter().flat_map(move |(tokens, matched_tokens)| {
            [
                measure(Statistic::PrefixPromptTokens, &[pool], tokens),
                measure(Statistic::PrefixMatchedTokens, &[pool], matched_tokens),
            ]
        });
        [pick].into_iter().chain(prefixes)
    }

    /// A request goes to an endpoint, and this one computes its prompt.
    pub fn prompt_by(&mut self, prompt_by: &PromptBy) -> Option<Measurement> {
        match prompt_by {
            PromptBy::Itself => None,
            PromptBy::Other(other) => {
                let labels = [self.labels.pool(other.pool), self.labels.endpoint(&other.address)];
                Some(measure(Statistic::Prefills, &labels, 1))
            }
            PromptBy::Gone { pool } => Some(measure(Statistic::PrefillsGone, &[self.labels.pool(*pool)], 1)),
        }
    }

    /// Another pool serves a request of this one.
    pub fn fell_back(&self, pool: usize) -> Measurement {
        measure(Statistic::Fallbacks, &[self.labels.pool(pool)], 1)
    }

    /// A request goes to an endpoint of the pool that belongs to a conversation.
    pub fn session(&self, pool: usize, by: KnownBy, outcome: Outcome) -> Measurement {
        let statistic = match (by, outcome) {
            (KnownBy::Name, Outcome::Kept) => Statistic::SessionsKept,
            (KnownBy::Name, Outcome::Moved) => Statistic::SessionsMoved,
            (KnownBy::Name, Outcome::New) => Statistic::SessionsNew,
            (KnownBy::Stored, Outcome::Kept) => Statistic::StoredKept,
            (KnownBy::Stored, Outcome::Moved | Outcome::New) => Statistic::StoredLost,
        };
        measure(statistic, &[self.labels.pool(pool)], 1)
    }

    /// Conversations were forgotten.
    pub fn sessions_forgotten(&mut self, forgotten: Forgotten) -> Vec<Measurement> {
        let Forgotten { expired, displaced, restarted } = forgotten;
        let counts = [("expired", expired), ("displaced", displaced), ("restarted", restarted)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let measured =
            |(reason, count)| measure(Statistic::SessionsForgotten, &[self.labels.word(reason)], count);
        counts.map(measured).collect()
    }

    /// Another endpoint has answered than the one picked.
    pub fn retried(&mut self, pool: usize, picked: &str) -> Measurement {
        measure(Statistic::Retries, &[self.labels.pool(pool), self.labels.endpoint(picked)], 1)
    }

    /// An answer of an endpoint began as a good one, and failed.
    pub fn answer_failed(&mut self, pool: usize, endpoint: &str) -> Measurement {
        measure(Statistic::AnswersFailed, &[self.labels.pool(pool), self.labels.endpoint(endpoint)], 1)
    }

    /// An endpoint has answered that it does not have the model.
    pub fn model_missing(&mut self, pool: usize, endpoint: &str) -> Measurement {
        measure(Statistic::ModelsMissing, &[self.labels.pool(pool), self.labels.endpoint(endpoint)], 1)
    }

    /// The gateway has answered itself, with this error.
    pub fn refused(&mut self, code: &'static str) -> Measurement {
        measure(Statistic::Refusals, &[self.labels.word(code)], 1)
    }

    /// A limit was reached so many times.
    pub fn limit_reached(&mut self, limit: Limit, times: u32) -> Measurement {
        measure(Statistic::LimitsReached, &[self.labels.word(limit.name())], times)
    }

    /// Which endpoints a pool has could not be found out.
    pub fn discovery_failed(&self, pool: usize) -> Measurement {
        measure(Statistic::DiscoveryFailures, &[self.labels.pool(pool)], 1)
    }

    /// A request leaves the queue.
    pub fn left_queue(&self, pool: usize, wait_ms: u64) -> impl Iterator<Item = Measurement> + use<> {
        sort_in(Statistic::QueueWait, &[self.labels.pool(pool)], clamp(wait_ms))
    }

    /// So many requests wait, in all workers.
    pub fn queued(&self, pool: usize, requests: u32) -> Measurement {
        measure(Statistic::QueueRequests, &[self.labels.pool(pool)], requests)
    }

    /// So many blocks are remembered.
    pub fn prefix_blocks(&self, pool: usize, blocks: usize) -> Measurement {
        measure(Statistic::PrefixBlocks, &[self.labels.pool(pool)], clamp(blocks as u64))
    }

    /// A scrape has ended.
    pub fn scraped(
        &self,
        pool: usize,
        duration_ms: u64,
        succeeded: bool,
    ) -> impl Iterator<Item = Measurement> + use<> {
        let pool = [self.labels.pool(pool)];
        let failure = (!succeeded).then(|| measure(Statistic::ScrapeFailures, &pool, 1));
        let duration = sort_in(Statistic::ScrapeDuration, &pool, clamp(duration_ms));
        [measure(Statistic::Scrapes, &pool, 1)].into_iter().chain(duration).chain(failure)
    }

    /// What is believed of an endpoint.
    pub fn endpoint(
        &mut self,
        pool: usize,
        endpoint: &EndpointReading,
        in_flight: InFlight,
        now_ms: u64,
    ) -> impl Iterator<Item = Measurement> + use<> {
        let reading = endpoint.reading.as_ref();
        let metrics = reading.map(|reading| &reading.metrics);
        let utilization = metrics.map(|metrics| metrics.kv_cache_utilization.unwrap_or(0.0));
        let values = [
            (Statistic::EndpointInFlightRequests, Some(in_flight.requests.into())),
            (Statistic::EndpointInFlightTokens, Some(clamp(in_flight.waiting_tokens))),
            (Statistic::EndpointWaiting, metrics.map(|metrics| metrics.waiting.into())),
            (Statistic::EndpointRunning, metrics.map(|metrics| metrics.running.into())),
            (Statistic::EndpointKvCache, utilization.map(|share| (share * 1000.0).round() as i64)),
            (
                Statistic::EndpointMetricsAge,
                reading.map(|reading| clamp(now_ms.saturating_sub(reading.scraped_ms))),
            ),
        ];
        self.endpoint_gauges(pool, endpoint.address, values)
    }

    /// An endpoint is the pool's no longer: nothing is there.
    pub fn endpoint_gone(
        &mut self,
        pool: usize,
        address: &SocketAddr,
    ) -> impl Iterator<Item = Measurement> + use<> {
        let values = ENDPOINT_GAUGES.map(|statistic| (statistic, Some(0)));
        self.endpoint_gauges(pool, *address, values)
    }

    /// Endpoints beyond the bound have none: they would write over each other's.
    fn endpoint_gauges<const N: usize>(
        &mut self,
        pool: usize,
        address: SocketAddr,
        values: [(Statistic, Option<i64>); N],
    ) -> impl Iterator<Item = Measurement> + use<N> {
        let endpoint = self.labels.endpoint(&address.to_string());
        let labels = [self.labels.pool(pool), endpoint];
        let values = values.into_iter().filter(move |_| endpoint != UNKNOWN);
        values.filter_map(move |(statistic, value)| Some(measure(statistic, &labels, value?)))
    }
}

/// What is kept of each endpoint.
const ENDPOINT_GAUGES: [Statistic; 6] = [
    Statistic::EndpointWaiting,
    Statistic::EndpointRunning,
    Statistic::EndpointKvCache,
    Statistic::EndpointInFlightRequests,
    Statistic::EndpointInFlightTokens,
    Statistic::EndpointMetricsAge,
];

fn measure(statistic: Statistic, labels: &[Label], value: impl Into<i64>) -> Measurement {
    let mut all = [UNKNOWN; MAX_LABELS];
    all.iter_mut().zip(labels).for_each(|(place, label)| *place = *label);
    Measurement { series: Series { statistic, labels: all }, value: value.into() }
}

/// A value for a histogram, and for the counter of its sum.
fn sort_in(histogram: Statistic, labels: &[Label], value: i64) -> impl Iterator<Item = Measurement> + use<> {
    let Measurement { series: Series { labels, .. }, .. } = measure(histogram, labels, value);
    let both = [Some(histogram), histogram.sum()].into_iter().flatten();
    both.map(move |statistic| Measurement { series: Series { statistic, labels }, value })
}

fn clamp(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
