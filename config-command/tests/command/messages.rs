//! What is refused, warned of and passed over, each with the words that say where it is.

use inference_picker::config::Config;

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
        ("{targetPortNumber: 1, selector: {role: a}}", "spec.selector: names no Service"),
        ("{targetPortNumber: 1, selector: {app: a.other.svc}}", "spec.selector: names no Service"),
        ("{targetPortNumber: 1, selector: {}}", "spec.selector: has no label"),
    ] {
        refused(&pool("p", spec), &format!("{pool_p}{line}"));
    }
    let of_the_same = pool("q", "{targetPortNumber: 8000, selector: {app: pool}}");
    refused(&of_the_same, "InferencePool default/q: spec.selector: leads to the cluster `outbound|");
    refused(
        &stable_pool("p", "{selector: {app: a}, targetPorts: []}"),
        "InferencePool default/p: spec.selector: missing field `matchLabels`",
    );
    let without_ports = stable_pool("p", "{selector: {matchLabels: {app: a}}, targetPorts: []}");
    refused(&without_ports, "InferencePool default/p: spec.targetPorts: has no port");
    let of_port_zero = stable_pool("p", "{selector: {matchLabels: {app: a}}, targetPorts: [{number: 0}]}");
    refused(&of_port_zero, "InferencePool default/p: spec.targetPorts[0].number: 0 is not a port");
    let ports = (1..=9).map(|number| format!("{{number: {number}}}")).collect::<Vec<_>>().join(", ");
    let of_nine =
        stable_pool("p", &format!("{{selector: {{matchLabels: {{app: a}}}}, targetPorts: [{ports}]}}"));
    refused(&of_nine, "InferencePool default/p: spec.targetPorts: has 9 ports; at most 8 are allowed");
}

#[test]
fn pools_that_the_plugin_cannot_distinguish_are_refused() {
    let again = pool("pool", "{targetPortNumber: 8000, selector: {app: b}}");
    refused(&again, "InferencePool default/pool: metadata.name: is there twice, before in -");
    let elsewhere = again.replace("name: pool}", "name: pool, namespace: b}");
    // Read after `b`, whose name comes first.
    warned(
        &elsewhere,
        "InferencePool default/pool: metadata.name: an older pool in another namespace has this name, so the plugin knows \
         it as `default/pool`",
    );
}

#[test]
fn of_two_pools_with_one_name_the_older_one_keeps_it_and_models_follow_theirs() {
    let model = |namespace: &str| {
        model("m", "{modelName: x, poolRef: {name: pool}}")
            .replace("{name: m}", &format!("{{name: m, namespace: {namespace}}}"))
    };
    let older = POOL.replace("{name: pool}", "{name: pool, creationTimestamp: '2026-01-01T00:00:00Z'}");
    let younger =
        POOL.replace("{name: pool}", "{name: pool, namespace: a, creationTimestamp: '2026-02-01T00:00:00Z'}");
    let documents = format!("{younger}{older}{}{}", model("a"), model("default"));
    let run = run_with_input(&["plugin", "-"], &documents);
    let config = Config::parse(run.printed.as_bytes()).unwrap();
    let names: Vec<_> = config.pools.iter().map(|pool| pool.name.as_str()).collect();
    assert_eq!(names, ["pool", "a/pool"], "{}", run.messages);
    let pools: Vec<_> = config.models.iter().map(|model| model.pool).collect();
    assert_eq!(pools, [1, 0], "each in its own namespace's, in the order of their namespaces");
}

#[test]
fn the_order_of_resources_changes_nothing() {
    let one = model("m", "{modelName: x, poolRef: {name: pool}}");
    let other = pool("q", "{targetPortNumber: 1, selector: {app: q}}");
    let rewrite = resource(
        "InferenceModelRewrite",
        "r",
        "{poolRef: {name: q}, rules: [{targets: [{modelRewrite: z}]}]}",
    );
    let forth = run_with_input(&["istio", "-"], &[POOL, &one, &other, &rewrite].concat());
    let back = run_with_input(&["istio", "-"], &[&rewrite, &other, &one, POOL].concat());
    assert!(forth.succeeded, "{}", forth.messages);
    assert_eq!(forth.printed, back.printed);
}

#[test]
fn a_service_is_found_by_all_labels_of_the_selector() {
    let service = |name: &str, labels: &str, ports: &str| {
        format!(
            "{{apiVersion: v1, kind: Service, metadata: {{name: {name}}}, spec: {{selector: {labels}, ports: [{ports}]}}}}\n---\n"
        )
    };
    let pool = pool("p", "{targetPortNumber: 8000, selector: {role: decode, model: qwen}}");
    let services = [
        service("other", "{role: prefill, model: qwen}", "{port: 80, targetPort: 8000}"),
        service("part", "{role: decode}", "{port: 80, targetPort: 8000}"),
        service(
            "right",
            "{model: qwen, role: decode}",
            "{port: 9, targetPort: 1}, {port: 80, targetPort: 8000}",
        ),
    ];
    let run = run_with_input(&["plugin", "-"], &format!("{pool}{}", services.concat()));
    assert!(
        run.printed.contains("outbound|80||right.default.svc.cluster.local"),
        "{}{}",
        run.printed,
        run.messages
    );
    let elsewhere = services[2].replace("{name: right}", "{name: right, namespace: other}");
    refused(&format!("{pool}{elsewhere}"), "InferencePool default/p: spec.selector: names no Service");
}

#[test]
fn a_pool_without_a_service_gets_one_if_it_is_asked_for() {
    let labels = pool("p", "{targetPortNumber: 8000, selector: {role: decode, model: qwen}}");
    let without_picker = "{selector: {matchLabels: {a: b}}, targetPorts: [{number: 1}, {number: 2}]}";
    let documents = format!("{labels}{}", stable_pool("q", without_picker));
    let run = run_with_input(&["istio", "--make-services", "-"], &documents);
    assert!(run.succeeded, "{}", run.messages);
    for text in ["    name: p-ip-", "      model: qwen\n", "      a: b\n", "port: 54322", "targetPort: 2"] {
        let text = text.trim();
        assert!(run.printed.contains(text), "{text}: {}", run.printed);
    }
    warned(
        &stable_pool("q", without_picker),
        "InferencePool default/q: spec.endpointPickerRef: is missing, so that Istio up to 1.31 makes no Service",
    );
}

#[test]
fn several_ports_are_one_cluster_only_where_istio_has_pools() {
    let ports = stable_pool(
        "p",
        "{selector: {matchLabels: {app: a}}, targetPorts: [{number: 1}, {number: 2}], endpointPickerRef: {}}",
    );
    let run = run_with_input(&["check", "-", "--deployment", "envoy-filter"], &ports);
    let line = "warning: -: InferencePool default/p: spec.targetPorts[1]: counts for nothing";
    assert!(run.messages.contains(line), "{}", run.messages);
    let run = run_with_input(&["check", "-"], &ports);
    assert_eq!((run.succeeded, run.messages.as_str()), (true, ""));
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
    ] {
        refused(&document, &format!("InferenceModel default/m: {line}"));
    }
}

#[test]
fn fields_of_newer_releases_are_warned_of_by_path() {
    let unknown = "is not known here, perhaps of a newer release";
    for (document, path) in [
        (
            pool("p", "{targetPortNumber: 1, selector: {app: a}, port: 1}"),
            "InferencePool default/p: spec.port",
        ),
        (
            stable_pool(
                "p",
                "{selector: {matchLabels: {app: a}, matchExpressions: []}, targetPorts: [{number: 1, name: x}]}",
            ),
            "InferencePool default/p: spec.targetPorts[0].name",
        ),
        (
            model("m", "{modelName: x, poolRef: {name: pool, port: 1}}"),
            "InferenceModel default/m: spec.poolRef.port",
        ),
        (
            resource(
                "InferenceModelRewrite",
                "r",
                "{poolRef: {name: pool}, rules: [{targets: [{modelRewrite: a, until: b}]}]}",
            ),
            "InferenceModelRewrite default/r: spec.rules[0].targets[0].until",
        ),
        (
            resource("InferenceObjective", "o", "{poolRef: {name: pool}, latency: {ttft: 1s}}"),
            "InferenceObjective default/o: spec.latency",
        ),
    ] {
        warned(&document, &format!("{path}: {unknown}"));
    }
}

#[test]
fn a_kind_of_these_groups_that_is_not_known_is_an_error_of_check_alone() {
    for (group, kind) in [
        ("llm-d.ai/v1alpha2", "InferenceSchedule"),
        ("inference.networking.x-k8s.io/v1alpha1", "InferencePoolImport"),
        ("inference.networking.k8s.io/v1", "InferenceQuota"),
    ] {
        let document = format!("{{apiVersion: {group}, kind: {kind}, metadata: {{name: n}}, spec: {{}}}}\n");
        refused(&document, &format!("{kind} default/n: kind: `{kind}` of "));
        let run = run_with_input(&["plugin", "-"], &format!("{POOL}{document}"));
        assert!(run.succeeded && run.messages.contains("not known: -: "), "{}", run.messages);
    }
}

#[test]
fn of_one_resource_in_two_groups_the_newer_one_counts_with_a_note() {
    let old = resource("InferenceObjective", "o", "{poolRef: {name: pool}, priority: 1}");
    let new = old.replace("inference.networking.x-k8s.io", "llm-d.ai").replace("priority: 1", "priority: 2");
    for documents in [format!("{old}{new}"), format!("{new}{old}")] {
        let run = run_with_input(&["plugin", "-"], &format!("{POOL}{documents}"));
        assert!(
            run.printed.contains("\"priority\": 2") && !run.printed.contains("\"priority\": 1"),
            "{}",
            run.printed
        );
        let line = "InferenceObjective default/o: apiVersion: counts for nothing, as llm-d.ai/v1alpha2 has the same name";
        assert!(run.messages.contains(line), "{}", run.messages);
    }
    let old = pool("p", "{targetPortNumber: 1, selector: {app: a}}");
    let new = stable_pool(
        "p",
        "{selector: {matchLabels: {app: b}}, targetPorts: [{number: 1}], endpointPickerRef: {name: e}}",
    );
    let run = run_with_input(&["plugin", "-"], &format!("{old}{new}"));
    assert!(
        run.printed.contains("outbound|54321||p-ip-") && run.succeeded,
        "{}{}",
        run.printed,
        run.messages
    );
}

#[test]
fn a_rule_without_matches_is_its_pools_default_and_the_older_one_counts() {
    let rewrite = |name: &str, created: &str, target: &str| {
        let spec = format!(
            "{{poolRef: {{name: pool}}, rules: [{{targets: [{{modelRewrite: {target}}}]}}, \
             {{matches: [{{model: {{value: a}}}}], targets: [{{modelRewrite: a-{target}}}]}}]}}"
        );
        resource("InferenceModelRewrite", name, &spec).replace(
            &format!("{{name: {name}}}"),
            &format!("{{name: {name}, creationTimestamp: '{created}'}}"),
        )
    };
    let (younger, older) =
        (rewrite("a", "2026-05-01T00:00:00Z", "y"), rewrite("b", "2026-04-01T00:00:00Z", "o"));
    let run = run_with_input(&["plugin", "-"], &format!("{POOL}{younger}{older}"));
    let config = Config::parse(run.printed.as_bytes()).unwrap();
    assert_eq!(config.pools[0].default_targets[0].name, "o", "{}", run.messages);
    assert_eq!((config.models.len(), config.models[0].targets[0].name.as_str()), (1, "a-o"));
    assert!(!config.reject_unknown_models);
    for path in
        ["spec.rules[0].matches: an earlier rule", "spec.rules[1].matches[0].model.value: an earlier rule"]
    {
        assert!(
            run.messages.contains(&format!("warning: -: InferenceModelRewrite default/a: {path}")),
            "{}",
            run.messages
        );
    }
}

#[test]
fn what_one_namespace_has_keeps_no_other_out() {
    let rewrites = |namespace: &str, range: std::ops::Range<usize>| -> String {
        let rewrite = |index: usize| {
            let spec = "{poolRef: {name: pool}, rules: [{matches: [{model: {value: mINDEX}}], targets: [{modelRewrite: t}]}]}";
            resource("InferenceModelRewrite", "r", &spec.replace("INDEX", &index.to_string()))
                .replace("{name: r}", &format!("{{name: r{index:05}, namespace: {namespace}}}"))
        };
        range.map(rewrite).collect()
    };
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    for namespace in ["hostile", "own"] {
        let pool = POOL.replace("{name: pool}", &format!("{{name: pool, namespace: {namespace}}}"));
        write(&format!("{namespace}.yaml"), &pool);
    }
    write("rewrites-of-own.yaml", &rewrites("own", 0..5));
    for part in 0..20 {
        write(&format!("rewrites-{part:02}.yaml"), &rewrites("hostile", part * 500..(part + 1) * 500));
    }
    let run = run_in(folder.path(), &["check", "."], "");
    assert!(!run.succeeded);
    let errors: Vec<_> = run.messages.lines().filter(|line| line.starts_with("error: ")).collect();
    assert!(
        errors.len() > 5_000 && errors.iter().all(|line| line.contains("InferenceModelRewrite hostile/r")),
        "{}",
        errors.len()
    );
    assert!(
        errors[0].contains("spec: is more than the 4091 models that the namespace `hostile`"),
        "{}",
        errors[0]
    );
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
}

#[test]
fn everything_that_is_wrong_is_reported_at_once() {
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
            rule("{matches: [{model: {type: Regex, value: a}}]}"),
            "spec.rules[0].matches[0].model.type: unknown variant",
        ),
        (rule("{targets: []}"), "spec.rules[0].targets: 0 is not between"),
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
fn an_objective_is_one_of_the_plugins() {
    let objective = |spec: &str| {
        resource("InferenceObjective", "chat", spec).replace("inference.networking.x-k8s.io", "llm-d.ai")
    };
    for (priority, expected) in [("2147483647", i32::MAX), ("1", 1), ("null", 0), ("-1", -1)] {
        let document = objective(&format!("{{priority: {priority}, poolRef: {{name: pool}}}}"));
        let run = run_with_input(&["plugin", "-"], &format!("{POOL}{document}"));
        let config = Config::parse(run.printed.as_bytes()).unwrap();
        assert_eq!(config.priority_of("chat", 0), expected, "{}", run.messages);
        assert!(config.models.is_empty() && !config.trust_headers);
    }
    refused(
        &objective("{priority: high, poolRef: {name: pool}}"),
        "InferenceObjective default/chat: spec.priority: invalid",
    );
    refused(
        &objective("{priority: 2147483648, poolRef: {name: pool}}"),
        "InferenceObjective default/chat: spec.priority: 2147483648 has more than 32 bits",
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
