//! What is refused, warned of and passed over, each with the words that say where it is.

use inference_picker::config::{Config, Criticality};

use super::{run, run_in, run_with_input};

/// A pool that is right.
const POOL: &str = "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferencePool
metadata: {name: pool}
spec: {targetPortNumber: 8000, selector: {app: pool}}
---
";

/// Asserts that a document, with a pool before it, is refused with this line.
fn refused(document: &str, line: &str) {
    said(false, &format!("{POOL}{document}"), &format!("error: -: {line}"));
}

/// Asserts that it is taken, with this warning.
fn warned(document: &str, line: &str) {
    said(true, &format!("{POOL}{document}"), &format!("warning: -: {line}"));
}

fn said(succeeds: bool, documents: &str, line: &str) {
    let run = run_with_input(&["check", "-"], documents);
    assert_eq!(run.succeeded, succeeds, "{documents}{}", run.messages);
    assert!(
        run.messages.lines().any(|said| said.starts_with(line)),
        "{documents}{}\nwanted: {line}",
        run.messages
    );
    assert_eq!(run.printed.is_empty(), !succeeds, "nothing is printed of what is refused");
}

fn pool(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: inference.networking.x-k8s.io/v1alpha2, kind: InferencePool, metadata: {{name: {name}}}, \
         spec: {spec}}}\n---\n"
    )
}

fn stable_pool(name: &str, spec: &str) -> String {
    pool(name, spec).replace("x-k8s.io/v1alpha2", "k8s.io/v1")
}

fn resource(kind: &str, name: &str, spec: &str) -> String {
    pool(name, spec).replace("InferencePool", kind)
}

fn model(name: &str, spec: &str) -> String {
    resource("InferenceModel", name, spec)
}

fn route(spec: &str) -> String {
    format!(
        "{{apiVersion: istio.alibabacloud.com/v1, kind: LLMRoute, metadata: {{name: r}}, spec: {spec}}}\n---\n"
    )
}

#[test]
fn a_pool_that_is_not_right_is_refused_by_field_path() {
    let pool_p = "InferencePool default/p: ";
    for (spec, line) in [
        ("{selector: {app: a}}", "spec: missing field `targetPortNumber`"),
        ("{targetPortNumber: 8000}", "spec: missing field `selector`"),
        ("{targetPortNumber: 0, selector: {app: a}}", "spec.targetPortNumber: 0 is not a port"),
        ("{targetPortNumber: 70000, selector: {app: a}}", "spec.targetPortNumber: invalid value"),
        ("{targetPortNumber: http, selector: {app: a}}", "spec.targetPortNumber: invalid type"),
        ("{targetPortNumber: 1, selector: {app: 7}}", "spec.selector.app: invalid type"),
        ("{targetPortNumber: 1, selector: {role: a}}", "spec.selector: has no label `app`"),
        ("{targetPortNumber: 1, selector: {app: a}, port: 1}", "spec.port: unknown field `port`"),
        ("{targetPortNumber: 1, selector: {app: pool}}", "spec.selector: leads to the cluster `outbound|"),
    ] {
        // The last one has the port of the pool before it.
        let spec = spec.replace("1, selector: {app: pool}", "8000, selector: {app: pool}");
        refused(&pool("p", &spec), &format!("{pool_p}{line}"));
    }
    refused(
        &stable_pool("p", "{selector: {app: a}, targetPorts: []}"),
        "InferencePool default/p: spec.selector.app:",
    );
    let without_ports = stable_pool("p", "{selector: {matchLabels: {app: a}}, targetPorts: []}");
    refused(&without_ports, "InferencePool default/p: spec.targetPorts: has no port");
    let of_port_zero = stable_pool("p", "{selector: {matchLabels: {app: a}}, targetPorts: [{number: 0}]}");
    refused(&of_port_zero, "InferencePool default/p: spec.targetPorts[0].number: 0 is not a port");
}

#[test]
fn pools_that_the_plugin_cannot_tell_apart_are_refused() {
    let again = pool("pool", "{targetPortNumber: 8000, selector: {app: b}}");
    refused(&again, "InferencePool default/pool: metadata.name: is there twice, before in -");
    let elsewhere = again.replace("name: pool}", "name: pool, namespace: b}");
    refused(
        &elsewhere,
        "InferencePool b/pool: metadata.name: the plugin's pools have no namespace, and -: InferencePool",
    );
}

#[test]
fn a_routing_strategy_is_what_the_plugin_says_it_is() {
    let strategies =
        ["DEFAULT", "PREFIX_CACHE", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "BEST", "default", ""];
    let known = strategies.map(|strategy| {
        let document =
            format!(r#"{{"pools":[{{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"],"routingStrategy":"{strategy}"}}]}}"#);
        Config::parse(document.as_bytes()).is_ok()
    });
    for (strategy, known) in strategies.into_iter().zip(known) {
        let annotation = "inference.networking.x-k8s.io/routing-strategy";
        let metadata = format!("{{name: p, annotations: {{{annotation}: \"{strategy}\"}}}}");
        let document = pool("p", "{targetPortNumber: 1, selector: {app: a}}").replace("{name: p}", &metadata);
        if known {
            warned(
                &document,
                "InferencePool default/p: spec.selector: Istio makes a pool's cluster of the Service `a` if",
            );
        } else {
            let line = format!(
                "InferencePool default/p: metadata.annotations['{annotation}']: unknown variant `{strategy}`"
            );
            refused(&document, &line);
        }
    }
    assert_eq!(known, [true, true, true, true, true, false, false, false]);
}

#[test]
fn a_model_that_is_not_right_is_refused_by_field_path() {
    let spec = |fields: &str| model("m", &format!("{{modelName: x, poolRef: {{name: pool}}, {fields}}}"));
    for (document, line) in [
        (model("m", "{poolRef: {name: pool}}"), "spec: missing field `modelName`"),
        (model("m", "{modelName: '', poolRef: {name: pool}}"), "spec.modelName: must not be empty"),
        (model("m", "{modelName: x}"), "spec: missing field `poolRef`"),
        (
            model("m", "{modelName: x, poolRef: {name: q}}"),
            "spec.poolRef.name: there is no InferencePool `q`",
        ),
        (
            model("m", "{modelName: x, poolRef: {name: pool, kind: Service}}"),
            "spec.poolRef.kind: `Service` is not",
        ),
        (spec("criticality: Important"), "spec.criticality: unknown variant `Important`"),
        (spec("targetModels: []"), "spec.targetModels: 0 is not between 1"),
        (spec("targetModels: [{name: a, weight: 0}]"), "spec.targetModels: the weights add up to zero"),
        (spec("targetModels: [{name: a, weight: 1}, {name: b}]"), "spec.targetModels[1].weight: is missing"),
        (spec("targetModels: [{name: a, weight: -1}]"), "spec.targetModels[0].weight: -1 is not between"),
        (spec("targetModels: [{name: a, weight: '1'}]"), "spec.targetModels[0].weight: invalid type"),
        (spec("targetModels: [{name: a}, {name: a}]"), "spec.targetModels[1].name: `a` is there twice"),
        (spec("target: a"), "spec.target: unknown field `target`"),
    ] {
        refused(&document, &format!("InferenceModel default/m: {line}"));
    }
}

#[test]
fn the_first_word_for_standard_is_understood() {
    let documents =
        format!("{POOL}{}", model("m", "{modelName: x, poolRef: {name: pool}, criticality: Default}"));
    let run = run_with_input(&["plugin", "-"], &documents.replace("v1alpha2", "v1alpha1"));
    assert!(run.printed.contains(r#""criticality": "Standard""#), "{}{}", run.printed, run.messages);
}

#[test]
fn a_model_sees_the_pools_of_its_own_namespace_only() {
    let elsewhere =
        model("m", "{modelName: x, poolRef: {name: pool}}").replace("{name: m}", "{name: m, namespace: b}");
    refused(
        &elsewhere,
        "InferenceModel b/m: spec.poolRef.name: there is no InferencePool `pool` in namespace `b`",
    );
}

#[test]
fn a_model_is_published_once_for_a_pool() {
    let one = model("m", "{modelName: x, poolRef: {name: pool}}");
    let line = "spec.modelName: the model `x` is published twice for the pool `pool`, also by -: InferenceModel default/m";
    refused(
        &format!("{one}{}", one.replace("name: m}", "name: n}")),
        &format!("InferenceModel default/n: {line}"),
    );
    let rewrite = resource(
        "InferenceModelRewrite",
        "r",
        "{poolRef: {name: pool}, rules: [{matches: [{model: {value: y}}, {model: {value: x}}], targets: [{modelRewrite: z}]}]}",
    );
    refused(
        &format!("{one}{rewrite}"),
        "InferenceModelRewrite default/r: spec.rules[0].matches[1].model.value: the model `x` is published twice",
    );
}

#[test]
fn a_model_may_be_in_several_pools() {
    let in_pool = |name: &str, pool: &str, target: &str| {
        let spec = format!("{{modelName: x, poolRef: {{name: {pool}}}, targetModels: [{{name: {target}}}]}}");
        model(name, &spec)
    };
    let canary = pool("canary", "{targetPortNumber: 8000, selector: {app: canary}}");
    let documents = format!("{POOL}{canary}{}{}", in_pool("m", "pool", "a"), in_pool("n", "canary", "b"));
    let run = run_with_input(&["check", "-"], &documents);
    assert_eq!((run.succeeded, run.printed.as_str()), (true, "pools: 2, models: 2\n"), "{}", run.messages);
    let objective = resource("InferenceObjective", "x", "{poolRef: {name: canary}, priority: -1}");
    let run = run_with_input(&["plugin", "-"], &format!("{documents}{objective}"));
    let config = Config::parse(run.printed.as_bytes()).unwrap();
    let criticalities: Vec<_> = config.models.iter().map(|model| (model.pool, model.criticality)).collect();
    assert_eq!(criticalities, [(0, Criticality::Standard), (1, Criticality::Sheddable)], "of its own pool's");
}

#[test]
fn everything_that_is_wrong_is_told_at_once() {
    let documents = format!(
        "{}{}{}",
        pool("p", "{targetPortNumber: 1, selector: {app: a}}").replace(
            "{name: p}",
            "{name: p, annotations: {inference.networking.x-k8s.io/routing-strategy: BEST}}"
        ),
        model("m", "{modelName: x, poolRef: {name: pool}, criticality: High}"),
        model("n", "{modelName: y, poolRef: {name: pool}, targetModels: [{name: a, weight: -1}]}"),
    );
    let run = run_with_input(&["check", "-"], &documents);
    let errors = run.messages.lines().filter(|line| line.starts_with("error: ")).count();
    assert_eq!(errors, 5, "one of each resource, and the pool that is missing twice: {}", run.messages);
}

#[test]
fn a_rewrite_that_is_not_right_is_refused_by_field_path() {
    let rule = |rule: &str| {
        resource("InferenceModelRewrite", "r", &format!("{{poolRef: {{name: pool}}, rules: [{rule}]}}"))
    };
    for (document, line) in [
        (
            rule("{targets: [{modelRewrite: a}]}"),
            "spec.rules[0].matches: is empty, so that the rule is for every model",
        ),
        (
            rule("{matches: [{model: {type: Regex, value: a}}]}"),
            "spec.rules[0].matches[0].model.type: unknown variant",
        ),
        (rule("{matches: [{model: {}}]}"), "spec.rules[0].matches[0].model: missing field `value`"),
        (rule("{matches: [{headers: {}}]}"), "spec.rules[0].matches[0].headers: unknown field"),
        (
            rule("{matches: [{model: {value: ''}}]}"),
            "spec.rules[0].matches[0].model.value: must not be empty",
        ),
        (rule("{matches: [{model: {value: a}}], targets: []}"), "spec.rules[0].targets: 0 is not between"),
        (
            rule("{matches: [{model: {value: a}}], targets: [{modelRewrite: b, weight: 2000000}]}"),
            "spec.rules[0].targets[0].weight: 2000000 is not between",
        ),
        (
            rule("{matches: [{model: {value: a}}], targets: [{modelRewrite: b}, {modelRewrite: b}]}"),
            "spec.rules[0].targets[1].modelRewrite: `b` is there twice",
        ),
        (
            resource(
                "InferenceModelRewrite",
                "r",
                "{poolRef: {name: q}, rules: [{matches: [{model: {value: a}}]}]}",
            ),
            "spec.poolRef.name: there is no InferencePool `q`",
        ),
    ] {
        refused(&document, &format!("InferenceModelRewrite default/r: {line}"));
    }
}

#[test]
fn of_two_rules_for_one_model_the_first_counts() {
    let rule = "{matches: [{model: {value: a}}]}";
    let document = resource(
        "InferenceModelRewrite",
        "r",
        &format!("{{poolRef: {{name: pool}}, rules: [{rule}, {rule}]}}"),
    );
    warned(
        &document,
        "InferenceModelRewrite default/r: spec.rules[1].matches[0].model.value: an earlier rule is for `a` too",
    );
}

#[test]
fn an_objective_tells_the_criticality_of_the_model_of_its_name() {
    let objective = |spec: &str| resource("InferenceObjective", "chat", spec);
    for (priority, criticality) in
        [("2147483647", "Critical"), ("1", "Critical"), ("0", "Standard"), ("-1", "Sheddable")]
    {
        let model = model("m", "{modelName: chat, poolRef: {name: pool}}");
        let documents = format!(
            "{POOL}{model}{}",
            objective(&format!("{{priority: {priority}, poolRef: {{name: pool}}}}"))
        );
        let run = run_with_input(&["plugin", "-"], &documents);
        assert!(
            run.printed.contains(&format!("\"criticality\": \"{criticality}\"")),
            "{}{}",
            run.printed,
            run.messages
        );
    }
    let document = objective("{poolRef: {name: pool}}");
    warned(&document, "InferenceObjective default/chat: metadata.name: is taken as the name of a model");
    let model = model("m", "{modelName: chat, criticality: Sheddable, poolRef: {name: pool}}");
    let document = format!("{model}{}", objective("{priority: 5, poolRef: {name: pool}}"));
    warned(&document, "InferenceObjective default/chat: spec.priority: its InferenceModel says Sheddable");
    refused(
        &objective("{priority: high, poolRef: {name: pool}}"),
        "InferenceObjective default/chat: spec.priority: invalid",
    );
    refused(
        &objective("{priority: 1, poolRef: {name: q}}"),
        "InferenceObjective default/chat: spec.poolRef.name: there is no",
    );
}

#[test]
fn a_route_that_leads_to_no_pool_is_refused() {
    let line = "LLMRoute default/r: spec.rules[0].backendRefs[0].backendRef: ";
    let to = |reference: &str| route(&format!("{{host: a, rules: [{{backendRefs: [{reference}]}}]}}"));
    refused(
        &to("{backendRef: {kind: InferencePool, name: q}}"),
        &format!("{line}there is no InferencePool `q` in"),
    );
    refused(
        &to("{backendRef: {name: pool, namespace: b}}"),
        &format!("{line}there is no InferencePool `pool` in namespace `b`"),
    );
    refused(
        &to("{backendRef: {kind: Service, name: pool}}"),
        &format!("{line}`Service` is not InferencePool"),
    );
    refused(&to("{weight: 1}"), &format!("{line}is missing"));
    refused(&route("{rules: []}"), "LLMRoute default/r: spec: missing field `host`");
}

#[test]
fn what_says_nothing_here_is_passed_over_with_a_line() {
    let service = "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: b}}";
    said(true, &format!("{POOL}{service}"), "passed over: -: Service b/s (v1)");
    let outside = route("{host: a, rules: [{backendRefs: [{providerHost: api.example.com}]}]}");
    said(
        true,
        &format!("{POOL}{outside}"),
        "passed over: -: LLMRoute default/r (it leads to a provider outside)",
    );
}

#[test]
fn what_is_no_resource_is_refused() {
    let fragment = run("check alibaba/asm-pool.yaml alibaba/asm-model-canary-fragment.yaml");
    assert!(!fragment.succeeded);
    let line = "error: alibaba/asm-model-canary-fragment.yaml: a document: is not a Kubernetes resource: missing field `kind`";
    assert!(fragment.messages.contains(line), "{}", fragment.messages);
    let prometheus = run("check alibaba/asm-pool.yaml alibaba/asm-prometheus-fragment.yaml");
    assert!(
        !prometheus.succeeded && prometheus.messages.contains("missing field `kind`"),
        "{}",
        prometheus.messages
    );
    refused("kind: 7", "kind: is not a Kubernetes resource: invalid type");
    refused("- a", "a document: is not a Kubernetes resource: invalid");
}

#[test]
fn a_version_that_is_not_known_is_refused() {
    let pool = pool("p", "{}").replace("v1alpha2", "v2");
    refused(
        &pool,
        "InferencePool default/p: apiVersion: `inference.networking.x-k8s.io/v2` is not a version",
    );
}

#[test]
fn without_a_pool_there_is_nothing_to_configure() {
    said(false, "{apiVersion: v1, kind: Service}", "error: resources: InferencePool: there is none");
}

#[test]
fn names_that_look_like_booleans_are_names() {
    said(
        true,
        &pool("on", "{targetPortNumber: 1, selector: {app: n}}"),
        "warning: -: InferencePool default/on: ",
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    for (arguments, message) in
        [(["check", "missing.yaml"], "error: missing.yaml: No such file"), (["check", "."], "error: ")]
    {
        let folder = tempfile::tempdir().unwrap();
        let run = run_in(folder.path(), &arguments, "");
        assert!(!run.succeeded && run.messages.starts_with(message), "{}", run.messages);
    }
    let run = run_with_input(&["check", "-"], "a: [");
    assert!(
        !run.succeeded && run.messages.starts_with("error: -: cannot be read as YAML"),
        "{}",
        run.messages
    );
}

#[test]
fn a_document_without_end_is_refused() {
    let aliases =
        |level: usize| format!("l{level}: &l{level} [{}]\n", format!("*l{}, ", level - 1).repeat(20));
    let billions = format!("l0: &l0 [x]\n{}", (1..12).map(aliases).collect::<String>());
    for document in ["[".repeat(100_000), "a: ".repeat(100_000), billions] {
        let run = run_with_input(&["check", "-"], &document);
        assert!(
            !run.succeeded && run.messages.starts_with("error: -: cannot be read as YAML"),
            "{}",
            run.messages
        );
    }
}

#[test]
fn a_folder_is_its_yaml_and_json_files() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("a.yaml", &pool("a", "{targetPortNumber: 1, selector: {app: a}}"));
    write("b.yml", &model("m", "{modelName: x, poolRef: {name: a}}"));
    write("c.json", r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"}}"#);
    write("notes.md", "not: [yaml");
    let run = run_in(folder.path(), &["check", "."], "");
    assert!(run.succeeded, "{}", run.messages);
    assert_eq!(run.printed, "pools: 1, models: 1\n");
    assert!(run.messages.contains("passed over: ./c.json: Service default/s (v1)"), "{}", run.messages);
}

#[test]
fn settings_that_are_not_right_are_refused_by_field_path() {
    for (settings, line) in [
        ("queue: {maxWait: 2}", "error: settings: queue.maxWait: invalid type"),
        ("queue: {length: 2}", "error: settings: queue.length: unknown field"),
        ("scrapeInterval: 1ms", "error: settings: scrapeInterval: 1ms is not between"),
        ("surprise: 1", "error: settings: surprise: unknown field"),
        ("pickTo: header", "error: settings: pickTo: is decided by"),
        ("pools: [{name: p, cluster: c}]", "error: settings: pools[0].cluster: is decided by"),
        ("pools: [{name: q}]", "error: settings: pools[0].name: there is no InferencePool `q`"),
        ("pools: [{name: p, modelServer: x}]", "error: settings: pools[0].modelServer: unknown variant `x`"),
        (
            "pools: [{name: p, saturation: {queueDepth: 0}}]",
            "error: settings: pools[0].saturation.queueDepth: must be",
        ),
        ("pools: [{}]", "error: settings: pools[0]: missing field `name`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("settings"), settings).unwrap();
        let pool = pool("p", "{targetPortNumber: 1, selector: {app: a}}");
        let run = run_in(folder.path(), &["check", "-", "--settings", "settings"], &pool);
        assert!(!run.succeeded, "{settings}");
        assert!(
            run.messages.lines().any(|said| said.starts_with(line)),
            "{settings}: {}\nwanted: {line}",
            run.messages
        );
    }
}

#[test]
fn options_that_are_not_right_are_refused() {
    for (arguments, message) in [
        ("--service vllm-qwen-pool=qwen", "is not POOL=SERVICE:PORT"),
        ("--service vllm-qwen-pool=qwen:0", "`0` is not a port"),
        ("--service other=qwen:80", "error: --service: other: there is no InferencePool of this name"),
        ("--deployment sidecar", "invalid value 'sidecar'"),
    ] {
        let run = run(&format!("check alibaba/ack-inference.yaml {arguments}"));
        assert!(!run.succeeded && run.messages.contains(message), "{arguments}: {}", run.messages);
    }
    let run = run_with_input(&["check", "alibaba/ack-inference.yaml", "--scrape-cluster", ""], "");
    assert!(run.messages.contains("error: options: scrapeCluster: must not be empty"), "{}", run.messages);
}

#[test]
fn a_guess_at_a_pools_service_is_said() {
    let run = run("check gie/pool-v1.yaml --deployment envoy-filter");
    let line = "spec.selector: the pool's Service is taken to be `vllm-qwen3-32b`";
    assert!(run.succeeded && run.messages.contains(line), "{}", run.messages);
    let run = run_with_input(&["check", "gie/pool-v1.yaml"], "");
    assert_eq!((run.succeeded, run.messages.as_str()), (true, ""), "Istio's own Service is no guess");
}
