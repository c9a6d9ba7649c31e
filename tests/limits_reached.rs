//! Where a limit is reached and a request goes on all the same, that is counted.

use std::net::{Ipv4Addr, SocketAddr};

use inference_picker::config::Config;
use inference_picker::decide::Decision;
use inference_picker::ledger::Received;
use inference_picker::limits::Limit;
use inference_picker::load::InFlight;
use inference_picker::metrics::{EndpointMetrics, LoraState, MAX_ADAPTERS, ModelServer};
use inference_picker::openai::{Usage, read_request};
use inference_picker::peers::{Asking, MAX_GATEWAYS};
use inference_picker::picker::{Outcome, Picker};
use inference_picker::pool::{Discovered, DiscoveredEndpoint, EndpointReading, Reading, Snapshot};
use inference_picker::prefix::{BLOCK_BYTES, MAX_PROMPT_BLOCKS};
use inference_picker::scrape::{Schedule, Scraper};

const NOW_MS: u64 = 100_000;
const CONFIGURATION: &str = r#"{"scrapeCluster":"s","queue":{"maxRequests":2},"pools":[{"name":"p","cluster":"c",
    "endpoints":["10.0.0.1:8000"],"routingStrategy":"PREFIX_CACHE"}]}"#;

fn picker() -> Picker<()> {
    Picker::new(Config::parse(CONFIGURATION.as_bytes()).unwrap(), fastrand::Rng::with_seed(1))
}

/// The pool's metrics.
fn scraped(picker: &mut Picker<()>, metrics: EndpointMetrics) {
    let reading = Reading {
        scraped_ms: NOW_MS,
        waiting: metrics.waiting,
        metrics,
        own_waiting: 0,
        external_waiting: 0,
        external_requests: 0,
    };
    let address = SocketAddr::from(([10, 0, 0, 1], 8000));
    let endpoint = EndpointReading { reading: Some(reading), ..EndpointReading::new(address) };
    picker.apply([(0, Snapshot { endpoints: Some(vec![endpoint]), ..Snapshot::default() })].into_iter());
}

/// A request that is answered with its usage, if it is sent.
fn ask(picker: &mut Picker<()>, model: &str, prompt: &str) {
    let body = format!(r#"{{"model":"{model}","prompt":"{prompt}"}}"#);
    let prepared = picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap();
    if let Outcome::Decided(Decision::Send(pick)) = picker.decide(1, &prepared, || (), NOW_MS) {
        let mut sent = picker.send(&pick, NOW_MS);
        let usage = Usage { prompt_tokens: 1, completion_tokens: 1, cached_tokens: None };
        picker.answered(&mut sent, 0, Some(usage), NOW_MS);
        picker.end(sent, NOW_MS);
    }
}

fn listed(count: u32) -> Vec<DiscoveredEndpoint> {
    let address = |number| SocketAddr::from((Ipv4Addr::from(number), 8000));
    (1..=count).map(|number| DiscoveredEndpoint::new(address(number))).collect()
}

#[track_caller]
fn check(reached: impl Iterator<Item = (Limit, u32)>, expected: &[(Limit, u32)]) {
    assert_eq!(reached.collect::<Vec<_>>(), expected);
}

#[test]
fn prompts_with_more_blocks_than_are_distinguished() {
    let mut picker = picker();
    let most = (MAX_PROMPT_BLOCKS - 1) * BLOCK_BYTES;
    ask(&mut picker, "m", &"x".repeat(most));
    check(picker.take_limits(), &[]);
    ask(&mut picker, "m", &"x".repeat(most + 3 * BLOCK_BYTES));
    check(picker.take_limits(), &[(Limit::PromptBlocks, 1)]);
    check(picker.take_limits(), &[]);
}

#[test]
fn prompts_in_flight_of_which_too_many_would_have_to_be_remembered() {
    let configuration =
        CONFIGURATION.replace(r#""PREFIX_CACHE""#, r#""PREFIX_CACHE","prefixCache":{"maxBlocks":16}"#);
    let mut picker =
        Picker::new(Config::parse(configuration.as_bytes()).unwrap(), fastrand::Rng::with_seed(1));
    ask(&mut picker, "m", &"x".repeat(3 * BLOCK_BYTES));
    check(picker.take_limits(), &[]);
    ask(&mut picker, "m", &"x".repeat(20 * BLOCK_BYTES));
    check(picker.take_limits(), &[(Limit::PromptsInFlight, 1)]);
}

#[test]
fn requests_for_which_the_queue_has_no_room() {
    let mut picker = picker();
    scraped(&mut picker, EndpointMetrics { waiting: 100, ..EndpointMetrics::default() });
    (0..2).for_each(|_| ask(&mut picker, "m", "Hi"));
    check(picker.take_limits(), &[]);
    (0..3).for_each(|_| ask(&mut picker, "m", "Hi"));
    check(picker.take_limits(), &[(Limit::QueuedRequests, 3)]);
}

#[test]
fn models_whose_sizes_are_not_learnt() {
    let mut picker = picker();
    (0..4_096).for_each(|number| ask(&mut picker, &format!("m{number}"), "Hi"));
    check(picker.take_limits(), &[]);
    (0..3).for_each(|number| ask(&mut picker, &format!("n{number}"), "Hi"));
    check(picker.take_limits(), &[(Limit::LearntModels, 3)]);
}

#[test]
fn adapters_that_are_not_remembered() {
    let mut picker = picker();
    let print = |picker: &mut Picker<()>, names: std::ops::Range<u32>| {
        let adapters = names.map(|name| name.to_string()).collect();
        let lora = Some(LoraState::named(adapters, 1));
        scraped(picker, EndpointMetrics { lora, ..EndpointMetrics::default() });
    };
    print(&mut picker, 0..65_536);
    check(picker.take_limits(), &[]);
    print(&mut picker, 65_530..65_540);
    check(picker.take_limits(), &[(Limit::KnownAdapters, 1)]);
}

#[test]
fn pages_that_list_as_many_adapters_as_are_read() {
    let mut scraper = Scraper::new(ModelServer::Vllm, Schedule::new(50, 2_000), 3);
    scraper.follow(&Discovered { endpoints: listed(1), unnamed: 0 }, NOW_MS);
    for (count, expected) in [(3, &[][..]), (MAX_ADAPTERS + 1, &[(Limit::PageAdapters, 1)])] {
        let names: Vec<String> = (0..count).map(|name| name.to_string()).collect();
        let page = format!(
            "vllm:num_requests_waiting 0\nvllm:num_requests_running 0\n\
             vllm:lora_requests_info{{max_lora=\"1\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"\"}} 1\n",
            names.join(",")
        );
        scraper.answered(listed(1)[0].address, Ok(page.as_bytes()), InFlight::default(), NOW_MS);
        check(scraper.limits.take(), expected);
    }
}

#[test]
fn gateways_that_are_not_asked() {
    let mut asking = Asking::new(20);
    asking.follow(&listed(MAX_GATEWAYS as u32), NOW_MS);
    check(asking.limits.take(), &[]);
    asking.follow(&listed(MAX_GATEWAYS as u32 + 1), NOW_MS);
    check(asking.limits.take(), &[(Limit::Gateways, 1)]);
}

#[test]
fn what_workers_have_published_that_was_kept_no_longer() {
    let mut picker = picker();
    picker.receive_all(&Received { is_lost: true, ..Received::default() }, NOW_MS);
    check(picker.take_limits(), &[(Limit::JournalUnread, 1)]);
}
