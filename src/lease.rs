//! Which of several workers does a job that only one should do, by a lease in shared data.
//!
//! The lease names its holder and when it runs out. Its holder renews it well before; anybody may take one that has
//! run out, by compare-and-swap, so that of several who try one succeeds.

use serde::{Deserialize, Serialize};

/// How long a lease holds, in milliseconds: a holder that is gone is replaced within a second.
pub const LEASE_MS: u64 = 600;
/// How long before its end the holder renews it.
const RENEW_BEFORE_MS: u64 = 400;

/// The right to do the job for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The worker that holds it.
    pub holder: u64,
    /// When it runs out, in milliseconds of the host's monotonic clock.
    pub until_ms: u64,
}

/// What a worker does about the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseStep {
    /// It holds the lease: do the job.
    Work,
    /// Write this lease by compare-and-swap; do the job if that succeeds.
    Claim(Lease),
    /// Somebody else has it.
    Rest,
}

/// What the worker `me` does at `now_ms` about the lease it finds. One that claims to hold for longer than
/// [`LEASE_MS`] was not written by this code and is taken.
pub fn step(found: Option<Lease>, me: u64, now_ms: u64) -> LeaseStep {
    let claim = LeaseStep::Claim(Lease { holder: me, until_ms: now_ms + LEASE_MS });
    let Some(lease) = found else { return claim };
    let left_ms = lease.until_ms.saturating_sub(now_ms);
    let valid = left_ms > 0 && left_ms <= LEASE_MS;
    match lease.holder == me {
        true if valid && left_ms > RENEW_BEFORE_MS => LeaseStep::Work,
        true => claim,
        false if valid => LeaseStep::Rest,
        false => claim,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(found: Option<(u64, u64)>, expected: LeaseStep) {
        let found = found.map(|(holder, until_ms)| Lease { holder, until_ms });
        assert_eq!(step(found, 1, 1_000), expected, "{found:?}");
    }

    #[test]
    fn one_worker_holds_the_lease_renews_it_and_is_replaced_when_it_runs_out() {
        let claim = LeaseStep::Claim(Lease { holder: 1, until_ms: 1_600 });
        check(None, claim);
        check(Some((1, 1_600)), LeaseStep::Work);
        check(Some((1, 1_400)), claim);
        check(Some((1, 900)), claim);
        check(Some((2, 1_001)), LeaseStep::Rest);
        check(Some((2, 1_000)), claim);
        check(Some((2, 9_999_999)), claim);
    }
}
