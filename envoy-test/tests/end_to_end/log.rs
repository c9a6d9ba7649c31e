//! What the access log says, and that it is true.

use crate::gateway::{ALL, BODY_MODES, Gateway, Setup, chat};
use serde_json::Value;

/// The first endpoint that was picked.
pub fn first_pick(line: &Value) -> &str {
    line["picked"].as_str().unwrap_or_default().split(',').next().unwrap_or_default()
}

fn lines(gateway: &Gateway, count: usize) -> Vec<Value> {
    gateway.envoy.access_log_until(count).unwrap()
}

#[test]
fn the_pick_in_the_log_is_the_pod_that_served_and_the_pods_counters_agree() {
    for configuration in ALL {
        let gateway = Setup::new(configuration).concurrency(4).start();
        for _ in 0..3 {
            gateway.burst(vec![chat("tiny"); 40]);
        }
        let lines = lines(&gateway, 120);
        assert_eq!(lines.len(), 120, "{configuration}");
        for line in &lines {
            assert_eq!(line["upstream"], first_pick(line), "{configuration}: {line}");
            assert_eq!((&line["model"], &line["target_model"]), (&"tiny".into(), &"tiny".into()));
            assert_eq!(line["picked"].as_str().unwrap().split(',').count(), 3, "{line}");
        }
        for (pod, address) in gateway.pods.servers().zip(gateway.pods.addresses()) {
            let logged = lines.iter().filter(|line| first_pick(line) == address.to_string()).count();
            assert_eq!(pod.counters().requests_for("tiny"), logged as u64, "{configuration}: {address}");
        }
    }
}

#[test]
fn the_log_says_why_a_pod_was_picked() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        gateway.send(chat("tiny"));
        let decision = lines(&gateway, 1)[0]["decision"].as_str().unwrap().to_owned();
        let words: Vec<&str> = decision.split([' ', '=']).collect();
        let expected = [
            "DEFAULT",
            "cost",
            "prompt_tokens",
            "in_flight",
            "waiting_tokens",
            "queue",
            "running",
            "kv",
            "metrics_age_ms",
        ];
        assert!(expected.iter().all(|word| words.contains(word)), "{configuration}: {decision}");
    }
}

/// A model's name goes to the log as one line, whatever a client puts in it.
#[test]
fn a_models_name_cannot_break_a_log_line() {
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        gateway.send(chat("tiny\n{\"forged\": 1}"));
        let model = lines(&gateway, 1)[0]["model"].as_str().unwrap().to_owned();
        assert_eq!(model, "tiny\u{fffd}{\"forged\": 1}", "{configuration}");
    }
}
