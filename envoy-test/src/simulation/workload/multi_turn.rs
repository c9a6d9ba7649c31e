//! Chats: a system prompt that all share, what the service remembers of the user, and turns that each repeat all
//! before them. Some users come often, many rarely; a user may have several chats at once.

use std::time::Duration;

use fastrand::Rng;

use super::{Session, Turn, draw};

const SYSTEM_TOKENS: usize = 300;
const USERS: usize = 300;
const USER_TOKENS: usize = 200;
const TURNS_MAX: usize = 7;
const PAUSE_MEAN_S: f64 = 3.0;

pub fn sessions(requests: usize, rate_per_s: f64, rng: &mut Rng) -> Vec<Session> {
    let system = draw::fresh_text(SYSTEM_TOKENS, rng);
    let users: Vec<_> = (0..USERS).map(|_| draw::fresh_text(USER_TOKENS, rng)).collect();
    let popularity = draw::Popularity::of(USERS);
    let turns_mean = (1 + TURNS_MAX) as f64 / 2.0;
    let most: Vec<_> = draw::poisson(rate_per_s / turns_mean, rng).take(requests).collect();
    let mut left = requests;
    let sessions = most.into_iter().enumerate().map_while(|(name, starts)| {
        let turns = rng.usize(1..=TURNS_MAX).min(left);
        left -= turns;
        let user = &users[popularity.draw(rng)];
        let introduction = [system.as_slice(), user].concat();
        (turns > 0).then(|| Session { name: Some(name), ..chat(starts, introduction, turns, rng) })
    });
    sessions.collect()
}

fn chat(starts: Duration, introduction: Vec<u32>, turns: usize, rng: &mut Rng) -> Session {
    let turns = (0..turns).map(|turn| {
        let question = draw::fresh_text(rng.usize(20..=300), rng);
        let output_tokens = rng.usize(40..=160);
        match turn {
            0 => Turn {
                pause: Duration::ZERO,
                text: [introduction.as_slice(), &question].concat(),
                output_tokens,
            },
            _ => Turn { pause: draw::exponential(PAUSE_MEAN_S, rng), text: question, output_tokens },
        }
    });
    Session { starts, adapter: None, name: None, turns: turns.collect() }
}
