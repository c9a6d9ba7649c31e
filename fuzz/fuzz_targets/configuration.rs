//! A configuration: refused with the path of a field, or within all bounds and good for a decision.
#![no_main]

use std::collections::HashSet;
use std::hash::Hash;

use inference_picker::config::*;
use inference_picker::openai::read_request;
use inference_picker::picker::Picker;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|document: &[u8]| {
    match Config::parse(document) {
        Err(error) => assert!(!error.path.is_empty() && !error.problem.is_empty()),
        Ok(config) => {
            check_config(&config);
            config.pools.iter().for_each(check_pool);
            config.models.iter().for_each(|model| check_model(&config, model));
            check_use(config);
        }
    }
});

fn check_config(config: &Config) {
    assert!((1..=MAX_POOLS).contains(&config.pools.len()) && config.models.len() <= MAX_MODELS);
    assert!((1..=MAX_BODY_BYTES_CEILING).contains(&config.max_body_bytes));
    assert!(config.max_consecutive_failures >= 1);
    let mut scraped = config.pools.iter().map(|pool| &pool.metrics);
    assert!(scraped.all(|metrics| config.metrics_stale_after_ms > metrics.interval_ms));
    let smallest = Queue { max_wait_ms: 10, max_requests: 1, max_bytes: 1, while_empty_ms: None, fallback_after_ms: None };
    let queue = config.queue.unwrap_or(smallest);
    assert!((1..=QUEUE_MAX_REQUESTS_CEILING).contains(&queue.max_requests));
    assert!((1..=QUEUE_MAX_BYTES_CEILING).contains(&queue.max_bytes));
    let intervals = [config.scrape_timeout_ms, config.metrics_stale_after_ms];
    let waits = [config.discovery_interval_ms, queue.max_wait_ms].into_iter().chain(queue.while_empty_ms);
    for interval_ms in intervals.into_iter().chain(waits) {
        assert!((MIN_INTERVAL.as_millis()..=MAX_INTERVAL.as_millis()).contains(&interval_ms.into()));
    }
    [&config.scrape_cluster, &config.admin_cluster].into_iter().flatten().for_each(|text| check_name(text));
    check_distinct(config.pools.iter().map(|pool| &pool.name));
    check_distinct(config.pools.iter().map(|pool| &pool.cluster));
    check_distinct(config.models.iter().map(|model| (model.pool, &model.name)));
    let model_names: Vec<&str> = config.model_names().collect();
    check_distinct(model_names.into_iter());
}

fn check_pool(pool: &Pool) {
    check_name(&pool.name);
    check_name(&pool.cluster);
    check_metrics(&pool.metrics);
    if let Some(endpoints) = &pool.endpoints {
        assert!((1..=MAX_ENDPOINTS).contains(&endpoints.len()));
        check_distinct(endpoints.iter());
    }
    check_targets(&pool.default_targets);
    assert!((1..=PREFIX_BLOCKS_MAX_CEILING).contains(&pool.prefix_blocks_max));
    let share = pool.saturation.kv_cache_utilization;
    assert!(pool.saturation.queue_depth >= 1 && share > 0.0 && share <= 1.0);
}

fn check_metrics(metrics: &Metrics) {
    check_name(&metrics.path);
    assert!(metrics.path.starts_with('/') && metrics.port != Some(0));
    assert!(u128::from(metrics.interval_ms) >= MIN_INTERVAL.as_millis());
    assert!(metrics.headers.len() <= MAX_METRICS_HEADERS);
    metrics.headers.iter().flat_map(|(name, value)| [name, value]).for_each(|text| check_name(text));
    check_distinct(metrics.headers.iter().map(|(name, _)| name));
}

fn check_model(config: &Config, model: &Model) {
    check_name(&model.name);
    assert!(model.pool < config.pools.len());
    check_targets(&model.targets);
}

fn check_targets(targets: &[Target]) {
    assert!(targets.len() <= MAX_TARGETS);
    targets.iter().for_each(|target| check_name(&target.name));
    check_distinct(targets.iter().map(|target| &target.name));
    assert!(targets.is_empty() || targets.iter().any(|target| target.weight > 0));
}

fn check_name(text: &str) {
    assert!((1..=MAX_NAME_BYTES).contains(&text.len()) && !text.contains(char::is_control));
}

fn check_distinct<T: Eq + Hash>(values: impl Iterator<Item = T> + Clone) {
    assert_eq!(values.clone().collect::<HashSet<_>>().len(), values.count());
}

fn check_use(config: Config) {
    let mut picker = Picker::<()>::new(config, fastrand::Rng::with_seed(1));
    picker.tick(1_000);
    let request = read_request(br#"{"model":"m","prompt":"Hi"}"#).unwrap();
    if let Ok(prepared) = picker.prepare(&request, Some(b"user"), 0) {
        picker.decide(1, &prepared, || (), 1_000);
    }
    picker.decide_unread(0, false, None, 1_000);
}
