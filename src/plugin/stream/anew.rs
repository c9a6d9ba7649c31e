//! A request that another pool is to serve, because its own has failed to answer it or has had it wait. Envoy's filter for custom
//! responses, which stands in front of the plugin, begins it anew: it looks for the filter state that is written here, and sends
//! the request's headers and body through the filters once more, as GET and for a host of its own. The plugin then gives it back
//! what it was ([`FirstPass`]).
//!
//! ```text
//! answer that is to be replaced ─► filter state ─► Envoy begins anew ─► headers as they were ─► body under the next pool's name
//! ```

use super::{State, Stream};
use crate::config::Config;
use crate::decide::ResolvedRequest;
use crate::fallback::{Wish, is_retriable};
use crate::first_pass::{FirstPass, Head};
use crate::header_pairs::HeaderPairs;
use crate::plugin::FIRST_PASS;
use crate::plugin::calls::{headers_of, publish, warn};
use crate::plugin::host::{self, Clock, Headers};

/// The filter state that Envoy's filter for custom responses matches.
const BEGIN_ANEW: &str = "llm_begin_anew";
/// The header that Envoy sets where it sends a request again for an internal redirect, or is configured to where it begins one anew; and
/// clients may send.
const SENT_AGAIN_HEADER: &str = "x-envoy-original-url";
/// Envoy's details of an answer that the client does not get, because the request was begun anew.
const REPLACED: &[u8] = b"internal_redirect";
/// The share of `maxBodyBytes` up to which a request may be begun anew: Envoy 1.36 keeps no more than half of its own limit, which
/// is about the same.
const KEPT_SHARE: usize = 2;

/// What it takes to begin a request anew.
pub struct Anew {
    first: FirstPass,
    priority: i32,
}

impl Anew {
    /// Has Envoy begin the request at hand anew, if the filter for that is there.
    pub fn begin(first_pass: &[u8]) {
        warn(FIRST_PASS, host::set_filter_state(FIRST_PASS, first_pass));
        publish(BEGIN_ANEW, "true");
    }

    /// What is kept for its next pass.
    pub fn first_pass(&self) -> Vec<u8> {
        self.first.to_bytes()
    }
}

/// Whether any pool has fallbacks.
fn has_fallbacks(config: &Config) -> bool {
    config.pools.iter().any(|pool| !pool.fallback.is_empty())
}

/// What was decided of a request with these headers before Envoy sent it once more.
fn first_pass(headers: &HeaderPairs) -> Option<FirstPass> {
    headers.value(SENT_AGAIN_HEADER)?;
    // Only the plugin can have set this.
    FirstPass::from_bytes(&host::property(FIRST_PASS).ok().flatten()?)
}

/// Gives a request that was begun anew its headers back.
fn restore(head: &Head) {
    for (name, value) in [(":method", "POST"), (":authority", &head.authority), (":path", &head.path)] {
        warn(name, host::set_header(Headers::Request, name, value));
    }
}

impl Stream {
    /// Notes what the headers of a request are that may be begun anew.
    pub(super) fn read_head(&mut self, headers: &HeaderPairs) {
        if self.first_pass.is_some() || !has_fallbacks(self.worker.borrow().config()) {
            return;
        }
        let text = |name| headers.value(name).and_then(|value| String::from_utf8(value.into_owned()).ok());
        let head = text(":authority").zip(text(":path"));
        self.head = head.map(|(authority, path)| Head { authority, path });
    }

    /// The headers of a request on a route to this cluster, and the place of the pool that it is for; of one that was begun anew
    /// those that it had, and its own pool. `None`: it is for none. Notes what was decided of it before.
    pub(super) fn headers_and_pool(&mut self, cluster: &[u8]) -> Option<(HeaderPairs, usize)> {
        let worker = self.worker.borrow();
        let pool = worker.config().pool_of_cluster(cluster);
        if pool.is_none() && !has_fallbacks(worker.config()) {
            return None;
        }
        let headers = headers_of(Headers::Request);
        self.first_pass = first_pass(&headers);
        match &self.first_pass {
            Some(FirstPass { own_pool, head: Some(head), .. }) => {
                restore(head);
                Some((headers_of(Headers::Request), *own_pool))
            }
            _ => Some((headers, pool?)),
        }
    }

    /// Whether this is the second pass of a request that was begun anew.
    pub(super) fn is_begun_anew(&self) -> bool {
        self.first_pass.as_ref().is_some_and(|first| first.head.is_some())
    }

    /// Whether the request, with a body of this size, may be begun anew. What follows something that a server has stored is served
    /// there or nowhere.
    pub(super) fn can_begin_anew(&self, body_bytes: usize) -> bool {
        let limit = self.worker.borrow().config().max_body_bytes / KEPT_SHARE;
        self.head.is_some() && body_bytes <= limit && !self.is_misrouted && !self.has_stored_place()
    }

    /// Keeps what it takes to begin the request anew, if it may be.
    pub(super) fn keep_for_anew(&mut self, resolved: &ResolvedRequest, first: FirstPass) {
        let Some(head) = self.head.take().filter(|_| resolved.can_begin_anew) else { return };
        let first = FirstPass { head: Some(head), ..first };
        self.anew = Some(Anew { first, priority: resolved.priority });
    }

    /// Notes how the pool answers that serves the request in place of its own.
    pub(super) fn fallback_answered(&self, status: Option<u16>, clock: &mut Clock) {
        if let Some((pool, status)) = self.fallback.zip(status) {
            let mut worker = self.worker.borrow_mut();
            worker.picker.fallback_answered(pool, is_retriable(status), clock.now_ms());
        }
    }

    /// Begins the request anew, if its answer of this status is one that another pool may give in its place.
    pub(super) fn begin_anew(&mut self, status: Option<u16>, now_ms: u64) -> bool {
        let Some(Anew { first, priority }) = self.anew.as_mut().filter(|_| status.is_some_and(is_retriable))
        else {
            return false;
        };
        first.was_sent = matches!(*self.state.borrow(), State::Sent(_));
        let FirstPass { model, own_pool, pool, .. } = &*first;
        let wish = Wish { model, priority: *priority, own_pool: *own_pool, but: *pool };
        let is_taken = self.worker.borrow().picker.pool_after_failure(wish, now_ms).is_some();
        if is_taken {
            Anew::begin(&first.to_bytes());
        }
        is_taken
    }

    /// Whether the client gets no answer of this stream, because the request was begun anew.
    pub(super) fn was_begun_anew(&self) -> bool {
        let details = || host::property("response\0code_details").ok().flatten();
        self.anew.is_some() && details().is_some_and(|details| details == REPLACED)
    }
}
