//! What becomes of the gateway's resources, whatever happens to controllers and to the API server.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cluster::{Cluster, OUTAGE, WORKS, prepared, until};

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama, namespace: default}
spec:
  selector: {matchLabels: {app: llama}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
";

fn rewrite(pool: &str, weight: u32) -> String {
    format!(
        "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {{name: food, namespace: default}}
spec:
  poolRef: {{name: {pool}}}
  rules:
  - matches: [{{model: {{type: Exact, value: food}}}}]
    targets: [{{modelRewrite: food-v1, weight: {weight}}}, {{modelRewrite: food-v2, weight: 10}}]
"
    )
}

/// What the tests ask of the cluster.
struct Food(Cluster);

impl std::ops::Deref for Food {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.0
    }
}

impl Food {
    /// The weight of the first target of the one model that the plugin in the gateway has.
    fn weight(&self) -> Option<u64> {
        let plugin = self.get("wasmplugin", "istio-system", "inference-picker")?;
        plugin["spec"]["pluginConfig"]["models"][0]["targetModels"][0]["weight"].as_u64()
    }

    /// Weights that are asked for and then waited for.
    #[track_caller]
    fn change_weight(&self, weight: u32) {
        self.apply(&rewrite("llama", weight));
        let started_at = Instant::now();
        until("a change of weights is there", || self.weight() == Some(weight.into()));
        println!(
            "a weight is in the plugin's configuration {} ms after it was applied",
            started_at.elapsed().as_millis()
        );
    }

    /// Whether the rewrite's condition is that what it says now is wrong, and what it said before counts.
    fn is_refused(&self) -> bool {
        self.condition("Accepted").is_some_and(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["status"] == "False"
                && message.starts_with("spec.poolRef.name: ")
                && message.ends_with("counts as it was when it was last right")
        })
    }

    /// The condition of this type of the rewrite.
    fn condition(&self, kind: &str) -> Option<Value> {
        let rewrite = self.get("inferencemodelrewrite", "default", "food")?;
        let conditions = rewrite["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == kind)
    }
}

fn check_rights(cluster: &Cluster) {
    for (verb, resource, namespace) in [
        ("patch", "wasmplugins", "istio-system"),
        ("list", "inferencepools", "default"),
        ("patch", "inferencepools/status", "default"),
    ] {
        assert!(cluster.may(verb, resource, namespace), "{verb} {resource} {namespace}");
    }
    for (verb, resource, namespace) in [
        ("get", "secrets", "inference-picker"),
        ("list", "secrets", "istio-system"),
        ("list", "pods", "default"),
        ("list", "configmaps", "istio-system"),
        ("patch", "wasmplugins", "default"),
        ("patch", "inferencepools", "default"),
        ("create", "clusterroles", "default"),
    ] {
        assert!(!cluster.may(verb, resource, namespace), "{verb} {resource} {namespace}");
    }
}

#[test]
#[ignore = "starts a real kube-apiserver: make test-kubernetes"]
fn what_is_applied_is_in_the_gateways_resources_whatever_happens_to_controllers_and_the_api_server() {
    let mut cluster = Food(prepared());
    check_rights(&cluster);
    // Somebody else's, in the same namespace.
    cluster.apply(
        "{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: other, namespace: istio-system},
          spec: {url: 'oci://registry.example.com/other:1'}}",
    );
    cluster.apply(&[POOL, &rewrite("llama", 90)].join("---"));

    let one = cluster.controller("one", &[]);
    until("the plugin's configuration is there", || cluster.weight() == Some(90));
    let accepted = || cluster.condition("Accepted").is_some_and(|condition| condition["status"] == "True");
    until("the rewrite is accepted", accepted);
    cluster.change_weight(50);

    // Wrong: the condition says which field, and what was right stays.
    cluster.apply(&rewrite("nowhere", 7));
    until("the condition names the field", || cluster.is_refused());
    assert_eq!(cluster.condition("Accepted").unwrap()["observedGeneration"], 3);
    assert_eq!(cluster.weight(), Some(50));

    // Killed, and started anew: what was right is not forgotten.
    assert!(!cluster.log("one").contains("orbidden"), "{}", cluster.log("one"));
    drop(one);
    let anew = cluster.controller("anew", &[]);
    until("it works", || cluster.log("anew").contains("\"written\""));
    assert_eq!(cluster.weight(), Some(50));
    assert!(cluster.is_refused());
    cluster.change_weight(60);
    until("it is right again", accepted);

    // Two controllers: one works, and the other when that one is gone.
    let two = cluster.controller("two", &[]);
    sleep(Duration::from_secs(3));
    assert!(!cluster.log("two").contains(WORKS), "{}", cluster.log("two"));
    drop(anew);
    until("the other works", || cluster.log("two").contains(WORKS));
    cluster.change_weight(70);
    assert!(!cluster.log("two").contains("orbidden"), "{}", cluster.log("two"));

    // The API server is gone for a while.
    cluster.0.server = None;
    sleep(OUTAGE);
    cluster.0.start_server();
    assert_eq!(cluster.weight(), Some(70));
    cluster.change_weight(80);

    // What it made goes with the pool, and nothing else does.
    let (is_done, said) = cluster.kubectl(&["delete", "inferencepool", "llama"], "");
    assert!(is_done, "{said}");
    let made = [
        ("wasmplugin", "inference-picker"),
        ("trafficextension", "inference-picker"),
        ("envoyfilter", "inference-picker-scrape"),
    ];
    for (kind, name) in made {
        until(&format!("{kind} {name} is gone"), || cluster.get(kind, "istio-system", name).is_none());
    }
    assert!(cluster.get("wasmplugin", "istio-system", "other").is_some());
    until("the rewrite says that its pool is gone", || {
        cluster.condition("ResolvedRefs").is_some_and(|condition| condition["status"] == "False")
    });
    drop(two);
}
