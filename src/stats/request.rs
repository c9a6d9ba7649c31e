//! What is recorded of a request when it has ended.

use super::{Label, Measurement, Statistic, Stats, UNKNOWN, clamp, measure, sort_in};
use crate::openai::Usage;
use crate::promise::Forecast;

/// What a request is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLabels {
    /// The model asked for.
    pub model: Label,
    /// The model sent.
    pub target: Label,
}

/// A request of which nothing was read.
impl Default for RequestLabels {
    fn default() -> RequestLabels {
        RequestLabels { model: UNKNOWN, target: UNKNOWN }
    }
}

/// A request that has ended.
#[derive(Debug, Clone, Copy)]
pub struct EndedRequest {
    /// What it is counted under.
    pub labels: RequestLabels,
    /// The status of its answer; `None`: it had none.
    pub status: Option<u16>,
    /// What became of its answer, if that was no error.
    pub answer: Option<EndedAnswer>,
    /// From its headers to its end.
    pub duration_ms: u64,
    /// What was expected of its endpoint, if it is promised something.
    pub forecast: Option<Forecast>,
}

/// An answer that has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndedAnswer {
    /// It was compressed.
    Encoded,
    /// It was read.
    Read(ReadAnswer),
}

/// What was read of an answer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct ReadAnswer {
    /// What it said it has cost.
    pub usage: Option<Usage>,
    /// Events with output.
    pub output_events: u32,
    /// Whether it came to its end.
    pub complete: bool,
    /// From the request's headers to its first output, if it was streamed and had one.
    pub first_output_ms: Option<u64>,
}

impl ReadAnswer {
    /// The mean time of each token behind the first, if it was streamed and had any.
    fn per_token_us(&self, duration_ms: u64) -> Option<u64> {
        let further = self.usage?.completion_tokens.checked_sub(1)?;
        (duration_ms.saturating_sub(self.first_output_ms?) * 1_000).checked_div(u64::from(further))
    }
}

impl Stats {
    /// A request that was to be read is over.
    pub fn request_ended(&mut self, request: &EndedRequest) -> Vec<Measurement> {
        let RequestLabels { model, target } = request.labels;
        let code = self.labels.word(status_class(request.status));
        let mut measured = vec![measure(Statistic::Requests, &[model, target, code], 1)];
        measured.extend(sort_in(Statistic::RequestDuration, &[model], clamp(request.duration_ms)));
        match request.answer {
            Some(EndedAnswer::Encoded) => measured.push(measure(Statistic::AnswersEncoded, &[model], 1)),
            Some(EndedAnswer::Read(answer)) => {
                measured.extend(answer_ended(model, &answer, request.duration_ms));
                measured.extend(promise_ended(model, &answer, request));
            }
            None => {}
        }
        measured
    }
}

/// What is reported counts as it was reported; what was seen beyond that is an estimate.
fn answer_ended(
    model: Label,
    answer: &ReadAnswer,
    duration_ms: u64,
) -> impl Iterator<Item = Measurement> + use<> {
    let model = [model];
    let one = |statistic: Statistic| measure(statistic, &model, 1);
    let usage = answer.usage;
    let reported = usage.map_or(0, |usage| usage.completion_tokens);
    let is_short = !answer.complete || usage.is_none();
    let estimate = answer.output_events.saturating_sub(reported);
    let first_output_ms = answer.first_output_ms;
    let per_token_us = answer.per_token_us(duration_ms);
    let counted = [
        (!answer.complete).then(|| one(Statistic::AnswersCutShort)),
        (answer.complete && usage.is_none()).then(|| one(Statistic::AnswersWithoutUsage)),
        (is_short && estimate > 0).then(|| measure(Statistic::EstimatedCompletionTokens, &model, estimate)),
        usage
            .and_then(|usage| usage.cached_tokens)
            .map(|tokens| measure(Statistic::CachedTokens, &model, tokens)),
    ];
    let sorted_in = [
        (Statistic::RequestPromptTokens, usage.map(|usage| usage.prompt_tokens.into())),
        (Statistic::RequestCompletionTokens, (reported > 0).then_some(reported.into())),
        (Statistic::TimeToFirstToken, first_output_ms.map(clamp)),
        (Statistic::TimePerOutputToken, per_token_us.map(clamp)),
    ];
    let sorted_in = sorted_in.into_iter().filter_map(|(histogram, value)| Some((histogram, value?)));
    let sorted_in = sorted_in.flat_map(move |(histogram, value)| sort_in(histogram, &model, value));
    counted.into_iter().flatten().chain(sorted_in)
}

/// Of a streamed answer it is known whether it kept what was promised, and how far off what was expected was.
fn promise_ended(
    model: Label,
    answer: &ReadAnswer,
    request: &EndedRequest,
) -> impl Iterator<Item = Measurement> + use<> {
    let known = request.forecast.zip(answer.first_output_ms);
    let per_token_us = answer.per_token_us(request.duration_ms);
    known.into_iter().flat_map(move |(forecast, first_ms)| {
        let is_kept = forecast.promise.is_kept(first_ms, per_token_us);
        let statistic = if is_kept { Statistic::PromisesKept } else { Statistic::PromisesMissed };
        let error_ms = clamp(forecast.first_token_ms.abs_diff(first_ms));
        let error = sort_in(Statistic::TimeToFirstTokenError, &[model], error_ms);
        [measure(statistic, &[model], 1)].into_iter().chain(error)
    })
}

fn status_class(status: Option<u16>) -> &'static str {
    match status {
        None => "none",
        Some(..300) => "2xx",
        Some(300..400) => "3xx",
        Some(400..500) => "4xx",
        Some(_) => "5xx",
    }
}
