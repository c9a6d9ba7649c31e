//! `/v1/completions`.

use super::{EventShape, FINGERPRINT, Subject, Usage, data_event, failed_chunks, last_text, text_of};

pub fn whole(subject: &Subject, results: &[Usage], total: &Usage) -> String {
    let Subject { id, created, model, .. } = subject;
    let choices: Vec<String> =
        results.iter().enumerate().map(|(index, usage)| choice(index, usage.completion_tokens)).collect();
    let choices = choices.join(",");
    let usage = total.json(&format!(
        r#","prompt_tokens_details":{{"cached_tokens":{},"created_cache_tokens":null,"multimodal_tokens":null}},"completion_tokens_details":null"#,
        total.cached_tokens
    ));
    format!(
        r#"{{"id":"cmpl-{id}","object":"text_completion","created":{created},"model":{model},"choices":[{choices}],"service_tier":null,{FINGERPRINT},"usage":{usage},"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#
    )
}

fn choice(index: usize, tokens: usize) -> String {
    let text = text_of(tokens);
    format!(
        r#"{{"index":{index},"text":"{text}","logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,"prompt_logprobs":null,"prompt_token_ids":null,"routed_experts":null}}"#
    )
}

/// The form of a streamed completion.
pub struct Chunks;

impl EventShape for Chunks {
    fn opening(&self, _: &Subject, _: &Usage) -> Vec<String> {
        Vec::new()
    }

    fn failure(&self, _: &Subject, _: &Usage, code: Option<u16>) -> Vec<String> {
        failed_chunks(code)
    }

    fn tokens(&self, subject: &Subject, usage: &Usage, new_tokens: usize, finished: bool) -> String {
        let text = last_text(usage, new_tokens);
        let finish = if finished { r#""length""# } else { "null" };
        let choice = format!(
            r#"{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{finish},"stop_reason":null,"prompt_token_ids":null,"token_ids":null}}"#
        );
        let mut rest = String::new();
        if subject.continuous_usage {
            rest = format!(r#","usage":{}"#, usage.json(""));
        }
        if finished && !subject.include_usage {
            rest = format!("{rest},{FINGERPRINT}");
        }
        chunk(subject, &choice, &rest)
    }

    fn closing(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let details = format!(r#","prompt_tokens_details":{{"cached_tokens":{}}}"#, usage.cached_tokens);
        let counts = format!(r#","usage":{},{FINGERPRINT}"#, usage.json(&details));
        let last = subject.include_usage.then(|| chunk(subject, "", &counts));
        last.into_iter().chain([data_event("[DONE]")]).collect()
    }
}

fn chunk(subject: &Subject, choice: &str, rest: &str) -> String {
    let Subject { id, created, model, .. } = subject;
    data_event(&format!(
        r#"{{"id":"cmpl-{id}","object":"text_completion","created":{created},"model":{model},"choices":[{choice}]{rest}}}"#
    ))
}
