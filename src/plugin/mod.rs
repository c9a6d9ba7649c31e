//! The shell: it asks the host, lets the core decide, and performs what the core decided. It holds no policy.
//!
//! - [`host`] wraps the host's calls; nothing else is unsafe or names the ABI.
//! - [`shared`] keeps what workers and the scraper exchange in shared data.
//! - [`scraping`] performs scrapes and discovery, for the companion service and for an elected worker.
//! - [`worker`] is what one worker knows; [`stream`] is one request on it.

mod host;
mod scraping;
mod shared;
mod stream;
mod worker;

use std::cell::RefCell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext, RootContext};
use proxy_wasm::types::ContextType;

use self::host::LogLevel;
use self::scraping::Service;
use self::stream::Stream;
use self::worker::Worker;
use crate::config::{Config, Role};

/// How often a root context ticks, in milliseconds. What workers tell each other must not be older than about 20 ms
/// for them to pick as one.
const TICK_MS: u32 = 10;

proxy_wasm::main! {{
    std::panic::set_hook(Box::new(|panic| host::log(LogLevel::Critical, &panic.to_string())));
    proxy_wasm::set_root_context(|_| Box::new(Root::Unconfigured));
}}

/// The root context: before its configuration is known, and as what it says.
enum Root {
    Unconfigured,
    Filter(Rc<RefCell<Worker>>),
    Service(Box<Service>),
}

impl Root {
    fn configured(config: Config) -> Root {
        match config.role {
            Role::Filter => Root::Filter(Rc::new(RefCell::new(Worker::new(config)))),
            Role::Service => Root::Service(Box::new(Service::new(&config))),
        }
    }
}

impl Context for Root {
    fn on_http_call_response(&mut self, token: u32, _headers: usize, _body_size: usize, _trailers: usize) {
        match self {
            Root::Unconfigured => {}
            Root::Filter(worker) => worker.borrow_mut().http_call_answered(token, host::now_ms()),
            Root::Service(service) => service.http_call_answered(token, host::now_ms()),
        }
    }
}

impl RootContext for Root {
    fn on_configure(&mut self, size: usize) -> bool {
        let document =
            host::buffer(host::Buffer::PluginConfiguration, size).ok().flatten().unwrap_or_default();
        match Config::parse(&document) {
            Ok(config) => {
                *self = Root::configured(config);
                host::set_tick_period(TICK_MS)
                    .inspect_err(|error| {
                        host::log(LogLevel::Error, &format!("inference-picker: no tick: {error:?}"))
                    })
                    .is_ok()
            }
            Err(error) => {
                host::log(LogLevel::Error, &format!("inference-picker: configuration refused: {error}"));
                false
            }
        }
    }

    fn on_tick(&mut self) {
        match self {
            Root::Unconfigured => {}
            Root::Filter(worker) => worker.borrow_mut().tick(host::now_ms()),
            Root::Service(service) => service.tick(host::now_ms()),
        }
    }

    fn create_http_context(&self, _context_id: u32) -> Option<Box<dyn HttpContext>> {
        match self {
            Root::Filter(worker) => Some(Box::new(Stream::new(worker.clone()))),
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
