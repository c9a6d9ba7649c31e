//! Which engine of a server with several runs a request, where that is asked for: as vLLM 0.32 was seen to do with
//! `--data-parallel-size 2`.
//!
//! It reads the header for chats, completions and messages; what is no whole number counts for nothing, and a rank that there is
//! not is refused. The simulated server has one engine all the same: its page goes on to report equal shares of the load.

use hyper::HeaderMap;

use super::answers::errors::ApiError;
use super::api::Api;
use super::metrics::MetricsPage;

/// The header that names the rank.
const HEADER: &str = "x-data-parallel-rank";

/// The rank that a request names, if it names one that counts.
pub fn named(api: Api, headers: &HeaderMap, page: MetricsPage) -> Result<Option<usize>, ApiError> {
    let MetricsPage::Vllm { engines } = page else { return Ok(None) };
    if !matches!(api, Api::Chat | Api::Completions | Api::Messages) {
        return Ok(None);
    }
    let Some(text) = headers.get(HEADER).and_then(|value| value.to_str().ok()) else { return Ok(None) };
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse().ok().filter(|rank| *rank < engines) {
        Some(rank) => Ok(Some(rank)),
        None => Err(ApiError::no_such_rank(text, engines)),
    }
}
