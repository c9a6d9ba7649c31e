//! The request in README.md, sent as it stands there.

use crate::gateway::{BODY_MODES, Setup};
use envoy_test::envoy::Request;
use envoy_test::envoy::binary::project_root;

#[test]
fn the_request_in_the_readme_is_answered() {
    let readme = std::fs::read_to_string(project_root().join("README.md")).unwrap();
    let example = readme.split("curl http://127.0.0.1:10000").nth(1).unwrap().split("```").next().unwrap();
    let path = example.split_whitespace().next().unwrap();
    let (name, value) =
        example.split("-H '").nth(1).unwrap().split('\'').next().unwrap().split_once(": ").unwrap();
    let body = example.split("-d '").nth(1).unwrap().split('\'').next().unwrap().to_owned();
    for configuration in BODY_MODES {
        let gateway = Setup::new(configuration).start();
        let answer = gateway.send(Request::post(path).header(name, value).body(body.clone()));
        assert_eq!(answer.status, 200, "{configuration}: {}", answer.text());
        let line = gateway.envoy.access_log_until(1).unwrap().remove(0);
        assert_eq!(
            (&line["model"], &line["upstream"]),
            (&"tiny".into(), &crate::log::first_pick(&line).into())
        );
    }
}
