//! How often a root context ticks. With many workers most of them have nothing to do most of the time, and a tick of each
//! takes several microseconds.

use super::host;

/// While something is in flight, waits, or is scraped at short intervals, in milliseconds. What workers publish to each other must
/// not be older than about 20 ms for them to pick as one.
pub const BUSY_TICK_MS: u32 = 10;

/// Who scrapes endpoints without requests, in milliseconds: within this time it knows that there are some.
pub const IDLE_SCRAPER_TICK_MS: u32 = 50;

/// A worker without requests while others have some, in milliseconds: within this time it takes over a lease that has run out,
/// and reads what others have published before that is kept no longer.
pub const IDLE_TICK_MS: u32 = 250;

/// A worker of a gateway in which nobody has requests, in milliseconds: within this time it knows that there are some. What was
/// published meanwhile is kept for longer, but for prompts beyond 3,000 a second.
pub const QUIET_TICK_MS: u32 = 1_000;

/// The period that the host was given.
#[derive(Default)]
pub struct Ticks {
    period_ms: Option<u32>,
}

impl Ticks {
    /// Whether what was last read may be as old as [`QUIET_TICK_MS`].
    pub fn is_quiet(&self) -> bool {
        self.period_ms == Some(QUIET_TICK_MS)
    }

    /// Ticks in this time from now on, and again each time after that; the same as before is not published again.
    pub fn set(&mut self, period_ms: u32) {
        if self.period_ms.replace(period_ms) != Some(period_ms)
            && let Err(error) = host::set_tick_period(period_ms)
        {
            log::error!("no tick: {error:?}");
        }
    }
}
