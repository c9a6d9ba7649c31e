use std::collections::BTreeMap;

use super::*;

#[test]
fn gauges_do_not_show_requests_that_arrived_during_the_step() {
    let settings = EngineSettings { sequences_max: 1, ..settings() };
    let mut engine = engine_with(settings, [request(0..4, 3)]);
    engine.advance(ms(1));
    engine.submit(ms(5), request(10..14, 1)).unwrap();
    finish_one_step(&mut engine);
    assert_eq!((engine.gauges().running, engine.gauges().waiting), (1, 0));
    finish_one_step(&mut engine);
    assert_eq!((engine.gauges().running, engine.gauges().waiting), (1, 1));
}

#[test]
fn gauges_stay_as_they_were_until_a_step_ends() {
    let mut engine = engine_with(settings(), [request(0..4, 3)]);
    engine.advance(ms(13));
    assert_eq!(engine.gauges(), &Gauges::default());
    engine.advance(ms(14));
    assert_eq!(engine.gauges().running, 1);
}

#[test]
fn an_idle_engine_shows_zeros_but_for_what_is_cached() {
    let mut engine = engine_with(settings(), [request(0..40, 3), request(50..60, 9)]);
    run_until_idle(&mut engine);
    assert_eq!(engine.gauges(), &idle(&engine));
    assert!(engine.gauges().evictable_tokens > 0);
}

/// Gauges of an engine with nothing to do, which has cached what it has.
fn idle(engine: &Engine) -> Gauges {
    Gauges { evictable_tokens: engine.gauges().evictable_tokens, ..Gauges::default() }
}

#[test]
fn a_late_caller_gets_the_same_outputs_at_the_same_virtual_times() {
    let requests = || (0..9).map(|index| request(index..index + 50, 20));
    let settings = EngineSettings { step_tokens_max: 64, ..settings() };
    let punctual = run_until_idle(&mut engine_with(settings.clone(), requests()));
    let late = engine_with(settings, requests()).advance(Duration::from_secs(3600));
    assert_eq!(punctual, late);
}

#[test]
fn an_output_says_when_its_request_came_ran_and_spoke() {
    let settings = EngineSettings { sequences_max: 1, ..settings() };
    let mut engine = engine_with(settings, [request(0..4, 1), request(10..14, 2)]);
    let outputs = run_until_idle(&mut engine);
    let expected = Output {
        request: 2,
        at: ms(38),
        arrived: ms(0),
        scheduled: ms(14),
        first: ms(28),
        previous: Some(ms(28)),
        prompt_tokens: 4,
        cached_tokens: 0,
        output_tokens: 2,
        finished: true,
    };
    assert_eq!(outputs.last(), Some(&expected));
}

#[test]
fn a_cancelled_request_gets_no_more_tokens_and_frees_what_it_held() {
    let settings = EngineSettings { blocks: 2, sequences_max: 1, ..settings() };
    let mut engine = engine_with(settings, [request(0..4, 4), request(10..14, 1)]);
    engine.advance(ms(20));
    assert!(engine.cancel(1));
    assert_eq!(order_of_last_tokens(&run_until_idle(&mut engine)), [2]);
    assert!(!engine.cancel(2), "it had ended");
}

#[test]
fn a_request_that_can_never_run_is_refused() {
    let cases = [
        (EngineSettings { queued_max: Some(1), ..settings() }, 4, Refusal::QueueFull),
        (EngineSettings { blocks: 3, ..settings() }, 12, Refusal::TooLong),
        (EngineSettings { blocks: 3, ..settings() }, usize::MAX, Refusal::TooLong),
    ];
    for (settings, output_tokens, refusal) in cases {
        let mut engine = engine_with(settings, [request(0..1, 1)]);
        assert_eq!(engine.submit(ms(0), request(0..1, output_tokens)), Err(refusal));
    }
}

#[test]
fn an_empty_prompt_and_no_output_count_as_one_token_each() {
    let outputs = run_until_idle(&mut engine_with(settings(), [request([], 0)]));
    assert_eq!((outputs[0].prompt_tokens, outputs[0].output_tokens, outputs[0].finished), (1, 1, true));
}

/// Settings so tight that every kind of shortage occurs.
fn tight(random: &mut fastrand::Rng) -> EngineSettings {
    EngineSettings {
        step_tokens_max: random.usize(1..20),
        sequences_max: random.usize(1..6),
        blocks: random.usize(10..20),
        lora_slots: random.usize(1..3),
        ..settings()
    }
}

#[test]
fn under_any_load_each_request_gets_exactly_its_tokens_or_was_cancelled() {
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut engine = Engine::new(tight(&mut random));
        let mut expected = BTreeMap::new();
        let mut got = BTreeMap::new();
        let mut now = ms(0);
        for _ in 0..60 {
            let adapter = random.bool().then(|| format!("adapter-{}", random.u8(0..4)));
            let prompt = vec![random.u32(0..3); random.usize(1..20)];
            let request = EngineRequest { adapter, ..request(prompt, random.usize(1..16)) };
            let tokens = request.output_tokens;
            expected.insert(engine.submit(now, request).unwrap(), tokens);
            now += ms(random.u64(0..60));
            advance_and_check(&mut engine, now, &mut got);
            cancel_one(&mut engine, &mut random, &mut expected, &mut got);
        }
        advance_and_check(&mut engine, now + Duration::from_secs(3600), &mut got);
        assert_eq!(got, expected, "seed {seed}");
        assert_eq!(engine.gauges(), &idle(&engine), "seed {seed}");
    }
}

/// Counts tokens by request, and looks at every step's work on the way.
fn advance_and_check(engine: &mut Engine, until: Duration, got: &mut BTreeMap<RequestId, usize>) {
    while let Some(at) = engine.next_event().filter(|&at| at <= until) {
        for output in engine.advance(at) {
            let tokens = got.entry(output.request).or_insert(0);
            *tokens += 1;
            assert_eq!(output.output_tokens, *tokens);
        }
        if let Some(work) = engine.step_work() {
            let budget = engine.settings().step_tokens_max;
            assert!((1..=budget).contains(&work.tokens()), "{work:?} of {budget}");
        }
    }
}

/// Sometimes cancels a request, which then no longer counts unless it had ended.
fn cancel_one(
    engine: &mut Engine,
    random: &mut fastrand::Rng,
    expected: &mut BTreeMap<RequestId, usize>,
    got: &mut BTreeMap<RequestId, usize>,
) {
    let id = random.u64(1..=expected.len() as u64 * 3);
    if engine.cancel(id) {
        expected.remove(&id);
        got.remove(&id);
    }
}
