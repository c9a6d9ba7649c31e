//! The status that resources get.

use inference_picker_config::findings::{Finding, Findings};
use inference_picker_config::resources::{Inventory, in_document};
use inference_picker_config::status::{Conditions, status};
use serde_json::{Value, json};

const NOW: &str = "2026-11-30T00:00:00Z";

fn objective(priority: &Value, status: &Value) -> Value {
    json!({"apiVersion": "llm-d.ai/v1alpha2", "kind": "InferenceObjective", "metadata": {"name": "o", "namespace": "n",
        "generation": 7}, "spec": {"priority": priority, "poolRef": {"name": "p"}, "new": 1}, "status": status})
}

fn findings(object: &Value) -> Vec<Finding> {
    let mut findings = Findings::default();
    let resources = in_document(object.clone(), "cluster", "n", &mut findings);
    Inventory::new(resources, &mut findings);
    findings.all().cloned().collect()
}

fn status_of(object: &Value, place: Conditions) -> Option<Value> {
    let findings = findings(object);
    status(object, &findings.iter().collect::<Vec<_>>(), place, NOW)
}

#[test]
fn a_resources_status_says_why_by_field_path_and_for_which_generation() {
    let status = status_of(&objective(&json!("high"), &json!({})), Conditions::Own).unwrap();
    let accepted = &status["conditions"][0];
    assert_eq!(
        (&accepted["type"], &accepted["status"], &accepted["reason"]),
        (&json!("Accepted"), &json!("False"), &json!("Invalid"))
    );
    assert!(accepted["message"].as_str().unwrap().starts_with("spec.priority: invalid type"), "{accepted}");
    assert_eq!(accepted["observedGeneration"], 7);
    let status = status_of(&objective(&json!(1), &json!({})), Conditions::Own).unwrap();
    let accepted = &status["conditions"][0];
    assert_eq!(accepted["status"], "True");
    assert!(accepted["message"].as_str().unwrap().contains("spec.new: is not known here"), "{accepted}");
}

#[test]
fn what_is_as_it_should_be_is_not_written_again_and_times_are_those_of_changes() {
    let first = status_of(&objective(&json!(1), &json!({})), Conditions::Own).unwrap();
    assert_eq!(status_of(&objective(&json!(1), &first), Conditions::Own), None);
    let mut older = first;
    for condition in older["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
        condition["message"] = json!("otherwise");
    }
    let renewed = status_of(&objective(&json!(1), &older), Conditions::Own).unwrap();
    assert_eq!(renewed["conditions"][0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
    let changed = status_of(&objective(&json!("high"), &older), Conditions::Own).unwrap();
    assert_eq!(changed["conditions"][0]["lastTransitionTime"], NOW);
}

#[test]
fn what_other_controllers_say_of_a_pool_stays() {
    let istios = json!({"parentRef": {"kind": "Gateway", "name": "inference-gateway"}, "conditions": []});
    let pool = |parents: Value| {
        json!({"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "metadata": {"name": "p"},
            "spec": {}, "status": {"parents": parents}})
    };
    let first = status(&pool(json!([istios])), &[], Conditions::Parents, NOW).unwrap();
    let parents = first["parents"].as_array().unwrap();
    assert_eq!((parents.len(), &parents[0]), (2, &istios));
    assert_eq!(parents[1]["conditions"][0]["status"], "True");
    assert_eq!(status(&pool(first["parents"].clone()), &[], Conditions::Parents, NOW), None);
}
