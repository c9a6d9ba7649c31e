//! `/v1/chat/completions`.

use super::{EventShape, FINGERPRINT, Subject, Usage, data_event, failed_chunks, last_text, text_of};

pub fn whole(subject: &Subject, usage: &Usage) -> String {
    let Subject { id, created, model, .. } = subject;
    let text = text_of(usage.completion_tokens);
    let usage = usage.json(&format!(
        r#","prompt_tokens_details":{{"cached_tokens":{},"created_cache_tokens":{},"multimodal_tokens":null}},"completion_tokens_details":null"#,
        usage.cached_tokens, usage.created_cache_tokens
    ));
    let choice = format!(
        r#"{{"index":0,"message":{{"role":"assistant","content":"{text}","refusal":null,"annotations":null,"audio":null,"function_call":null,"reasoning":null}},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":null,"routed_experts":null}}"#
    );
    format!(
        r#"{{"id":"chatcmpl-{id}","object":"chat.completion","created":{created},"model":{model},"choices":[{choice}],"service_tier":null,{FINGERPRINT},"usage":{usage},"prompt_logprobs":null,"prompt_token_ids":null,"prompt_text":null,"kv_transfer_params":null,"ec_transfer_params":null,"metrics":null}}"#
    )
}

/// The form of a streamed chat answer.
pub struct Chunks;

impl EventShape for Chunks {
    fn at_once(&self, subject: &Subject) -> Vec<String> {
        if subject.early_role { vec![role(subject, &Usage::default())] } else { Vec::new() }
    }

    fn opening(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let before = Usage { completion_tokens: 0, ..*usage };
        if subject.early_role { Vec::new() } else { vec![role(subject, &before)] }
    }

    fn failure(&self, _: &Subject, _: &Usage, code: Option<u16>) -> Vec<String> {
        failed_chunks(code)
    }

    fn tokens(&self, subject: &Subject, usage: &Usage, new_tokens: usize, finished: bool) -> String {
        let text = last_text(usage, new_tokens);
        let finish = if finished { r#""length","stop_reason":null"# } else { "null" };
        let choice = format!(
            r#"{{"index":0,"delta":{{"content":"{text}"}},"logprobs":null,"finish_reason":{finish},"token_ids":null}}"#
        );
        let mut rest = continuous(subject, usage);
        if finished && !subject.include_usage {
            rest = format!("{rest},{FINGERPRINT}");
        }
        chunk(subject, &choice, &rest)
    }

    fn closing(&self, subject: &Subject, usage: &Usage) -> Vec<String> {
        let details = format!(
            r#","prompt_tokens_details":{{"cached_tokens":{},"created_cache_tokens":{}}}"#,
            usage.cached_tokens, usage.created_cache_tokens
        );
        let counts = format!(r#","usage":{},{FINGERPRINT}"#, usage.json(&details));
        let last = subject.include_usage.then(|| chunk(subject, "", &counts));
        last.into_iter().chain([data_event("[DONE]")]).collect()
    }
}

fn role(subject: &Subject, before: &Usage) -> String {
    let choice =
        r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#;
    let rest = r#","prompt_token_ids":null,"prompt_text":null"#;
    chunk(subject, choice, &format!("{rest}{}", continuous(subject, before)))
}

fn continuous(subject: &Subject, usage: &Usage) -> String {
    if subject.continuous_usage { format!(r#","usage":{}"#, usage.json("")) } else { String::new() }
}

fn chunk(subject: &Subject, choice: &str, rest: &str) -> String {
    let Subject { id, created, model, .. } = subject;
    data_event(&format!(
        r#"{{"id":"chatcmpl-{id}","object":"chat.completion.chunk","created":{created},"model":{model},"choices":[{choice}]{rest}}}"#
    ))
}
