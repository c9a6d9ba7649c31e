//! Promises: how many requests have their first token in time, where endpoints are picked by what is promised and where they are not.
//!
//! ```text
//! kept = requests whose first token came within what they were promised ÷ all of them
//! ```
//!
//! Requests are of three kinds: every third one gives way, and of the others short prompts are promised less time than long ones. Those that give way are shed when nobody would keep their promise, or, as without promises,
//! when every engine is full; what is shed is not kept.

use std::time::Duration;

use anyhow::Result;
use inference_picker::promise::Promise;
use rayon::prelude::*;

use super::comparison::Repetition;
use super::picker::{CorePicker, Gateways, PickerKind, Request, Wanted};
use super::workload::{self, Workload};
use super::{Record, run};
use crate::table::Table;
use crate::times::Times;

/// How much of a pool's capacity arrives.
pub const LOADS: [f64; 3] = [0.8, 1.0, 1.2];
/// Who picks on which traffic: chats beside long inputs, prompts that are all alike, and conversations without and with prefixes.
const TRAFFIC: [(Workload, PickerKind); 4] = [
    (Workload::Embeddings, PickerKind::Default),
    (Workload::Random, PickerKind::Default),
    (Workload::Azure, PickerKind::Default),
    (Workload::Conversation, PickerKind::PrefixCache),
];

/// Tokens of the longest prompt that counts as short.
const SHORT_TOKENS: usize = 1_000;

/// What a request is promised, and whether it gives way.
#[derive(Debug, Clone, Copy)]
struct Kind {
    name: &'static str,
    first_token_ms: u32,
    priority: i32,
}

const KINDS: [Kind; 3] = [
    Kind { name: "short, 500 ms", first_token_ms: 500, priority: 0 },
    Kind { name: "long, 5 s", first_token_ms: 5_000, priority: 0 },
    Kind { name: "sheddable, 2 s", first_token_ms: 2_000, priority: -1 },
];

/// Who picks the engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PickedBy {
    /// The strategy, and nothing is promised.
    Cost,
    /// The strategy, and each request is promised something.
    Promise,
    /// The one that knows every engine's true state, and takes the earliest first token.
    Oracle,
}

impl PickedBy {
    /// Those that are compared at this load: the oracle only where there is room, as it sheds nothing.
    fn at(load: f64) -> &'static [PickedBy] {
        let all = &[PickedBy::Cost, PickedBy::Promise, PickedBy::Oracle];
        if load < 1.0 { all } else { &all[..2] }
    }

    fn name(self) -> &'static str {
        match self {
            PickedBy::Cost => "cost",
            PickedBy::Promise => "promise",
            PickedBy::Oracle => "oracle",
        }
    }
}

/// What came of one kind's requests.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Kept {
    pub requests: usize,
    pub kept: usize,
    pub shed: usize,
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct PromisesOutcome {
    /// Of each kind.
    pub kinds: [Kept; KINDS.len()],
    pub forecast_error_ms: Times,
}

impl PromisesOutcome {
    /// Of all requests, the share that was kept.
    pub fn kept_share(&self) -> f64 {
        let sum = |of: fn(&Kept) -> usize| self.kinds.iter().map(of).sum::<usize>() as f64;
        sum(|kind| kind.kept) / sum(|kind| kind.requests)
    }
}

/// The place of the kind of a request with so long a prompt.
fn kind_of(key: usize, prompt_tokens: usize) -> usize {
    match key % 3 {
        2 => 2,
        _ => usize::from(prompt_tokens > SHORT_TOKENS),
    }
}

/// What a request of each kind wants where endpoints are picked by promises.
fn promised(request: &Request<'_>) -> Wanted {
    let Kind { first_token_ms, priority, .. } = KINDS[kind_of(request.key, request.prompt.len())];
    let promise = Promise { first_token_us: Some(first_token_ms * 1_000), per_token_us: None };
    Wanted { priority, promise }
}

/// The same where they are not.
fn not_promised(request: &Request<'_>) -> Wanted {
    Wanted { priority: promised(request).priority, ..Wanted::default() }
}

/// Plays so many requests at this share of the capacity.
///
/// # Errors
/// A trace that cannot be read, or a prompt that does not fit into an engine.
pub fn play(
    (workload, picker): (Workload, PickerKind),
    load: f64,
    by: PickedBy,
    requests: usize,
    seed: u64,
) -> Result<PromisesOutcome> {
    let rate_per_s = load * workload.capacity_per_s();
    let sessions = workload::sessions(workload, requests, rate_per_s, seed)?;
    let engines = workload.pool().engines();
    let prompts: Vec<usize> = sessions.iter().map(|session| session.turns[0].text.len()).collect();
    if by == PickedBy::Oracle {
        let mut oracle = PickerKind::Oracle.build(&engines, Gateways::default(), seed);
        let record = run::run(sessions, engines, oracle.as_mut())?;
        return Ok(PromisesOutcome {
            kinds: kinds(&record, &prompts),
            forecast_error_ms: Times::of(std::iter::empty()),
        });
    }
    let rng = fastrand::Rng::with_seed(seed);
    let picker = CorePicker::new(picker.strategy(), &engines, Gateways::default(), rng);
    let mut picker = picker.wanting(if by == PickedBy::Promise { promised } else { not_promised });
    let record = run::run(sessions, engines, &mut picker)?;
    let forecast_error_ms = Times::of(picker.forecast_errors().iter().copied());
    Ok(PromisesOutcome { kinds: kinds(&record, &prompts), forecast_error_ms })
}

fn kinds(record: &Record, prompts: &[usize]) -> [Kept; KINDS.len()] {
    let mut kinds = [Kept::default(); KINDS.len()];
    for (key, prompt_tokens) in prompts.iter().enumerate() {
        let kind = &mut kinds[kind_of(key, *prompt_tokens)];
        kind.requests += 1;
        kind.shed += 1;
    }
    for answer in &record.answers {
        let place = kind_of(answer.key, answer.prompt_tokens);
        let promised = Duration::from_millis(KINDS[place].first_token_ms.into());
        let kind = &mut kinds[place];
        kind.shed -= 1;
        kind.kept += usize::from(answer.first_output - answer.arrived <= promised);
    }
    kinds
}

/// Plays all on all cores, and says in a table what came of it.
///
/// # Errors
/// Those of [`play`].
pub fn compare(repetition: Repetition) -> Result<String> {
    let cells = TRAFFIC.iter().flat_map(|traffic| LOADS.map(|load| (*traffic, load)));
    let cells: Vec<_> =
        cells.flat_map(|cell| PickedBy::at(cell.1).iter().map(move |by| (cell, *by))).collect();
    let played = cells.par_iter().map(|&((traffic, load), by)| {
        let runs = repetition.seeds().map(|seed| play(traffic, load, by, repetition.requests, seed));
        Ok((traffic, load, by, runs.collect::<Result<Vec<_>>>()?))
    });
    let names = KINDS.map(|kind| format!("{}: kept | shed", kind.name)).join(" | ");
    let head = format!(
        "| traffic, strategy | load | picked by | kept | {names} | expected, off by: p50 ms | p90 |\n|---|--:|---|{}\n",
        "--:|".repeat(3 + 2 * KINDS.len())
    );
    let mut table = Table::with_head(&head);
    for (traffic, load, by, runs) in played.collect::<Result<Vec<_>>>()? {
        table.row(&name(traffic), row(load, by, &runs));
    }
    Ok(table.to_string())
}

fn name((workload, picker): (Workload, PickerKind)) -> String {
    format!("{}, {}", workload.name(), picker.name())
}

fn row(load: f64, by: PickedBy, runs: &[PromisesOutcome]) -> Vec<String> {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    let mean = |of: &dyn Fn(&PromisesOutcome) -> f64| runs.iter().map(of).sum::<f64>() / runs.len() as f64;
    let mut cells = vec![
        format!("{:.0} %", load * 100.0),
        by.name().to_owned(),
        percent(mean(&PromisesOutcome::kept_share)),
    ];
    for place in 0..KINDS.len() {
        let share = |of: fn(&Kept) -> usize| {
            percent(mean(&|run| of(&run.kinds[place]) as f64 / run.kinds[place].requests.max(1) as f64))
        };
        cells.extend([share(|kind| kind.kept), share(|kind| kind.shed)]);
    }
    let errors = [mean(&|run| run.forecast_error_ms.p50), mean(&|run| run.forecast_error_ms.p90)];
    cells.extend(
        errors.map(|error| if by == PickedBy::Promise { format!("{error:.0}") } else { String::new() }),
    );
    cells
}
