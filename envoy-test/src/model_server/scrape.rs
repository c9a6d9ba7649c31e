//! `GET /metrics`, in each of its modes.

use std::io;

use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::header::CONTENT_LENGTH;
use hyper::{Response, StatusCode};

use super::counters::ScrapeInFlight;
use super::knobs::MetricsMode;
use super::response::{Body, empty, status, with_type};
use super::server::Server;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Gauges that routing uses; `nan` mode spoils them.
const ROUTING_GAUGES: [&str; 3] =
    ["vllm:num_requests_waiting{", "vllm:num_requests_running{", "vllm:kv_cache_usage_perc{"];

/// Answers a scrape. It counts as in flight until its answer is written out, or its client has left.
pub async fn answer(server: &Server) -> Response<Body> {
    let scrape = server.counters.begin_scrape();
    let page = match server.knobs().metrics {
        MetricsMode::Live => server.page(),
        MetricsMode::Hang => std::future::pending().await,
        MetricsMode::Status(code) => return empty(status(code)),
        MetricsMode::Garbage => garbage(),
        MetricsMode::Half => half(server.page()),
        MetricsMode::Huge(bytes) => huge(server.page(), bytes),
        MetricsMode::Nan => without_numbers(&server.page()),
        MetricsMode::Gone => without_vllm(&server.page()),
        MetricsMode::Frozen => server.frozen_page(),
    };
    let length = page.len();
    let mut response = with_type(StatusCode::OK, CONTENT_TYPE, guarded(page, scrape));
    response.headers_mut().insert(CONTENT_LENGTH, length.into());
    response
}

/// A body that keeps the scrape in flight until hyper is done with it.
fn guarded(page: String, scrape: ScrapeInFlight) -> Body {
    let page = Some(Bytes::from(page));
    let frames = stream::unfold((page, scrape), |(page, scrape)| async move {
        let frame: io::Result<Frame<Bytes>> = Ok(Frame::data(page?));
        Some((frame, (None, scrape)))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// Bytes of every kind but a metric: braces, quotes and numbers that lead nowhere.
fn garbage() -> String {
    "}{\"\\ 1e999 vllm:num_requests_waiting{{{{ \u{0} NaN\n".repeat(100)
}

fn half(mut page: String) -> String {
    let middle = page.len() / 2;
    let line_end = page[middle..].find('\n').map_or(page.len(), |index| middle + index);
    // Within the value or a label of that line, never at its end.
    page.truncate(line_end.saturating_sub(2));
    page
}

fn huge(mut page: String, bytes: usize) -> String {
    const FILLER: &str = "# HELP filler A line that makes this page longer than any real one would be.\n";
    page.push_str(&FILLER.repeat(bytes.saturating_sub(page.len()).div_ceil(FILLER.len())));
    page
}

fn without_numbers(page: &str) -> String {
    let spoil = |line: &str| match line.rsplit_once(' ') {
        Some((series, _)) if ROUTING_GAUGES.iter().any(|name| line.starts_with(name)) => {
            format!("{series} NaN\n")
        }
        _ => format!("{line}\n"),
    };
    page.lines().map(spoil).collect()
}

fn without_vllm(page: &str) -> String {
    page.lines().filter(|line| !line.contains("vllm:")).map(|line| format!("{line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "# TYPE a gauge\na 1.0\nvllm:num_requests_waiting{x=\"y\"} 3.0\nb 2.0\n";

    #[test]
    fn half_a_page_ends_within_a_line() {
        let page = half(PAGE.to_owned());
        assert!(PAGE.starts_with(&page) && !page.ends_with('\n') && page.len() < PAGE.len());
    }

    #[test]
    fn a_huge_page_has_at_least_the_bytes_asked_for() {
        assert!(huge(PAGE.to_owned(), 100_000).len() >= 100_000);
    }

    #[test]
    fn spoiled_gauges_keep_their_labels() {
        let expected = PAGE.replace("3.0", "NaN");
        assert_eq!(without_numbers(PAGE), expected);
    }

    #[test]
    fn a_page_without_vllm_keeps_the_rest() {
        assert_eq!(without_vllm(PAGE), "# TYPE a gauge\na 1.0\nb 2.0\n");
    }
}
