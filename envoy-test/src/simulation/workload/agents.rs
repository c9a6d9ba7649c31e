//! Agents that call tools: sessions of 5 to 40 turns, each of which repeats all before it and adds what a tool gave, 1 to 20 s
//! after the answer. Prompts grow from 2,000 to 60,000 tokens. An agent may start sub-agents, which have its first 2,000 tokens
//! (instructions and tools), a task of their own, and fewer turns.

use std::time::Duration;

use fastrand::Rng;

use super::{Session, Turn, draw};

/// Kinds of agents, each with instructions and tools of its own.
const KINDS: usize = 4;
const INSTRUCTION_TOKENS: usize = 2_000;
const TASK_TOKENS: (usize, usize) = (50, 1_000);
const RESULT_TOKENS: (usize, usize) = (100, 6_000);
const ANSWER_TOKENS: std::ops::RangeInclusive<usize> = 20..=300;
const TURNS: std::ops::RangeInclusive<usize> = 5..=40;
const PROMPT_TOKENS_MAX: usize = 60_000;
const PAUSE_MS: (usize, usize) = (1_000, 20_000);
const SUB_AGENTS_MAX: usize = 2;
const SUB_AGENT_TURNS: std::ops::RangeInclusive<usize> = 5..=15;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let kinds: Vec<_> = (0..KINDS).map(|_| draw::fresh_text(INSTRUCTION_TOKENS, rng)).collect();
    let mut rng_of_starts = rng.fork();
    let mut starts = draw::poisson(rate_per_s / requests_of_an_agent(), &mut rng_of_starts);
    let (mut sessions, mut left) = (Vec::new(), requests);
    while left > 0 {
        let Some(start) = starts.next() else { break };
        let instructions = &kinds[rng.usize(..KINDS)];
        let with_sub_agents = std::iter::once((start, TURNS))
            .chain((0..rng.usize(..=SUB_AGENTS_MAX)).map(|_| (start + pause(rng), SUB_AGENT_TURNS)));
        for (starts, turns) in with_sub_agents.collect::<Vec<_>>() {
            let turns = turns_of(instructions, rng.usize(turns), rng);
            let turns: Vec<_> = turns.into_iter().take(left).collect();
            left -= turns.len();
            if !turns.is_empty() {
                sessions.push(Session { starts, adapter: None, name: Some(sessions.len()), turns });
            }
        }
    }
    sessions.sort_by_key(|session| session.starts);
    sessions
}

/// In the mean, with those of its sub-agents.
fn requests_of_an_agent() -> f64 {
    let middle = |range: std::ops::RangeInclusive<usize>| (range.start() + range.end()) as f64 / 2.0;
    middle(TURNS) + SUB_AGENTS_MAX as f64 / 2.0 * middle(SUB_AGENT_TURNS)
}

fn pause(rng: &mut Rng) -> Duration {
    let (least, most) = PAUSE_MS;
    Duration::from_millis(draw::log_uniform(least, most, rng) as u64)
}

/// So many turns; fewer, if the prompt would grow too long.
fn turns_of(instructions: &[u32], turns: usize, rng: &mut Rng) -> Vec<Turn> {
    let mut tokens = 0;
    let turns = (0..turns).map_while(|turn| {
        let output_tokens = rng.usize(ANSWER_TOKENS);
        let (least, most) = if turn == 0 { TASK_TOKENS } else { RESULT_TOKENS };
        let added = draw::fresh_text(draw::log_uniform(least, most, rng), rng);
        let (pause, text) = match turn {
            0 => (Duration::ZERO, [instructions, &added].concat()),
            _ => (pause(rng), added),
        };
        tokens += text.len() + output_tokens;
        (tokens <= PROMPT_TOKENS_MAX).then_some(Turn { pause, text, output_tokens })
    });
    turns.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_grow_from_two_thousand_tokens_to_sixty_thousand_and_no_further() {
        let sessions = sessions(4_000, 5.0, &mut Rng::with_seed(1));
        let said =
            |turns: &[Turn]| turns.iter().map(|turn| turn.text.len() + turn.output_tokens).sum::<usize>();
        let first = sessions.iter().map(|session| session.turns[0].text.len());
        let last: Vec<_> = sessions.iter().map(|session| said(&session.turns)).collect();
        assert!(first.into_iter().all(|tokens| (2_050..=3_000).contains(&tokens)));
        assert!(last.iter().all(|&tokens| tokens <= 60_000) && last.iter().any(|&tokens| tokens > 50_000));
    }
}
