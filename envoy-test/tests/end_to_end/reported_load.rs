//! Where metrics are not read, answers report what pods have to do.

use crate::gateway::{BODY_MODES, Gateway, Setup, chat, chat_with, until};
use envoy_test::envoy::{Request, Response};
use serde_json::json;

const FORMAT: &str = "endpoint-load-metrics-format";
const LOAD: &str = "endpoint-load-metrics";

/// Four pods whose metrics are not read, and whose answers may be asked for them.
fn start(configuration: &str, asks: bool) -> Gateway {
    let setup = Setup::new(configuration).unscraped().plugin(|plugin| {
        plugin.as_object_mut().unwrap().remove("scrapeCluster");
        plugin["pools"][0]["answersTellLoad"] = asks.into();
        // For as long as a reported load may take to be used on a busy machine.
        plugin["metricsStaleAfter"] = "2s".into();
    });
    setup.concurrency(1).start()
}

/// All but the first pod have the queues of others.
fn fill(gateway: &Gateway, waiting: f64) {
    (1..4).for_each(|pod| gateway.pods.server(pod).set(|knobs| knobs.gauges.waiting = Some(waiting)));
}

fn shares(gateway: &Gateway) -> Vec<usize> {
    gateway.shares(&gateway.burst(vec![chat("tiny"); 8]))
}

#[test]
fn what_others_queue_is_seen_without_metrics() {
    for configuration in BODY_MODES {
        let gateway = start(configuration, true);
        fill(&gateway, 50.0);
        until("the one without a queue gets all", || shares(&gateway) == [8, 0, 0, 0]);
        // What was reported long ago counts no more, and what is reported then does.
        fill(&gateway, 0.0);
        until("all get some", || shares(&gateway).iter().all(|share| *share > 0));
    }
}

#[test]
fn nobody_is_asked_unless_that_is_configured() {
    let gateway = start(BODY_MODES[0], false);
    fill(&gateway, 50.0);
    for _ in 0..4 {
        assert!(shares(&gateway).iter().all(|share| *share > 0));
    }
}

/// The load that the client receives, having asked for it in this form.
fn received(gateway: &Gateway, asked: Option<&str>, request: Request) -> Option<String> {
    let request = match asked {
        Some(form) => request.header(FORMAT, form),
        None => request,
    };
    let answer: Response = gateway.send(request);
    assert_eq!(answer.status, 200);
    answer.header(LOAD).map(str::to_owned)
}

#[test]
fn clients_receive_the_load_only_if_they_ask_and_in_the_form_they_ask_for() {
    for configuration in BODY_MODES {
        let gateway = start(configuration, true);
        let begins = |asked| received(&gateway, asked, chat("tiny")).map(|load| load[..4].to_owned());
        assert_eq!(begins(None), None, "{configuration}");
        assert_eq!(begins(Some("TEXT")).as_deref(), Some("TEXT"), "{configuration}");
        assert_eq!(begins(Some("JSON")).as_deref(), Some("JSON"), "{configuration}");
        assert_eq!(begins(Some("other")), None, "{configuration}");
        // Not to be read by the plugin, and answered by the least loaded pod.
        let models = received(&gateway, None, Request::get("/v1/models"));
        assert_eq!(models, None, "{configuration}");
        let stream = chat_with(json!({"model": "tiny", "max_tokens": 4, "stream": true}));
        assert_eq!(received(&gateway, Some("TEXT"), stream), None, "{configuration}: streams never tell");
    }
}
