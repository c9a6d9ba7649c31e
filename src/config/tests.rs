use super::*;
use crate::log_fields::LogField;
use crate::promise::Promise;
use crate::sessions::Field;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const MINIMAL: &str = r#"{"pools":[{"name":"p","cluster":"c","endpoints":["10.0.0.1:8000"]}]}"#;

/// Refused, with this path and these words in the message.
fn refused(document: &str, path: &str, words: &str) {
    let error = Config::parse(document.as_bytes()).expect_err(document);
    assert_eq!(error.path, path, "{document}: {error}");
    assert!(error.problem.contains(words), "{document}: {error}");
}

/// Refused when this is the list of models, next to one good pool `p`.
fn refused_models(models: &str, path: &str, words: &str) {
    refused(&with("models", models), path, words);
}

/// The minimal document with one more field.
fn with(field: &str, value: &str) -> String {
    MINIMAL.replacen('{', &format!("{{\"{field}\":{value},"), 1)
}

/// The same with peers, and the clusters that they need.
fn with_peers(value: &str) -> String {
    with("peers", &format!(r#"{value},"scrapeCluster":"scrape","adminCluster":"admin""#))
}

fn with_saturation(value: &str) -> String {
    MINIMAL.replace(r#""name":"p","#, &format!(r#""name":"p","saturation":{value},"#))
}

#[test]
fn unknown_models_are_rejected_only_where_models_are_published() {
    let models = r#"[{"modelName":"m","poolRef":{"name":"p"}}]"#;
    let rejects = |document: &str| Config::parse(document.as_bytes()).unwrap().reject_unknown_models;
    assert!(!rejects(MINIMAL));
    assert!(rejects(&with("models", models)));
    assert!(!rejects(&with("models", &format!(r#"{models},"unknownModels":"passthrough""#))));
}

#[test]
fn the_queue_is_off_unless_it_is_asked_for() {
    let queue = |document: &str| Config::parse(document.as_bytes()).unwrap().queue;
    assert_eq!(queue(MINIMAL), None);
    assert_eq!(
        queue(&with("queue", "{}")),
        Some(Queue {
            max_wait_ms: 2_000,
            max_requests: 1_000,
            max_bytes: 256 << 20,
            while_empty_ms: None,
            fallback_after_ms: None
        })
    );
    let waits = queue(&with("queue", r#"{"whileEmpty":"60s","maxBytes":9}"#)).unwrap();
    assert_eq!((waits.while_empty_ms, waits.max_bytes), (Some(60_000), 9));
}

#[test]
fn what_waits_for_its_own_pool_first_waits_for_less_than_the_longest_wait() {
    let document = |after: &str| {
        let queue = format!(r#"{{"queue":{{"fallbackAfter":"{after}"}},"#);
        with_prefill(r#","fallback":["p"]"#, "").replacen('{', &queue, 1)
    };
    let config = Config::parse(document("500ms").as_bytes()).unwrap();
    assert_eq!(config.queue.unwrap().fallback_after_ms, Some(500));
    refused(&document("2s"), "queue.fallbackAfter", "not shorter");
    refused(&document("1ms"), "queue.fallbackAfter", "not between");
    refused(&with("queue", r#"{"fallbackAfter":"1s"}"#), "queue.fallbackAfter", "no pool has");
}

#[test]
fn sessions_are_known_by_what_is_listed() {
    let sources = |document: &str| Config::parse(document.as_bytes()).unwrap().session_by;
    assert_eq!(sources(&with("sessionBy", "[]")), []);
    assert_eq!(sources(MINIMAL).len(), DEFAULT_SESSION_BY.len());
    let listed = with("sessionBy", r#"["header X-Id", "cookie Sid", "body metadata.user_id"]"#);
    let expected = [
        Source::Header("x-id".to_owned()),
        Source::Cookie("Sid".to_owned()),
        Source::Body(Field::MetadataUserId),
    ];
    assert_eq!(sources(&listed), expected);
}

#[test]
fn what_is_published_is_what_the_log_reads() {
    let publish = |document: &str| Config::parse(document.as_bytes()).unwrap().publish;
    assert_eq!(publish(MINIMAL), LogFields::all());
    assert_eq!(publish(&with("publish", "[]")), LogFields::NONE);
    let one = with("publish", r#"["llm_decision"]"#);
    assert_eq!(publish(&one), LogFields::NONE.with(LogField::Decision));
    let deferred = publish(&one.replacen('{', r#"{"pickTo":"filterState","#, 1));
    let always = [LogField::Decision, LogField::Destinations, LogField::Model];
    assert!(LogField::ALL.into_iter().all(|field| deferred.has(field) == always.contains(&field)));
    refused(
        &with("publish", r#"["llm_model","llm_first_pass"]"#),
        "publish[1]",
        "no field of the access log",
    );
}

#[test]
fn gateways_know_each_other_only_where_they_are_to() {
    let peers = |document: &str| Config::parse(document.as_bytes()).unwrap().peers;
    assert_eq!(peers(MINIMAL), None);
    let expected = |interval_ms| Some(Peers { cluster: "gateways".into(), interval_ms });
    assert_eq!(peers(&with_peers(r#"{"cluster":"gateways"}"#)), expected(20));
    assert_eq!(peers(&with_peers(r#"{"cluster":"gateways","interval":"50ms"}"#)), expected(50));
}

#[test]
fn users_are_distinguished_by_a_header_or_by_the_bodys_field() {
    let sticky_by = |value: &str| Config::parse(with("stickyBy", value).as_bytes()).unwrap().sticky_by;
    assert_eq!(sticky_by("\"user\""), Some(StickyBy::User));
    assert_eq!(sticky_by("\"header X-User\""), Some(StickyBy::Header("x-user".into())));
}

#[test]
fn the_scrape_budget_is_a_share_of_a_core() {
    let budget = |document: &str| Config::parse(document.as_bytes()).unwrap().scrape_budget;
    assert_eq!((budget(MINIMAL), budget(&with("scrapeBudget", "1"))), (0.1, 1.0));
    for value in ["0", "-0.1", "1.01", "\"10%\""] {
        let words = if value.starts_with('"') { "expected f64" } else { "a share of a core" };
        refused(&with("scrapeBudget", value), "scrapeBudget", words);
    }
}

/// The minimal document whose pool has these metrics.
fn with_metrics(value: &str) -> String {
    MINIMAL.replace(r#""name":"p","#, &format!(r#""name":"p","metrics":{value},"#))
}

#[test]
fn a_pools_metrics_are_where_requests_go_unless_it_says_otherwise() {
    let metrics = |document: &str| Config::parse(document.as_bytes()).unwrap().pools.remove(0).metrics;
    let at = |metrics: &Metrics| metrics.address_of("[fd00::1]:8000".parse().unwrap()).to_string();
    let usual = metrics(&with("scrapeCluster", r#""scrape""#));
    assert_eq!((usual.cluster.as_deref(), usual.path.as_str()), (Some("scrape"), "/metrics"));
    assert_eq!((at(&usual).as_str(), usual.interval_ms), ("[fd00::1]:8000", 50));
    let own = r#"{"cluster":"tls","port":9400,"path":"/m?x=1","headers":{"X-B":"2 3","x-a":"1"},"interval":"80ms"}"#;
    let own = metrics(&with_metrics(own).replacen('{', r#"{"scrapeCluster":"scrape","#, 1));
    assert_eq!((own.cluster.as_deref(), own.path.as_str()), (Some("tls"), "/m?x=1"));
    assert_eq!((at(&own).as_str(), own.interval_ms), ("[fd00::1]:9400", 80));
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(own.headers, [header("x-a", "1"), header("x-b", "2 3")]);
    assert_eq!(metrics(MINIMAL).cluster, None);
    assert!(!Config::parse(MINIMAL.as_bytes()).unwrap().reads_metrics());
    assert!(Config::parse(with_metrics(r#"{"cluster":"tls"}"#).as_bytes()).unwrap().reads_metrics());
}

#[test]
fn metrics_that_cannot_be_asked_for_are_refused() {
    for (metrics, field, words) in [
        (r#"{"port":0}"#, "port", "at least 1"),
        (r#"{"port":65536}"#, "port", "65536"),
        (r#"{"path":"metrics"}"#, "path", "no path"),
        (r#"{"path":"/a b"}"#, "path", "no path"),
        (r#"{"path":""}"#, "path", "empty"),
        (r#"{"cluster":""}"#, "cluster", "empty"),
        (r#"{"interval":"1s"}"#, "interval", "metricsStaleAfter"),
        (r#"{"interval":"1ms"}"#, "interval", "between"),
        (r#"{"tls":true}"#, "tls", "`cluster`"),
        (r#"{"headers":{"Authorization":"Bearer x"}}"#, "headers.Authorization", "credential_injector"),
        (r#"{"headers":{"x-api-key":"x"}}"#, "headers.x-api-key", "credential_injector"),
        (r#"{"headers":{"Host":"x"}}"#, "headers.Host", "Envoy's"),
        (
            r#"{"headers":{"x-envoy-original-dst-host":"1.1.1.1:1"}}"#,
            "headers.x-envoy-original-dst-host",
            "Envoy's",
        ),
        (r#"{"headers":{":path":"/"}}"#, "headers.:path", "no name"),
        (r#"{"headers":{"x-a":"\u00fc"}}"#, "headers.x-a", "ASCII"),
        (r#"{"headers":{"x-a":"1","X-A":"2"}}"#, "headers", "twice"),
    ] {
        refused(&with_metrics(metrics), &format!("pools[0].metrics.{field}"), words);
    }
    let many = (0..=MAX_METRICS_HEADERS).map(|number| format!(r#""x-{number}":"1""#)).collect::<Vec<_>>();
    let many = format!(r#"{{"headers":{{{}}}}}"#, many.join(","));
    refused(&with_metrics(&many), "pools[0].metrics.headers", "16");
}

#[test]
fn the_minimal_document_takes_every_default() {
    let config = Config::parse(MINIMAL.as_bytes()).unwrap();
    assert_eq!(
        (config.role, config.pick_to, config.scrape_by),
        (Role::Filter, PickTo::Header, ScrapeBy::Service)
    );
    assert_eq!(config.pools[0].metrics.interval_ms, 50);
    assert_eq!(config.max_body_bytes, DEFAULT_MAX_BODY_BYTES);
    assert_eq!(config.pools[0].routing_strategy, RoutingStrategy::Default);
    assert_eq!(config.pools[0].model_server, ModelServer::Vllm);
    assert_eq!(config.models, vec![]);
}

#[test]
fn an_inference_model_spec_is_taken_unchanged() {
    let spec = r#"[{"modelName":"lora-request","criticality":"Critical",
        "poolRef":{"group":"inference.networking.x-k8s.io","kind":"InferencePool","name":"p"},
        "targetModels":[{"name":"tweet-summary","weight":10},{"name":"sql-lora","weight":90}]},
        {"modelName":"base","poolRef":{"name":"p"}}]"#;
    let config = Config::parse(with("models", spec).as_bytes()).unwrap();
    let model = |name| config.place_of_model(name, 0).map(|place| &config.models[place]);
    assert_eq!(model("lora-request").unwrap().criticality, Criticality::Critical);
    assert_eq!(model("lora-request").unwrap().targets[1], Target { name: "sql-lora".into(), weight: 90 });
    assert_eq!(model("base").unwrap().criticality, Criticality::Standard);
    assert_eq!(model("nope"), None);
}

/// Two pools, `p` and `q`, and these models.
fn with_two_pools(models: &str) -> String {
    let pool = |name: &str, port: u8| {
        format!(r#"{{"name":"{name}","cluster":"{name}","endpoints":["10.0.0.1:{port}"]}}"#)
    };
    format!(r#"{{"pools":[{},{}],"models":[{models}]}}"#, pool("p", 1), pool("q", 2))
}

#[test]
fn a_model_may_be_in_several_pools_once_in_each() {
    let model = |pool: &str| format!(r#"{{"modelName":"m","poolRef":{{"name":"{pool}"}}}}"#);
    let (in_p, in_q) = (model("p"), model("q"));
    let config = Config::parse(with_two_pools(&format!("{in_q},{in_p}")).as_bytes()).unwrap();
    assert_eq!([0, 1, 2].map(|route_pool| config.place_of_model("m", route_pool)), [1, 0, 0].map(Some));
    assert_eq!(config.model_names().collect::<Vec<_>>(), ["m"]);
    refused(&with_two_pools(&format!("{in_q},{in_p},{in_q}")), "models[2].modelName", "twice");
}

#[test]
fn targets_without_weights_count_the_same() {
    let models = r#"[{"modelName":"m","poolRef":{"name":"p"},"targetModels":[{"name":"a"},{"name":"b"}]}]"#;
    let config = Config::parse(with("models", models).as_bytes()).unwrap();
    assert!(config.models[0].targets.iter().all(|target| target.weight == 1));
}

#[test]
fn a_bad_form_is_refused_by_field_path() {
    refused("", "configuration", "empty");
    refused("[1]", "configuration", "not a JSON object");
    refused("{1", "configuration", "key must be a string");
    refused("{}", "configuration", "missing field `pools`");
    refused(&format!("{MINIMAL} x"), "configuration", "trailing characters");
    refused(&with("surprise", "1"), "surprise", "unknown field");
    refused(&with("", "1"), "configuration", "unknown field");
    refused(&with("role", "\"boss\""), "role", "unknown variant `boss`");
    refused(&with("pools", "7"), "pools", "invalid type");
    refused(
        r#"{"pools":[{"name":"p","cluster":"c","routingStrategy":"BEST"}]}"#,
        "pools[0].routingStrategy",
        "BEST",
    );
    refused(r#"{"pools":[{"name":"p","cluster":"c","endpoint":[]}]}"#, "pools[0].endpoint", "unknown field");
}

#[test]
fn a_bad_value_is_refused_by_field_path() {
    refused(r#"{"pools":[]}"#, "pools", "not between 1");
    refused(r#"{"pools":[{"name":"","cluster":"c"}]}"#, "pools[0].name", "empty");
    refused(r#"{"pools":[{"name":"p","cluster":"c"}]}"#, "pools[0].endpoints", "adminCluster");
    refused(
        r#"{"pools":[{"name":"p","cluster":"c","endpoints":["pod:80"]}]}"#,
        "pools[0].endpoints[0]",
        "ip:port",
    );
    refused(
        r#"{"pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:0"]}]}"#,
        "pools[0].endpoints[0]",
        "ip:port",
    );
    refused(
        r#"{"pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:1","1.1.1.1:1"]}]}"#,
        "pools[0].endpoints[1]",
        "twice",
    );
    refused(
        r#"{"pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"]},{"name":"p","cluster":"d"}]}"#,
        "pools[1].name",
        "twice",
    );
    refused(&with("scrapeInterval", "\"soon\""), "scrapeInterval", "not a duration");
    refused(&with("scrapeInterval", "\"1ms\""), "scrapeInterval", "not between");
    refused(&with("metricsStaleAfter", "\"20ms\""), "metricsStaleAfter", "longer than scrapeInterval");
    refused(&with("maxConsecutiveFailures", "0"), "maxConsecutiveFailures", "at least 1");
    refused(&with("maxBodyBytes", "0"), "maxBodyBytes", "not between");
    refused(&with("stickyBy", "\"cookie\""), "stickyBy", "neither");
    refused(&with("stickyBy", "\"header a b\""), "stickyBy", "neither");
    refused(&with("sessionBy", r#"["header a", "header"]"#), "sessionBy[1]", "none of");
    refused(
        &with("sessionBy", r#"["body messages"]"#),
        "sessionBy[0]",
        "prompt_cache_key, conversation, user",
    );
    refused(&with("sessionBy", &format!("{:?}", ["cookie a"; 17])), "sessionBy", "not between 0 and 16");
    let by_token = MINIMAL.replace(r#""name":"p","#, r#""name":"p","sessionAffinity":"token","#);
    refused(&by_token, "pools[0].sessionAffinity", "`sessionTokenKey`");
    refused(&with("sessionTokenKey", r#""short""#), "sessionTokenKey", "not between 32");
    refused(&with("sessions", r#"{"max":0}"#), "sessions.max", "not between");
    refused(
        &with("storedResponses", r#"{"expireAfter":"31days"}"#),
        "storedResponses.expireAfter",
        "not between",
    );
    refused(&with("queue", "{\"maxWait\":\"2\"}"), "queue.maxWait", "not a duration");
    refused(&with("queue", "{\"maxRequests\":0}"), "queue.maxRequests", "not between");
    refused(&with("queue", "{\"maxBytes\":0}"), "queue.maxBytes", "not between");
    refused(&with("queue", "{\"whileEmpty\":\"0s\"}"), "queue.whileEmpty", "not between");
    refused(&with("queue", "{\"length\":9}"), "queue.length", "unknown field");
    let peers = r#"{"cluster":"gateways"}"#;
    refused(&with("peers", &format!(r#"{peers},"scrapeCluster":"s""#)), "peers", "`adminCluster`");
    refused(&with("peers", &format!(r#"{peers},"adminCluster":"a""#)), "peers", "`scrapeCluster`");
    refused(&with_peers("{}"), "peers", "missing field `cluster`");
    refused(&with_peers(r#"{"cluster":""}"#), "peers.cluster", "empty");
    refused(&with_peers(r#"{"cluster":"c"}"#), "peers.cluster", "pool's");
    refused(&with_peers(r#"{"cluster":"g","interval":"1ms"}"#), "peers.interval", "not between");
    refused(&with_saturation("{\"queueDepth\":0}"), "pools[0].saturation.queueDepth", "at least 1");
    refused(
        &with_saturation("{\"kvCacheUtilization\":1.5}"),
        "pools[0].saturation.kvCacheUtilization",
        "1.5",
    );
    refused(&with("scrapeBy", "\"worker\",\"role\":\"service\""), "scrapeBy", "nothing to do");
}

#[test]
fn a_bad_model_is_refused_by_field_path() {
    let model =
        |targets: &str| format!(r#"[{{"modelName":"m","poolRef":{{"name":"p"}},"targetModels":{targets}}}]"#);
    refused_models(r#"[{"modelName":"m","poolRef":{"name":"q"}}]"#, "models[0].poolRef.name", "no pool `q`");
    refused_models(
        r#"[{"modelName":"m","poolRef":{"name":"p"}},{"modelName":"m","poolRef":{"name":"p"}}]"#,
        "models[1].modelName",
        "twice",
    );
    refused_models(&model("[]"), "models[0].targetModels", "not between 1");
    refused_models(&model(r#"[{"name":"a","weight":0}]"#), "models[0].targetModels", "zero");
    refused_models(&model(r#"[{"name":"a","weight":-1}]"#), "models[0].targetModels[0].weight", "-1");
    refused_models(
        &model(r#"[{"name":"a","weight":1},{"name":"a","weight":1}]"#),
        "models[0].targetModels[1].name",
        "twice",
    );
    refused_models(
        &model(r#"[{"name":"a","weight":1},{"name":"b"}]"#),
        "models[0].targetModels[1].weight",
        "missing",
    );
}

#[test]
fn criticalities_are_three_of_the_priorities() {
    let priorities =
        [Criticality::Critical, Criticality::Standard, Criticality::Sheddable].map(Criticality::priority);
    assert_eq!(priorities, [100, 0, -1]);
}

#[test]
fn an_objective_is_its_pools_or_every_pools_and_what_is_not_known_is_of_priority_zero() {
    let objectives =
        r#"[{"name":"o","priority":-5,"poolRef":{"name":"q"}},{"name":"o","priority":7},{"name":"n"}]"#;
    let document = with_two_pools("").replacen('{', &format!(r#"{{"objectives":{objectives},"#), 1);
    let config = Config::parse(document.as_bytes()).unwrap();
    let priorities =
        [("o", 1), ("o", 0), ("n", 0), ("other", 0)].map(|(name, pool)| config.priority_of(name, pool));
    assert_eq!(priorities, [-5, 7, 0, 0]);
}

#[test]
fn objectives_tenants_and_default_targets_that_are_not_right_are_refused_by_field_path() {
    for (objectives, path, words) in [
        (r#"[{"name":""}]"#, "objectives[0].name", "empty"),
        (r#"[{"name":"o"},{"name":"o"}]"#, "objectives[1].name", "twice"),
        (r#"[{"name":"o","poolRef":{"name":"q"}}]"#, "objectives[0].poolRef.name", "no pool"),
        (r#"[{"name":"o","priority":2147483648}]"#, "objectives[0].priority", "32 bits"),
    ] {
        refused(&with("objectives", objectives), path, words);
    }
    for (fairness, path, words) in [
        (r#"{"by":"address"}"#, "fairness.by", "neither"),
        (r#"{"tenants":["a","a"]}"#, "fairness.tenants[1]", "twice"),
    ] {
        refused(&with("fairness", fairness), path, words);
    }
    let targets = r#""name":"p","defaultTargets":[{"name":"a","weight":0}],"#;
    refused(&MINIMAL.replace(r#""name":"p","#, targets), "pools[0].defaultTargets", "add up to zero");
}

/// Two pools, of which the first has its prompts computed by this rule, and the second by that one.
fn with_prefill(first: &str, second: &str) -> String {
    let pool = |name: &str, host: u8, more: &str| {
        format!(r#"{{"name":"{name}","cluster":"{name}","endpoints":["10.0.0.{host}:8000"]{more}}}"#)
    };
    format!(r#"{{"pools":[{},{}]}}"#, pool("d", 1, first), pool("p", 2, second))
}

#[test]
fn a_pool_computes_the_prompts_of_another_one_and_has_nothing_else_to_do() {
    let config = Config::parse(with_prefill(r#","prefill":{"pool":"p"}"#, "").as_bytes()).unwrap();
    let expected = Prefill { pool: 1, min_uncached_tokens: 512, when_gone: WhenGone::Together };
    assert_eq!(config.pools[0].prefill, Some(expected));
    assert_eq!([0, 1].map(|place| config.is_for_prefill(place)), [false, true]);
    for (first, second, path, words) in [
        (r#","prefill":{"pool":"x"}"#, "", "pools[0].prefill.pool", "no pool"),
        (r#","prefill":{"pool":"d"}"#, "", "pools[0].prefill.pool", "`prefill` itself"),
        (
            r#","prefill":{"pool":"p"}"#,
            r#","prefill":{"pool":"d"}"#,
            "pools[0].prefill.pool",
            "`prefill` itself",
        ),
        (
            r#","prefill":{"pool":"p","minUncachedTokens":0}"#,
            "",
            "pools[0].prefill.minUncachedTokens",
            "at least 1",
        ),
        (
            r#","prefill":{"pool":"p","minUncachedTokens":-1}"#,
            "",
            "pools[0].prefill.minUncachedTokens",
            "u32",
        ),
        (r#","prefill":{"pool":"p","whenGone":"wait"}"#, "", "pools[0].prefill.whenGone", "unknown variant"),
        (r#","prefill":{}"#, "", "pools[0].prefill", "missing field `pool`"),
    ] {
        refused(&with_prefill(first, second), path, words);
    }
    let model = r#"{"models":[{"modelName":"m","poolRef":{"name":"p"}}],"#;
    let document = with_prefill(r#","prefill":{"pool":"p"}"#, "").replacen('{', model, 1);
    refused(&document, "models[0].poolRef.name", "computes the prompts of another one");
    let both = with_prefill(r#","prefill":{"pool":"p"}"#, "")
        .replace("\"10.0.0.1:8000\"", "\"10.0.0.1:8000\",\"10.0.0.2:8000\"");
    refused(&both, "pools[0].endpoints[1]", "computes this pool's prompts");
}

/// A pool with more of its fields, and a model with this promise.
fn with_promise(pool: &str, promise: &str) -> String {
    let model = format!(r#"{{"models":[{{"modelName":"m","poolRef":{{"name":"d"}},"promise":{promise}}}],"#);
    with_prefill(pool, "").replacen('{', &model, 1)
}

#[test]
fn a_models_promise_is_that_of_its_pool_and_needs_one_that_goes_by_time() {
    let config =
        Config::parse(with_promise("", r#"{"firstToken":"1500us","perToken":"1h"}"#).as_bytes()).unwrap();
    let promise = Promise { first_token_us: Some(1_500), per_token_us: Some(3_600_000_000) };
    let promises = [("m", 0), ("m", 1), ("other", 0)].map(|(model, pool)| config.promise_of(model, pool));
    assert_eq!(promises, [promise, Promise::default(), Promise::default()]);
    for (pool, promise, path, words) in [
        ("", r#"{}"#, "models[0].promise", "needs `firstToken` or `perToken`"),
        ("", r#"{"firstToken":"999us"}"#, "models[0].promise.firstToken", "between 1ms and"),
        ("", r#"{"perToken":"61m"}"#, "models[0].promise.perToken", "between 1ms and"),
        ("", r#"{"perToken":"-5ms"}"#, "models[0].promise.perToken", "not a duration"),
        ("", r#"{"firstToken":5}"#, "models[0].promise.firstToken", "invalid type"),
        ("", r#"{"ttft":"5s"}"#, "models[0].promise.ttft", "unknown field"),
        (
            r#","routingStrategy":"RANDOM""#,
            r#"{"firstToken":"1s"}"#,
            "models[0].promise",
            "DEFAULT or PREFIX_CACHE",
        ),
    ] {
        refused(&with_promise(pool, promise), path, words);
    }
    let divided = with_promise(r#","prefill":{"pool":"p"}"#, r#"{"firstToken":"1s"}"#);
    Config::parse(divided.as_bytes()).unwrap();
    let by_chance = divided.replacen(r#""name":"p""#, r#""name":"p","routingStrategy":"RANDOM""#, 1);
    refused(&by_chance, "models[0].promise", "as that of its `prefill.pool`");
}

#[test]
fn fallbacks_are_other_pools_and_outside_providers_have_no_endpoints_to_name() {
    let config = Config::parse(with_prefill(r#","fallback":["p"]"#, "").as_bytes());
    assert_eq!(config.unwrap().pools[0].fallback, [1]);
    for (first, path, words) in [
        (r#","fallback":["d"]"#, "pools[0].fallback[0]", "itself"),
        (r#","fallback":["p","p"]"#, "pools[0].fallback[1]", "twice"),
        (r#","fallback":["p","x"]"#, "pools[0].fallback[1]", "no pool"),
        (r#","fallback":["p"],"prefill":{"pool":"p"}"#, "pools[0].fallback[0]", "prompts of another one"),
        (r#","external":true"#, "pools[0].endpoints", "external"),
    ] {
        refused(&with_prefill(first, ""), path, words);
    }
    let external = r#"{"pools":[{"name":"p","cluster":"c","external":true}]}"#;
    assert_eq!(Config::parse(external.as_bytes()).unwrap().pools[0].endpoints, Some(Vec::new()));
}
