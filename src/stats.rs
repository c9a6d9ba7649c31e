//! What is counted, and under which names.
//!
//! A name begins with its labels, as `LABEL=.=VALUE;.;`, which `stats_config` in Envoy's bootstrap takes apart into real
//! labels, or Istio's `extraStatTags`, which knows this form alone. Only configured names become values, everything else
//! is `unknown`: a client must not be able to make the statistics grow.

use crate::config::Config;

/// The label's value for a model that is not configured.
pub const UNKNOWN: &str = "unknown";

/// The counter of requests sent for a model, as one of its targets.
pub fn requests_sent(config: &Config, model: &str, target: Option<&str>) -> String {
    let model = config.model(model);
    let target = model.and_then(|model| {
        let target = target.unwrap_or(&model.name);
        model
            .targets
            .iter()
            .map(|known| known.name.as_str())
            .chain([model.name.as_str()])
            .find(|name| *name == target)
    });
    let model = model.map_or(UNKNOWN, |model| model.name.as_str());
    let target = target.unwrap_or(UNKNOWN);
    format!("model=.={model};.;target_model=.={target};.;inference_picker_requests_sent")
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn only_configured_names_become_labels() {
        let document = r#"{"pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"]}],"models":[
            {"modelName":"m","poolRef":{"name":"p"},"targetModels":[{"name":"a"}]}]}"#;
        let config = Config::parse(document.as_bytes()).unwrap();
        let check = |model, target, expected_model, expected_target| {
            let name = requests_sent(&config, model, target);
            let expected = format!("model=.={expected_model};.;target_model=.={expected_target};.;");
            assert!(name.starts_with(&expected), "{name}");
        };
        check("m", Some("a"), "m", "a");
        check("m", None, "m", "m");
        check("m", Some("x;.y"), "m", UNKNOWN);
        check("anything", None, UNKNOWN, UNKNOWN);
    }
}
