//! Which endpoint a request goes to, case by case.

mod common;

use common::{NOW_MS, Pod, World, pods, snapshot};
use inference_picker::decide::Decision;
use inference_picker::ledger::{Ledger, Member};
use inference_picker::pool::{HostHealth, Snapshot};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// With these pods, idle as far as this gateway is concerned, a request for `model` goes to the pod at `expected`.
fn check(pods: &[Pod], model: &str, expected: usize) {
    for seed in 0..20 {
        let mut world = World::new("DEFAULT", pods, seed);
        assert_eq!(world.pick(model, 100)[0], expected, "{pods:?}, seed {seed}");
    }
}

#[test]
fn the_shortest_queue_wins() {
    check(&[Pod::queue(3).kv(0.2), Pod::queue(0).kv(0.1), Pod::queue(10).kv(0.2)], "m", 1);
    check(&[Pod::queue(5), Pod::queue(4)], "m", 1);
}

#[test]
fn between_equal_queues_the_emptier_kv_cache_wins() {
    check(&[Pod::queue(2).kv(0.9), Pod::queue(2).kv(0.3), Pod::queue(2).kv(0.5)], "m", 1);
}

#[test]
fn between_equal_queues_fewer_running_requests_win() {
    check(&[Pod::idle().running(7), Pod::idle().running(2)], "m", 1);
}

#[test]
fn an_adapters_requests_go_where_it_is_loaded_then_to_a_free_slot() {
    let with = |pod: Pod, adapters: &[&str]| pod.adapters(adapters, 2);
    let loaded = with(Pod::queue(2).kv(0.8), &["sql"]);
    let free = with(Pod::queue(2).kv(0.4), &["other"]);
    let full = with(Pod::queue(2).kv(0.1), &["other", "more"]);
    check(&[full.clone(), free.clone(), loaded.clone()], "sql", 2);
    check(&[full.clone(), loaded.clone(), free.clone()], "sql", 1);
    check(&[with(Pod::queue(50), &["sql"]), full.clone(), free.clone()], "sql", 2);
    check(&[loaded, free, full], "m", 2);
}

/// With these pods, a prompt of so many tokens may go to those at `expected` and to no other.
fn check_contexts(pods: &[Pod], prompt_tokens: usize, expected: &[usize]) {
    for strategy in ["DEFAULT", "LEAST_REQUEST", "ROUND_ROBIN", "RANDOM", "PREFIX_CACHE"] {
        let mut world = World::new(strategy, pods, 1);
        let mut picked: Vec<usize> = (0..40).flat_map(|_| world.pick("m", prompt_tokens)).collect();
        picked.sort_unstable();
        picked.dedup();
        assert_eq!(picked, expected, "{strategy}, {prompt_tokens}: {pods:?}");
    }
}

#[test]
fn a_prompt_goes_where_it_fits() {
    let pods = [Pod::idle().context(4_096), Pod::queue(9).context(8_192), Pod::idle().context(4_096)];
    check_contexts(&pods, 4_096, &[0, 1, 2]);
    check_contexts(&pods, 4_097, &[1]);
    check_contexts(&pods, 8_192, &[1]);
    // By its estimate it fits nowhere. That may be wrong, and then the longest is the one.
    check_contexts(&pods, 60_000, &[1]);
    // A pod that does not report its context may take any prompt.
    check_contexts(&[Pod::idle().context(4_096), Pod::idle()], 5_000, &[1]);
    check_contexts(&[Pod::idle().context(4_096).unhealthy(), Pod::idle().context(2_048)], 4_000, &[1]);
}

#[test]
fn a_target_that_is_configured_is_no_adapter_where_no_pod_reports_adapters() {
    let mut world = World::with_models(&["cold"], &pods(8));
    let mut picks: Vec<usize> = (0..8).map(|_| world.send("cold", 12)).collect();
    picks.sort();
    assert_eq!(picks, [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_cold_adapter_with_many_requests_at_once_is_loaded_on_few_pods() {
    let mut world = World::with_models(&["cold", "long"], &vec![Pod::idle().adapters(&[], 2); 8]);
    let mut picks: Vec<usize> = (0..24).map(|_| world.send("cold", 12)).collect();
    picks.sort();
    picks.dedup();
    assert!(picks.len() <= 3, "{picks:?}");
    let mut long: Vec<usize> = (0..8).map(|_| world.send("long", 20_000)).collect();
    long.sort();
    long.dedup();
    assert!(long.len() >= 4, "long prompts are worth loading it: {long:?}");
}

#[test]
fn an_adapter_stays_where_it_is_loaded_until_its_slot_is_needed_or_the_server_starts_anew() {
    let pods = |restarted_ms| vec![Pod::idle().adapters(&[], 1).restarted(restarted_ms); 2];
    let mut world = World::with_models(&["sql", "chat", "other"], &pods(None));
    let (sql, chat) = (world.serve("sql", 12), world.serve("chat", 12));
    assert_ne!(sql, chat);
    for _ in 0..10 {
        assert_eq!((world.serve("sql", 12), world.serve("chat", 12)), (sql, chat));
    }
    let in_its_place = world.serve("other", 12);
    let lost = if in_its_place == sql { "sql" } else { "chat" };
    assert_eq!(world.serve("other", 12), in_its_place);
    world.serve(lost, 12);
    world.apply(snapshot(&pods(Some(NOW_MS))));
    let mut cold: Vec<usize> = (0..40).map(|_| world.pick("sql", 12)[0]).collect();
    cold.sort_unstable();
    cold.dedup();
    assert_eq!(cold, [0, 1]);
}

#[test]
fn a_model_of_which_nothing_is_known_is_no_adapter() {
    let mut world = World::new("DEFAULT", &vec![Pod::idle().adapters(&[], 2); 4], 1);
    let mut counts = [0; 4];
    (0..32).for_each(|_| counts[world.send("another-name-of-the-base-model", 12)] += 1);
    assert_eq!(counts, [8; 4]);
}

#[test]
fn what_this_gateway_has_just_sent_counts_before_any_scrape_shows_it() {
    for seed in 0..20 {
        let mut world = World::new("DEFAULT", &pods(2), seed);
        let first = world.send("m", 1_000);
        assert_ne!(world.send("m", 1_000), first, "seed {seed}");
    }
}

#[test]
fn tokens_count_and_not_requests() {
    let mut world = World::new("DEFAULT", &pods(2), 1);
    let long = world.send("m", 8_000);
    for _ in 0..3 {
        assert_ne!(world.send("m", 100), long, "three short prompts are less than a long one");
    }
}

#[test]
fn the_gateways_own_requests_are_not_counted_twice_when_a_scrape_shows_them() {
    check(&[Pod::queue(4).external(4), Pod::queue(4).external(0)], "m", 1);
    // A queued request of others counts for 512 tokens, and the gateway's own for as many as it has.
    for seed in 0..20 {
        let mut world = World::new("DEFAULT", &pods(2), seed);
        let own = world.send("m", 300);
        let mut shown = [Pod::queue(1).external(1), Pod::queue(1).external(1)];
        shown[own] = Pod::queue(1).external(0);
        world.apply(snapshot(&shown));
        assert_eq!(world.pick("m", 100)[0], own, "seed {seed}");
    }
}

#[test]
fn endpoints_with_stale_metrics_come_behind_the_fresh_ones() {
    check(&[Pod::idle().stale(), Pod::queue(20).kv(0.9)], "m", 1);
    check(&[Pod::unread().failing(1), Pod::queue(20).kv(0.9)], "m", 1);
}

/// The first round of a large pool takes seconds: those that were scraped first are not to get all requests meanwhile.
#[test]
fn endpoints_that_no_scrape_has_reached_yet_are_picked_like_others() {
    for strategy in ["DEFAULT", "PREFIX_CACHE"] {
        let mut pods = vec![Pod::unread(); 8];
        pods[2] = Pod::idle();
        let mut world = World::new(strategy, &pods, 5);
        let mut counts = [0; 8];
        (0..16).for_each(|_| counts[world.send("m", 100)] += 1);
        assert_eq!(counts, [2; 8], "{strategy}");
    }
}

#[test]
fn endpoints_whose_metrics_cannot_be_read_are_picked_like_others() {
    check(&[Pod::idle().unreadable(), Pod::queue(1)], "m", 0);
    check(&[Pod::queue(9).unreadable(), Pod::queue(1)], "m", 0);
    check(&[Pod::idle().unreadable(), Pod::idle().stale()], "m", 0);
    for strategy in ["DEFAULT", "PREFIX_CACHE", "LEAST_REQUEST", "ROUND_ROBIN"] {
        let mut pods = vec![Pod::idle().unreadable(); 4];
        pods[2] = Pod::idle();
        let mut world = World::new(strategy, &pods, 11);
        let mut counts = [0; 4];
        (0..40).for_each(|_| counts[world.send("m", 500)] += 1);
        assert_eq!(counts, [10; 4], "{strategy}");
    }
}

#[test]
fn endpoints_that_sleep_are_left_out_unless_all_do() {
    check(&[Pod::idle().resting(), Pod::queue(9)], "m", 1);
    check(&[Pod::queue(9).resting(), Pod::idle().resting(), Pod::idle().failing(3)], "m", 1);
    check(&[Pod::idle().resting().unreadable(), Pod::queue(9)], "m", 0);
    for strategy in ["LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"] {
        let mut world = World::new(strategy, &[Pod::idle().resting(), Pod::idle()], 1);
        assert!((0..20).all(|_| world.send("m", 10) == 1), "{strategy}");
    }
}

/// How many of a thousand picks each of these pods gets, give or take some.
#[track_caller]
fn check_shares(pods: &[Pod], expected: &[u32]) {
    for strategy in ["DEFAULT", "ROUND_ROBIN", "LEAST_REQUEST", "RANDOM"] {
        let mut world = World::new(strategy, pods, 3);
        let mut counts = vec![0; pods.len()];
        (0..2_000).for_each(|_| counts[world.serve("m", 10)] += 1);
        let near = |(count, expected): (&u32, &u32)| {
            count.abs_diff(2 * *expected) <= 90 && (*expected > 0 || *count == 0)
        };
        assert!(counts.iter().zip(expected).all(near), "{strategy} {pods:?}: {counts:?}, not {expected:?}");
    }
}

#[test]
fn a_lower_priority_gets_what_envoy_would_spill_over() {
    let [first, second] = [0, 1].map(|priority| Pod::idle().priority(priority));
    let gone = || first.clone().unhealthy();
    check_shares(&[first.clone(), first.clone(), second.clone()], &[500, 500, 0]);
    check_shares(&[first.clone(), gone(), second.clone()], &[700, 0, 300]);
    check_shares(&[first.clone(), gone(), second.clone(), second.clone()], &[700, 0, 150, 150]);
    check_shares(&[gone(), gone(), second.clone()], &[0, 0, 1_000]);
    // What fails by the gateway's own knowledge, or sleeps, is not there either.
    check_shares(&[first.clone().failing(3), second.clone()], &[0, 1_000]);
    check_shares(&[first.clone().resting(), second.clone()], &[0, 1_000]);
    // One that has not been checked yet is not one that is missing.
    let new = first.clone().health(HostHealth::Excluded);
    check_shares(&[first.clone(), new.clone(), new, second.clone()], &[1_000, 0, 0, 0]);
    // Where nobody is healthy, everybody may be picked.
    check_shares(&[gone(), second.unhealthy()], &[500, 500]);
}

#[test]
fn degraded_endpoints_get_what_healthy_ones_are_too_few_for() {
    let pod = Pod::idle;
    check_shares(&[pod(), pod(), pod(), pod().degraded()], &[333, 333, 333, 0]);
    check_shares(&[pod(), pod().degraded()], &[700, 300]);
    check_shares(&[pod().degraded(), pod().degraded()], &[500, 500]);
    check_shares(&[pod().degraded(), pod().priority(1)], &[0, 1_000]);
}

#[test]
fn the_endpoints_of_another_level_come_last_in_a_pick() {
    let pods = [Pod::idle(), Pod::idle().unhealthy(), Pod::queue(50).priority(1), Pod::queue(9).priority(1)];
    for seed in 0..20 {
        let picks = World::new("DEFAULT", &pods, seed).pick("m", 100);
        assert!(picks == [0, 3, 2] || picks == [3, 2, 0], "{picks:?}");
    }
}

#[test]
fn an_endpoint_is_named_as_envoy_names_it() {
    let pods = [Pod::queue(9), Pod::idle().named("envoy://connect_originate/10.0.0.1:8000")];
    let Decision::Send(pick) = World::new("DEFAULT", &pods, 1).decide("m", 10) else { panic!("not sent") };
    assert_eq!(pick.destinations, "envoy://connect_originate/10.0.0.1:8000,10.0.0.0:8000");
}

#[test]
fn a_cluster_with_hosts_that_cannot_be_named_is_left_to_envoy() {
    for named in [0, 2] {
        let mut world = World::discovering(1);
        world.apply(Snapshot { has_unnamed: true, ..snapshot(&pods(named)) });
        assert!(matches!(world.decide("m", 10), Decision::Fallback(_)), "{named}");
        world.apply(snapshot(&pods(2)));
        assert_eq!(world.pick("m", 10).len(), 2, "{named}");
    }
}

#[test]
fn where_all_metrics_are_stale_only_what_is_in_flight_counts() {
    let mut world =
        World::new("DEFAULT", &[Pod::queue(9).stale(), Pod::idle().stale(), Pod::unread().failing(1)], 3);
    let mut picks: Vec<usize> = (0..3).map(|_| world.send("m", 100)).collect();
    picks.sort();
    assert_eq!(picks, [0, 1, 2]);
}

#[test]
fn an_endpoint_that_fails_or_is_unhealthy_is_left_out_unless_none_is_left() {
    check(&[Pod::idle().failing(3), Pod::queue(9)], "m", 1);
    check(&[Pod::idle().failing(2), Pod::queue(9)], "m", 0);
    check(&[Pod::idle().unhealthy(), Pod::queue(9)], "m", 1);
    check(&[Pod::queue(9).failing(3), Pod::idle().failing(3)], "m", 1);
    for strategy in ["LEAST_REQUEST", "ROUND_ROBIN", "RANDOM"] {
        let mut world = World::new(strategy, &[Pod::idle().failing(3), Pod::idle()], 1);
        assert!((0..20).all(|_| world.send("m", 10) == 1), "{strategy}");
    }
}

#[test]
fn requests_that_fail_in_a_row_put_an_endpoint_out() {
    let mut world = World::new("DEFAULT", &[Pod::idle(), Pod::queue(9)], 1);
    assert_eq!(world.pick("m", 10)[0], 0);
    for prompt_tokens in 10..13 {
        assert_eq!(world.fail("m", prompt_tokens), 0);
    }
    assert_eq!(world.pick("m", 10), [1]);
}

#[test]
fn a_pick_names_the_three_best_in_order() {
    let mut world = World::new("DEFAULT", &[Pod::queue(5), Pod::queue(1), Pod::queue(9), Pod::queue(3)], 1);
    assert_eq!(world.pick("m", 100), [1, 3, 0]);
    assert_eq!(World::new("DEFAULT", &pods(2), 1).pick("m", 100).len(), 2);
}

#[test]
fn equal_endpoints_get_equal_shares_in_random_order() {
    let mut counts = [0; 4];
    let mut world = World::new("DEFAULT", &pods(4), 7);
    for _ in 0..4_000 {
        counts[world.pick("m", 100)[0]] += 1;
    }
    assert!(counts.iter().all(|count| (900..1_100).contains(count)), "{counts:?}");
}

#[test]
fn a_burst_within_one_scrape_interval_is_spread_evenly() {
    for strategy in ["DEFAULT", "LEAST_REQUEST", "ROUND_ROBIN"] {
        let mut counts = [0; 4];
        let mut world = World::new(strategy, &pods(4), 5);
        for _ in 0..32 {
            counts[world.send("m", 500)] += 1;
        }
        assert_eq!(counts, [8; 4], "{strategy}");
    }
}

#[test]
fn workers_that_exchange_their_loads_spread_a_burst_as_one() {
    for count in [1, 4, 32] {
        let mut ledger = Ledger::new(1, 0);
        let worker = |id| (Member::new(id), World::new("DEFAULT", &pods(4), id));
        let mut workers: Vec<(Member, World)> = (1..=count).map(worker).collect();
        let mut counts = [0; 4];
        for turn in 0..32 {
            let (member, world) = &mut workers[turn % count as usize];
            world.read(member, &ledger);
            counts[world.send("m", 500)] += 1;
            world.publish(member, &mut ledger);
        }
        assert_eq!(counts, [8; 4], "{count} workers");
    }
}

#[test]
fn requests_that_are_not_read_take_nobodys_turn() {
    let mut world = World::new("ROUND_ROBIN", &pods(3), 1);
    let turns: Vec<usize> = (0..6)
        .map(|_| {
            world.pick_unread();
            world.pick("m", 100)[0]
        })
        .collect();
    assert_eq!(turns, [0, 1, 2, 0, 1, 2]);
}

#[test]
fn round_robin_takes_turns_and_least_request_counts_requests() {
    let mut world = World::new("ROUND_ROBIN", &pods(3), 1);
    let picks: Vec<usize> = (0..6).map(|_| world.send("m", 10)).collect();
    assert_eq!(picks, [0, 1, 2, 0, 1, 2]);
    for seed in 0..20 {
        let mut world = World::new("LEAST_REQUEST", &pods(2), seed);
        let long = world.send("m", 100_000);
        assert_ne!(world.send("m", 1), long, "seed {seed}");
        // Each has one now, whatever its size, so that either may be picked.
        let again = (0..40).filter(|_| world.pick("m", 1)[0] == long).count();
        assert!((5..=35).contains(&again), "seed {seed}: {again} of 40");
    }
}

#[test]
fn random_picks_every_endpoint_whatever_its_load_and_in_no_order() {
    let mut world = World::new("RANDOM", &[Pod::queue(50), Pod::idle(), Pod::idle(), Pod::idle()], 1);
    let picks: Vec<usize> = (0..400).map(|_| world.send("m", 10)).collect();
    let shares = [0, 1, 2, 3].map(|pod| picks.iter().filter(|pick| **pick == pod).count());
    assert!(shares.iter().all(|share| (60..=140).contains(share)), "{shares:?}");
    let repeated = picks.windows(2).filter(|pair| pair[0] == pair[1]).count();
    assert!((60..=140).contains(&repeated), "{repeated} of 399");
}

#[test]
fn a_request_that_is_not_read_goes_to_the_least_loaded_endpoint_whatever_the_strategy() {
    let mut world = World::new("ROUND_ROBIN", &[Pod::queue(9), Pod::queue(9), Pod::idle()], 1);
    for _ in 0..5 {
        assert_eq!(world.pick_unread()[0], 2);
    }
}

#[test]
fn without_endpoints_the_answer_is_503_and_before_discovery_envoy_balances() {
    let mut world = World::discovering(1);
    assert!(matches!(world.decide("m", 10), Decision::Fallback(_)));
    world.apply(Snapshot { endpoints: Some(vec![]), ..Snapshot::default() });
    let Decision::Refuse(error) = world.decide("m", 10) else { panic!("not refused") };
    assert_eq!((error.status, error.code), (503, "no_endpoint"));
    world.apply(common::snapshot(&pods(3)));
    assert_eq!(world.pick("m", 10).len(), 3);
}

#[test]
fn endpoints_that_come_and_go_are_followed_and_their_loads_kept() {
    let mut world = World::discovering(1);
    world.apply(common::snapshot(&pods(2)));
    let first = world.send("m", 500);
    world.apply(common::snapshot(&pods(3)));
    let mut next = [world.send("m", 500), world.send("m", 500)];
    next.sort();
    let others: Vec<usize> = (0..3).filter(|&pod| pod != first).collect();
    assert_eq!(next.to_vec(), others, "what was in flight before still counts");
    world.apply(common::snapshot(&pods(1)));
    assert!((0..20).all(|_| world.pick("m", 500) == [0]), "the others have gone");
    let own = world.send("m", 500);
    world.apply(common::snapshot(&pods(2)));
    assert!(
        (0..20).all(|_| world.pick("m", 500)[0] != own),
        "who comes again still has its request in flight"
    );
}

#[test]
fn the_decision_says_why() {
    let mut world = World::new("DEFAULT", &[Pod::queue(3).kv(0.25).running(2)], 1);
    let Decision::Send(pick) = world.decide("m", 100) else { panic!("not sent") };
    assert_eq!(
        pick.explanation,
        "DEFAULT cost=304 prompt_tokens=100 in_flight=0 waiting_tokens=0 queue=3 running=2 kv=0.25 metrics_age_ms=10"
    );
}
