//! Every configuration that the project ships starts in every Envoy that it claims, and serves.

use crate::gateway::{
    ALL, CONVERSATIONS, DISAGGREGATION, FALLBACK, GATEWAYS, MODELS, OBSERVED, PROMISES, PROTECTED_METRICS,
    Setup,
};
use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Configuration, Envoy, EnvoySettings, NEWEST, OLDEST, validate};
use serde_json::Value;

#[test]
fn every_configuration_serves_in_the_oldest_and_the_newest_envoy() {
    for version in [OLDEST, NEWEST] {
        for configuration in ALL.into_iter().chain([GATEWAYS]) {
            let gateway = Setup::new(configuration).version(version).start();
            gateway.check_burst_is_spread(&format!("{version}, {configuration}"));
            let log = gateway.envoy.log_text();
            assert!(
                !log.contains("[error]") && !log.contains("deprecated"),
                "{version}, {configuration}: {log}"
            );
        }
    }
}

/// As it is in the repository, unedited.
#[test]
fn every_configuration_is_valid_as_it_is() {
    for version in [OLDEST, NEWEST] {
        // The tags of spans need Envoy 1.37.
        let observed = Some(OBSERVED).filter(|_| version == NEWEST);
        for configuration in ALL
            .into_iter()
            .chain([MODELS, GATEWAYS, CONVERSATIONS, DISAGGREGATION, FALLBACK, PROMISES, PROTECTED_METRICS])
            .chain(observed)
        {
            let file = project_root().join("filter-config").join(configuration).join("envoy.yaml");
            let mut settings = EnvoySettings::new(Configuration::load(&file).unwrap());
            settings.version = version;
            let output = validate(&settings).unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{version}, {configuration}: {said}");
        }
    }
}

/// The folders of `filter-config/` are just those that are tested.
#[test]
fn every_folder_is_tested() {
    let entries = std::fs::read_dir(project_root().join("filter-config")).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let mut tested: Vec<&str> = ALL
        .into_iter()
        .chain([
            MODELS,
            GATEWAYS,
            CONVERSATIONS,
            DISAGGREGATION,
            FALLBACK,
            OBSERVED,
            PROMISES,
            PROTECTED_METRICS,
        ])
        .collect();
    tested.sort();
    assert_eq!(names, tested);
}

#[test]
fn a_bad_configuration_is_refused_by_field_path_before_envoy_serves() {
    let file = project_root().join("filter-config").join(ALL[0]).join("envoy.yaml");
    let mut configuration = Configuration::load(&file).unwrap();
    configuration.edit_plugin(|plugin: &mut Value| plugin["pools"][0]["endpoints"][1] = "pod-1".into());
    let error = Envoy::start(EnvoySettings::new(configuration)).err().expect("refused").to_string();
    assert!(error.contains("pools[0].endpoints[1]: `pod-1` is not ip:port"), "{error}");
}
