use std::collections::BTreeSet;

use super::*;
use crate::load::LoadTracker;
use crate::metrics::{EndpointMetrics, LoraState};
use crate::openai::Usage;
use crate::pool::{Reading, Snapshot};
use crate::promise::{Forecast, Promise};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const POOL: &str = r#""pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"]}]"#;
const MODELS: &str = r#""models":[{"modelName":"m","poolRef":{"name":"p"},"targetModels":[{"name":"a"}]}]"#;

fn config(with_models: bool) -> Config {
    let document = if with_models { format!("{{{POOL},{MODELS}}}") } else { format!("{{{POOL}}}") };
    Config::parse(document.as_bytes()).unwrap()
}

/// The pool, with an endpoint that prints these names.
fn printing(config: &Config, base_model: &str, adapters: &[&str]) -> Pool {
    let mut loads = LoadTracker::default();
    let mut pool = Pool::new(&config.pools[0], &mut loads, 0);
    let adapters = adapters.iter().map(|name| (*name).to_owned()).collect();
    let metrics = EndpointMetrics {
        base_model: Some(base_model.to_owned()),
        lora: Some(LoraState::named(adapters, 4)),
        ..EndpointMetrics::default()
    };
    let reading = Reading {
        scraped_ms: 0,
        waiting: metrics.waiting,
        metrics,
        own_waiting: 0,
        external_waiting: 0,
        external_requests: 0,
    };
    let address = "1.1.1.1:1".parse().unwrap();
    let endpoint = EndpointReading { reading: Some(reading), ..EndpointReading::new(address) };
    pool.apply(Snapshot { endpoints: Some(vec![endpoint]), ..Snapshot::default() }, &mut loads);
    pool
}

/// `NAME.label=.value; number` of each.
fn texts(stats: &Stats, measured: impl IntoIterator<Item = Measurement>) -> Vec<String> {
    measured.into_iter().map(|one| format!("{} {}", stats.name(&one.series), one.value)).collect()
}

#[track_caller]
fn check_labels(stats: &mut Stats, pool: Option<&Pool>, asked: (&str, &str), expected: (&str, &str)) {
    let labels = stats.request_labels(asked.0, asked.1, pool);
    let name = stats.name(&stats.request_sent(labels).series);
    let expected =
        format!("model=.={};.;target_model=.={};.;inference_picker_requests_sent", expected.0, expected.1);
    assert_eq!(name, expected);
}

#[test]
fn only_configured_names_become_labels() {
    let config = config(true);
    let pool = printing(&config, "printed", &[]);
    let mut stats = Stats::new(&config);
    check_labels(&mut stats, Some(&pool), ("m", "a"), ("m", "a"));
    check_labels(&mut stats, Some(&pool), ("m", "m"), ("m", "m"));
    check_labels(&mut stats, Some(&pool), ("m", "x;.y"), ("m", "unknown"));
    check_labels(&mut stats, Some(&pool), ("a", "a"), ("unknown", "a"));
    check_labels(&mut stats, Some(&pool), ("printed", "printed"), ("unknown", "unknown"));
}

#[test]
fn a_model_of_several_pools_is_one_label() {
    let document = r#"{"pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"]},
        {"name":"q","cluster":"d","endpoints":["1.1.1.1:2"]}],
        "models":[{"modelName":"m","poolRef":{"name":"p"},"targetModels":[{"name":"a"}]},
        {"modelName":"m","poolRef":{"name":"q"},"targetModels":[{"name":"a"},{"name":"b"}]}]}"#;
    let mut stats = Stats::new(&Config::parse(document.as_bytes()).unwrap());
    for target in ["a", "b"] {
        check_labels(&mut stats, None, ("m", target), ("m", target));
    }
}

#[test]
fn where_none_are_configured_what_endpoints_print_becomes_labels() {
    let config = config(false);
    let pool = printing(&config, "base", &["adapter", "od;d\n"]);
    let mut stats = Stats::new(&config);
    check_labels(&mut stats, None, ("base", "base"), ("unknown", "unknown"));
    for (name, label) in [("base", "base"), ("adapter", "adapter"), ("od;d\n", "od_d_"), ("x", "unknown")] {
        check_labels(&mut stats, Some(&pool), (name, name), (label, label));
    }
    check_labels(&mut stats, None, ("adapter", "adapter"), ("adapter", "adapter"));
}

#[test]
fn names_do_not_grow_beyond_their_bounds() {
    let config = config(false);
    let names: Vec<String> = (0..1_000).map(|index| format!("model-{index}")).collect();
    let texts: Vec<&str> = names.iter().map(String::as_str).collect();
    let pool = printing(&config, "base", &texts);
    let mut stats = Stats::new(&config);
    let mut series = BTreeSet::new();
    for name in names.iter().cycle().take(100_000) {
        let labels = stats.request_labels(name, name, Some(&pool));
        series.insert(stats.name(&stats.request_sent(labels).series));
    }
    assert_eq!(series.len(), labels::MAX_PRINTED_MODELS + 1, "and `unknown`");
    let picked = |stats: &mut Stats, index: u32| {
        let address = SocketAddr::from((std::net::Ipv4Addr::from(index), 1)).to_string();
        let pick = stats.picked(0, &address, None).next().unwrap();
        stats.name(&pick.series)
    };
    let series: BTreeSet<String> = (0..100_000).map(|index| picked(&mut stats, index)).collect();
    assert_eq!(series.len(), labels::MAX_ENDPOINT_LABELS + 1, "and `unknown`");
}

fn usage(prompt_tokens: u32, completion_tokens: u32, cached_tokens: Option<u32>) -> Option<Usage> {
    Some(Usage { prompt_tokens, completion_tokens, cached_tokens })
}

/// What is recorded of an answer to a request for `m` besides the request itself.
#[track_caller]
fn check_answer(answer: EndedAnswer, expected: &[&str]) {
    let mut stats = Stats::new(&config(true));
    let labels = stats.request_labels("m", "a", None);
    let request =
        EndedRequest { labels, status: Some(200), answer: Some(answer), duration_ms: 110, forecast: None };
    let measured = stats.request_ended(&request);
    let mut all = vec![
        "model=.=m;.;target_model=.=a;.;code=.=2xx;.;inference_picker_requests 1",
        "model=.=m;.;inference_picker_request_duration_ms 110",
        "model=.=m;.;inference_picker_request_duration_sum_ms 110",
    ];
    all.extend(expected);
    assert_eq!(texts(&stats, measured), all);
}

#[test]
fn an_answer_counts_as_it_reports() {
    let complete = ReadAnswer { complete: true, ..ReadAnswer::default() };
    let whole = ReadAnswer { usage: usage(20, 5, Some(16)), output_events: 1, ..complete };
    let tokens = [
        "model=.=m;.;inference_picker_cached_tokens 16",
        "model=.=m;.;inference_picker_request_prompt_tokens 20",
        "llmproxy_model=.=m;.;asm_llm_proxy_prompt_tokens 20",
        "model=.=m;.;inference_picker_request_completion_tokens 5",
        "llmproxy_model=.=m;.;asm_llm_proxy_completion_tokens 5",
    ];
    check_answer(EndedAnswer::Read(whole), &tokens);
    let streamed = ReadAnswer { first_output_ms: Some(30), output_events: 5, ..whole };
    let times = [
        "model=.=m;.;inference_picker_time_to_first_token_ms 30",
        "model=.=m;.;inference_picker_time_to_first_token_sum_ms 30",
        "model=.=m;.;inference_picker_time_per_output_token_us 20000",
        "model=.=m;.;inference_picker_time_per_output_token_sum_us 20000",
    ];
    check_answer(EndedAnswer::Read(streamed), &[&tokens[..], &times].concat());
    let embeddings = ReadAnswer { usage: usage(7, 0, None), ..complete };
    let tokens = [
        "model=.=m;.;inference_picker_request_prompt_tokens 7",
        "llmproxy_model=.=m;.;asm_llm_proxy_prompt_tokens 7",
    ];
    check_answer(EndedAnswer::Read(embeddings), &tokens);
}

#[test]
fn of_a_streamed_answer_it_counts_whether_it_kept_its_promise_and_how_far_off_it_was_expected() {
    let promise = Promise { first_token_us: Some(50_000), per_token_us: Some(20_000) };
    let forecast = Some(Forecast { promise, first_token_ms: 42 });
    let check = |first_output_ms, completion_tokens, expected: &[&str]| {
        let mut stats = Stats::new(&config(true));
        let labels = stats.request_labels("m", "a", None);
        let usage = usage(20, completion_tokens, None);
        let answer =
            EndedAnswer::Read(ReadAnswer { usage, first_output_ms, complete: true, output_events: 1 });
        let request =
            EndedRequest { labels, status: Some(200), answer: Some(answer), duration_ms: 110, forecast };
        let measured = stats.request_ended(&request);
        let all = texts(&stats, measured);
        let of_promises = |text: &&String| text.contains("promise") || text.contains("_error_");
        assert_eq!(all.iter().filter(of_promises).collect::<Vec<_>>(), expected);
    };
    let error = [
        "model=.=m;.;inference_picker_time_to_first_token_error_ms 12",
        "model=.=m;.;inference_picker_time_to_first_token_error_sum_ms 12",
    ];
    let kept = ["model=.=m;.;inference_picker_promises_kept 1", error[0], error[1]];
    let missed = ["model=.=m;.;inference_picker_promises_missed 1", error[0], error[1]];
    check(Some(30), 5, &kept);
    check(Some(30), 1, &kept);
    check(Some(30), 4, &missed);
    check(Some(54), 500, &missed);
    check(None, 5, &[]);
}

#[test]
fn an_answer_that_reports_nothing_or_not_all_counts_as_estimated() {
    let read = ReadAnswer { output_events: 9, ..ReadAnswer::default() };
    let cut = "model=.=m;.;inference_picker_answers_cut_short 1";
    let estimated = "model=.=m;.;inference_picker_estimated_completion_tokens 9";
    check_answer(EndedAnswer::Read(read), &[cut, estimated]);
    let without = "model=.=m;.;inference_picker_answers_without_usage 1";
    check_answer(EndedAnswer::Read(ReadAnswer { complete: true, ..read }), &[without, estimated]);
    // Reported up to the event before the last three.
    let partly = ReadAnswer { usage: usage(20, 6, None), ..read };
    let expected = [
        cut,
        "model=.=m;.;inference_picker_estimated_completion_tokens 3",
        "model=.=m;.;inference_picker_request_prompt_tokens 20",
        "llmproxy_model=.=m;.;asm_llm_proxy_prompt_tokens 20",
        "model=.=m;.;inference_picker_request_completion_tokens 6",
        "llmproxy_model=.=m;.;asm_llm_proxy_completion_tokens 6",
    ];
    check_answer(EndedAnswer::Read(partly), &expected);
    check_answer(EndedAnswer::Encoded, &["model=.=m;.;inference_picker_answers_encoded 1"]);
}

#[test]
fn what_goes_into_a_histogram_is_added_to_its_sum() {
    let stats = Stats::new(&config(true));
    let waited = texts(&stats, stats.left_queue(0, 7));
    assert_eq!(
        waited,
        ["pool=.=p;.;inference_picker_queue_wait_ms 7", "pool=.=p;.;inference_picker_queue_wait_sum_ms 7"]
    );
    let scraped = texts(&stats, stats.scraped(0, 3, false));
    let names = ["scrapes 1", "scrape_duration_ms 3", "scrape_duration_sum_ms 3", "scrape_failures 1"];
    assert_eq!(scraped, names.map(|name| format!("pool=.=p;.;inference_picker_{name}")));
}

#[test]
fn a_request_is_counted_by_the_class_of_its_status() {
    let mut stats = Stats::new(&config(true));
    let mut check = |status: Option<u16>, code: &str| {
        let labels = RequestLabels::default();
        let request = EndedRequest { labels, status, answer: None, duration_ms: 1, forecast: None };
        let measured = stats.request_ended(&request);
        let expected =
            format!("model=.=unknown;.;target_model=.=unknown;.;code=.={code};.;inference_picker_requests 1");
        assert_eq!(texts(&stats, measured)[0], expected);
    };
    check(None, "none");
    check(Some(200), "2xx");
    check(Some(302), "3xx");
    check(Some(429), "4xx");
    check(Some(503), "5xx");
}

#[test]
fn what_is_believed_of_an_endpoint_is_set_and_goes_with_it() {
    let config = config(true);
    let mut stats = Stats::new(&config);
    let address = "1.1.1.1:1".parse().unwrap();
    let metrics =
        EndpointMetrics { waiting: 3, running: 4, kv_cache_utilization: Some(0.256), ..Default::default() };
    let reading = Reading {
        scraped_ms: 960,
        waiting: metrics.waiting,
        metrics,
        own_waiting: 0,
        external_waiting: 0,
        external_requests: 0,
    };
    let in_flight = InFlight { requests: 5, waiting_tokens: 600, ..InFlight::default() };
    let mut endpoint = EndpointReading { reading: Some(reading), ..EndpointReading::new(address) };
    let gauge = |name: &str, value: u32| {
        format!("pool=.=p;.;endpoint=.=1.1.1.1:1;.;inference_picker_endpoint_{name} {value}")
    };
    let names = [
        "in_flight_requests",
        "in_flight_tokens",
        "waiting",
        "running",
        "kv_cache_permille",
        "metrics_age_ms",
    ];
    let expected: Vec<String> =
        names.iter().zip([5, 600, 3, 4, 256, 40]).map(|(name, value)| gauge(name, value)).collect();
    let measured = stats.endpoint(0, &endpoint, in_flight, 1_000);
    assert_eq!(texts(&stats, measured), expected);
    endpoint.reading = None;
    let measured = stats.endpoint(0, &endpoint, in_flight, 1_000);
    assert_eq!(texts(&stats, measured), expected[..2], "nothing was scraped");
    let measured = stats.endpoint_gone(0, &address);
    let gone: BTreeSet<String> = texts(&stats, measured).into_iter().collect();
    assert_eq!(gone, names.iter().map(|name| gauge(name, 0)).collect());
}
