//! A gateway to test: an Envoy on one of the configurations that the project ships, in front of the real servers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use envoy_test::demonstration::STATISTICS_INTERVAL;
use envoy_test::envoy::binary::{plugin_file, project_root};
use envoy_test::envoy::{Client, Configuration, Envoy, EnvoySettings, Protocol, Request, Response};
use envoy_test::statistics::Page;
use serde_json::{Value, json};

use crate::servers::{MODEL, Servers};
use crate::vllm::alias::ALIAS;

/// Where the access log's fields are.
const LOG_FORMAT: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/access_log/0/typed_config/log_format/json_format";

/// Fields that the configurations do not log, and the plugin's names for them.
const LOGGED: [(&str, &str); 4] = [
    ("ttft_ms", "llm_ttft_ms"),
    ("prompt_tokens", "llm_prompt_tokens"),
    ("completion_tokens", "llm_completion_tokens"),
    ("cached_tokens", "llm_cached_tokens"),
];

/// From when on metrics say nothing any more. Servers that compute on a processor which others use as well may be silent for
/// longer than the half second that is usual, and one that is silent is passed over whatever runs there.
const METRICS_STALE_AFTER: &str = "5s";

pub struct Gateway<'a> {
    pub configuration: &'static str,
    pub servers: &'a Servers,
    envoy: Envoy,
    /// Requests sent, to know how many lines the access log will have.
    sent_count: AtomicUsize,
}

impl<'a> Gateway<'a> {
    /// On `filter-config/CONFIGURATION/envoy.yaml`; returns when the servers' metrics are in use.
    pub fn start(configuration: &'static str, servers: &'a Servers) -> Gateway<'a> {
        Gateway::with_strategy("DEFAULT", configuration, servers)
    }

    /// The same with another routing strategy.
    pub fn with_strategy(strategy: &str, configuration: &'static str, servers: &'a Servers) -> Gateway<'a> {
        Gateway::edited(configuration, servers, |plugin| {
            plugin["pools"][0]["routingStrategy"] = strategy.into();
        })
    }

    /// The same where clients know the model as [`ALIAS`] too.
    pub fn with_alias(configuration: &'static str, servers: &'a Servers) -> Gateway<'a> {
        Gateway::edited(configuration, servers, |plugin| {
            let pool = plugin["pools"][0]["name"].clone();
            let model = |name: &str| json!({"modelName": name, "poolRef": {"name": pool}, "targetModels": [{"name": MODEL}]});
            plugin["models"] = json!([model(ALIAS), model(MODEL)]);
        })
    }

    /// With PREFIX_CACHE, where each request names the engine that is to run it.
    pub fn naming_ranks(configuration: &'static str, servers: &'a Servers) -> Gateway<'a> {
        let mut edited = edited(configuration, servers);
        if configuration == "deferred" {
            edited.copy_to_header("llm_data_parallel_rank", "x-data-parallel-rank");
        }
        Gateway::on(configuration, edited, servers, |plugin| {
            plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into();
            plugin["pools"][0]["dataParallel"] = "ranks".into();
        })
    }

    fn edited(
        configuration: &'static str,
        servers: &'a Servers,
        edit: impl FnMut(&mut Value),
    ) -> Gateway<'a> {
        Gateway::on(configuration, edited(configuration, servers), servers, edit)
    }

    fn on(
        configuration: &'static str,
        mut edited: Configuration,
        servers: &'a Servers,
        edit: impl FnMut(&mut Value),
    ) -> Gateway<'a> {
        edited.edit_plugin(|plugin| {
            plugin["metricsStaleAfter"] = METRICS_STALE_AFTER.into();
            plugin["pools"][0]["modelServer"] = servers.kind.name.into();
        });
        edited.edit_plugin(edit);
        let settings = EnvoySettings::new(edited);
        let envoy = Envoy::start(settings).unwrap();
        let gateway = Gateway { configuration, servers, envoy, sent_count: AtomicUsize::new(0) };
        crate::until("the servers' metrics are in use", || {
            gateway.send(completion(MODEL));
            gateway.log(1)[0]["decision"].as_str().is_some_and(|why| why.contains("metrics_age_ms="))
        });
        gateway
    }

    pub fn address(&self) -> SocketAddr {
        self.envoy.address()
    }

    pub fn client(&self) -> Client {
        Client::new(self.envoy.address(), Protocol::Http1)
    }

    pub fn send(&self, request: Request) -> Response {
        self.count(1);
        self.client().send_blocking(request).unwrap()
    }

    /// Sends all at once, each on a connection of its own.
    pub fn burst(&self, requests: Vec<Request>) -> Vec<Response> {
        self.count(requests.len());
        let answers = self.client().burst_blocking(requests).unwrap();
        answers.into_iter().map(Result::unwrap).collect()
    }

    /// Counts requests that a claim sends by itself.
    pub fn count(&self, requests: usize) {
        self.sent_count.fetch_add(requests, Ordering::Relaxed);
    }

    /// The access log's lines for the last `count` requests.
    pub fn log(&self, count: usize) -> Vec<Value> {
        let mut lines = self.envoy.access_log_until(self.sent_count.load(Ordering::Relaxed)).unwrap();
        lines.split_off(lines.len() - count)
    }

    /// The servers that answered the last `count` requests, by their places.
    pub fn served_by(&self, count: usize) -> Vec<usize> {
        self.log(count).iter().map(|line| self.index(line["upstream"].as_str().unwrap_or_default())).collect()
    }

    /// What the plugin knows of the servers, what it has said of them, and what they say of their requests.
    pub fn known(&self) -> String {
        let gauges = self.envoy.admin_get("/stats?filter=inference_picker_(endpoint|scrape)").unwrap();
        let said = self.envoy.log_text();
        let said = said.lines().filter(|line| line.contains("inference-picker:"));
        let known = gauges.lines().chain(said).map(str::to_owned);
        known.chain(self.servers.reported()).collect::<Vec<_>>().join("\n")
    }

    /// What the plugin says of one server in its statistics.
    pub fn gauge(&self, name: &str, index: usize) -> Option<usize> {
        let address = self.servers.addresses()[index].to_string();
        let page = Page::of(&self.envoy).unwrap();
        page.sum(&format!("inference_picker_endpoint_{name}"), &[("endpoint", &address)])
            .map(|value| value as usize)
    }

    fn index(&self, address: &str) -> usize {
        let addresses = self.servers.addresses();
        let place = addresses.iter().position(|server| server.to_string() == address);
        place.unwrap_or_else(|| panic!("no server at {address:?}"))
    }
}

fn edited(name: &str, servers: &Servers) -> Configuration {
    let file = project_root().join("filter-config").join(name).join("envoy.yaml");
    let mut configuration = Configuration::load(&file).unwrap();
    configuration.set_plugin_file(&plugin_file());
    configuration.place_endpoints(servers.addresses());
    configuration.set_statistics_interval(STATISTICS_INTERVAL);
    configuration.publish_all();
    for (field, name) in LOGGED {
        configuration.at(LOG_FORMAT)[field] = format!("%FILTER_STATE(wasm.{name}:PLAIN)%").into();
    }
    configuration
}

/// Tokens in an answer to [`chat`] and [`completion`]; just so many, whatever the model makes up.
pub const ANSWER_TOKENS: usize = 16;

pub fn chat(model: &str) -> Request {
    Request::post("/v1/chat/completions").json(&chat_body(model))
}

pub fn chat_body(model: &str) -> Value {
    let messages = json!([{"role": "user", "content": "Which server will this be?"}]);
    json!({"model": model, "messages": messages, "max_tokens": ANSWER_TOKENS, "ignore_eos": true})
}

pub fn completion(model: &str) -> Request {
    Request::post("/v1/completions").json(&completion_body(model))
}

pub fn completion_body(model: &str) -> Value {
    json!({"model": model, "prompt": "Once upon a time", "max_tokens": ANSWER_TOKENS, "ignore_eos": true})
}
