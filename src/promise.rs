//! Promises: how soon a request is to have its first token, and how fast each further one. Headers say so where they are
//! trusted, or the configuration does for a model.
//!
//! ```text
//! kept = time from the request's headers to its first token ≤ firstToken
//!    and mean time of each further token                    ≤ perToken
//! ```

/// The longest promise, in microseconds: who waits for longer than an hour needs none.
pub const MAX_PROMISE_US: u32 = 3_600_000_000;
/// Bytes of a header that promises something, at most; what is longer is no number of milliseconds.
const MAX_PROMISE_BYTES: usize = 16;

/// How much one request changes the share of promises at risk: it is about that of the last fifty.
const REQUEST_WEIGHT: f32 = 0.02;
/// The share of promises at risk from which on sheddable requests make room. From 0.3 to 0.5 it is as good in a full pool; with a
/// third of 0.3 a pool that has room sheds some of those whose promises it would have kept.
const RISKY_SHARE: f32 = 0.4;

/// What is promised; what is not is `None`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Promise {
    /// Microseconds from the request's headers to its first token.
    pub first_token_us: Option<u32>,
    /// Microseconds for each further token, in the mean of the answer.
    pub per_token_us: Option<u32>,
}

/// What a request is promised, and when its headers came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promised {
    /// The promise.
    pub promise: Promise,
    /// In milliseconds of the host's clock.
    pub began_ms: u64,
}

/// What is left of a promise when an endpoint is picked, in milliseconds; without end where nothing is promised.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Due {
    /// Until the first token; below zero if that should be there already.
    pub first_token_ms: f32,
    /// For each further token.
    pub per_token_ms: f32,
    /// Uncached tokens of a prompt from which on another endpoint computes it; without end where each computes its own.
    pub prefill_from_tokens: f32,
}

/// What is expected of an endpoint for a request that is promised something.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// When the first token would be there, in milliseconds from now.
    pub first_token_ms: f32,
    /// Whether the promise would be kept, with time to spare.
    pub is_kept: bool,
    /// Whether it would be missed, with none.
    pub is_missed: bool,
}

impl Expected {
    /// Whether it is clear what would become of the promise: it would be kept with time to spare, or missed.
    pub fn is_clear(&self) -> bool {
        self.is_kept || self.is_missed
    }
}

/// What was expected of the endpoint picked for a request that is promised something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// The promise.
    pub promise: Promise,
    /// Milliseconds from the request's headers to its first token, as expected.
    pub first_token_ms: u64,
}

/// How often of late no endpoint was expected to keep what was promised to a request that is not to be shed: a moving share.
///
/// ```text
/// share += REQUEST_WEIGHT × ((1 if none was expected to keep it, else 0) − share)
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct PromisesAtRisk {
    share: f32,
}

impl PromisesAtRisk {
    /// Takes a pick for a request that is not to be shed.
    pub fn note(&mut self, is_kept: bool) {
        let at_risk = if is_kept { 0.0 } else { 1.0 };
        self.share += REQUEST_WEIGHT * (at_risk - self.share);
    }

    /// Whether a sheddable request of which this is expected is shed: because it would be late, or to make room for the others.
    pub fn is_shed(&self, expected: Expected) -> bool {
        expected.is_missed || !expected.is_kept && self.share > RISKY_SHARE
    }
}

impl Promise {
    /// Whether nothing is promised.
    pub fn is_empty(&self) -> bool {
        *self == Promise::default()
    }

    /// The same, and where nothing is promised what the other one promises.
    #[must_use]
    pub fn or(self, other: Promise) -> Promise {
        Promise {
            first_token_us: self.first_token_us.or(other.first_token_us),
            per_token_us: self.per_token_us.or(other.per_token_us),
        }
    }

    /// Whether an answer keeps it that had its first token after so long, and took so long for each further one, if there were any.
    pub fn is_kept(&self, first_token_ms: u64, per_token_us: Option<u64>) -> bool {
        let within = |us: u64, promised_us: Option<u32>| {
            promised_us.is_none_or(|promised_us| us <= promised_us.into())
        };
        within(first_token_ms.saturating_mul(1_000), self.first_token_us)
            && per_token_us.is_none_or(|us| within(us, self.per_token_us))
    }
}

impl Promised {
    /// What is left of it now.
    pub fn due(&self, now_ms: u64) -> Due {
        let ms = |us: Option<u32>| us.map_or(f32::INFINITY, |us| us as f32 / 1_000.0);
        let Promise { first_token_us, per_token_us } = self.promise;
        let passed_ms = now_ms.saturating_sub(self.began_ms) as f32;
        Due {
            first_token_ms: ms(first_token_us) - passed_ms,
            per_token_ms: ms(per_token_us),
            prefill_from_tokens: f32::INFINITY,
        }
    }

    /// What is expected of an endpoint that is picked now, and is expected to take so long.
    pub fn forecast(&self, first_token_ms: f32, now_ms: u64) -> Forecast {
        let passed_ms = now_ms.saturating_sub(self.began_ms);
        Forecast { promise: self.promise, first_token_ms: passed_ms.saturating_add(first_token_ms as u64) }
    }
}

/// The microseconds of a header's value, which is a number of milliseconds in digits, perhaps with a point among them. `None` for
/// whatever else stands there, as two values do, and for what nobody can be promised: nothing at all, or more than an hour.
pub fn microseconds(value: &[u8]) -> Option<u32> {
    let is_plain = value.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.');
    let text = str::from_utf8(value).ok().filter(|text| is_plain && text.len() <= MAX_PROMISE_BYTES)?;
    let us = text.parse::<f64>().ok()? * 1_000.0;
    (us >= 1.0 && us <= MAX_PROMISE_US.into()).then_some(us as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_number_of_milliseconds_is_a_promise_and_nothing_else_is() {
        for (value, us) in [
            ("200", Some(200_000)),
            ("12.5", Some(12_500)),
            ("3600000", Some(MAX_PROMISE_US)),
            ("0.001", Some(1)),
            (".5", Some(500)),
            ("0", None),
            ("0.0001", None),
            ("3600000.1", None),
            ("-5", None),
            ("+5", None),
            ("1e3", None),
            ("NaN", None),
            ("inf", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            (" 200", None),
            ("200,300", None),
            ("200ms", None),
            ("00000000000000200", None),
        ] {
            assert_eq!(microseconds(value.as_bytes()), us, "{value}");
        }
        assert_eq!(microseconds(&[b'9'; 4_096]), None);
        assert_eq!(microseconds(b"\xff\xfe"), None);
    }

    #[test]
    fn a_promise_of_both_is_kept_by_both() {
        let promise = Promise { first_token_us: Some(200_000), per_token_us: Some(20_000) };
        assert!(promise.is_kept(200, Some(20_000)) && promise.is_kept(200, None));
        assert!(!promise.is_kept(201, Some(1)) && !promise.is_kept(1, Some(20_001)));
        assert!(Promise::default().is_kept(u64::MAX, Some(u64::MAX)));
    }

    #[test]
    fn what_has_passed_is_taken_off_the_first_token_alone() {
        let promise = Promise { first_token_us: Some(200_000), per_token_us: Some(20_000) };
        let promised = Promised { promise, began_ms: 1_000 };
        let due = promised.due(1_050);
        assert_eq!((due.first_token_ms, due.per_token_ms), (150.0, 20.0));
        assert_eq!(promised.due(1_500).first_token_ms, -300.0);
        assert_eq!(promised.due(900).first_token_ms, 200.0, "a clock that has gone back");
        assert_eq!(promised.forecast(70.4, 1_050).first_token_ms, 120);
        let none = Promised { promise: Promise::default(), began_ms: 0 };
        let without_end = f32::INFINITY;
        let due =
            Due { first_token_ms: without_end, per_token_ms: without_end, prefill_from_tokens: without_end };
        assert_eq!(none.due(9), due);
    }
}
