//! `/v1/models`, as a recorded vLLM 0.32 answers it: the base model under each of its names, with its context, then the adapters,
//! without one.

use serde_json::Value;

use crate::model_server::models::ServedModels;

/// The list of a server whose prompts and outputs may have `context_tokens` together.
pub fn list(served: &ServedModels, context_tokens: usize, created: u64) -> String {
    let base = Value::from(served.first()).to_string();
    let length_max = context_tokens.to_string();
    let models = served.base.iter().map(|name| model(name, "null", &length_max, created));
    let adapters = served.adapters.iter().map(|name| model(name, &base, "null", created));
    let data: Vec<String> = models.chain(adapters).collect();
    format!(r#"{{"object":"list","data":[{}]}}"#, data.join(","))
}

fn model(name: &str, parent: &str, length_max: &str, created: u64) -> String {
    let id = Value::from(name);
    let root = Value::from(format!("/models/{name}"));
    let permission = format!(
        r#"{{"id":"modelperm-0000000000000000","object":"model_permission","created":{created},"allow_create_engine":false,"allow_sampling":true,"allow_logprobs":true,"allow_search_indices":false,"allow_view":true,"allow_fine_tuning":false,"organization":"*","group":null,"is_blocking":false}}"#
    );
    format!(
        r#"{{"id":{id},"object":"model","created":{created},"owned_by":"vllm","root":{root},"parent":{parent},"max_model_len":{length_max},"permission":[{permission}]}}"#
    )
}
