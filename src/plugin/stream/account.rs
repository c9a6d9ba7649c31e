//! What one request has cost, from its headers to its end: for the access log, and for the statistics.

use super::answer_body::Answer;
use crate::log_fields::{LogField, LogFields};
use crate::plugin::calls::publish_if;
use crate::plugin::host;
use crate::plugin::worker::Worker;
use crate::promise::Forecast;
use crate::stats::{EndedAnswer, EndedRequest, ReadAnswer, RequestLabels};

/// The account of one request that was to be read.
pub struct Account {
    started_ms: u64,
    labels: RequestLabels,
    status: Option<u16>,
    first_output_ms: Option<u64>,
    forecast: Option<Forecast>,
}

impl Account {
    /// The request's headers are here.
    pub fn open() -> Account {
        Account {
            started_ms: host::now_ms(),
            labels: RequestLabels::default(),
            status: None,
            first_output_ms: None,
            forecast: None,
        }
    }

    /// When the request's headers came, in milliseconds of the host's clock.
    pub fn started_ms(&self) -> u64 {
        self.started_ms
    }

    /// It is known what is expected of the endpoint to which it goes.
    pub fn set_forecast(&mut self, forecast: Option<Forecast>) {
        self.forecast = forecast;
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
    pub fn close<W>(self, answer: &Answer, complete: bool, worker: &mut Worker<W>, now_ms: u64) {
        let answer = answer.ended(complete, self.first_output_ms);
        if let Some(EndedAnswer::Read(read)) = &answer {
            publish_cost(read, worker.config().publish);
        }
        let duration_ms = now_ms.saturating_sub(self.started_ms);
        let Account { labels, status, forecast, .. } = self;
        let ended = EndedRequest { labels, status, answer, duration_ms, forecast };
        worker.recorder.count(|stats| stats.request_ended(&ended));
    }
}

/// Publishes what an answer has reported of its cost.
fn publish_cost(read: &ReadAnswer, fields: LogFields) {
    let publish = |field: LogField, value: Option<u64>| {
        if let Some(value) = value.filter(|_| fields.has(field)) {
            publish_if(fields, field, &value.to_string());
        }
    };
    let prompt_tokens = read.usage.map(|usage| usage.prompt_tokens.into());
    let completion_tokens = read.usage.map(|usage| usage.completion_tokens.into());
    publish(LogField::PromptTokens, prompt_tokens);
    publish(LogField::CompletionTokens, completion_tokens);
    publish(LogField::MeshPromptTokens, prompt_tokens);
    publish(LogField::MeshCompletionTokens, completion_tokens);
    publish(LogField::CachedTokens, read.usage.and_then(|usage| usage.cached_tokens).map(u64::from));
    publish(LogField::TimeToFirstToken, read.first_output_ms);
}
