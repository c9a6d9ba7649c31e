//! Claims about traffic and figures. What goes through a gateway is claimed in `tests/end_to_end/bench_routing.rs`.

use std::time::Duration;

use super::pods::Pod;
use super::sending::{Answer, Observed};
use super::*;

#[test]
fn everybody_gets_the_same_traffic_and_it_has_as_many_requests_as_the_rate_says() {
    const SECONDS: f64 = 2.0;
    for traffic in Traffic::ALL {
        let rate_per_s = traffic.rate_per_s();
        let drawn = || traffic.sessions(SECONDS, rate_per_s, &traffic.adapters(), 1).unwrap();
        let requests: usize = drawn().iter().map(|session| session.turns.len()).sum();
        assert_eq!(requests, traffic.requests(SECONDS, rate_per_s), "{}", traffic.name());
        assert_eq!(drawn(), drawn(), "{}", traffic.name());
        let for_adapters = drawn().iter().filter(|session| session.adapter.is_some()).count();
        assert_eq!(for_adapters > 0, traffic == Traffic::Adapters);
    }
}

#[test]
fn what_is_asked_fits_into_a_server() {
    for traffic in Traffic::ALL {
        let room = traffic.servers(SPEED)[0].engine.kv_cache_tokens();
        for session in traffic.sessions(10.0, traffic.rate_per_s(), &[], 1).unwrap() {
            let said: usize = session.turns.iter().map(|turn| turn.text.len() + turn.output_tokens).sum();
            assert!(said <= room, "{}: {said} tokens", traffic.name());
        }
    }
}

fn milliseconds(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn answer(due_ms: u64, first_ms: u64, ended_ms: u64, output_tokens: usize) -> Answer {
    let observed =
        Observed { first_output: milliseconds(first_ms), ended: milliseconds(ended_ms), output_tokens };
    Answer { due: milliseconds(due_ms), sent: milliseconds(due_ms + 1), observed: Ok(observed) }
}

fn measures(answers: &[Answer], pods: &[Pod]) -> Measures {
    let objective = Objective { first_token_ms: 100.0, per_token_ms: 10.0 };
    Measures::of(answers, pods, objective, 0.5)
}

#[test]
fn times_count_from_when_a_request_was_due_and_each_further_token_has_its_share() {
    let measures = measures(&[answer(1_000, 1_050, 1_150, 11)], &[]);
    assert_eq!(measures.first_token_ms.p50, 50.0);
    assert_eq!(measures.per_token_ms.p50, 10.0);
    assert_eq!(measures.end_to_end_ms.p50, 150.0);
    assert_eq!(measures.late_ms.p99, 1.0);
    assert_eq!((measures.cache_hit_share, measures.kv_cache_spread), (None, None));
}

#[test]
fn good_is_what_was_answered_whole_and_soon_and_fast() {
    let failed = Answer { observed: Err("500".to_owned()), ..answer(0, 0, 0, 0) };
    let answers = [
        answer(0, 100, 200, 11),
        answer(0, 101, 200, 11),
        answer(0, 100, 301, 11),
        answer(0, 50, 50, 1),
        failed,
    ];
    let measures = measures(&answers, &[]);
    assert_eq!((measures.requests, measures.failed), (5, 1));
    assert_eq!(measures.goodput_share, 2.0 / 5.0);
}

#[test]
fn the_spread_of_kv_caches_is_between_the_fullest_and_the_emptiest_pod() {
    let pod = |shares: [f64; 2]| Pod {
        kv_cache: shares.iter().map(|&share| (Duration::ZERO, share)).collect(),
        ..Pod::default()
    };
    let measures = measures(&[], &[pod([0.1, 0.5]), pod([0.3, 0.5]), pod([0.2, 0.9])]);
    assert!((measures.kv_cache_spread.unwrap() - 0.3).abs() < 1e-9);
}
