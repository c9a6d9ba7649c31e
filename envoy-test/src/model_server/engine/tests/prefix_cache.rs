use std::collections::HashSet;

use super::super::kv_blocks::{Eviction, KvBlocks};
use super::*;
use crate::model_server::tokens::output_token;

const BLOCK: usize = 4;

/// Remembers every start of full blocks, word for word.
#[derive(Default)]
struct NaiveCache(HashSet<(Option<String>, Option<String>, Vec<u32>)>);

impl NaiveCache {
    fn cached_tokens(&self, request: &EngineRequest) -> usize {
        let most = (request.prompt.len() - 1) / BLOCK;
        (0..=most).rev().find(|&blocks| blocks == 0 || self.holds(request, blocks * BLOCK)).unwrap_or(0)
            * BLOCK
    }

    fn holds(&self, request: &EngineRequest, tokens: usize) -> bool {
        let EngineRequest { adapter, cache_salt, prompt, .. } = request;
        self.0.contains(&(adapter.clone(), cache_salt.clone(), prompt[..tokens].to_vec()))
    }

    fn learn(&mut self, request: &EngineRequest) {
        let outputs = (0..request.output_tokens - 1).map(output_token);
        let computed: Vec<u32> = request.prompt.iter().copied().chain(outputs).collect();
        for blocks in 1..=computed.len() / BLOCK {
            let start = computed[..blocks * BLOCK].to_vec();
            self.0.insert((request.adapter.clone(), request.cache_salt.clone(), start));
        }
    }
}

/// Prompts over so few tokens that many of them start alike; some continue an earlier answer.
fn random_request(random: &mut fastrand::Rng) -> EngineRequest {
    let name = |random: &mut fastrand::Rng, prefix: &str| {
        random.bool().then(|| format!("{prefix}{}", random.u8(0..2)))
    };
    let mut prompt = vec![random.u32(0..2); random.usize(1..30)];
    if random.bool() {
        prompt.extend((0..random.usize(0..9)).map(output_token));
    }
    EngineRequest {
        prompt,
        output_tokens: random.usize(1..10),
        adapter: name(random, "adapter-"),
        cache_salt: name(random, "salt-"),
    }
}

#[test]
fn hits_are_those_of_a_naive_cache_while_nothing_is_evicted() {
    for eviction in [Eviction::Block, Eviction::Run] {
        check_hits(EngineSettings { lora_slots: 4, blocks: 100_000, eviction, ..settings() });
    }
}

fn check_hits(settings: EngineSettings) {
    let mut random = fastrand::Rng::with_seed(7);
    let mut engine = Engine::new(settings);
    let mut naive = NaiveCache::default();
    let (mut hits, mut queries) = (0, 0);
    for _ in 0..1000 {
        let request = random_request(&mut random);
        engine.submit(engine_time(&engine), request.clone()).unwrap();
        let outputs = run_until_idle(&mut engine);
        assert_eq!(outputs[0].cached_tokens, naive.cached_tokens(&request), "{request:?}");
        hits += outputs[0].cached_tokens as u64;
        queries += request.prompt.len() as u64;
        naive.learn(&request);
    }
    assert!(hits > 1000, "the test's prompts share too little");
    let totals = engine.cache_totals();
    assert_eq!((totals.prefix_hit_tokens, totals.prefix_queried_tokens), (hits, queries));
}

/// A time that is not before anything the engine did.
fn engine_time(engine: &Engine) -> Duration {
    Duration::from_secs(engine.finished_steps())
}

#[test]
fn a_prompt_that_is_cached_whole_still_computes_a_token() {
    let mut engine = engine_with(settings(), [request(0..8, 1)]);
    run_until_idle(&mut engine);
    engine.submit(ms(100), request(0..8, 1)).unwrap();
    assert_eq!(run_until_idle(&mut engine)[0].cached_tokens, 4);
}

#[test]
fn a_hit_saves_the_time_of_its_tokens() {
    let mut engine = engine_with(settings(), [request(0..100, 1)]);
    assert_eq!(run_until_idle(&mut engine)[0].at, ms(110));
    engine.submit(ms(1000), request(0..100, 1)).unwrap();
    assert_eq!(run_until_idle(&mut engine)[0].at, ms(1000 + 10 + 4));
}

#[test]
fn requests_in_one_step_share_their_start() {
    let mut engine = engine_with(settings(), [request(0..9, 1), request(0..9, 1)]);
    let cached: Vec<_> = finish_one_step(&mut engine).iter().map(|output| output.cached_tokens).collect();
    assert_eq!(cached, [0, 8]);
}

#[test]
fn cached_blocks_that_a_request_reuses_are_no_room_for_its_other_tokens() {
    // Four blocks: two cached and free, two in use. The last request reuses two and needs two more.
    let mut engine = engine_with(EngineSettings { blocks: 4, ..settings() }, [request(0..8, 1)]);
    run_until_idle(&mut engine);
    engine.submit(ms(100), request(20..27, 2)).unwrap();
    engine.submit(ms(100), request(0..13, 1)).unwrap();
    finish_one_step(&mut engine);
    assert_eq!((engine.gauges().running, engine.gauges().waiting), (1, 1));
    assert_eq!(run_until_idle(&mut engine).last().map(|output| output.cached_tokens), Some(8));
}

#[test]
fn the_content_freed_longest_ago_goes_first() {
    // Room for two prompts of two blocks. The first is used again, so the third takes the place of the second.
    let mut engine = Engine::new(EngineSettings { blocks: 5, ..settings() });
    let (first, second, third) = (request(0..8, 1), request(10..18, 1), request(20..28, 1));
    for (index, prompt) in [&first, &second, &first, &third].into_iter().enumerate() {
        engine.submit(Duration::from_secs(index as u64), prompt.clone()).unwrap();
        run_until_idle(&mut engine);
    }
    for (prompt, cached) in [(&first, 4), (&second, 0)] {
        engine.submit(Duration::from_secs(10), prompt.clone()).unwrap();
        assert_eq!(run_until_idle(&mut engine)[0].cached_tokens, cached, "{:?}", prompt.prompt);
    }
}

#[test]
fn the_end_of_a_freed_sequence_is_evicted_before_its_start() {
    let mut blocks = KvBlocks::new(3, Eviction::Block);
    let held = blocks.allocate(3).unwrap();
    for (&block, hash) in held.iter().zip([1, 2, 3]) {
        blocks.remember(block, hash);
    }
    blocks.release(&held);
    blocks.allocate(1).unwrap();
    assert_eq!(blocks.cached_prefix(&[1, 2, 3]), held[..2]);
}

#[test]
fn a_shared_block_stays_until_its_last_user_has_gone() {
    let mut blocks = KvBlocks::new(1, Eviction::Block);
    let held = blocks.allocate(1).unwrap();
    blocks.share(&held);
    blocks.release(&held);
    assert_eq!((blocks.free_count(), blocks.allocate(1)), (0, None));
    blocks.release(&held);
    assert_eq!((blocks.free_count(), blocks.usage()), (1, 0.0));
}

/// A cache of so many blocks without content, SGLang's.
fn radix(count: usize) -> KvBlocks {
    KvBlocks::new(count, Eviction::Run)
}

/// A sequence that finds what it can of these blocks, computes the others, and has ended.
fn compute(blocks: &mut KvBlocks, hashes: &[u64]) {
    let mut held = blocks.cached_prefix(hashes);
    blocks.share(&held);
    let found = held.len();
    held.extend(blocks.allocate(hashes.len() - found).unwrap());
    blocks.remember_run(&mut held, hashes, found);
    blocks.release(&held);
}

/// How many of these blocks are found.
fn found(blocks: &KvBlocks, hashes: &[u64]) -> usize {
    blocks.cached_prefix(hashes).len()
}

#[test]
fn a_radix_cache_drops_whole_runs_up_to_where_another_continues() {
    let mut blocks = radix(10);
    compute(&mut blocks, &[1, 2, 3, 4, 5, 6]);
    compute(&mut blocks, &[1, 2, 3, 7, 8]);
    assert_eq!((blocks.free_count(), blocks.evictable_count()), (10, 8));
    // Two are without content; for a third, what follows the common start in the older run goes.
    blocks.allocate(3).unwrap();
    assert_eq!(found(&blocks, &[1, 2, 3, 4, 5, 6]), 3);
    assert_eq!(found(&blocks, &[1, 2, 3, 7, 8]), 5);
    assert_eq!((blocks.free_count(), blocks.evictable_count()), (7, 5));
}

#[test]
fn a_radix_cache_keeps_what_is_in_use() {
    let mut blocks = radix(6);
    compute(&mut blocks, &[1, 2, 3, 4]);
    let held = blocks.cached_prefix(&[1, 2]);
    blocks.share(&held);
    blocks.allocate(4).unwrap();
    assert_eq!((found(&blocks, &[1, 2, 3, 4]), blocks.allocate(1)), (2, None));
}

#[test]
fn who_has_computed_what_is_in_the_radix_cache_takes_what_is_there() {
    let mut blocks = radix(6);
    let mut held = blocks.allocate(3).unwrap();
    compute(&mut blocks, &[1, 2]);
    blocks.remember_run(&mut held, &[1, 2, 3], 0);
    assert_eq!((held.as_slice(), blocks.free_count()), (blocks.cached_prefix(&[1, 2, 3]).as_slice(), 3));
    blocks.release(&held);
    assert_eq!((blocks.free_count(), blocks.evictable_count()), (6, 3));
}

#[test]
fn a_radix_cache_finds_what_is_computed_and_not_what_is_planned() {
    let settings = EngineSettings { eviction: Eviction::Run, ..settings() };
    let mut engine = engine_with(settings, [request(0..9, 1), request(0..9, 1)]);
    let cached: Vec<_> = finish_one_step(&mut engine).iter().map(|output| output.cached_tokens).collect();
    assert_eq!(cached, [0, 0]);
    engine.submit(ms(100), request(0..9, 1)).unwrap();
    assert_eq!(run_until_idle(&mut engine)[0].cached_tokens, 8);
}

#[test]
fn of_a_prompt_that_was_computed_elsewhere_the_last_token_is_computed_and_all_of_it_is_there_for_the_next() {
    let mut engine = Engine::new(settings());
    engine.submit_computed(ms(0), request(0..100, 2)).unwrap();
    let outputs = finish_one_step(&mut engine);
    assert_eq!((outputs[0].at, outputs[0].cached_tokens), (ms(11), 99));
    assert_eq!(engine.cache_totals().prefix_hit_tokens, 0, "nothing of it was found here");
    run_until_idle(&mut engine);
    engine.submit(ms(100), request(0..100, 1)).unwrap();
    assert_eq!(run_until_idle(&mut engine)[0].cached_tokens, 96);
}
