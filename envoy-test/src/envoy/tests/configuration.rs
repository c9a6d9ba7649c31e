use super::plain;
use crate::envoy::Configuration;
use crate::envoy::configuration::FilterPosition;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;

const WITH_PLUGIN: &str = r#"
bootstrap_extensions:
- name: envoy.bootstrap.wasm
  typed_config:
    config:
      configuration: { value: '{ "pools": ["companion"] }' }
      vm_config: { code: { local: { filename: somewhere.wasm } } }
static_resources:
  listeners:
  - filter_chains:
    - filters:
      - typed_config:
          http_filters:
          - name: picker
            typed_config:
              config:
                configuration: { value: '{ "pools": ["filter"] }' }
                vm_config: { code: { local: { filename: somewhere.wasm } } }
          - name: router
"#;

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn with_plugin() -> Configuration {
    Configuration::parse(WITH_PLUGIN).unwrap()
}

/// The names of the HTTP filters after one was put in at `position`.
fn filters_after_inserting(position: FilterPosition) -> Vec<Value> {
    let mut configuration = with_plugin();
    configuration.insert_filter(position, json!({"name": "new"}));
    let filters =
        configuration.at("/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters");
    filters.as_array().unwrap().iter().map(|filter| filter["name"].clone()).collect()
}

#[test]
fn scalars_keep_the_types_envoy_would_see() {
    let cases = [
        ("0.5s", json!("0.5s")),
        ("\"10\"", json!("10")),
        ("10", json!(10)),
        ("1.5", json!(1.5)),
        ("true", json!(true)),
        ("null", json!(null)),
        ("\"true\"", json!("true")),
        ("{ \"@type\": type.googleapis.com/a.B }", json!({"@type": "type.googleapis.com/a.B"})),
    ];
    for (yaml, expected) in cases {
        let mut configuration = Configuration::parse(&format!("field: {yaml}")).unwrap();
        assert_eq!(*configuration.at("/field"), expected, "{yaml}");
    }
}

#[test]
fn text_that_is_not_yaml_is_refused() {
    assert!(Configuration::parse("a: [1").unwrap_err().to_string().contains("not valid YAML"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Configuration::load(Path::new("no/such.yaml")).unwrap_err();
    assert!(error.to_string().contains("no/such.yaml"), "{error}");
}

#[test]
fn any_value_can_be_replaced_by_its_pointer() {
    let mut configuration = plain();
    *configuration.at("/static_resources/listeners/0/name") = "renamed".into();
    assert_eq!(*configuration.at("/static_resources/listeners/0/name"), "renamed");
}

#[test]
#[should_panic(expected = "nothing at /no/such/place")]
fn a_pointer_to_nothing_is_a_mistake_of_the_test() {
    with_plugin().at("/no/such/place");
}

#[test]
fn moving_the_admin_interface_moves_the_clusters_that_point_to_it_and_no_other() {
    let mut configuration = plain();
    configuration.set_admin_address(address("127.0.0.1:4321"));
    assert_eq!(configuration.admin_address().unwrap(), address("127.0.0.1:4321"));
    let endpoint = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/port_value";
    assert_eq!(configuration.cluster("admin").pointer(endpoint), Some(&json!(4321)));
    assert_eq!(configuration.cluster("echo").pointer(endpoint), Some(&json!(8000)));
}

#[test]
fn a_clusters_endpoints_are_replaced() {
    let mut configuration = plain();
    configuration.set_endpoints("echo", &[address("127.0.0.1:1"), address("127.0.0.2:2")]);
    let hosts = configuration.cluster("echo").pointer("/load_assignment/endpoints/0/lb_endpoints").unwrap();
    let expected = json!([
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}}}},
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.2", "port_value": 2}}}},
    ]);
    assert_eq!(*hosts, expected);
}

#[test]
#[should_panic(expected = "no cluster unknown")]
fn the_endpoints_of_an_unknown_cluster_are_a_mistake_of_the_test() {
    plain().set_endpoints("unknown", &[]);
}

#[test]
fn the_plugins_configuration_is_edited_in_the_filter_and_in_the_companion() {
    let mut configuration = with_plugin();
    let mut seen = Vec::new();
    configuration
        .edit_plugin(|settings| seen.push(std::mem::replace(settings, json!({}))["pools"][0].clone()));
    seen.sort_by_key(Value::to_string);
    assert_eq!(seen, ["companion", "filter"]);
    configuration.edit_plugin(|settings| assert_eq!(*settings, json!({})));
}

#[test]
#[should_panic(expected = "no plugin")]
fn editing_the_plugin_where_there_is_none_is_a_mistake_of_the_test() {
    plain().edit_plugin(|_| ());
}

#[test]
fn every_virtual_machine_gets_the_same_plugin_file() {
    let mut configuration = with_plugin();
    assert_eq!(configuration.set_plugin_file(Path::new("/built/picker.wasm")), 2);
    let file = "/typed_config/config/vm_config/code/local/filename";
    assert_eq!(*configuration.at(&format!("/bootstrap_extensions/0{file}")), "/built/picker.wasm");
}

#[test]
fn a_filter_goes_where_it_is_put() {
    assert_eq!(filters_after_inserting(FilterPosition::First), ["new", "picker", "router"]);
    assert_eq!(filters_after_inserting(FilterPosition::After("picker")), ["picker", "new", "router"]);
    assert_eq!(filters_after_inserting(FilterPosition::Before("router")), ["picker", "new", "router"]);
}
