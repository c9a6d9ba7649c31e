//! `/v1/embeddings`. The vectors are short and all alike.

use super::{Subject, Usage};

pub fn whole(subject: &Subject, inputs: usize, total: &Usage) -> String {
    let Subject { id, created, model, .. } = subject;
    let data: Vec<String> = (0..inputs)
        .map(|index| format!(r#"{{"index":{index},"object":"embedding","embedding":[0.5,-0.5,0.5,-0.5]}}"#))
        .collect();
    let data = data.join(",");
    let usage = Usage { completion_tokens: 0, ..*total }.json(r#","prompt_tokens_details":null"#);
    format!(
        r#"{{"id":"embd-{id}","object":"list","created":{created},"model":{model},"data":[{data}],"usage":{usage}}}"#
    )
}
