//! The shell: it asks the host, lets the core decide, and performs what the core decided. It holds no policy.
//!
//! - [`host`] wraps the host's calls; nothing else is unsafe or names the ABI.
//! - [`logger`] writes the lines of `log`'s macros to the host.
//! - [`shared`] keeps what workers and the scraper exchange in shared data.
//! - [`scraping`] performs scrapes, for the companion service and for an elected worker.
//! - [`discovery`] asks Envoy which hosts a cluster has.
//! - [`peers`] asks the other gateways, and answers them.
//! - [`sessions`] remembers where conversations were served.
//! - [`recorder`] hands over what is counted and measured.
//! - [`worker`] is what one worker knows; [`ticks`] is how often it looks.
//! - [`stream`] is one request on it: its way in, its answer's way out, and what it has cost; [`own_answers`] are
//!   the plugin's. [`calls`] is what they have in common.

mod calls;
mod discovery;
mod host;
mod logger;
mod own_answers;
mod peers;
mod recorder;
mod scraping;
mod sessions;
mod shared;
mod stream;
mod ticks;
mod worker;

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use self::host::LogLevel;
use self::scraping::Service;
use self::stream::{Stream, Waiter, release};
use self::ticks::{BUSY_TICK_MS, Ticks};
use self::worker::Worker;
use crate::config::{self, Config};

/// The filter state that hands the second pass of an internal redirect what the first has decided.
const FIRST_PASS: &str = "llm_first_pass";

proxy_wasm::main! {{
    std::panic::set_hook(Box::new(|panic| host::log(LogLevel::Critical, &panic.to_string())));
    logger::install();
    proxy_wasm::set_root_context(|id| Box::new(Root { id, role: Role::Unconfigured }));
}}

/// The root context.
struct Root {
    id: u32,
    role: Role,
}

/// What the root context is: nothing before its configuration is known, and then what that says.
enum Role {
    Unconfigured,
    Filter(Rc<RefCell<Worker<Waiter>>>),
    Service(Box<Service>, Ticks),
}

impl Role {
    fn of(config: Config) -> Role {
        match config.role {
            config::Role::Filter => Role::Filter(Rc::new(RefCell::new(Worker::new(config)))),
            config::Role::Service => Role::Service(Box::new(Service::new(&config)), Ticks::default()),
        }
    }
}

impl Root {
    /// Sends and refuses what need not wait any longer.
    fn release(&self, worker: &RefCell<Worker<Waiter>>, now_ms: u64) {
        let mut any = false;
        loop {
            let released = worker.borrow_mut().released(now_ms);
            let Some(released) = released else { break };
            release(released, worker, now_ms);
            any = true;
        }
        if any && let Err(error) = host::set_effective_context(self.id) {
            log::error!("no way back to the root context: {error:?}");
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, _headers: usize, _body_size: usize, _trailers: usize) {
        match &mut self.role {
            Role::Unconfigured => {}
            Role::Filter(worker) => worker.borrow_mut().http_call_answered(token, host::now_ms()),
            Role::Service(service, _) => service.http_call_answered(token, host::now_ms()),
        }
    }

    fn on_done(&mut self) -> bool {
        if let Role::Filter(worker) = &self.role {
            worker.borrow_mut().end_gauges();
        }
        true
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let document =
            host::buffer(host::Buffer::PluginConfiguration, size).ok().flatten().unwrap_or_default();
        match Config::parse(&document) {
            Ok(config) => {
                self.role = Role::of(config);
                calls::warn(FIRST_PASS, host::keep_filter_state(FIRST_PASS));
                match &mut self.role {
                    Role::Unconfigured => {}
                    Role::Filter(worker) => worker.borrow_mut().ticks.set(BUSY_TICK_MS),
                    Role::Service(_, ticks) => ticks.set(BUSY_TICK_MS),
                }
                true
            }
            Err(error) => {
                log::error!("configuration refused: {error}");
                false
            }
        }
    }

    fn on_tick(&mut self) {
        let now_ms = host::now_ms();
        if let Role::Service(service, ticks) = &mut self.role {
            ticks.set(service.tick(now_ms));
        }
        if let Role::Filter(worker) = &self.role {
            worker.borrow_mut().tick(now_ms);
            self.release(worker, now_ms);
        }
    }

    fn create_http_context(&self, context_id: u32) -> Option<Box<dyn HttpContext>> {
        match &self.role {
            Role::Filter(worker) => Some(Box::new(Stream::new(context_id, worker.clone()))),
            _ => Some(Box::new(Untouched)),
        }
    }

    fn get_type(&self) -> Option<ContextType> {
        Some(ContextType::HttpContext)
    }
}

/// A request on a plugin that is not a filter: it passes.
struct Untouched;

impl Context for Untouched {}
impl HttpContext for Untouched {}
