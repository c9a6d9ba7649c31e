//! What the gateway counts: tokens to the token, requests, what it refused, and what it believes of its endpoints.

use std::collections::BTreeMap;

use crate::gateway::{BODY_MODES, DEFERRED, Gateway, OBSERVED, STOP_ITERATION, Setup, chat_with, pod, until};
use envoy_test::envoy::little_memory::{TOO_LARGE_BYTES, plugin_with_little_memory};
use envoy_test::envoy::{Client, Protocol, Request};
use envoy_test::model_server::{ReportedTokens, ServerSettings};
use serde_json::{Value, json};

const POOL: &str = "vllm-llama2-7b-pool";

/// The plugin's statistics as Prometheus reads them: series, and number.
fn page(gateway: &Gateway) -> BTreeMap<String, u64> {
    let page = gateway.envoy.admin_get("/stats/prometheus?filter=wasmcustom").unwrap();
    let series = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    series.map(|(name, number)| (name.to_owned(), number.parse::<f64>().unwrap() as u64)).collect()
}

/// The number of a series; 0 if there is none.
fn number(page: &BTreeMap<String, u64>, name: &str, labels: &str) -> u64 {
    page.get(&format!("{name}{{{labels}}}")).copied().unwrap_or(0)
}

/// The sum over all series of this name.
fn total(page: &BTreeMap<String, u64>, name: &str) -> u64 {
    let series = page.iter().filter(|(series, _)| series.split('{').next() == Some(name));
    series.map(|(_, number)| number).sum()
}

/// `tiny`, and `lora-request` that goes to two adapters; pods that answer as fast as they can.
fn published(configuration: &str) -> Gateway {
    let adapters = vec!["tweet-summary".to_owned(), "sql-lora".to_owned()];
    let mut pods = vec![ServerSettings { lora_adapters: adapters, ..pod() }; 4];
    pods.iter_mut().for_each(|pod| pod.engine.speed = 1_000.0);
    let edit = |plugin: &mut Value| {
        plugin["models"] = json!([
            {"modelName": "tiny", "poolRef": {"name": POOL}},
            {"modelName": "lora-request", "poolRef": {"name": POOL},
             "targetModels": [{"name": "tweet-summary"}, {"name": "sql-lora"}]}]);
    };
    Setup::new(configuration).concurrency(4).pods(pods).plugin(edit).start()
}

/// Requests of every API, whole and streamed, with usage asked for and not; the `number`-th is one of them. Every tenth
/// is answered with an error by the server, every eleventh by the gateway.
fn mixed(number: usize) -> Request {
    let model = if number.is_multiple_of(3) { "lora-request" } else { "tiny" };
    let text = "word ".repeat(number % 50 + 1);
    let messages = json!([{"role": "user", "content": text}]);
    let tokens = number % 5 + 1;
    let stream = number.is_multiple_of(2);
    let (path, mut body) = match number % 7 {
        0 | 1 => {
            ("/v1/chat/completions", json!({"messages": messages, "max_tokens": tokens, "stream": stream}))
        }
        2 | 3 => ("/v1/completions", json!({"prompt": text, "max_tokens": tokens, "stream": stream})),
        4 => ("/v1/embeddings", json!({"input": text})),
        5 => ("/v1/responses", json!({"input": text, "max_output_tokens": tokens, "stream": stream})),
        _ => ("/v1/messages", json!({"messages": messages, "max_tokens": tokens, "stream": stream})),
    };
    if number.is_multiple_of(4) && number % 7 < 4 && stream {
        body["stream_options"] = json!({"include_usage": true});
    }
    body["model"] = model.into();
    if number % 10 == 9 {
        body = json!({"model": model});
    }
    if number % 11 == 10 {
        body["model"] = "nope".into();
    }
    Request::post(path).json(&body)
}

/// Sends so many of the mixed requests on a few connections that are kept.
fn send_mixed(gateway: &Gateway, count: usize) -> BTreeMap<u16, u64> {
    const CLIENTS: usize = 32;
    let client = gateway.client(Protocol::Http1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let tasks: Vec<_> =
        (0..CLIENTS).map(|place| runtime.spawn(send_own(client, place, CLIENTS, count))).collect();
    let mut statuses = BTreeMap::new();
    for task in tasks {
        for status in runtime.block_on(task).unwrap() {
            *statuses.entry(status).or_default() += 1;
        }
    }
    statuses
}

async fn send_own(client: Client, first: usize, step: usize, count: usize) -> Vec<u16> {
    let mut connection = client.connect().await.unwrap();
    let mut statuses = Vec::new();
    for number in (first..count).step_by(step) {
        statuses.push(connection.send(mixed(number)).await.unwrap().status);
    }
    statuses
}

/// Clients that read the beginning of a long stream, with some output, and leave.
fn leave(gateway: &Gateway, count: usize) {
    let client = gateway.client(Protocol::Http1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for _ in 0..count {
        let request = chat_with(json!({"model": "tiny", "max_tokens": 50_000, "stream": true}));
        runtime.block_on(async {
            let mut stream = client.open(request).await.unwrap();
            let mut read = Vec::new();
            // The first event has none.
            while String::from_utf8_lossy(&read).matches("data: ").count() < 3 {
                read.extend(stream.next_chunk().await.unwrap().unwrap().data);
            }
        });
    }
}

/// What the servers said that this model's answers have cost, over all of them.
fn reported(gateway: &Gateway, models: &[&str]) -> ReportedTokens {
    let mut sum = ReportedTokens::default();
    for pod in gateway.pods.servers() {
        let reported = pod.counters().tokens_by_model;
        models.iter().filter_map(|model| reported.get(*model)).for_each(|tokens| sum += *tokens);
    }
    sum
}

fn check_sums(configuration: &str, count: usize, leaving: usize) {
    let gateway = published(configuration);
    let statuses = std::thread::scope(|scope| {
        scope.spawn(|| leave(&gateway, leaving));
        send_mixed(&gateway, count)
    });
    let ended = |page: &BTreeMap<String, u64>| total(page, "inference_picker_requests");
    until("every request has ended", || ended(&page(&gateway)) == (count + leaving) as u64);
    let page = page(&gateway);
    for (model, targets) in [("tiny", &["tiny"][..]), ("lora-request", &["tweet-summary", "sql-lora"])] {
        let reported = reported(&gateway, targets);
        let labels = format!("llmproxy_model=\"{model}\"");
        let counted = ReportedTokens {
            prompt: number(&page, "asm_llm_proxy_prompt_tokens", &labels),
            completion: number(&page, "asm_llm_proxy_completion_tokens", &labels),
            cached: number(&page, "inference_picker_cached_tokens", &format!("model=\"{model}\"")),
        };
        assert!(
            reported.prompt > 10_000 && reported.completion > 1_000 && reported.cached > 0,
            "{configuration}: {reported:?}"
        );
        assert_eq!(counted, reported, "{configuration}: {model}");
    }
    let by_class = |class: &str| -> u64 {
        let is_class = |series: &&String| {
            series.starts_with("inference_picker_requests{") && series.contains(&format!("code=\"{class}\""))
        };
        page.iter().filter(|(series, _)| is_class(series)).map(|(_, number)| number).sum()
    };
    let answered = |class: u16| -> u64 {
        statuses.iter().filter(|(status, _)| **status / 100 == class).map(|(_, count)| count).sum()
    };
    assert_eq!(
        (by_class("2xx"), by_class("4xx")),
        (answered(2) + leaving as u64, answered(4)),
        "{configuration}"
    );
    let refused = number(&page, "inference_picker_refusals", "reason=\"model_not_found\"");
    assert_eq!(refused, (0..count).filter(|number| number % 11 == 10).count() as u64, "{configuration}");
    let picks = total(&page, "inference_picker_picks");
    assert_eq!((picks, picks + refused), (total(&page, "inference_picker_requests_sent"), ended(&page)));
    let cut_short = number(&page, "inference_picker_answers_cut_short", "model=\"tiny\"");
    assert_eq!(cut_short, leaving as u64, "{configuration}: clients that left");
    let estimated = number(&page, "inference_picker_estimated_completion_tokens", "model=\"tiny\"");
    assert!(estimated >= leaving as u64, "{configuration}: {estimated}");
    assert_eq!(total(&page, "inference_picker_answers_without_usage"), 0, "{configuration}");
}

#[test]
fn tokens_by_model_are_what_the_servers_report_to_the_token() {
    check_sums(STOP_ITERATION, 10_000, 50);
    check_sums(DEFERRED, 2_000, 10);
}

#[test]
fn random_models_do_not_make_the_statistics_grow() {
    const NAMES: usize = 100_000;
    const CLIENTS: usize = 16;
    let gateway = published(STOP_ITERATION);
    let lines = || gateway.envoy.admin_get("/stats").unwrap().lines().count();
    let client = gateway.client(Protocol::Http1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ask = async |numbers: std::ops::Range<usize>, first: usize| {
        let mut connection = client.connect().await.unwrap();
        for number in numbers.skip(first).step_by(CLIENTS) {
            let body = format!(r#"{{"model":"random-{number}","prompt":"x"}}"#);
            let request =
                Request::post("/v1/completions").header("content-type", "application/json").body(body);
            assert_eq!(connection.send(request).await.unwrap().status, 404);
        }
    };
    let ask_all = |numbers: std::ops::Range<usize>| {
        let asked = (0..CLIENTS).map(|first| ask(numbers.clone(), first));
        runtime.block_on(futures_util::future::join_all(asked));
    };
    // By then Envoy has all statistics of its own, and the gauges have been written.
    ask_all(0..1_000);
    until("the gauges are written", || {
        total(&page(&gateway), "inference_picker_endpoint_metrics_age_ms") > 0
    });
    let before = lines();
    ask_all(1_000..NAMES);
    let refused = number(&page(&gateway), "inference_picker_refusals", "reason=\"model_not_found\"");
    assert_eq!((refused, lines()), (NAMES as u64, before));
}

#[test]
fn the_gauges_show_what_the_picker_counts() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        gateway.pods.server(1).set(|knobs| {
            knobs.gauges.waiting = Some(3.0);
            knobs.gauges.running = Some(7.0);
            knobs.gauges.kv_cache_usage = Some(0.25);
        });
        let labels =
            |index: usize| format!("pool=\"{POOL}\",endpoint=\"{}\"", gateway.pods.addresses()[index]);
        let gauge = |index: usize, name: &str| {
            number(&page(&gateway), &format!("inference_picker_endpoint_{name}"), &labels(index))
        };
        until("the queue is seen", || gauge(1, "waiting") == 3);
        assert_eq!((gauge(1, "running"), gauge(1, "kv_cache_permille")), (7, 250), "{configuration}");
        assert_eq!((gauge(0, "waiting"), gauge(0, "running")), (0, 0), "{configuration}");
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.hang = true));
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let client = gateway.client(Protocol::Http1);
        let streamed = json!({"model": "tiny", "stream": true, "max_tokens": 4});
        let waiting =
            runtime.spawn(async move { client.open(crate::gateway::chat_with(streamed)).await.map(|_| ()) });
        let in_flight = |name: &str| (0..4).map(|index| gauge(index, name)).sum::<u64>();
        until("the request is seen", || in_flight("in_flight_requests") == 1);
        assert!(in_flight("in_flight_tokens") > 0, "{configuration}");
        waiting.abort();
        until("it is seen to have gone", || in_flight("in_flight_requests") == 0);
        let page = page(&gateway);
        let scrapes = number(&page, "inference_picker_scrapes", &format!("pool=\"{POOL}\""));
        let answered: u64 = gateway.pods.servers().map(|pod| pod.counters().metrics_scrapes).sum();
        assert!(scrapes > 0 && scrapes <= answered, "{configuration}: {scrapes} of {answered}");
    }
}

#[test]
fn times_and_sizes_are_in_histograms() {
    for configuration in BODY_MODES {
        let gateway = published(configuration);
        let ask = |stream: bool| {
            gateway.send(chat_with(json!({"model": "tiny", "max_tokens": 4, "stream": stream})))
        };
        for _ in 0..3 {
            assert_eq!((ask(true).status, ask(false).status), (200, 200));
        }
        let count = |name: &str, labels: &str| {
            number(&page(&gateway), &format!("inference_picker_{name}_count"), labels)
        };
        let model = "model=\"tiny\"";
        until("Envoy has merged its histograms", || count("request_duration_ms", model) == 6);
        for (name, expected) in [
            ("request_prompt_tokens", 6),
            ("request_completion_tokens", 6),
            ("time_to_first_token_ms", 3),
            ("time_per_output_token_us", 3),
        ] {
            assert_eq!(count(name, model), expected, "{configuration}: {name}");
        }
        assert!(count("scrape_duration_ms", &format!("pool=\"{POOL}\"")) > 0, "{configuration}");
        let page = page(&gateway);
        for name in ["request_duration_sum_ms", "time_to_first_token_sum_ms", "time_per_output_token_sum_us"]
        {
            assert!(
                page.contains_key(&format!("inference_picker_{name}{{{model}}}")),
                "{configuration}: {name}"
            );
        }
        assert!(
            page.contains_key(&format!("inference_picker_scrape_duration_sum_ms{{pool=\"{POOL}\"}}")),
            "{configuration}"
        );
    }
}

/// What waits in the gateway is counted while it does, and how long it did afterwards.
#[test]
fn the_queue_is_counted() {
    for configuration in BODY_MODES {
        let edit = |plugin: &mut Value| plugin["queue"] = json!({"maxWait": "1m"});
        let gateway = Setup::new(configuration).plugin(edit).start();
        let full = |waiting: Option<f64>| {
            gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.gauges.waiting = waiting));
            gateway.wait_until_scraped();
        };
        full(Some(100.0));
        let labels = format!("pool=\"{POOL}\"");
        let client = gateway.client(Protocol::Http1);
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let send =
            || runtime.spawn(async move { client.send(crate::gateway::chat("tiny")).await.unwrap().status });
        let (served, left) = (send(), send());
        let queued = || number(&page(&gateway), "inference_picker_queue_requests", &labels);
        until("two wait", || queued() == 2);
        left.abort();
        until("one has left", || queued() == 1);
        full(None);
        assert_eq!(runtime.block_on(served).unwrap(), 200, "{configuration}");
        until("none waits", || queued() == 0);
        until("its wait is reported", || {
            number(&page(&gateway), "inference_picker_queue_wait_ms_count", &labels) == 1
        });
        assert!(
            number(&page(&gateway), "inference_picker_queue_wait_sum_ms", &labels) > 0,
            "{configuration}"
        );
    }
}

#[test]
fn what_waited_in_a_plugin_that_has_ended_is_counted_no_more() {
    let (_folder, file) = plugin_with_little_memory().unwrap();
    let edit = |plugin: &mut Value| plugin["queue"] = json!({"maxWait": "1m"});
    let gateway = Setup::new(STOP_ITERATION)
        .concurrency(1)
        .plugin(edit)
        .envoy(|envoy| {
            envoy.set_plugin_file(&file);
        })
        .start();
    gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.gauges.waiting = Some(100.0)));
    gateway.wait_until_scraped();
    let client = gateway.client(Protocol::Http1);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let waiting = runtime.spawn(async move { client.send(crate::gateway::chat("tiny")).await });
    let queued = || number(&page(&gateway), "inference_picker_queue_requests", &format!("pool=\"{POOL}\""));
    until("it waits", || queued() == 1);
    let large = json!({"model": "tiny", "prompt": "x".repeat(TOO_LARGE_BYTES)});
    assert!(gateway.send(Request::post("/v1/completions").json(&large)).status >= 500);
    let answer = runtime.block_on(waiting).unwrap();
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status >= 500), "it has ended, too");
    until("a plugin is there again", || gateway.send(Request::get("/v1/models")).status == 200);
    until("none waits", || queued() == 0);
}

#[test]
fn what_is_left_out_at_a_limit_is_counted() {
    for configuration in BODY_MODES {
        let edit = |plugin: &mut Value| {
            plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into();
            plugin["queue"] = json!({"maxRequests": 1, "maxWait": "1s"});
            plugin["stickyBy"] = "header x-user".into();
        };
        let gateway = Setup::new(configuration).concurrency(1).plugin(edit).start();
        let chat = || crate::gateway::chat("tiny");
        let long = json!({"model": "tiny", "max_tokens": 1, "prompt": "x".repeat((1 << 20) + 1_000)});
        gateway.send(chat().header("x-user", "u".repeat(256)));
        gateway.send(chat().header("x-user", "u".repeat(257)));
        gateway.send(Request::post("/v1/completions").json(&long));
        gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.gauges.waiting = Some(100.0)));
        gateway.wait_until_scraped();
        let answers = gateway.burst(vec![chat(); 5]);
        assert!(answers.iter().all(|answer| answer.status == 429), "{configuration}");
        let reached = |limit: &str| {
            number(&page(&gateway), "inference_picker_limits_reached", &format!("reason=\"{limit}\""))
        };
        until("they are counted", || reached("queued_requests") == 4);
        assert_eq!((reached("user_bytes"), reached("prompt_blocks")), (1, 1), "{configuration}");
    }
}

#[test]
fn a_request_that_another_pod_answers_is_a_retry() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        gateway.pods.server(0).set(|knobs| knobs.refuse = true);
        let statuses = gateway.burst(vec![crate::gateway::chat("tiny"); 16]);
        assert!(statuses.iter().all(|answer| answer.status == 200), "{configuration}");
        let lines = gateway.envoy.access_log_until(16).unwrap();
        let moved =
            lines.iter().filter(|line| line["upstream"] != crate::log::first_pick(line)).count() as u64;
        assert!(moved > 0, "{configuration}");
        let labels = format!("pool=\"{POOL}\",endpoint=\"{}\"", gateway.pods.addresses()[0]);
        let page = page(&gateway);
        assert_eq!(number(&page, "inference_picker_retries", &labels), moved, "{configuration}");
        assert_eq!(total(&page, "inference_picker_retries"), moved, "{configuration}");
        assert_eq!(total(&page, "inference_picker_picks"), 16, "{configuration}");
    }
}

#[test]
fn what_prefixes_save_is_counted() {
    for configuration in BODY_MODES {
        let edit = |plugin: &mut Value| plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into();
        let gateway = Setup::new(configuration).concurrency(1).plugin(edit).start();
        let labels = format!("pool=\"{POOL}\"");
        let sum = |name: &str| number(&page(&gateway), &format!("inference_picker_prefix_{name}"), &labels);
        let long = json!({"model": "tiny", "max_tokens": 1, "prompt": "a long document ".repeat(300)});
        let ask = || gateway.send(Request::post("/v1/completions").json(&long)).status;
        assert_eq!((ask(), sum("matched_tokens")), (200, 0), "{configuration}");
        let once = sum("prompt_tokens");
        assert_eq!(ask(), 200);
        assert!(once > 0 && sum("prompt_tokens") > once, "{configuration}");
        let matched = sum("matched_tokens");
        assert!(matched > once / 2 && matched <= sum("prompt_tokens") - once, "{configuration}: {matched}");
        until("the index is measured", || sum("blocks") > 0);
    }
}

/// The log has every field, of an answer that came to its end, and what is known of one that did not.
#[test]
fn the_log_has_the_tokens_of_an_answer() {
    let gateway = Setup::new(OBSERVED).start();
    let ask = |tokens: u32, stream: bool| {
        chat_with(json!({"model": "tiny", "max_tokens": tokens, "stream": stream}))
    };
    let whole = gateway.send(ask(4, false)).json().unwrap();
    gateway.send(ask(4, true));
    gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.die_mid_stream = Some(3)));
    gateway.client(Protocol::Http1).send_blocking(ask(9, true)).unwrap_err();
    let lines = gateway.envoy.access_log_until(3).unwrap();
    let prompt_tokens = whole["usage"]["prompt_tokens"].to_string();
    for line in &lines[..2] {
        assert_eq!((&line["model"], &line["request_model"]), (&"tiny".into(), &"tiny".into()), "{line}");
        for field in ["prompt_tokens", "request_prompt_tokens"] {
            assert_eq!(line[field], prompt_tokens.as_str(), "{line}");
        }
        for field in ["completion_tokens", "request_completion_tokens"] {
            assert_eq!(line[field], "4", "{line}");
        }
        assert_eq!(line["cached_tokens"], "0", "{line}");
    }
    let is_time = |line: &Value| line["ttft_ms"].as_str().is_some_and(|text| text.parse::<u64>().is_ok());
    assert!(lines[0]["ttft_ms"].is_null() && is_time(&lines[1]), "{lines:?}");
    assert!(lines[2]["completion_tokens"].is_null() && is_time(&lines[2]), "{}", lines[2]);
}
