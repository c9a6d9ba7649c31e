//! A gateway to test: simulated model servers, and an Envoy on one of the configurations that the project ships.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use envoy_test::envoy::binary::{plugin_file, project_root};
use envoy_test::envoy::{
    Client, Configuration, Envoy, EnvoySettings, Protocol, Request, Response, free_address,
};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::{Value, json};

/// The pool's cluster in every configuration of `filter-config/`.
pub const CLUSTER: &str = "vllm-llama2-7b";

/// Configurations of `filter-config/`, one for each body mode and one without a companion service.
pub const STOP_ITERATION: &str = "stop-iteration";
pub const DEFERRED: &str = "deferred";
pub const WORKER_SCRAPING: &str = "worker-scraping";
pub const ALL: [&str; 3] = [STOP_ITERATION, DEFERRED, WORKER_SCRAPING];
/// The one with published models and two pools; `make run` is tested on it.
pub const MODELS: &str = "models";
/// The one that shows all there is to see; on Envoy 1.37 or newer.
pub const OBSERVED: &str = "observed";
/// The one whose gateways know each other.
pub const GATEWAYS: &str = "gateways";
/// The one whose pods have their metrics elsewhere, by TLS and for a key.
pub const PROTECTED_METRICS: &str = "protected-metrics";
/// The one whose sessions have tokens.
pub const CONVERSATIONS: &str = "conversations";
/// The one whose long prompts are computed by pods of their own.
pub const DISAGGREGATION: &str = "disaggregation";
/// The one whose pools have fallbacks, of which the last is an outside provider.
pub const FALLBACK: &str = "fallback";
/// The one whose requests are promised a time to their first token.
pub const PROMISES: &str = "promises";
/// One for each body mode.
pub const BODY_MODES: [&str; 2] = [STOP_ITERATION, DEFERRED];

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// What to start.
#[derive(Clone)]
pub struct Setup {
    pods: Vec<ServerSettings>,
    settings: EnvoySettings,
    scraped: bool,
}

/// A running gateway.
pub struct Gateway {
    pub envoy: Envoy,
    /// Other gateways may stand in front of them too.
    pub pods: Arc<ModelServers>,
}

impl Setup {
    /// The configuration of this name, in front of four pods.
    pub fn new(name: &str) -> Setup {
        let file = project_root().join("filter-config").join(name).join("envoy.yaml");
        let mut configuration = Configuration::load(&file).unwrap();
        configuration.set_plugin_file(&plugin_file());
        Setup { pods: four_pods(), settings: EnvoySettings::new(configuration), scraped: true }
    }

    pub fn pods(mut self, pods: Vec<ServerSettings>) -> Setup {
        self.pods = pods;
        self
    }

    pub fn concurrency(mut self, workers: u32) -> Setup {
        self.settings.concurrency = workers;
        self
    }

    pub fn version(mut self, version: &'static str) -> Setup {
        self.settings.version = version;
        self
    }

    /// Edits the plugin's configuration, that of the filter and that of the companion service.
    pub fn plugin(mut self, edit: impl FnMut(&mut Value)) -> Setup {
        self.settings.configuration.edit_plugin(edit);
        self
    }

    /// Edits Envoy's configuration.
    pub fn envoy(mut self, edit: impl FnOnce(&mut Configuration)) -> Setup {
        edit(&mut self.settings.configuration);
        self
    }

    /// Does not wait for metrics: they are not read, or not in a form that is.
    pub fn unscraped(mut self) -> Setup {
        self.scraped = false;
        self
    }

    /// Starts the pods and Envoy, and waits until every pod's metrics have reached the workers.
    pub fn start(self) -> Gateway {
        self.start_with(|_, _| ())
    }

    /// The same, with a last edit that needs to know the pods' addresses.
    pub fn start_with(mut self, edit: impl FnOnce(&mut Configuration, &[SocketAddr])) -> Gateway {
        let pods = Arc::new(ModelServers::start(self.pods).unwrap());
        let addresses = pods.addresses();
        let configuration = &mut self.settings.configuration;
        configuration.place_endpoints(&addresses);
        edit(configuration, &addresses);
        let gateway = Gateway { envoy: Envoy::start(self.settings).unwrap(), pods };
        if self.scraped {
            gateway.wait_until_scraped();
        }
        gateway
    }

    /// Starts so many gateways of [`GATEWAYS`] in front of the same pods, with each other's addresses.
    pub fn start_gateways(self, count: usize) -> Vec<Gateway> {
        let pods = Arc::new(ModelServers::start(self.pods).unwrap());
        let exchanges: Vec<SocketAddr> = (0..count).map(|_| free_address().unwrap()).collect();
        let start = |exchange: &SocketAddr| {
            let mut settings = self.settings.clone();
            // The addresses are chosen here, because the other gateways have to know them.
            settings.keep_addresses = true;
            let configuration = &mut settings.configuration;
            configuration.place_endpoints(&pods.addresses());
            configuration.set_endpoints("gateways", &exchanges);
            configuration.set_admin_address(free_address().unwrap());
            configuration.set_listener_address(0, free_address().unwrap());
            configuration.set_listener_address(1, *exchange);
            Gateway { envoy: Envoy::start(settings).unwrap(), pods: Arc::clone(&pods) }
        };
        let gateways: Vec<Gateway> = exchanges.iter().map(start).collect();
        gateways.iter().for_each(Gateway::wait_until_scraped);
        gateways
    }
}

/// Four equal, idle pods.
pub fn four_pods() -> Vec<ServerSettings> {
    vec![pod(); 4]
}

/// A pod on a free port.
pub fn pod() -> ServerSettings {
    ServerSettings::default()
}

pub fn texts(addresses: &[SocketAddr]) -> Vec<String> {
    addresses.iter().map(SocketAddr::to_string).collect()
}

impl Gateway {
    pub fn client(&self, protocol: Protocol) -> Client {
        Client::new(self.envoy.address(), protocol)
    }

    pub fn send(&self, request: Request) -> Response {
        self.client(Protocol::Http1).send_blocking(request).unwrap()
    }

    /// Sends all at once, each on a connection of its own.
    pub fn burst(&self, requests: Vec<Request>) -> Vec<Response> {
        let answers = self.client(Protocol::Http1).burst_blocking(requests).unwrap();
        answers.into_iter().map(Result::unwrap).collect()
    }

    /// 32 equal requests at once come to four equal idle pods 8 ± 2 each.
    #[track_caller]
    pub fn check_burst_is_spread(&self, what: &str) -> Vec<usize> {
        let shares = self.shares(&self.burst(vec![long_chat(); 32]));
        assert!(shares.iter().all(|share| (6..=10).contains(share)), "{what}: {shares:?}");
        shares
    }

    /// The place of the pod that answered.
    pub fn served_by(&self, answer: &Response) -> usize {
        let name =
            answer.header("x-served-by").unwrap_or_else(|| panic!("no pod answered: {}", answer.text()));
        self.index(name)
    }

    /// The place of the pod at this address.
    pub fn index(&self, address: &str) -> usize {
        let addresses = texts(&self.pods.addresses());
        addresses.iter().position(|pod| pod == address).unwrap_or_else(|| panic!("no pod at {address}"))
    }

    /// How many of these answers each pod gave.
    pub fn shares(&self, answers: &[Response]) -> Vec<usize> {
        let mut shares = vec![0; self.pods.addresses().len()];
        for answer in answers {
            shares[self.served_by(answer)] += 1;
        }
        shares
    }

    /// Waits until every pod's metrics, as they are now, are what the workers go by.
    pub fn wait_until_scraped(&self) {
        until("every pod is scraped twice", self.pods.scraped_twice());
        // The workers have it a tick or two after its end.
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits for something that must come true.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started_at = Instant::now();
    while !holds() {
        assert!(started_at.elapsed() < PATIENCE, "still not so after {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// A chat request with a prompt of a few tokens and a short answer.
pub fn chat(model: &str) -> Request {
    chat_with(json!({"model": model, "max_tokens": 4}))
}

/// A chat with an answer so long that of a burst of them the last is sent before the first has ended: what has ended
/// counts no more.
pub fn long_chat() -> Request {
    chat_with(json!({"model": "tiny", "max_tokens": 200}))
}

/// A chat request with these fields besides its messages.
pub fn chat_with(mut fields: Value) -> Request {
    fields["messages"] = json!([{"role": "user", "content": "Which pod will this be?"}]);
    Request::post("/v1/chat/completions").json(&fields)
}
