//! The metrics page has the recorded pages' families and series, and the numbers are those of the server.

use std::collections::BTreeSet;

use super::recorded::fixture;
use super::*;

/// `name type` of every family.
fn families(page: &str) -> BTreeSet<&str> {
    page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect()
}

/// Every series with its labels, but for the sizes that `cache_config_info` has as labels.
fn series_names(page: &str) -> BTreeSet<&str> {
    let series = page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' '));
    series.map(|(name, _)| name).filter(|name| !name.starts_with("vllm:cache_config_info")).collect()
}

fn check_size(page: &str, recorded: &str) {
    let difference = page.len().abs_diff(recorded.len());
    assert!(difference < recorded.len() / 20, "{} bytes, recorded {}", page.len(), recorded.len());
}

#[tokio::test]
async fn an_idle_page_has_the_recorded_series_and_size() {
    let servers = start(ServerSettings::default());
    let page = get(&servers.server(0), "/metrics").await.text();
    let recorded = fixture("metrics_idle.txt");
    assert_eq!(families(&page), families(&recorded));
    assert_eq!(series_names(&page), series_names(&recorded));
    check_size(&page, &recorded);
}

#[tokio::test]
async fn a_page_after_traffic_has_the_recorded_series_and_size() {
    let servers = start(ServerSettings {
        lora_adapters: vec!["lora-a".to_owned(), "lora-b".to_owned()],
        engine: EngineSettings { lora_slots: 1, speed: 20.0, ..EngineSettings::default() },
        ..ServerSettings::default()
    });
    let server = servers.server(0);
    for model in ["lora-a", "lora-b"] {
        let mut body = completion(0..10, 4);
        body["model"] = model.into();
        post(&server, COMPLETIONS, &body).await;
    }
    let page = get(&server, "/metrics").await.text();
    let recorded = fixture("metrics_queue_lora.txt");
    assert_eq!(families(&page), families(&recorded));
    assert_eq!(series_names(&page), series_names(&recorded));
    check_size(&page, &recorded);
}

#[tokio::test]
async fn gauges_show_what_runs_and_what_waits() {
    let servers = one_at_a_time(None);
    let server = servers.server(0);
    let mut streams = Vec::new();
    for _ in 0..3 {
        let request = Request::post(COMPLETIONS).json(&endless_completion());
        streams.push(client_of(&server).open(request).await.unwrap());
    }
    let gauges = || {
        let page = server.metrics_page();
        (value(&page, "vllm:num_requests_running"), value(&page, "vllm:num_requests_waiting"))
    };
    eventually("one runs and two wait", || gauges() == (1.0, 2.0)).await;
    assert!(value(&server.metrics_page(), "vllm:kv_cache_usage_perc") > 0.0);
    drop(streams);
    eventually("nothing runs or waits", || gauges() == (0.0, 0.0)).await;
}

#[tokio::test]
async fn totals_are_those_of_the_answers() {
    let servers = quick();
    let server = servers.server(0);
    for _ in 0..3 {
        post(&server, COMPLETIONS, &completion(0..40, 5)).await;
    }
    let page = get(&server, "/metrics").await.text();
    let totals = [
        ("vllm:prompt_tokens_total", 120.0),
        ("vllm:prefix_cache_queries_total", 120.0),
        ("vllm:prefix_cache_hits_total", 64.0),
        ("vllm:generation_tokens_total", 15.0),
        ("vllm:time_to_first_token_seconds_count", 3.0),
        ("vllm:inter_token_latency_seconds_count", 12.0),
        ("vllm:e2e_request_latency_seconds_count", 3.0),
    ];
    for (name, total) in totals {
        assert_eq!(value(&page, name), total, "{name}");
    }
}

#[tokio::test]
async fn old_sets_of_adapters_stay_and_the_current_one_has_the_largest_value() {
    let servers = quick();
    let server = servers.server(0);
    let set = |adapters: &str| {
        let labels = format!(
            r#"{{max_lora="4",running_lora_adapters="{adapters}",waiting_lora_adapters="{adapters}"}}"#
        );
        series(&server.metrics_page(), &format!("vllm:lora_requests_info{labels}"))
    };
    for model in ["lora-a", "lora-b"] {
        let mut body = completion(0..10, 4);
        body["model"] = model.into();
        post(&server, COMPLETIONS, &body).await;
    }
    assert!(set("lora-a") < set("lora-b") && set("lora-b") < set(""), "{}", server.metrics_page());
    assert!(set("lora-a").is_some());
}

#[tokio::test]
async fn fixed_gauges_hide_the_real_ones() {
    let servers = quick();
    let server = servers.server(0);
    post(&server, COMPLETIONS, &json!({"model": "lora-a", "prompt": "x", "max_tokens": 3})).await;
    server.set(|knobs| {
        knobs.gauges.waiting = Some(7.0);
        knobs.gauges.running = Some(5.0);
        knobs.gauges.kv_cache_usage = Some(0.25);
        knobs.gauges.max_lora = Some(2);
        knobs.gauges.running_adapters = Some(vec!["x".to_owned(), "y".to_owned()]);
    });
    let page = get(&server, "/metrics").await.text();
    assert_eq!(value(&page, "vllm:num_requests_waiting"), 7.0);
    assert_eq!(value(&page, "vllm:num_requests_running"), 5.0);
    assert_eq!(value(&page, "vllm:kv_cache_usage_perc"), 0.25);
    let sets = page.lines().filter(|line| line.starts_with("vllm:lora_requests_info{"));
    let newest = sets.max_by(|left, right| {
        let seen = |line: &str| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap();
        seen(left).total_cmp(&seen(right))
    });
    let labels = r#"max_lora="2",running_lora_adapters="x,y",waiting_lora_adapters="""#;
    assert!(newest.unwrap().contains(labels), "{newest:?}");
}

#[tokio::test]
async fn a_sleeping_server_says_how_deep() {
    let servers = start(ServerSettings::default());
    let server = servers.server(0);
    let states = ["awake", "weights_offloaded", "discard_all"];
    for (sleep, shown) in [
        (Sleep::Awake, [1.0, 0.0, 0.0]),
        (Sleep::WeightsOffloaded, [0.0, 1.0, 0.0]),
        (Sleep::DiscardAll, [0.0, 0.0, 1.0]),
    ] {
        server.set(|knobs| knobs.gauges.sleep = sleep);
        let page = server.metrics_page();
        let reported = states.map(|state| {
            let name =
                format!(r#"vllm:engine_sleep_state{{engine="0",model_name="tiny",sleep_state="{state}"}}"#);
            series(&page, &name).unwrap()
        });
        assert_eq!(reported, shown, "{sleep:?}");
    }
}

#[tokio::test]
async fn gauges_may_linger_at_the_last_busy_moment() {
    let servers = quick();
    let server = servers.server(0);
    server.set(|knobs| knobs.gauges.linger_ms = Some(3_600_000));
    assert_eq!(value(&server.metrics_page(), "vllm:num_requests_running"), 0.0);
    post(&server, COMPLETIONS, &completion(0..40, 5)).await;
    assert_eq!(value(&server.metrics_page(), "vllm:num_requests_running"), 1.0);
    server.set(|knobs| knobs.gauges.linger_ms = Some(0));
    assert_eq!(value(&server.metrics_page(), "vllm:num_requests_running"), 0.0);
}
