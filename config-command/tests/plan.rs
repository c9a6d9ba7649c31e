//! What the controller would write, without an API server: the same bytes as the command's, the last good configuration, and
//! nothing of what one namespace does in another's.

use std::io::Write;

use clap::Parser;
use inference_picker_config::arguments::{Arguments, Command, Gateway, Options};
use inference_picker_config::command;
use inference_picker_config::findings::{Findings, Severity};
use inference_picker_config::last_good::LastGood;
use inference_picker_config::plan::{Plan, plan, resources, targets};
use inference_picker_config::settings::Settings;
use proptest::prelude::*;
use serde_json::{Value, json};

const DEPLOYMENTS: [&str; 3] = ["wasm-plugin", "wasm-plugin-envoy-filter", "envoy-filter"];

fn arguments(deployment: &str) -> (Options, Gateway) {
    match Arguments::parse_from(["command", "istio", "--deployment", deployment, "-"]).command {
        Command::Istio { inputs, gateway } => (inputs.options, gateway),
        command => panic!("{command:?}"),
    }
}

fn planned(objects: &[Value], last_good: &mut LastGood, deployment: &str) -> Plan {
    let (options, gateway) = arguments(deployment);
    let targets = targets(Some(&gateway), &options, objects);
    plan(&resources(objects), last_good, &options, &Settings::default(), &targets).unwrap()
}

fn object(api_version: &str, kind: &str, (namespace, name): (&str, &str), spec: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "namespace": namespace,
        "creationTimestamp": "2026-11-01T00:00:00Z", "generation": 3}, "spec": spec})
}

fn pool(namespace: &str, name: &str, app: &str) -> Value {
    let spec = json!({"selector": {"matchLabels": {"app": app}}, "targetPorts": [{"number": 8000}],
        "endpointPickerRef": {"name": "epp"}});
    object("inference.networking.k8s.io/v1", "InferencePool", (namespace, name), &spec)
}

fn rewrite(namespace: &str, name: &str, pool: &str, rules: &Value) -> Value {
    let spec = json!({"poolRef": {"name": pool}, "rules": rules});
    object("llm-d.ai/v1alpha2", "InferenceModelRewrite", (namespace, name), &spec)
}

fn rule(model: &str, target: &str) -> Value {
    json!([{"matches": [{"model": {"value": model}}], "targets": [{"modelRewrite": target}]}])
}

/// What the command prints for the same resources; `None` if it refuses any.
fn printed(objects: &[Value], deployment: &str) -> Option<String> {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    for object in objects {
        writeln!(file, "---\n{object}").unwrap();
    }
    let file = file.path().to_str().unwrap();
    let arguments = ["command", "istio", "--make-services", "--deployment", deployment, file];
    let mut findings = Findings::default();
    let text = command::text(&Arguments::parse_from(arguments).command, &mut findings).unwrap();
    (!findings.has_errors()).then_some(text)
}

const NAMESPACES: [&str; 3] = ["a", "b", "models"];
const NAMES: [&str; 4] = ["chat", "batch", "qwen-3", "on"];

fn any_place() -> impl Strategy<Value = (&'static str, &'static str)> {
    (prop::sample::select(&NAMESPACES[..]), prop::sample::select(&NAMES[..]))
}

fn any_object() -> impl Strategy<Value = Value> {
    let group = prop::sample::select(vec!["llm-d.ai", "inference.networking.x-k8s.io"]);
    let target = (prop::sample::select(&NAMES[..]), prop::option::of(-1..100_i64));
    let targets = prop::collection::vec(target, 0..3).prop_map(|targets| {
        let target = |(name, weight): (&str, Option<i64>)| json!({"modelRewrite": name, "weight": weight});
        targets.into_iter().map(target).collect::<Value>()
    });
    let names = || prop::sample::select(&NAMES[..]);
    prop_oneof![
        3 => (any_place(), names(), prop::collection::vec(1..9_u16, 0..4), any::<bool>()).prop_map(
            |(place, app, ports, picker)| {
                let ports: Value = ports.into_iter().map(|number| json!({"number": number})).collect();
                let mut spec = json!({"selector": {"matchLabels": {"app": app, "role": "x"}}, "targetPorts": ports});
                if picker {
                    spec["endpointPickerRef"] = json!({"name": "epp"});
                }
                object("inference.networking.k8s.io/v1", "InferencePool", place, &spec)
            }
        ),
        2 => (any_place(), names()).prop_map(|(place, app)| {
            let spec = json!({"selector": {"app": app}, "targetPortNumber": 8000});
            object("inference.networking.x-k8s.io/v1alpha2", "InferencePool", place, &spec)
        }),
        3 => (any_place(), group.clone(), names(), names(), any::<bool>(), targets).prop_map(
            |(place, group, pool, model, generic, targets)| {
                let mut rule = json!({"targets": targets});
                if !generic {
                    rule["matches"] = json!([{"model": {"value": model}}]);
                }
                let spec = json!({"poolRef": {"name": pool}, "rules": [rule]});
                object(&format!("{group}/v1alpha2"), "InferenceModelRewrite", place, &spec)
            }
        ),
        2 => (any_place(), group, names(), any::<i32>()).prop_map(|(place, group, pool, priority)| {
            let spec = json!({"poolRef": {"name": pool}, "priority": priority});
            object(&format!("{group}/v1alpha2"), "InferenceObjective", place, &spec)
        }),
        1 => (any_place(), names()).prop_map(|(place, app)| {
            let spec = json!({"selector": {"app": app}, "ports": [{"port": 80, "targetPort": 8000}]});
            object("v1", "Service", place, &spec)
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn the_command_and_the_controller_give_the_same_bytes(
        objects in prop::collection::vec(any_object(), 1..12),
        deployment in prop::sample::select(&DEPLOYMENTS[..]),
    ) {
        // As in a cluster, of each resource there is one.
        let mut places = std::collections::HashSet::new();
        let key = |object: &Value| format!("{}{}{}", object["apiVersion"], object["kind"], object["metadata"]);
        let mut objects: Vec<Value> = objects.into_iter().filter(|object| places.insert(key(object))).collect();
        let plan = planned(&objects, &mut LastGood::default(), deployment);
        // What the controller leaves out the command refuses.
        let refused = |object: &Value| plan.findings.iter().any(|finding| {
            finding.severity == Severity::Error && finding.resource.as_ref().is_some_and(|key| {
                object["kind"] == key.kind.as_str() && object["apiVersion"] == key.api_version.as_str()
                    && object["metadata"]["name"] == key.name.as_str()
                    && object["metadata"]["namespace"] == key.namespace.as_str()
            })
        });
        let all = objects.len();
        objects.retain(|object| !refused(object));
        if objects.len() < all {
            let whole = planned(&objects, &mut LastGood::default(), deployment);
            prop_assert_eq!(&whole.texts, &plan.texts, "leaving out is as not having");
        }
        objects.reverse();
        prop_assert_eq!(printed(&objects, deployment), plan.texts.first().cloned());
    }
}

#[test]
fn a_resource_that_becomes_wrong_counts_as_it_was_until_it_is_right_again_or_gone() {
    let mut last_good = LastGood::default();
    let pool = pool("default", "p", "a");
    let good = [pool.clone(), rewrite("default", "r", "p", &rule("m", "first-target"))];
    let before = planned(&good, &mut last_good, "wasm-plugin");
    let bad_weight = json!([{"targets": [{"modelRewrite": "x", "weight": -1}]}]);
    let bad = [pool.clone(), rewrite("default", "r", "p", &bad_weight)];
    for _ in 0..2 {
        let after = planned(&bad, &mut last_good, "wasm-plugin");
        assert_eq!(after.texts, before.texts);
        let said: Vec<_> = after.findings.iter().map(|finding| finding.problem.as_str()).collect();
        assert!(said.iter().any(|said| said.starts_with("spec.rules[0].targets[0].weight: -1")), "{said:?}");
    }
    let gone = planned(&[pool], &mut last_good, "wasm-plugin");
    assert!(!gone.texts[0].contains("first-target"));
    assert_ne!(planned(&bad, &mut last_good, "wasm-plugin").texts, before.texts, "what is gone is forgotten");
}

/// What a controller knows that has just been started, from what the one before it has written.
fn started_anew(last_good: &LastGood) -> LastGood {
    let mut read = LastGood::default();
    last_good.texts().iter().for_each(|(namespace, text)| read.read(namespace, text));
    read
}

#[test]
fn what_was_last_good_is_known_to_a_controller_that_has_just_been_started() {
    let mut last_good = LastGood::default();
    let pool = pool("default", "p", "a");
    let good = [pool.clone(), rewrite("default", "r", "p", &rule("m", "first-target"))];
    let before = planned(&good, &mut last_good, "wasm-plugin");
    let bad_weight = json!([{"targets": [{"modelRewrite": "x", "weight": -1}]}]);
    let bad = [pool, rewrite("default", "r", "p", &bad_weight)];
    // Whoever knew it saw the mistake, or was gone by then; and the one after the next knows it as well.
    let mut not_seen = started_anew(&last_good);
    planned(&bad, &mut last_good, "wasm-plugin");
    let mut seen = started_anew(&started_anew(&last_good));
    for last_good in [&mut not_seen, &mut seen] {
        assert_eq!(planned(&bad, last_good, "wasm-plugin").texts, before.texts);
    }
    let nobody = planned(&bad, &mut LastGood::default(), "wasm-plugin");
    assert!(!nobody.texts[0].contains("first-target"), "without it, the mistake would count");
}

#[test]
fn a_rewrite_follows_changes_while_its_pool_is_wrong() {
    let mut last_good = LastGood::default();
    let good = pool("default", "p", "a");
    let before = [good.clone(), rewrite("default", "r", "p", &rule("m", "first-target"))];
    planned(&before, &mut last_good, "wasm-plugin");
    let second = rewrite("default", "r", "p", &rule("m", "second-target"));
    let mut wrong = good.clone();
    wrong["spec"]["targetPorts"] = json!([{"number": 0}]);
    let plan = planned(&[wrong, second.clone()], &mut last_good, "wasm-plugin");
    assert_eq!(plan.texts, planned(&[good, second], &mut LastGood::default(), "wasm-plugin").texts);
    let said: Vec<_> = plan.findings.iter().map(|finding| finding.problem.as_str()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(said[0].starts_with("spec.targetPorts[0].number: "), "{said:?}");
    assert_eq!(said[1], "spec: counts as it was when it was last right");
}

#[test]
fn what_was_last_good_belongs_to_a_resource_and_its_namespace_and_is_bounded() {
    let with_uid = |mut object: Value, uid: &str| {
        object["metadata"]["uid"] = json!(uid);
        object
    };
    let mut last_good = LastGood::default();
    let good = pool("default", "p", "a");
    let first = rewrite("default", "r", "p", &rule("m", "first-target"));
    planned(&[good.clone(), with_uid(first, "one")], &mut last_good, "wasm-plugin");
    let bad = rewrite("default", "r", "p", &json!([{"targets": [{"modelRewrite": "x", "weight": -1}]}]));
    let anew = planned(&[good, with_uid(bad, "two")], &mut last_good, "wasm-plugin");
    assert!(!anew.texts[0].contains("first-target"), "one of the same name that was made anew is another");
    // A text that somebody has spoilt.
    let text = last_good.texts().remove("default").unwrap();
    let mut read = LastGood::default();
    read.read("other", &text);
    read.read("default", "nonsense\n{\n[1]\n{\"kind\": 1}\n");
    assert!(read.texts().is_empty(), "{read:?}");
    let many: Vec<Value> = (0..10_000)
        .map(|index| rewrite("hostile", &format!("r{index}"), "q", &rule(&format!("m{index}"), "t")))
        .chain([pool("hostile", "q", "a"), pool("own", "p", "a")])
        .collect();
    let mut last_good = LastGood::default();
    last_good.learn(&resources(&many), &[]);
    let texts = last_good.texts();
    assert!(texts["hostile"].len() < 1_000_000 && texts["own"].contains("InferencePool"));
}

#[test]
fn without_pools_there_should_be_nothing_and_where_all_are_wrong_nothing_is_deleted() {
    let nothing = planned(&[], &mut LastGood::default(), "wasm-plugin");
    assert!(nothing.is_whole && nothing.texts.is_empty());
    let alone = planned(&[rewrite("a", "r", "p", &rule("m", "t"))], &mut LastGood::default(), "wasm-plugin");
    assert!(alone.is_whole && alone.texts.is_empty());
    assert!(alone.findings.iter().any(|finding| finding.problem.starts_with("spec.poolRef")), "{alone:?}");
    let mut wrong = pool("default", "p", "a");
    wrong["spec"]["targetPorts"] = json!([{"number": 0}]);
    let unknown = planned(&[wrong], &mut LastGood::default(), "wasm-plugin");
    assert!(!unknown.is_whole && unknown.texts.is_empty());
}

/// What the resources of one namespace's owner make of a cluster in which another namespace has a pool and a rewrite.
fn beside(hostile: Vec<Value>) -> (String, String) {
    let own = vec![pool("own", "p", "a"), rewrite("own", "r", "p", &rule("m", "t"))];
    let alone = planned(&own, &mut LastGood::default(), "wasm-plugin");
    let beside = planned(&[own, hostile].concat(), &mut LastGood::default(), "wasm-plugin");
    (alone.texts.concat(), beside.texts.concat())
}

/// Every line that has something of the namespace `own` is there.
#[track_caller]
fn check_unchanged(hostile: Vec<Value>) {
    let (alone, beside) = beside(hostile);
    let mut lines = beside.lines();
    assert!(beside.len() < 1_500_000, "the API server would refuse {} bytes", beside.len());
    for line in alone.lines() {
        assert!(lines.any(|there| there == line), "{line} is missing");
    }
}

#[test]
fn a_hostile_owner_of_a_namespace_changes_nothing_of_another() {
    let long = "n".repeat(253);
    check_unchanged(vec![pool("hostile", &long, "a"), rewrite("hostile", &long, &long, &rule(&long, &long))]);
    check_unchanged(
        (0..10_000).map(|index| rewrite("hostile", &format!("r{index}"), "q", &rule("m", "t"))).collect(),
    );
    let flood = (0..10_000)
        .map(|index| rewrite("hostile", &format!("r{index}"), "q", &rule(&format!("m{index}"), "t")));
    check_unchanged(std::iter::once(pool("hostile", "q", "a")).chain(flood).collect());
    check_unchanged((0..1_000).map(|index| pool("hostile", &format!("q{index}"), "a")).collect());
    let targets: Value = (0..100_000).map(|index| json!({"modelRewrite": format!("t{index}")})).collect();
    check_unchanged(vec![
        pool("hostile", "q", "a"),
        rewrite("hostile", "r", "q", &json!([{"targets": targets}])),
    ]);
    // The same name as another's pool, and another namespace's Service by a label with dots.
    let mut same_name = pool("hostile", "p", "a");
    same_name["metadata"]["creationTimestamp"] = json!("2026-11-02T00:00:00Z");
    check_unchanged(vec![same_name]);
    let spec = json!({"selector": {"app": "p-ip-148de9c5.own.svc.cluster.local"}, "targetPortNumber": 54321});
    let (_, text) = beside(vec![object(
        "inference.networking.x-k8s.io/v1alpha2",
        "InferencePool",
        ("hostile", "q"),
        &spec,
    )]);
    assert_eq!(text.matches("cluster: outbound|").filter(|_| true).count(), 2);
    assert!(text.contains("q-ip-") && text.matches("||p-ip-148de9c5.own.").count() == 1, "{text}");
    // References do not lead out of a namespace.
    check_unchanged(vec![rewrite("hostile", "r", "p", &rule("m", "stolen"))]);
    let nested = (0..100).fold(json!("x"), |inner, _| json!({"a": inner}));
    check_unchanged(vec![object("llm-d.ai/v1alpha2", "InferenceModelRewrite", ("hostile", "r"), &nested)]);
}

#[test]
fn a_gateway_is_configured_in_the_way_that_its_annotation_says() {
    let gateway = |namespace: &str, deployment: &str| {
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway", "metadata": {"name": "inference",
            "namespace": namespace, "annotations": {"inference-picker/deployment": deployment}}})
    };
    let objects = [pool("own", "p", "p"), gateway("own", "envoy-filter"), gateway("other", "nonsense")];
    let plan = planned(&objects, &mut LastGood::default(), "wasm-plugin");
    assert_eq!(plan.texts.len(), 2, "that of the arguments, and that with an annotation that says something");
    assert!(plan.texts[0].contains("kind: WasmPlugin") && plan.texts[0].contains("namespace: istio-system"));
    assert!(
        plan.texts[1].contains("name: inference-picker-inference\n  namespace: own"),
        "{}",
        plan.texts[1]
    );
    assert!(!plan.texts[1].contains("kind: WasmPlugin"));
}

const PREFILL: &str = "inference-picker/prefill";

fn with_roles(mut pool: Value, value: &Value) -> Value {
    pool["metadata"]["annotations"] = json!({PREFILL: value});
    pool
}

/// The resources of this kind, as they are to be.
fn of_kind(plan: &Plan, kind: &str) -> Vec<Value> {
    let documents = plan.texts.iter().flat_map(|text| text.split("---\n"));
    let documents = documents.map(|document| serde_saphyr::from_str::<Value>(document).unwrap());
    documents.filter(|document| document["kind"] == kind).collect()
}

fn by_role() -> Value {
    with_roles(pool("a", "chat", "vllm"), &json!("by-role"))
}

#[test]
fn pods_that_have_the_role_compute_the_prompts_of_their_pool() {
    let plan = planned(&[by_role()], &mut LastGood::default(), "wasm-plugin");
    assert!(plan.is_whole, "{:?}", plan.findings);
    let [service] = &of_kind(&plan, "Service")[..] else { panic!("{:?}", plan.texts) };
    assert_eq!(service["spec"]["selector"], json!({"app": "vllm", "llm-d.ai/role": "prefill"}));
    let name = service["metadata"]["name"].as_str().unwrap();
    let [plugin] = &of_kind(&plan, "WasmPlugin")[..] else { panic!("{:?}", plan.texts) };
    let pools = &plugin["spec"]["pluginConfig"]["pools"];
    assert_eq!(pools[0]["name"], "chat");
    assert_eq!(pools[0]["prefill"], json!({"pool": "chat-prefill"}));
    assert_eq!(pools[1]["name"], "chat-prefill");
    assert_eq!(pools[1]["cluster"], format!("outbound|54321||{name}.a.svc.cluster.local"));
    // What was made is among the resources the next time, and nobody else's.
    let again = planned(&[by_role(), service.clone()], &mut LastGood::default(), "wasm-plugin");
    assert_eq!(again.texts, plan.texts);
}

#[test]
fn who_selects_the_pods_that_compute_prompts_already_is_left_as_it_is() {
    let spec = json!({"selector": {"app": "vllm", "llm-d.ai/role": "prefill"}, "ports": [{"port": 80, "targetPort": 8000}]});
    let service = object("v1", "Service", ("a", "computes"), &spec);
    let plan = planned(&[by_role(), service], &mut LastGood::default(), "wasm-plugin");
    assert_eq!(of_kind(&plan, "Service"), [] as [Value; 0]);
    let plugins = of_kind(&plan, "WasmPlugin");
    assert_eq!(
        plugins[0]["spec"]["pluginConfig"]["pools"][1]["cluster"],
        "outbound|80||computes.a.svc.cluster.local"
    );
}

#[test]
fn roles_that_are_not_right_are_refused_by_the_annotation() {
    let check = |objects: &[Value], problem: &str| {
        let plan = planned(objects, &mut LastGood::default(), "wasm-plugin");
        let is_it = |finding: &&inference_picker_config::findings::Finding| {
            finding.severity == Severity::Error && finding.problem.contains(problem)
        };
        assert!(plan.findings.iter().any(|finding| is_it(&finding)), "{:?}", plan.findings);
    };
    for value in [json!("by-name"), json!(""), json!(true), json!({"by": "role"})] {
        check(
            &[with_roles(pool("a", "chat", "vllm"), &value)],
            "metadata.annotations['inference-picker/prefill']",
        );
    }
    check(&[by_role(), pool("a", "chat-prefill", "other")], "needs the name `chat-prefill`");
}
