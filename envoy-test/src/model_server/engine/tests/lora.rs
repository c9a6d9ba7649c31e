use super::*;

fn one_slot() -> EngineSettings {
    EngineSettings { lora_slots: 1, ..settings() }
}

#[test]
fn a_request_waits_while_other_adapters_hold_all_slots() {
    let requests = [with_adapter("a", request(0..4, 3)), with_adapter("b", request(0..4, 3))];
    let mut engine = engine_with(one_slot(), requests);
    finish_one_step(&mut engine);
    let gauges = engine.gauges();
    assert_eq!((gauges.running, gauges.waiting, gauges.deferred), (1, 1, 1));
    let outputs = run_until_idle(&mut engine);
    assert_eq!(order_of_last_tokens(&outputs), [1, 2]);
}

#[test]
fn others_pass_a_request_that_waits_for_a_slot() {
    let requests = [
        with_adapter("a", request(0..4, 3)),
        with_adapter("b", request(0..4, 3)),
        with_adapter("a", request(4..8, 3)),
        request(0..4, 3),
    ];
    let outputs = run_until_idle(&mut engine_with(one_slot(), requests));
    assert_eq!(order_of_first_tokens(&outputs), [1, 3, 4, 2]);
}

#[test]
fn requests_that_wait_for_a_slot_keep_their_order() {
    let requests = ["a", "b", "c", "d"].map(|adapter| with_adapter(adapter, request(0..4, 3)));
    let outputs = run_until_idle(&mut engine_with(one_slot(), requests));
    assert_eq!(order_of_first_tokens(&outputs), [1, 2, 3, 4]);
}

#[test]
fn only_a_cold_adapter_costs_loading_time() {
    let slots = EngineSettings { lora_slots: 2, ..settings() };
    // a and b are loaded; c takes the place of b, which was used longest ago once a came again.
    let cases = [("a", true), ("b", true), ("a", false), ("c", true), ("a", false), ("b", true), ("c", true)];
    let mut engine = Engine::new(slots);
    for (index, (adapter, loads)) in cases.into_iter().enumerate() {
        let start = Duration::from_secs(index as u64);
        engine.submit(start, with_adapter(adapter, request([index as u32], 1))).unwrap();
        let took = run_until_idle(&mut engine)[0].at - start;
        assert_eq!(took, ms(if loads { 111 } else { 11 }), "request {index}, adapter {adapter}");
    }
}

#[test]
fn an_adapter_is_shown_from_its_first_token_on() {
    let requests = [with_adapter("a", request(0..4, 3)), with_adapter("b", request(0..4, 3))];
    let mut engine = engine_with(one_slot(), requests);
    finish_one_step(&mut engine);
    assert_eq!(engine.gauges().active_adapters, BTreeSet::from(["a".to_owned()]));
    run_until_idle(&mut engine);
    assert_eq!(engine.gauges().active_adapters, BTreeSet::new());
}

#[test]
fn an_engine_without_slots_refuses_adapters() {
    let refused = Engine::new(settings()).submit(ms(0), with_adapter("a", request(0..4, 1)));
    assert_eq!(refused, Err(Refusal::NoLoraSlots));
}
