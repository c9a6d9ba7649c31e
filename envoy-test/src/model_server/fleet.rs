//! Any number of simulated servers in one process, on threads of their own.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use super::counters::Counters;
use super::engine::Engine;
use super::knobs::Knobs;
use super::listener;
use super::server::Server;
use super::settings::ServerSettings;

/// Threads for all servers together: one can answer while the other prints a metrics page.
const WORKER_THREADS: usize = 2;

/// How long a port may take to open or close after `refuse` was changed.
const PORT_CHANGE_MAX: Duration = Duration::from_secs(5);

/// Running servers; they stop when this is dropped. All methods may be called with or without a runtime.
#[derive(Debug)]
pub struct ModelServers {
    runtime: Option<Runtime>,
    servers: Arc<[Arc<Server>]>,
}

impl ModelServers {
    /// Starts a server for each of `settings`. All of them accept connections when this returns.
    pub fn start(settings: Vec<ServerSettings>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .thread_name("model-servers")
            .enable_all()
            .build()?;
        let mut listeners = Vec::new();
        let mut servers = Vec::new();
        for settings in settings {
            let listener = listener::bind(settings.address)?;
            servers.push(Server::new(listener.local_addr()?, settings));
            listeners.push(listener);
        }
        let servers: Arc<[Arc<Server>]> = servers.into();
        for (server, listener) in servers.iter().zip(listeners) {
            runtime.spawn(Arc::clone(&server.engine).run());
            runtime.spawn(listener::run(Arc::clone(&servers), Arc::clone(server), listener));
        }
        Ok(Self { runtime: Some(runtime), servers })
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// The server that was started `index`-th.
    ///
    /// # Panics
    /// If there are not as many.
    pub fn server(&self, index: usize) -> ModelServer {
        ModelServer(Arc::clone(&self.servers[index]))
    }

    /// Whether every server has been scraped twice since this was called: its second scrape from then on began after then.
    pub fn scraped_twice(&self) -> impl Fn() -> bool {
        let counts = || self.servers().map(|server| server.counters().metrics_scrapes).collect::<Vec<_>>();
        let before = counts();
        move || counts().iter().zip(&before).all(|(now, before)| *now >= before + 2)
    }

    pub fn servers(&self) -> impl Iterator<Item = ModelServer> {
        self.servers.iter().cloned().map(ModelServer)
    }

    /// Closes every connection and port before it returns.
    pub fn stop(self) {}
}

impl Drop for ModelServers {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not be dropped within another one's task, where tests may well drop this.
            let _ = std::thread::spawn(move || drop(runtime)).join();
        }
    }
}

/// A handle to one running server.
#[derive(Debug, Clone)]
pub struct ModelServer(Arc<Server>);

impl ModelServer {
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    pub fn counters(&self) -> Counters {
        self.0.counters.snapshot()
    }

    pub fn knobs(&self) -> Knobs {
        self.0.knobs()
    }

    /// Changes knobs. They are in effect when this returns; a port is then open or closed.
    ///
    /// # Panics
    /// If a knob's value makes no sense.
    pub fn set(&self, change: impl FnOnce(&mut Knobs)) {
        let mut knobs = self.0.knobs();
        change(&mut knobs);
        let refuse = knobs.refuse;
        if let Err(error) = self.0.set_knobs(knobs) {
            panic!("bad knobs: {error}");
        }
        self.wait_until_listening(!refuse);
    }

    /// The server is another process now, which was there before anybody could miss it: nothing is cached and nothing is
    /// counted any more. Its port stays open.
    pub fn restart(&self) {
        self.0.engine.restart();
        self.0.stored.clear();
    }

    /// The engine in its true state, and its own time.
    pub fn engine(&self) -> (Engine, Duration) {
        self.0.engine.read(|engine, _| (engine.clone(), self.0.engine.now()))
    }

    /// The page that `/metrics` shows in its live mode.
    pub fn metrics_page(&self) -> String {
        self.0.page()
    }

    fn wait_until_listening(&self, listening: bool) {
        let deadline = Instant::now() + PORT_CHANGE_MAX;
        while *self.0.listening().borrow() != listening {
            assert!(Instant::now() < deadline, "the port {} did not change", self.0.address);
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
