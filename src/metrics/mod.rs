//! What a model server says about its load, read from its Prometheus page.
//!
//! [`read`] takes one scraped page and gives [`EndpointMetrics`] or the reason why the page cannot be
//! believed. It is a function of its arguments, reads the page once and allocates only what it returns.
//!
//! The parts: `gzip` inflates, `exposition` knows the text format, `model_server` is the one table of names, `reader` adds up
//! what the table selects. `load_header` reads what a
//! server reports with an answer, `context_length` what it reports with its list of models.
//!
//! A page may be gzip, and may have the OpenMetrics form: what of that is not asked for comes where a server offers nothing
//! else.
//!
//! What it does not do: histograms, rates, or the protobuf form. A page that has every needed
//! series is believed: whether the numbers are fresh is for the caller, who knows when they were asked for.

mod context_length;
mod exposition;
mod gzip;
mod load_header;
mod model_server;
mod reader;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use context_length::{MAX_LIST_BYTES, MODELS_PATH, read_context_tokens};
pub use load_header::{LOAD_FORMAT, LOAD_FORMAT_HEADER, LOAD_HEADER, ReportedLoad, read_load};
pub use model_server::{Metric, ModelServer};
pub use reader::{MAX_ADAPTERS, MAX_PAGE_BYTES, read};

/// What one scrape of a model server said.
///
/// A server with several engines (data parallel) is one endpoint: its counts are sums over the engines, and what the next
/// request would find is that of the engine that gets it. The ranks of one engine print the same requests again, and count
/// once.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct EndpointMetrics {
    /// Requests queued.
    pub waiting: u32,
    /// Requests in the running batch.
    pub running: u32,
    /// Engines that share these requests, at least 1 on every page.
    pub engines: u32,
    /// Of a server with several engines that are numbered from 0, the requests of each, queued or running. Empty for any other.
    pub ranks: Vec<u32>,
    /// Requests that are queued where the next one goes: at the engine with the fewest requests, if the server gives it to
    /// that one, else at each of them on average.
    pub next_queue: u32,
    /// Share of the KV cache in use where the next request goes, 0..=1. `None` if the server has no such metric or an
    /// engine's value is negative or not finite; a value above 1 counts as 1.
    pub kv_cache_utilization: Option<f32>,
    /// `None` if the server does not serve LoRA adapters or does not report them.
    pub lora: Option<LoraState>,
    /// The base model's name, as the server labels its queue. `None` if it does not.
    pub base_model: Option<String>,
    /// `None` if the server does not report it.
    pub cache: Option<CacheConfig>,
    /// Tokens that a prompt and its answer may have, where the page reports it, or else the list of models. `None` if neither does.
    pub context_tokens: Option<u32>,
    /// Tokens looked up in the prefix cache since the server started: those of prompts.
    pub prefix_cache_queries: Option<f64>,
    /// Tokens of those that were found.
    pub prefix_cache_hits: Option<f64>,
    /// Numbers that change while the server works, added up: tokens computed and generated, and what it has of them. Of no
    /// unit, to be compared with the last. `None` if it prints none.
    pub activity: Option<f64>,
    /// Whether it says that it takes no requests now: it sleeps, all its engines do. Only vLLM reports it.
    pub is_resting: bool,
}

/// The LoRA adapters a server has in use.
#[derive(Debug, Default, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraState {
    /// Adapters with running or waiting requests, sorted, each once. None where the server does not name them.
    pub adapters: Vec<String>,
    /// How many adapters fit in one batch.
    pub slots: u32,
    /// How many of them have requests, named or not.
    pub slots_in_use: u32,
}

impl LoraState {
    /// That of a server which names them, sorted and each once.
    pub fn named(mut adapters: Vec<String>, slots: u32) -> LoraState {
        adapters.sort_unstable();
        adapters.dedup();
        LoraState { slots_in_use: adapters.len() as u32, adapters, slots }
    }
}

/// The size of a server's KV cache, summed over its engines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheConfig {
    /// Tokens in one block.
    pub block_size_tokens: u32,
    /// Tokens the cache has room for, as the server counts them.
    pub capacity_tokens: u64,
}

/// Why a page says nothing about its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsError {
    /// The page is longer than [`MAX_PAGE_BYTES`].
    TooLarge {
        /// Its length, by its own word if it is compressed.
        bytes: usize,
    },
    /// The page is compressed, and is not what was compressed: cut short, or altered.
    BadGzip,
    /// The page does not end with a line feed or `# EOF`, as every whole page does. A page cut short is refused as a whole:
    /// its last number may be the `1` of a `10`, and the series behind the cut would be missing from the sums.
    Incomplete,
    /// A needed series is not on the page.
    Missing {
        /// Whose names were looked for.
        server: ModelServer,
        /// Which of them.
        metric: Metric,
    },
    /// A needed series is malformed, negative, not finite, or too large to be a number of requests.
    NotACount {
        /// Whose names were looked for.
        server: ModelServer,
        /// Which of them.
        metric: Metric,
    },
}

impl fmt::Display for MetricsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge { bytes } => {
                write!(f, "a page of {bytes} bytes is over the limit of {MAX_PAGE_BYTES}")
            }
            Self::BadGzip => {
                write!(f, "the page is compressed and cannot be inflated: cut short, or altered")
            }
            Self::Incomplete => {
                write!(f, "the page ends with neither a line feed nor `# EOF`: cut short, or no metrics page")
            }
            Self::Missing { server, metric } => write!(f, "no {metric:?} series of {server:?} on the page"),
            Self::NotACount { server, metric } => {
                write!(f, "a {metric:?} series of {server:?} is not a number of requests")
            }
        }
    }
}

impl std::error::Error for MetricsError {}
