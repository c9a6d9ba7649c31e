//! What one request has cost, from its headers to its end: for the access log, and for the statistics.

use super::answer_body::Answer;
use crate::plugin::calls::publish;
use crate::plugin::host;
use crate::plugin::worker::Worker;
use crate::stats::{EndedAnswer, EndedRequest, RequestLabels};

/// The account of one request that was to be read.
pub struct Account {
    started_ms: u64,
    labels: RequestLabels,
    status: Option<u16>,
    first_output_ms: Option<u64>,
}

impl Account {
    /// The request's headers are here.
    pub fn open() -> Account {
        Account {
            started_ms: host::now_ms(),
            labels: RequestLabels::default(),
            status: None,
            first_output_ms: None,
        }
    }

    /// It is known what the request is for.
    pub fn set_labels(&mut self, labels: RequestLabels) {
        self.labels = labels;
    }

    /// The answer's headers are here.
    pub fn answered(&mut self, status: Option<u16>) {
        self.status = status;
    }

    /// The answer has its first output.
    pub fn first_output(&mut self, now_ms: u64) {
        self.first_output_ms = Some(now_ms.saturating_sub(self.started_ms));
    }

    /// The request is over. Publishes what is known of it, and has it counted. `complete`: the server has ended its answer.
    pub fn close<W>(self, answer: &Answer, complete: bool, worker: &mut Worker<W>) {
        let answer = answer.ended(complete, self.first_output_ms);
        if let Some(EndedAnswer::Read(read)) = &answer {
            if let Some(usage) = read.usage {
                let (prompt, completion) =
                    (usage.prompt_tokens.to_string(), usage.completion_tokens.to_string());
                publish("llm_prompt_tokens", &prompt);
                publish("llm_completion_tokens", &completion);
                publish("asm.llmproxy.request_prompt_tokens", &prompt);
                publish("asm.llmproxy.request_completion_tokens", &completion);
                if let Some(tokens) = usage.cached_tokens {
                    publish("llm_cached_tokens", &tokens.to_string());
                }
            }
            if let Some(time_ms) = read.first_output_ms {
                publish("llm_ttft_ms", &time_ms.to_string());
            }
        }
        let duration_ms = host::now_ms().saturating_sub(self.started_ms);
        let ended = EndedRequest { labels: self.labels, status: self.status, answer, duration_ms };
        worker.recorder.record(|stats| stats.request_ended(&ended));
    }
}
