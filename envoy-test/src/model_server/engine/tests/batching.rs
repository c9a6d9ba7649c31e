use super::*;

#[test]
fn requests_run_first_come_first_served() {
    let settings = EngineSettings { sequences_max: 1, ..settings() };
    // The longest comes first and the shortest last.
    let requests = [9, 5, 1].map(|tokens| request(0..tokens, 3));
    let outputs = run_until_idle(&mut engine_with(settings, requests));
    assert_eq!(order_of_last_tokens(&outputs), [1, 2, 3]);
}

#[test]
fn a_request_that_does_not_fit_holds_up_those_behind_it() {
    // Four blocks: the first request takes two, the second needs three, the third would fit.
    let settings = EngineSettings { blocks: 4, ..settings() };
    let requests = [request(0..5, 3), request(10..22, 1), request(30..31, 1)];
    let mut engine = engine_with(settings, requests);
    finish_one_step(&mut engine);
    assert_eq!((engine.gauges().running, engine.gauges().waiting), (1, 2));
    assert_eq!(order_of_first_tokens(&run_until_idle(&mut engine)), [2, 3]);
}

#[test]
fn all_that_fits_runs_in_one_step() {
    let mut engine = engine_with(settings(), (0..5).map(|index| request(index..index + 3, 1)));
    assert_eq!(order_of_first_tokens(&finish_one_step(&mut engine)), [1, 2, 3, 4, 5]);
    assert_eq!(engine.next_event(), None);
}

#[test]
fn no_more_sequences_run_than_may_run() {
    let settings = EngineSettings { sequences_max: 2, ..settings() };
    let mut engine = engine_with(settings, (0..5).map(|index| request(index..index + 3, 4)));
    while engine.next_event().is_some() {
        finish_one_step(&mut engine);
        assert!(engine.gauges().running <= 2);
    }
}

#[test]
fn a_long_prompt_is_computed_in_chunks_of_the_budget() {
    let settings = EngineSettings { step_tokens_max: 8, ..settings() };
    let mut engine = engine_with(settings, [request(0..20, 1)]);
    let outputs = run_until_idle(&mut engine);
    assert_eq!(engine.finished_steps(), 3);
    // Three steps of 10 ms and 20 tokens of 1 ms.
    assert_eq!(outputs.iter().map(|output| output.at).collect::<Vec<_>>(), [ms(50)]);
}

#[test]
fn a_running_sequence_gets_a_token_in_every_step_of_a_newcomers_prefill() {
    let settings = EngineSettings { step_tokens_max: 8, ..settings() };
    let mut engine = engine_with(settings, [request(0..4, 10)]);
    finish_one_step(&mut engine);
    engine.submit(ms(20), request(100..120, 1)).unwrap();
    for _ in 0..3 {
        let outputs = finish_one_step(&mut engine);
        assert_eq!(outputs.iter().filter(|output| output.request == 1).count(), 1);
    }
}

#[test]
fn a_step_costs_what_it_computes() {
    let cases = [
        (StepWork { decoding_sequences: 1, ..StepWork::default() }, 6.02),
        (StepWork { prefill_tokens: 2000, ..StepWork::default() }, 246.0),
        (StepWork { adapters_loaded: 1, ..StepWork::default() }, 56.0),
    ];
    let settings = EngineSettings { decode_sequence_ms: 0.02, ..EngineSettings::default() };
    let twice_as_fast = EngineSettings { speed: 2.0, ..settings.clone() };
    for (work, milliseconds) in cases {
        assert_eq!(settings.step_duration(&work), Duration::from_secs_f64(milliseconds / 1000.0));
        assert_eq!(twice_as_fast.step_duration(&work), Duration::from_secs_f64(milliseconds / 2000.0));
    }
}

#[test]
fn a_token_costs_more_the_more_tokens_there_are_before_it() {
    let settings = EngineSettings { step_tokens_max: 8, attended_token_ms: 1.0, ..settings() };
    let mut engine = engine_with(settings, [request(0..12, 2)]);
    let outputs = run_until_idle(&mut engine);
    // 10 + 8 and 0 to 7 tokens before each; 10 + 4 and 8 to 11; then 10 and 12.
    assert_eq!(outputs.iter().map(|output| output.at).collect::<Vec<_>>(), [ms(46 + 52), ms(98 + 22)]);
}

#[test]
fn the_sequence_that_started_last_gives_way_when_blocks_run_out() {
    // Four blocks of four tokens; both sequences grow to three blocks.
    let settings = EngineSettings { blocks: 4, ..settings() };
    let mut engine = engine_with(settings, [request(0..7, 5), request(20..27, 5)]);
    finish_one_step(&mut engine);
    let usage_before = engine.gauges().kv_cache_usage;
    while engine.cache_totals().preemptions == 0 {
        finish_one_step(&mut engine);
    }
    finish_one_step(&mut engine);
    assert_eq!((engine.gauges().running, engine.gauges().waiting), (1, 1));
    assert!(engine.gauges().kv_cache_usage < usage_before, "usage falls when the server is overloaded");
}

#[test]
fn a_preempted_sequence_is_first_in_the_queue_and_still_gets_all_its_tokens() {
    let settings = EngineSettings { blocks: 4, ..settings() };
    let requests = [request(0..7, 5), request(20..27, 5), request(40..47, 5)];
    let outputs = run_until_idle(&mut engine_with(settings, requests));
    assert_eq!(order_of_last_tokens(&outputs), [1, 2, 3]);
    let counts: Vec<_> =
        outputs.iter().filter(|output| output.request == 2).map(|output| output.output_tokens).collect();
    assert_eq!(counts, [1, 2, 3, 4, 5]);
}
