//! What docs/migrating-from-least-request.md has people change.

use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Configuration, EnvoySettings, NEWEST, OLDEST, validate};
use serde_json::Value;

use crate::gateway::{CLUSTER, STOP_ITERATION, Setup, chat};

const PAGE: &str = "docs/migrating-from-least-request.md";

/// The block of the page that begins with this fence.
fn block(name: &str) -> Value {
    let page = std::fs::read_to_string(project_root().join(PAGE)).unwrap();
    let text = page.split_once(&format!("```yaml {name}\n")).unwrap().1.split_once("```").unwrap().0;
    serde_saphyr::from_str(text).unwrap()
}

/// The cluster's own settings, with this of the page in place of its load balancing.
fn put(envoy: &mut Configuration, block: &Value) {
    let cluster = envoy.cluster(CLUSTER).as_object_mut().unwrap();
    cluster.remove("load_balancing_policy");
    cluster.extend(block.as_object().unwrap().clone());
}

#[test]
fn what_was_balanced_by_envoy_is_picked_after_the_pages_change() {
    for version in [OLDEST, NEWEST] {
        let mut before = Configuration::shipped(STOP_ITERATION).unwrap();
        before.remove_plugin();
        put(&mut before, &block("before"));
        let mut settings = EnvoySettings::new(before);
        settings.version = version;
        let output = validate(&settings).unwrap();
        assert!(output.status.success(), "{version}: {}", String::from_utf8_lossy(&output.stderr));

        let gateway =
            Setup::new(STOP_ITERATION).version(version).envoy(|envoy| put(envoy, &block("after"))).start();
        assert_eq!(gateway.send(chat("tiny")).status, 200);
        let decision = &gateway.envoy.access_log_until(1).unwrap()[0]["decision"];
        assert!(decision.as_str().unwrap().starts_with("DEFAULT cost="), "{version}: {decision}");
    }
}
