//! Pages of other servers, and of several engines and ranks behind one port.

use super::recorded::fixture_of;
use super::*;

/// A server with this page that says it runs 4 and has 3 waiting.
fn page(metrics_page: MetricsPage) -> String {
    let servers = start(ServerSettings { metrics_page, ..ServerSettings::default() });
    let server = servers.server(0);
    server.set(|knobs| {
        knobs.gauges.running = Some(4.0);
        knobs.gauges.waiting = Some(3.0);
        knobs.gauges.kv_cache_usage = Some(0.25);
    });
    server.metrics_page()
}

/// The values of every series of a family.
fn values(page: &str, family: &str) -> Vec<f64> {
    let series = page.lines().filter(|line| {
        line.strip_prefix(family).is_some_and(|rest| rest.starts_with('{') || rest.starts_with(' '))
    });
    series.map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap()).collect()
}

#[test]
fn two_engines_of_vllm_share_the_requests_and_each_has_a_cache() {
    let page = page(MetricsPage::Vllm { engines: 2 });
    assert_eq!(values(&page, "vllm:num_requests_running"), [2.0, 2.0]);
    assert_eq!(values(&page, "vllm:num_requests_waiting"), [2.0, 1.0]);
    assert_eq!(values(&page, "vllm:kv_cache_usage_perc"), [0.25, 0.25]);
    let count = |label: &str| page.matches(label).count();
    assert_eq!(count(r#"engine="0""#), count(r#"engine="1""#));
}

#[test]
fn data_parallel_ranks_of_sglang_share_the_requests() {
    let page = page(MetricsPage::Sglang(SglangRanks { data_parallel: 2, tensor_parallel: 1 }));
    assert_eq!(values(&page, "sglang:num_running_reqs"), [2.0, 2.0]);
    assert_eq!(values(&page, "sglang:num_queue_reqs"), [2.0, 1.0]);
    assert!(page.contains(r#"sglang:token_usage{dp_rank="1","#), "{page}");
}

#[test]
fn tensor_parallel_ranks_of_sglang_report_the_same_again() {
    let page = page(MetricsPage::Sglang(SglangRanks { data_parallel: 1, tensor_parallel: 8 }));
    assert_eq!(values(&page, "sglang:num_running_reqs"), [4.0; 8]);
    assert_eq!(values(&page, "sglang:num_queue_reqs"), [3.0; 8]);
    assert!(!page.contains("dp_rank"), "{page}");
}

#[test]
fn llama_cpp_has_neither_labels_nor_a_cache() {
    let page = page(MetricsPage::LlamaCpp);
    assert_eq!(series(&page, "llamacpp:requests_processing"), Some(4.0));
    assert_eq!(series(&page, "llamacpp:requests_deferred"), Some(3.0));
    assert!(!page.contains('{'), "{page}");
}

/// `# HELP` and `# TYPE` of every family, and the series' names and labels.
fn shape(page: &str) -> Vec<&str> {
    page.lines()
        .map(|line| if line.starts_with('#') { line } else { line.rsplit_once(' ').unwrap().0 })
        .collect()
}

#[test]
fn the_page_of_llama_cpp_has_the_recorded_families() {
    let recorded = fixture_of("llama.cpp-0.3.36", "metrics_idle.txt");
    assert_eq!(shape(&page(MetricsPage::LlamaCpp)), shape(&recorded));
}

/// SGLang with one engine and this cache.
fn sglang(engine: EngineSettings, lora_adapters: &[&str]) -> ServerSettings {
    let ranks = SglangRanks { data_parallel: 1, tensor_parallel: 1 };
    let lora_adapters = lora_adapters.iter().map(|name| name.to_string()).collect();
    ServerSettings {
        metrics_page: MetricsPage::Sglang(ranks),
        engine,
        lora_adapters,
        ..ServerSettings::default()
    }
}

#[tokio::test]
async fn every_line_of_sglangs_page_is_on_a_page_that_its_own_code_printed() {
    let recorded =
        ["metrics_after_traffic.txt", "metrics_lora.txt"].map(|page| fixture_of("sglang-0.5.23", page));
    let recorded: Vec<&str> = recorded.iter().flat_map(|page| shape(page)).collect();
    let servers = start(sglang(EngineSettings::default(), &["lora-a"]));
    let server = servers.server(0);
    let idle = server.metrics_page();
    assert!(!idle.contains("sglang:prompt_tokens_total"), "{idle}");
    for _ in 0..2 {
        post(&server, COMPLETIONS, &completion(0..100, 5)).await;
    }
    let busy = server.metrics_page();
    assert!(busy.contains("sglang:cached_tokens_total{"), "{busy}");
    for line in [shape(&idle), shape(&busy)].concat() {
        assert!(recorded.contains(&line), "{line}");
    }
}

/// What is cached for nobody in particular is not in use, and is counted separately; what has ended is counted.
#[tokio::test]
async fn what_sglang_has_cached_can_be_evicted() {
    let servers = start(sglang(EngineSettings::default().with_radix_cache(), &[]));
    let server = servers.server(0);
    for _ in 0..2 {
        post(&server, COMPLETIONS, &completion(0..100, 5)).await;
    }
    let page = server.metrics_page();
    let reported = |name: &str| values(&page, &format!("sglang:{name}"));
    let counted = ["prompt_tokens_total", "cached_tokens_total", "generation_tokens_total"].map(reported);
    // Of the second prompt all but its last token was cached.
    assert_eq!(counted, [[200.0], [99.0], [10.0]]);
    // The prompt and its answer, of which the last token is computed for nobody.
    assert_eq!(reported("kv_evictable_tokens"), [104.0]);
    assert_eq!(reported("kv_available_tokens"), [60_000.0 - 104.0]);
    assert_eq!([reported("kv_used_tokens"), reported("token_usage")], [[0.0], [0.0]]);
}
