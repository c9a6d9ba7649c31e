//! The setting that `make run` and `make top` show: the plugin in a real Envoy, in front of simulated model servers, real
//! ones or the user's own, and requests of all kinds.

use std::net::SocketAddr;
use std::time::Duration;

use crate::envoy::binary::plugin_file;
use crate::envoy::{Client, Configuration, Envoy, EnvoySettings, Request};
use crate::model_server::{ModelServers, ServerSettings};
use anyhow::{Context, Result, bail};
use inference_picker::metrics::ModelServer;
use serde_json::json;

/// Where the simulated servers are, if nothing else is there: as in the configurations.
const SIMULATED: [&str; 4] = ["127.0.0.11:8000", "127.0.0.12:8000", "127.0.0.13:8000", "127.0.0.14:8000"];
const SIMULATED_ADAPTERS: [&str; 2] = ["sql-lora", "tweet-summary"];
/// The first scrape of every endpoint takes less; without it the first picks would be by what is in flight alone.
pub const WARM_UP: Duration = Duration::from_millis(700);
/// Envoy's own default is 5 s, and so long nobody wants to wait for the histograms.
pub const STATISTICS_INTERVAL: Duration = Duration::from_millis(500);

pub fn simulated_servers() -> Result<ModelServers> {
    let servers = |addresses: Vec<SocketAddr>| {
        let settings = addresses.into_iter().map(|address| ServerSettings {
            lora_adapters: SIMULATED_ADAPTERS.map(str::to_owned).to_vec(),
            ..ServerSettings::at(address)
        });
        ModelServers::start(settings.collect())
    };
    let known = SIMULATED.iter().filter_map(|text| text.parse().ok()).collect();
    let free = || servers(vec![SocketAddr::from(([127, 0, 0, 1], 0)); SIMULATED.len()]);
    servers(known).or_else(|_| free()).context("starting simulated model servers")
}

/// A configuration of `filter-config/`, by its folder, in front of these model servers.
pub fn configuration(folder: &str, endpoints: &[SocketAddr]) -> Result<Configuration> {
    let mut configuration = Configuration::shipped(folder)?;
    configuration.set_plugin_file(&plugin_file());
    configuration.place_endpoints(endpoints);
    configuration.set_statistics_interval(STATISTICS_INTERVAL);
    Ok(configuration)
}

/// The same for model servers of this kind.
pub fn configuration_for(
    server: ModelServer,
    folder: &str,
    endpoints: &[SocketAddr],
) -> Result<Configuration> {
    let mut configuration = configuration(folder, endpoints)?;
    configuration.edit_plugin(|plugin| {
        let pools = plugin["pools"].as_array_mut().into_iter().flatten();
        pools.for_each(|pool| pool["modelServer"] = json!(server));
    });
    Ok(configuration)
}

/// Starts an Envoy on such a configuration, where it says if `keep_addresses` is set and the addresses are free.
pub fn start_envoy(configuration: Configuration, keep_addresses: bool) -> Result<Envoy> {
    let mut settings = EnvoySettings::new(configuration);
    settings.keep_addresses = keep_addresses;
    Envoy::start(settings)
}

/// What there is to ask for, as the gateway says.
pub fn models(client: &Client) -> Result<Vec<String>> {
    let answer = client.send_blocking(Request::get("/v1/models")).context("asking for the models")?;
    let body = answer.json()?;
    let ids = body["data"].as_array().into_iter().flatten().filter_map(|model| model["id"].as_str());
    let models: Vec<String> = ids.map(str::to_owned).collect();
    if models.is_empty() {
        bail!("no models; are the model servers up? GET /v1/models was answered with {body}");
    }
    Ok(models)
}

/// The request number `index`: chats and completions, short and longer by so many sentences, streamed and not, for every
/// model in turn.
pub fn request(index: usize, models: &[String], sentences: usize) -> Request {
    let model = &models[index % models.len()];
    let prompt = "Tell me about load balancing. ".repeat(1 + sentences * (index % 3));
    let stream = index % 2 == 1;
    if index % 4 < 2 {
        let messages = json!([{"role": "user", "content": prompt}]);
        let body = json!({"model": model, "messages": messages, "max_tokens": 16, "stream": stream});
        Request::post("/v1/chat/completions").json(&body)
    } else {
        let body = json!({"model": model, "prompt": prompt, "max_tokens": 16, "stream": stream});
        Request::post("/v1/completions").json(&body)
    }
}

/// Tokens of the system prompt that half of the varied requests share, of what is their own, and of their answers.
const SHARED_TOKENS: usize = 1_500;
const OWN_TOKENS: std::ops::Range<usize> = 100..3_000;
const ANSWER_TOKENS: std::ops::Range<usize> = 16..400;
/// Four bytes are a token to the simulated servers.
const WORD: &str = "key ";

/// A chat whose prompt and answer have a random size; every other one begins as all its likes do.
pub fn varied_request(index: usize, models: &[String]) -> Request {
    let shared = WORD.repeat(if index.is_multiple_of(2) { SHARED_TOKENS } else { 0 });
    let own = format!("{:016x} {}", fastrand::u64(..), WORD.repeat(fastrand::usize(OWN_TOKENS)));
    Request::post("/v1/chat/completions").json(&json!({
        "model": fastrand::choice(models),
        "messages": [{"role": "user", "content": shared + &own}],
        "max_tokens": fastrand::usize(ANSWER_TOKENS),
        "stream": true,
    }))
}
