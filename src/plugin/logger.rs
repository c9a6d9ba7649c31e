//! Where the lines of `log`'s macros go: to the host, in one form, and no more of them than operators can read.
//!
//! ```text
//! inference-picker scraping: pool=vllm-pool endpoint=10.0.0.1:8000: metrics are read again
//! ```
//!
//! First who says it, then what it is about, then the text. What is about to end the plugin is written by the panic hook alone.

use std::cell::RefCell;

use log::{Level, LevelFilter, Log, Metadata, Record};

use super::host::{self, LogLevel};
use crate::log_budget::LogBudget;

struct HostLogger;

static LOGGER: HostLogger = HostLogger;

thread_local! {
    static BUDGET: RefCell<LogBudget> = RefCell::new(LogBudget::default());
}

/// From now on the macros write to the host's log. Doing so twice changes nothing.
pub fn install() {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

impl Log for HostLogger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= Level::Info
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let taken = BUDGET.with(|budget| budget.try_borrow_mut().ok()?.take(host::now_ms()));
        let Some(left_out) = taken else { return };
        let module = record.target().rsplit("::").next().unwrap_or_default();
        if left_out > 0 {
            let text = format!("inference-picker {module}: {left_out} lines were left out before this one");
            host::log(LogLevel::Warn, &text);
        }
        host::log(level_of(record.level()), &format!("inference-picker {module}: {}", record.args()));
    }

    fn flush(&self) {}
}

fn level_of(level: Level) -> LogLevel {
    match level {
        Level::Error => LogLevel::Error,
        Level::Warn => LogLevel::Warn,
        Level::Info | Level::Debug | Level::Trace => LogLevel::Info,
    }
}
