//! `make bench-overload`: four simulated pods at twice what they can do, with the gateway's queue off and on. Shows
//! what each class of traffic gets: how much of it is answered in time, and how much is asked to retry later.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use envoy_test::envoy::binary::plugin_file;
use envoy_test::envoy::{Client, Configuration, Envoy, EnvoySettings, Protocol, Request};
use envoy_test::model_server::{ModelServers, ServerSettings};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, sleep_until};

const POOL: &str = "vllm-llama2-7b-pool";
const PODS: usize = 4;
/// Bytes of each prompt: 500 simulated tokens, so that a pod's 8,333 tokens a second are 16 requests a second.
const PROMPT_BYTES: usize = 2_000;
const ANSWER_TOKENS: usize = 16;
/// What four pods can do, in requests a second, as measured with this tool by lowering the rate until nothing queues.
const CAPACITY_PER_S: f64 = 65.0;
/// An answer whose first token comes later is of no use to its user.
const USEFUL_WITHIN: Duration = Duration::from_secs(2);
const CLASSES: [&str; 3] = ["Critical", "Standard", "Sheddable"];

#[derive(Debug, Parser)]
struct Arguments {
    /// How long each run lasts, in seconds.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// How many times the pods' capacity is asked for.
    #[arg(long, default_value_t = 2.0)]
    load: f64,
}

/// What became of one request.
struct Seen {
    class: usize,
    status: u16,
    has_retry_after: bool,
    first_token: Option<Duration>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let rate_per_s = CAPACITY_PER_S * arguments.load;
    println!(
        "{PODS} pods, {rate_per_s:.0} requests/s in three equal classes for {} s a run\n",
        arguments.seconds
    );
    println!(
        "{:<7}{:<11}{:>7}{:>10}{:>10}{:>8}{:>8}{:>10}{:>10}",
        "QUEUE", "CLASS", "SENT", "IN TIME", "LATE", "429", "OTHER", "TTFT P50", "TTFT P90"
    );
    for queue in [None, Some(json!({"maxWait": "2s", "maxRequests": 1000}))] {
        let name = if queue.is_some() { "on" } else { "off" };
        let seen = run(queue, rate_per_s, Duration::from_secs(arguments.seconds))?;
        CLASSES.iter().enumerate().for_each(|(class, label)| print_class(name, label, class, &seen));
        let refused_without_advice =
            seen.iter().filter(|seen| seen.status == 429 && !seen.has_retry_after).count();
        anyhow::ensure!(
            refused_without_advice == 0,
            "{refused_without_advice} answers of 429 without retry-after"
        );
    }
    Ok(())
}

fn run(queue: Option<Value>, rate_per_s: f64, duration: Duration) -> Result<Vec<Seen>> {
    let pods = ModelServers::start(vec![ServerSettings::default(); PODS])?;
    let envoy = start_envoy(&pods, queue)?;
    std::thread::sleep(Duration::from_secs(1));
    let client = Client::new(envoy.address(), Protocol::Http1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let started_at = Instant::now();
        let count = (rate_per_s * duration.as_secs_f64()) as usize;
        let mut requests = Vec::with_capacity(count);
        for index in 0..count {
            sleep_until(started_at + Duration::from_secs_f64(index as f64 / rate_per_s)).await;
            requests.push(tokio::spawn(ask(client, index % CLASSES.len())));
        }
        // What has not been answered by now was not answered in time.
        sleep(USEFUL_WITHIN * 2).await;
        let mut seen = Vec::with_capacity(count);
        for (index, request) in requests.into_iter().enumerate() {
            let unanswered =
                Seen { class: index % CLASSES.len(), status: 0, has_retry_after: false, first_token: None };
            if request.is_finished() {
                seen.push(request.await?.unwrap_or(unanswered));
            } else {
                request.abort();
                seen.push(unanswered);
            }
        }
        Ok(seen)
    })
}

fn start_envoy(pods: &ModelServers, queue: Option<Value>) -> Result<Envoy> {
    let mut configuration = Configuration::shipped("stop-iteration")?;
    configuration.set_plugin_file(&plugin_file());
    configuration.place_endpoints(&pods.addresses());
    configuration.edit_plugin(|plugin| {
        let model = |class: &&str| {
            json!({"modelName": class, "criticality": class, "poolRef": {"name": POOL}, "targetModels": [{"name": "tiny"}]})
        };
        plugin["models"] = CLASSES.iter().map(model).collect();
        if let Some(queue) = &queue {
            plugin["queue"] = queue.clone();
        }
    });
    Envoy::start(EnvoySettings::new(configuration)).context("starting Envoy; `make build` builds the plugin")
}

async fn ask(client: Client, class: usize) -> Result<Seen> {
    // A prompt of its own, so that no prefix is found in a cache.
    let unique = format!("{:016x}", fastrand::u64(..));
    let prompt = unique.repeat(PROMPT_BYTES / unique.len());
    let body =
        json!({"model": CLASSES[class], "prompt": prompt, "max_tokens": ANSWER_TOKENS, "stream": true});
    let mut stream = client.open(Request::post("/v1/completions").json(&body)).await?;
    let mut first_token = None;
    while let Some(chunk) = stream.next_chunk().await? {
        first_token = first_token.or(Some(chunk.arrived_after));
    }
    let has_retry_after = stream.headers.contains_key("retry-after");
    Ok(Seen { class, status: stream.status, has_retry_after, first_token })
}

fn print_class(queue: &str, label: &str, class: usize, seen: &[Seen]) {
    let of_class: Vec<&Seen> = seen.iter().filter(|seen| seen.class == class).collect();
    let mut first_tokens: Vec<Duration> =
        of_class.iter().filter(|seen| seen.status == 200).filter_map(|seen| seen.first_token).collect();
    first_tokens.sort();
    let in_time = first_tokens.iter().filter(|first_token| **first_token <= USEFUL_WITHIN).count();
    let with = |status: u16| of_class.iter().filter(|seen| seen.status == status).count();
    let unanswered = with(0);
    let late = with(200) - in_time + unanswered;
    let other = of_class.len() - with(200) - with(429) - unanswered;
    println!(
        "{queue:<7}{label:<11}{:>7}{:>9.1}%{:>9.1}%{:>8}{other:>8}{:>10}{:>10}",
        of_class.len(),
        100.0 * in_time as f64 / of_class.len() as f64,
        100.0 * late as f64 / of_class.len() as f64,
        with(429),
        percentile(&first_tokens, 50),
        percentile(&first_tokens, 90),
    );
}

/// As text, in milliseconds.
fn percentile(sorted: &[Duration], percent: usize) -> String {
    let index = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(index).map_or("-".to_owned(), |time| format!("{} ms", time.as_millis()))
}
