//! The status of each resource: conditions, by the names of the Gateway API.

use crate::findings::{Finding, Severity};
use serde_json::{Value, json};

/// The longest message that a condition has, by the resources' schemas.
const MAX_MESSAGE_BYTES: usize = 32_768;

/// Who writes these conditions, where a status has those of several.
const PARENT_NAME: &str = "inference-picker-controller";

/// Where a kind's status has conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conditions {
    /// `status.conditions`.
    Own,
    /// `status.parents[]`, an entry for each controller.
    Parents,
    /// `status.parent[]`, as in the first versions of InferencePool.
    Parent,
}

/// The status that a resource should have, if it has another one. `now`: in RFC 3339.
pub fn status(object: &Value, findings: &[&Finding], place: Conditions, now: &str) -> Option<Value> {
    let before = object.get("status").cloned().unwrap_or_default();
    let generation = object.get("metadata").and_then(|of| of.get("generation")).cloned();
    let wanted = wanted(findings, generation.as_ref(), now);
    match place {
        Conditions::Own => {
            let conditions = merged(before.get("conditions"), wanted)?;
            Some(json!({"conditions": conditions}))
        }
        Conditions::Parents => {
            parents(before.get("parents"), wanted, parent_ref()).map(|of| json!({"parents": of}))
        }
        Conditions::Parent => {
            parents(before.get("parent"), wanted, parent_ref()).map(|of| json!({"parent": of}))
        }
    }
}

fn parent_ref() -> Value {
    json!({"group": "apps", "kind": "Deployment", "name": PARENT_NAME})
}

/// The entries of all controllers, with ours as it should be.
fn parents(before: Option<&Value>, wanted: [Value; 2], own: Value) -> Option<Value> {
    let before = before.and_then(Value::as_array).cloned().unwrap_or_default();
    let is_own = |entry: &Value| entry.get("parentRef").and_then(|of| of.get("name")) == own.get("name");
    let known = before.iter().find(|entry| is_own(entry)).and_then(|entry| entry.get("conditions"));
    let conditions = merged(known, wanted)?;
    let others = before.iter().filter(|entry| !is_own(entry)).cloned();
    let all = others.chain([json!({"parentRef": own, "conditions": conditions})]);
    Some(all.collect())
}

/// `Accepted`, and `ResolvedRefs` for what the resource refers to.
fn wanted(findings: &[&Finding], generation: Option<&Value>, now: &str) -> [Value; 2] {
    let errors: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(|finding| finding.problem.as_str())
        .collect();
    let notes =
        findings.iter().map(|finding| finding.problem.as_str()).filter(|problem| !errors.contains(problem));
    let unresolved: Vec<&str> =
        errors.iter().copied().filter(|problem| problem.starts_with("spec.poolRef")).collect();
    let condition = |kind: &str, problems: &[&str], good: String, reason: &str, bad_reason: &str| {
        let is_good = problems.is_empty();
        json!({
            "type": kind,
            "status": if is_good { "True" } else { "False" },
            "reason": if is_good { reason } else { bad_reason },
            "message": cut(if is_good { good } else { problems.join("; ") }),
            "lastTransitionTime": now,
            "observedGeneration": generation,
        })
    };
    let notes: Vec<&str> = notes.collect();
    let accepted = [&["counts"], &notes[..]].concat().join("; ");
    let problems = if errors.is_empty() { Vec::new() } else { [&errors[..], &notes].concat() };
    [
        condition("Accepted", &problems, accepted, "Accepted", "Invalid"),
        condition("ResolvedRefs", &unresolved, "all are there".to_owned(), "ResolvedRefs", "BackendNotFound"),
    ]
}

fn cut(mut message: String) -> String {
    let mut end = message.len().min(MAX_MESSAGE_BYTES);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    message
}

/// The conditions with ours as they should be; `None` if they are. The time is that of the last change.
fn merged(before: Option<&Value>, wanted: [Value; 2]) -> Option<Vec<Value>> {
    let before = before.and_then(Value::as_array).cloned().unwrap_or_default();
    let known =
        |condition: &Value| before.iter().find(|known| known.get("type") == condition.get("type")).cloned();
    let without_time = |condition: &Value| {
        let mut condition = condition.clone();
        if let Some(fields) = condition.as_object_mut() {
            fields.remove("lastTransitionTime");
        }
        condition
    };
    let is_there = |condition: &Value| {
        known(condition).is_some_and(|known| without_time(&known) == without_time(condition))
    };
    if wanted.iter().all(is_there) {
        return None;
    }
    let is_wanted = |condition: &&Value| wanted.iter().all(|own| own.get("type") != condition.get("type"));
    let others: Vec<Value> = before.iter().filter(is_wanted).cloned().collect();
    let own = wanted.iter().map(|condition| {
        let before = known(condition).filter(|known| known.get("status") == condition.get("status"));
        let mut condition = condition.clone();
        if let Some((fields, time)) =
            condition.as_object_mut().zip(before.and_then(|of| of.get("lastTransitionTime").cloned()))
        {
            fields.insert("lastTransitionTime".to_owned(), time);
        }
        condition
    });
    Some(others.into_iter().chain(own).collect())
}
