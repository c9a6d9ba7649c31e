use super::{plain, plain_envoy};
use crate::envoy::observation::cpu_time_in_us;
use crate::envoy::{Client, Envoy, EnvoySettings, NEWEST, OLDEST, Protocol, Request, binary, validate};
use serde_json::json;
use std::net::TcpStream;

#[test]
fn every_installed_version_starts_and_answers() {
    for version in [NEWEST, OLDEST] {
        let envoy = Envoy::start(EnvoySettings { version, ..EnvoySettings::new(plain()) }).unwrap();
        let response =
            Client::new(envoy.address(), Protocol::Http1).send_blocking(Request::get("/fixed")).unwrap();
        assert_eq!((response.status, response.text()), (203, "fixed answer".to_owned()), "{version}");
    }
}

#[test]
fn the_version_is_the_one_asked_for() {
    for version in [NEWEST, OLDEST] {
        let envoy = Envoy::start(EnvoySettings { version, ..EnvoySettings::new(plain()) }).unwrap();
        let information = envoy.admin_get("/server_info").unwrap();
        assert!(information.contains(&format!("/{version}/")), "{information}");
    }
}

#[test]
fn several_envoys_run_side_by_side() {
    let envoys = [plain_envoy(), plain_envoy(), plain_envoy()];
    for envoy in &envoys {
        assert_eq!(envoy.admin_get("/ready").unwrap().trim(), "LIVE");
    }
}

#[test]
fn a_cluster_that_points_to_the_admin_interface_finds_it_at_its_new_port() {
    let envoy = plain_envoy();
    let response =
        Client::new(envoy.address(), Protocol::Http1).send_blocking(Request::get("/ready")).unwrap();
    assert_eq!(response.text().trim(), "LIVE");
}

#[test]
fn the_access_log_is_read_line_by_line() {
    let envoy = plain_envoy();
    let client = Client::new(envoy.address(), Protocol::Http2);
    client.send_blocking(Request::get("/fixed")).unwrap();
    client.send_blocking(Request::get("/other")).unwrap();
    let expected = [json!({"path": "/fixed", "status": 203}), json!({"path": "/other", "status": 200})];
    assert_eq!(envoy.access_log_until(2).unwrap(), expected);
}

#[test]
fn stats_are_those_with_the_prefix() {
    let envoy = plain_envoy();
    Client::new(envoy.address(), Protocol::Http1).send_blocking(Request::get("/fixed")).unwrap();
    let stats = envoy.stats("http.gateway.downstream_rq_2").unwrap();
    assert_eq!(stats["http.gateway.downstream_rq_2xx"], 1);
    assert!(stats.keys().all(|name| name.starts_with("http.gateway.downstream_rq_2")), "{stats:?}");
}

#[test]
fn an_unknown_admin_path_is_an_error() {
    let error = plain_envoy().admin_get("/nothing").unwrap_err();
    assert!(error.to_string().contains("404"), "{error}");
}

#[test]
fn a_configuration_envoy_refuses_fails_the_start_with_envoys_own_words() {
    let mut configuration = plain();
    *configuration.at("/static_resources/clusters/0/type") = "NONSENSE".into();
    let error = Envoy::start(EnvoySettings::new(configuration)).err().unwrap();
    assert!(error.to_string().contains("NONSENSE"), "{error}");
}

#[test]
fn validating_distinguishes_right_from_wrong() {
    let mut configuration = plain();
    assert!(validate(&EnvoySettings::new(configuration.clone())).unwrap().status.success());
    *configuration.at("/static_resources/clusters/0/type") = "NONSENSE".into();
    assert!(!validate(&EnvoySettings::new(configuration)).unwrap().status.success());
}

#[test]
fn the_log_holds_what_envoy_said() {
    assert!(plain_envoy().log_text().contains("starting main dispatch loop"));
}

#[test]
fn a_dropped_envoy_no_longer_listens() {
    let envoy = plain_envoy();
    let address = envoy.address();
    assert!(TcpStream::connect(address).is_ok());
    drop(envoy);
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn processor_time_is_counted_behind_a_name_with_spaces_and_parentheses() {
    let stat = "42 (a) name) S 1 2 3 4 5 6 7 8 9 10 7 5 0 0 20 0";
    assert_eq!(cpu_time_in_us(stat), Some(120_000));
    assert_eq!(cpu_time_in_us("42 (cut off"), None);
}

#[cfg(target_os = "linux")]
#[test]
fn a_running_envoy_has_used_processor_time() {
    assert!(plain_envoy().cpu_time_us().unwrap() > 0);
}

#[test]
fn the_users_own_envoy_comes_before_the_installed_one() {
    let own = std::env::current_exe().unwrap();
    assert_eq!(binary::find_with(Some(own.clone().into()), NEWEST).unwrap(), own);
}

#[test]
fn a_missing_envoy_says_how_to_get_it() {
    let error = binary::find_with(None, "0.0.0").unwrap_err();
    assert!(error.to_string().contains("make setup"), "{error}");
    let error = binary::find_with(Some("/no/such/envoy".into()), NEWEST).unwrap_err();
    assert!(error.to_string().contains("ENVOY_PATH"), "{error}");
}

#[test]
fn the_versions_are_the_ones_that_are_set_up() {
    let setup = include_str!("../../../setup/common.sh");
    assert!(setup.contains(&format!("ENVOY_NEWEST={NEWEST}\n")), "{NEWEST}");
    assert!(setup.contains(&format!("ENVOY_OLDEST={OLDEST}\n")), "{OLDEST}");
}
