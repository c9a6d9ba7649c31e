//! What arrives: sessions of one or more turns, drawn from a seed.
//!
//! Sessions come in whatever state the pool is (an open loop); the turns of one session follow each other, each a
//! pause after the answer before it. A turn's prompt is all that was said before, answers included, and its own text.

pub(crate) mod adapters;
mod agents;
mod azure;
mod bursts;
mod capacity;
mod conversation;
mod day;
pub mod draw;
mod embeddings;
mod hot_prompt;
mod long_answers;
mod multi_turn;
mod rag;
pub(super) mod random;
pub(super) mod shared_prefixes;
mod trace;
mod two_models;

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;

pub use capacity::find_capacity;

use super::pool::PoolSettings;

/// What a user says and how much is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Turn {
    /// Between the answer before this and this; for the first turn nothing.
    pub pause: Duration,
    /// What is added to the prompt, as token ids.
    pub text: Vec<u32>,
    pub output_tokens: usize,
}

/// A user's turns, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    pub starts: Duration,
    /// The adapter that it asks for; nothing: the base model.
    pub adapter: Option<String>,
    /// The number by which its client names it, if it does.
    pub name: Option<usize>,
    pub turns: Vec<Turn>,
}

impl Session {
    /// A session of a single request.
    pub(crate) fn single(starts: Duration, text: Vec<u32>, output_tokens: usize) -> Session {
        Session {
            starts,
            adapter: None,
            name: None,
            turns: vec![Turn { pause: Duration::ZERO, text, output_tokens }],
        }
    }
}

/// A kind of traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Workload {
    /// Mooncake's trace of conversations: long prompts that share their starts.
    Conversation,
    /// Azure's trace of conversations: its sizes and arrivals, nothing shared.
    Azure,
    /// Chats: each turn repeats all before it.
    MultiTurn,
    /// One long system prompt for all.
    HotPrompt,
    /// Prompts of unequal length, nothing shared.
    Random,
    /// Questions about documents, some of which are popular.
    SharedPrefixes,
    /// 24 requests at once, over and over.
    Bursts,
    /// Prompts of unequal length for LoRA adapters.
    Adapters,
    /// Short questions, and answers of thousands of tokens.
    LongAnswers,
    /// Prompts of 20,000 tokens: shared documents in any order.
    Rag,
    /// Inputs that are embedded, beside chats.
    Embeddings,
    /// Mooncake's trace with a day's curve.
    Day,
    /// Chats with one model and summaries by another.
    TwoModels,
    /// Agents that call tools: sessions that grow to 60,000 tokens.
    Agents,
}

impl Workload {
    pub const ALL: [Workload; 14] = [
        Workload::Conversation,
        Workload::Azure,
        Workload::MultiTurn,
        Workload::HotPrompt,
        Workload::Random,
        Workload::SharedPrefixes,
        Workload::Bursts,
        Workload::Adapters,
        Workload::LongAnswers,
        Workload::Rag,
        Workload::Embeddings,
        Workload::Day,
        Workload::TwoModels,
        Workload::Agents,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Workload::Conversation => "conversation",
            Workload::Azure => "azure",
            Workload::MultiTurn => "multi-turn",
            Workload::HotPrompt => "hot-prompt",
            Workload::Random => "random",
            Workload::SharedPrefixes => "shared-prefixes",
            Workload::Bursts => "bursts",
            Workload::Adapters => "adapters",
            Workload::LongAnswers => "long-answers",
            Workload::Rag => "rag",
            Workload::Embeddings => "embeddings",
            Workload::Day => "day",
            Workload::TwoModels => "two-models",
            Workload::Agents => "agents",
        }
    }

    /// The pool that it is usually sent to. Long prompts and answers take engines with room for four times as much, those of
    /// agents for eight times, and long prompts some that compute four times as fast.
    pub fn pool(self) -> PoolSettings {
        let usual = PoolSettings::default();
        match self {
            Workload::LongAnswers => PoolSettings { kv_share: 4.0, ..usual },
            Workload::Rag => PoolSettings { engine_speed: 4.0, kv_share: 4.0, ..usual },
            Workload::Agents => PoolSettings { engine_speed: 4.0, kv_share: 8.0, ..usual },
            _ => usual,
        }
    }
}

/// Draws traffic of so many requests; arrivals come at `rate_per_s` in the mean, in the order of their time.
///
/// # Errors
/// A trace that cannot be read.
pub fn sessions(workload: Workload, requests: usize, rate_per_s: f64, seed: u64) -> Result<Vec<Session>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    match workload {
        Workload::Conversation => conversation::sessions(requests, rate_per_s, &mut rng),
        Workload::Azure => azure::sessions(requests, rate_per_s, &mut rng),
        Workload::MultiTurn => Ok(multi_turn::sessions(requests, rate_per_s, &mut rng)),
        Workload::HotPrompt => Ok(hot_prompt::sessions(requests, rate_per_s, &mut rng)),
        Workload::Random => Ok(random::sessions(requests, rate_per_s, &mut rng)),
        Workload::SharedPrefixes => Ok(shared_prefixes::sessions(requests, rate_per_s, &mut rng)),
        Workload::Bursts => Ok(bursts::sessions(requests, rate_per_s, &mut rng)),
        Workload::Adapters => Ok(adapters::sessions(requests, rate_per_s, &adapters::names(), &mut rng)),
        Workload::LongAnswers => Ok(long_answers::sessions(requests, rate_per_s, &mut rng)),
        Workload::Rag => Ok(rag::sessions(requests, rate_per_s, &mut rng)),
        Workload::Embeddings => Ok(embeddings::sessions(requests, rate_per_s, &mut rng)),
        Workload::Day => day::sessions(requests, rate_per_s, &mut rng),
        Workload::TwoModels => Ok(two_models::sessions(requests, rate_per_s, &mut rng)),
        Workload::Agents => Ok(agents::sessions(requests, rate_per_s, &mut rng)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUESTS: usize = 2_000;

    fn drawn(workload: Workload, rate_per_s: f64, seed: u64) -> Vec<Session> {
        sessions(workload, REQUESTS, rate_per_s, seed).unwrap()
    }

    #[test]
    fn traffic_has_the_requests_asked_for_in_the_order_of_time() {
        for workload in Workload::ALL {
            let sessions = drawn(workload, 10.0, 1);
            let turns: usize = sessions.iter().map(|session| session.turns.len()).sum();
            assert_eq!(turns, REQUESTS, "{}", workload.name());
            assert!(sessions.is_sorted_by_key(|session| session.starts), "{}", workload.name());
        }
    }

    #[test]
    fn it_comes_at_the_rate_asked_for() {
        // Of agents there are few, and sub-agents start later.
        for workload in Workload::ALL.into_iter().filter(|&workload| workload != Workload::Agents) {
            for rate_per_s in [5.0, 80.0] {
                let last = drawn(workload, rate_per_s, 1).last().unwrap().starts;
                let found = REQUESTS as f64 / last.as_secs_f64();
                assert!((0.85..1.15).contains(&(found / rate_per_s)), "{}: {found}", workload.name());
            }
        }
    }

    #[test]
    fn the_same_seed_draws_the_same() {
        for workload in Workload::ALL {
            assert_eq!(drawn(workload, 10.0, 1), drawn(workload, 10.0, 1), "{}", workload.name());
        }
    }

    #[test]
    fn what_is_said_to_be_shared_is_shared_and_nothing_else() {
        let check = |workload: Workload, expected: fn(usize) -> bool| {
            let sessions = drawn(workload, 10.0, 1);
            let starts =
                sessions.iter().map(|session| &session.turns[0].text[..16.min(session.turns[0].text.len())]);
            let distinct = starts.collect::<std::collections::HashSet<_>>().len();
            assert!(expected(distinct), "{}: {distinct}", workload.name());
        };
        check(Workload::HotPrompt, |distinct| distinct == 1);
        check(Workload::MultiTurn, |distinct| distinct == 1);
        check(Workload::SharedPrefixes, |distinct| (50..=200).contains(&distinct));
        check(Workload::Conversation, |distinct| distinct < REQUESTS / 2);
        check(Workload::Rag, |distinct| distinct == 1);
        check(Workload::Day, |distinct| distinct < REQUESTS / 2);
        check(Workload::TwoModels, |distinct| distinct <= 60);
        check(Workload::Agents, |distinct| distinct == 4);
        let alone = [Workload::Azure, Workload::Random, Workload::Bursts, Workload::Adapters];
        for alone in alone.into_iter().chain([Workload::LongAnswers, Workload::Embeddings]) {
            check(alone, |distinct| distinct == REQUESTS);
        }
    }
}
