//! Models that are published under one name and served under others.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::gateway::{
    BODY_MODES, CLUSTER, DEFERRED, Gateway, STOP_ITERATION, Setup, chat, chat_with, pod, until,
};
use envoy_test::envoy::{Configuration, Protocol, Request};
use envoy_test::model_server::ServerSettings;
use serde_json::{Value, json};

fn gateway(configuration: &str, targets: Value) -> Gateway {
    let adapters = vec!["tweet-summary".to_owned(), "sql-lora".to_owned()];
    let pods = vec![ServerSettings { lora_adapters: adapters, ..pod() }; 4];
    let edit = |plugin: &mut Value| {
        let model = json!({"modelName": "lora-request", "criticality": "Critical",
            "poolRef": {"name": "vllm-llama2-7b-pool"}, "targetModels": targets});
        plugin["models"] = json!([model]);
    };
    Setup::new(configuration).concurrency(4).pods(pods).plugin(edit).start()
}

#[test]
fn traffic_is_shared_among_targets_by_weight() {
    for configuration in BODY_MODES {
        let targets = json!([{"name": "tweet-summary", "weight": 18}, {"name": "sql-lora", "weight": 2}]);
        let gateway = gateway(configuration, targets);
        let mut answered: BTreeMap<String, u64> = BTreeMap::new();
        for _ in 0..25 {
            for answer in
                gateway.burst(vec![chat_with(json!({"model": "lora-request", "max_tokens": 1})); 40])
            {
                *answered.entry(answer.json().unwrap()["model"].as_str().unwrap().to_owned()).or_default() +=
                    1;
            }
        }
        // A tenth within 1 %; each of four workers is at most one request away from it.
        let share = answered["sql-lora"];
        assert!((90..=110).contains(&share), "{configuration}: {answered:?}");
        let received: u64 = gateway.pods.servers().map(|pod| pod.counters().requests_for("sql-lora")).sum();
        assert_eq!(received, share, "{configuration}");
        assert_eq!(counted(&gateway, "sql-lora"), share, "{configuration}");
        let lines = gateway.envoy.access_log_until(1_000).unwrap();
        let logged = lines.iter().filter(|line| line["target_model"] == "sql-lora").count();
        assert_eq!(logged as u64, share, "{configuration}");
        assert!(lines.iter().all(|line| line["model"] == "lora-request"), "{configuration}");
    }
}

#[test]
fn the_models_name_is_replaced_in_bodies_of_every_form() {
    for configuration in BODY_MODES {
        let gateway = gateway(configuration, json!([{"name": "sql-lora"}]));
        let body =
            r#"{ "max_tokens" : 1, "model" :"lora-request", "prompt": "caf\u00e9", "model":"lora-request" }"#;
        let request = Request::post("/v1/completions").header("content-type", "application/json").body(body);
        let forms = [request.clone(), request.clone().in_frames_of(7), request.trailer("x-checksum", "1")];
        for protocol in [Protocol::Http1, Protocol::Http2] {
            for form in forms.clone() {
                let answer = gateway.client(protocol).send_blocking(form).unwrap();
                assert_eq!(answer.status, 200, "{configuration}, {protocol:?}: {}", answer.text());
                assert_eq!(answer.json().unwrap()["model"], "sql-lora", "{configuration}, {protocol:?}");
            }
        }
    }
}

/// The model that an answer names.
fn answered_model(gateway: &Gateway, request: Request) -> String {
    let answer = gateway.send(request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json().unwrap()["model"].as_str().unwrap().to_owned()
}

/// How many requests for `lora-request` the statistics count as sent to this target.
fn counted(gateway: &Gateway, target: &str) -> u64 {
    let page = gateway.envoy.admin_get("/stats/prometheus").unwrap();
    let series =
        format!("inference_picker_requests_sent{{model=\"lora-request\",target_model=\"{target}\"}} ");
    let line = page.lines().find_map(|line| line.strip_prefix(&series));
    line.unwrap_or_else(|| panic!("no {series}")).trim().parse().unwrap()
}

/// The original's first experiment: ten adapters of equal weight in two groups, one to one.
#[test]
fn ten_adapters_of_equal_weight_give_one_to_one_between_two_groups() {
    let names: Vec<String> = ["tweet-summary", "sql-lora"]
        .iter()
        .flat_map(|name| (0..5).map(move |index| format!("{name}-{index}")))
        .collect();
    let targets: Vec<Value> = names.iter().map(|name| json!({"name": name, "weight": 10})).collect();
    for configuration in BODY_MODES {
        let pods = vec![ServerSettings { lora_adapters: names.clone(), ..pod() }; 4];
        let models = json!([{"modelName": "lora-request", "poolRef": {"name": "vllm-llama2-7b-pool"},
            "targetModels": targets}]);
        let gateway = Setup::new(configuration)
            .concurrency(1)
            .pods(pods)
            .plugin(|plugin| plugin["models"] = models.clone())
            .start();
        let request = chat_with(json!({"model": "lora-request", "max_tokens": 1}));
        let answers: Vec<String> = (0..100).map(|_| answered_model(&gateway, request.clone())).collect();
        let of_tweets = answers.iter().filter(|name| name.starts_with("tweet")).count();
        assert_eq!(of_tweets, 50, "{configuration}");
        for name in &names {
            let received: u64 = gateway.pods.servers().map(|pod| pod.counters().requests_for(name)).sum();
            assert_eq!((received, counted(&gateway, name)), (10, 10), "{configuration}: {name}");
        }
    }
}

#[test]
fn answers_may_name_the_model_that_was_asked_for() {
    for configuration in BODY_MODES {
        let gateway = gateway_with(configuration, |plugin| plugin["responseModel"] = "requested".into());
        let fields = |stream: bool| json!({"model": "lora-request", "max_tokens": 8, "stream": stream});
        let whole = gateway.send(chat_with(fields(false)));
        assert_eq!(whole.json().unwrap()["model"], "lora-request", "{configuration}");
        let text = gateway.send(chat_with(fields(true))).text();
        let events = text.matches("data: {").count();
        assert_eq!(text.matches("\"model\":\"lora-request\"").count(), events, "{configuration}: {text}");
        assert!(!text.contains("sql-lora") && text.ends_with("data: [DONE]\n\n"), "{configuration}: {text}");
    }
}

fn gateway_with(configuration: &str, edit: impl Fn(&mut Value)) -> Gateway {
    let adapters = vec!["tweet-summary".to_owned(), "sql-lora".to_owned()];
    let pods = vec![ServerSettings { lora_adapters: adapters, ..pod() }; 2];
    Setup::new(configuration)
        .pods(pods)
        .plugin(|plugin| {
            plugin["models"] = json!([{"modelName": "lora-request", "poolRef": {"name": "vllm-llama2-7b-pool"},
                "targetModels": [{"name": "sql-lora"}]}]);
            edit(plugin);
        })
        .start()
}

#[test]
fn a_user_stays_on_one_target() {
    for configuration in BODY_MODES {
        for sticky_by in ["header x-user", "user"] {
            let gateway = gateway_with(configuration, |plugin| {
                plugin["stickyBy"] = sticky_by.into();
                plugin["models"][0]["targetModels"] =
                    json!([{"name": "sql-lora"}, {"name": "tweet-summary"}]);
            });
            let ask = |user: usize| {
                let name = format!("user-{user}");
                let body = json!({"model": "lora-request", "max_tokens": 1, "user": name});
                answered_model(&gateway, chat_with(body).header("x-user", name))
            };
            let first: Vec<String> = (0..20).map(ask).collect();
            let again: Vec<String> = (0..20).map(ask).collect();
            assert_eq!(first, again, "{configuration}, {sticky_by}");
            assert!(
                first.contains(&"sql-lora".into()) && first.contains(&"tweet-summary".into()),
                "{first:?}"
            );
        }
    }
}

#[test]
fn unknown_models_pass_where_they_may() {
    for configuration in BODY_MODES {
        let gateway = gateway_with(configuration, |plugin| plugin["unknownModels"] = "passthrough".into());
        assert_eq!(answered_model(&gateway, chat("tiny")), "tiny", "{configuration}");
        assert_eq!(gateway.send(chat("nope")).status, 404, "{configuration}: the server's own answer");
    }
}

#[test]
fn the_gateway_lists_the_published_models() {
    for configuration in BODY_MODES {
        let gateway = gateway_with(configuration, |plugin| plugin["answerModels"] = true.into());
        // The scraper asks each pod once, for its context.
        let asked_once = || gateway.pods.servers().all(|pod| pod.counters().requests_to("/v1/models") == 1);
        until("the scraper has read the pods' lists", asked_once);
        let answer = gateway.send(Request::get("/v1/models"));
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
        let list = answer.json().unwrap();
        assert_eq!((&list["object"], &list["data"][0]["id"]), (&"list".into(), &"lora-request".into()));
        assert!(asked_once(), "{configuration}");
    }
}

/// Adds a second pool, of the last two pods, and a route to it by the model's name.
pub fn add_second_pool(configuration: &str, envoy: &mut Configuration, pods: &[SocketAddr]) {
    add_cluster(envoy, "second");
    envoy.set_endpoints(CLUSTER, &pods[..2]);
    envoy.set_endpoints("second", &pods[2..]);
    routes(envoy).insert(0, route_by_model(configuration, "other-model", json!({"cluster": "second"})));
    let texts = crate::gateway::texts(pods);
    envoy.edit_plugin(|plugin| {
        plugin["pools"] = json!([
            {"name": "first", "cluster": CLUSTER, "endpoints": texts[..2]},
            {"name": "second", "cluster": "second", "endpoints": texts[2..]}]);
        plugin["models"] = json!([
            {"modelName": "tiny", "poolRef": {"name": "first"}},
            {"modelName": "other-model", "poolRef": {"name": "second"}, "targetModels": [{"name": "tiny"}]}]);
    });
}

/// Adds a cluster like the first pool's.
fn add_cluster(envoy: &mut Configuration, name: &str) {
    let mut cluster = envoy.cluster(CLUSTER).clone();
    cluster["name"] = name.into();
    cluster["load_assignment"]["cluster_name"] = name.into();
    envoy.at("/static_resources/clusters").as_array_mut().unwrap().push(cluster);
}

fn routes(envoy: &mut Configuration) -> &mut Vec<Value> {
    let host =
        "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0";
    envoy.at(&format!("{host}/routes")).as_array_mut().unwrap()
}

/// A route for a model by its name: by the header in stop-iteration mode, by filter state in deferred mode.
fn route_by_model(configuration: &str, model: &str, route: Value) -> Value {
    let exact = json!({"exact": model});
    let by_name = match configuration {
        DEFERRED => {
            json!({"prefix": "/", "filter_state": [{"key": "wasm.llm_model", "string_match": exact}]})
        }
        _ => json!({"prefix": "/", "headers": [{"name": "x-gateway-model-name", "string_match": exact}]}),
    };
    json!({"match": by_name, "route": route})
}

#[test]
fn one_listener_serves_several_pools_by_model_name() {
    for configuration in BODY_MODES {
        let gateway =
            Setup::new(configuration).start_with(|envoy, pods| add_second_pool(configuration, envoy, pods));
        for _ in 0..10 {
            assert!(gateway.served_by(&gateway.send(chat("tiny"))) < 2, "{configuration}");
            assert!(gateway.served_by(&gateway.send(chat("other-model"))) >= 2, "{configuration}");
        }
        for line in gateway.envoy.access_log_until(20).unwrap() {
            assert_eq!(line["upstream"], crate::log::first_pick(&line), "{configuration}: {line}");
        }
        assert_eq!(gateway.send(chat("nope")).status, 404, "{configuration}");
    }
}

/// Traffic split by weight over two clusters, as Istio's and the Gateway API's canaries are.
fn split() -> Value {
    let cluster = |name: &str, weight: u32| json!({"name": name, "weight": weight});
    json!({"weighted_clusters": {"clusters": [cluster(CLUSTER, 50), cluster("canary", 50)]}})
}

/// Two pools of two pods each. The model `lora-request` is in both, with another target in each; `canary-only` is in the
/// second, `tiny` in the first.
fn add_canary(envoy: &mut Configuration, pods: &[SocketAddr]) {
    add_cluster(envoy, "canary");
    envoy.set_endpoints(CLUSTER, &pods[..2]);
    envoy.set_endpoints("canary", &pods[2..]);
    let texts = crate::gateway::texts(pods);
    envoy.edit_plugin(|plugin| {
        plugin["pools"] = json!([
            {"name": "stable", "cluster": CLUSTER, "endpoints": texts[..2]},
            {"name": "canary", "cluster": "canary", "endpoints": texts[2..]}]);
        let model = |name: &str, pool: &str, target: &str| {
            json!({"modelName": name, "poolRef": {"name": pool}, "targetModels": [{"name": target}]})
        };
        plugin["models"] = json!([
            model("lora-request", "stable", "tweet-summary"),
            model("lora-request", "canary", "sql-lora"),
            model("canary-only", "canary", "sql-lora"),
            {"modelName": "tiny", "poolRef": {"name": "stable"}}]);
        plugin["answerModels"] = true.into();
        plugin["responseModel"] = "requested".into();
    });
}

fn canary(configuration: &str, edit: impl Fn(&mut Configuration)) -> Gateway {
    let adapters = vec!["tweet-summary".to_owned(), "sql-lora".to_owned()];
    let pods = vec![ServerSettings { lora_adapters: adapters, ..pod() }; 4];
    Setup::new(configuration).concurrency(2).pods(pods).start_with(|envoy, pods| {
        add_canary(envoy, pods);
        edit(envoy);
    })
}

/// Asserts that so many requests were served where they were picked for, each by the target that its pool has, and that
/// both pools have served some.
fn check_canary(gateway: &Gateway, requests: usize, context: &str) {
    let mut seen = BTreeSet::new();
    for line in gateway.envoy.access_log_until(requests).unwrap() {
        assert_eq!(line["upstream"], crate::log::first_pick(&line), "{context}: {line}");
        let is_canary = gateway.index(line["upstream"].as_str().unwrap()) >= 2;
        let target = if is_canary { "sql-lora" } else { "tweet-summary" };
        assert_eq!(
            (&line["model"], &line["target_model"]),
            (&"lora-request".into(), &target.into()),
            "{line}"
        );
        seen.insert(is_canary);
    }
    assert_eq!(seen.len(), 2, "{context}: by the route's weights both pools serve");
}

#[test]
fn a_route_that_splits_by_weight_decides_the_pool_of_a_model_that_both_have() {
    for configuration in BODY_MODES {
        let gateway = canary(configuration, |envoy| {
            routes(envoy)[0]["route"] = split();
        });
        for request in vec![chat_with(json!({"model": "lora-request", "max_tokens": 1})); 60] {
            assert_eq!(answered_model(&gateway, request), "lora-request", "{configuration}");
        }
        check_canary(&gateway, 60, configuration);
        let counted = ["tweet-summary", "sql-lora"].map(|target| counted(&gateway, target));
        assert_eq!(counted.iter().sum::<u64>(), 60, "{configuration}: {counted:?}");
        let list = gateway.send(Request::get("/v1/models")).json().unwrap();
        let names: Vec<&Value> = list["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
        assert_eq!(names, ["lora-request", "canary-only", "tiny"], "{configuration}: each once");
    }
}

/// The neighbours: what only one of the split's pools has goes there, whichever the route's weights have chosen.
#[test]
fn a_model_of_one_pool_leaves_a_route_that_splits() {
    for configuration in BODY_MODES {
        let gateway = canary(configuration, |envoy| {
            routes(envoy)[0]["route"] = split();
            for (model, cluster) in [("tiny", CLUSTER), ("canary-only", "canary")] {
                routes(envoy).insert(0, route_by_model(configuration, model, json!({"cluster": cluster})));
            }
        });
        for _ in 0..20 {
            assert!(gateway.served_by(&gateway.send(chat("tiny"))) < 2, "{configuration}");
            assert!(gateway.served_by(&gateway.send(chat("canary-only"))) >= 2, "{configuration}");
        }
        for line in gateway.envoy.access_log_until(40).unwrap() {
            assert_eq!(line["upstream"], crate::log::first_pick(&line), "{configuration}: {line}");
        }
    }
}

/// Twenty requests at once for an adapter that no pod has yet: it is not loaded everywhere.
#[test]
fn a_cold_adapter_is_not_loaded_on_every_pod() {
    let pods = vec![ServerSettings { lora_adapters: vec!["cold".into(), "warm".into()], ..pod() }; 6];
    let gateway = Setup::new(STOP_ITERATION)
        .concurrency(2)
        .pods(pods)
        .plugin(|plugin| {
            plugin["models"] = json!([{"modelName": "cold", "poolRef": {"name": "vllm-llama2-7b-pool"},
                "targetModels": [{"name": "cold"}]}]);
        })
        .start();
    for server in gateway.pods.servers() {
        server.set(|knobs| knobs.gauges.max_lora = Some(2));
    }
    gateway.wait_until_scraped();
    let shares = gateway.shares(&gateway.burst(vec![chat("cold"); 12]));
    let loaded = shares.iter().filter(|share| **share > 0).count();
    assert!((1..=4).contains(&loaded), "{shares:?}");
    until("every load is given back", || gateway.pods.servers().all(|pod| pod.counters().in_flight == 0));
}
