//! PREFIX_CACHE, seen at the pods: what their own prefix caches found, and where requests went.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use envoy_test::envoy::binary::project_root;
use envoy_test::envoy::{Protocol, Request, free_address};
use envoy_test::model_server::engine::EngineSettings;
use envoy_test::model_server::{MetricsPage, ServerSettings, SglangRanks};
use serde_json::{Value, json};

use crate::gateway::{ALL, BODY_MODES, Gateway, STOP_ITERATION, Setup, chat, pod, until};

/// Longer than workers take to receive each other's state, which is two ticks of ten milliseconds, on a machine that is busy.
const EXCHANGED: Duration = Duration::from_millis(200);

fn by_prefix(configuration: &str) -> Setup {
    Setup::new(configuration).plugin(|plugin| plugin["pools"][0]["routingStrategy"] = "PREFIX_CACHE".into())
}

/// Some 750 tokens of text that begins like no other.
fn text(name: &str) -> String {
    format!("{name}: {}", "a long document, of which everybody asks something. ".repeat(60))
}

/// The same prompt in every form the APIs have, and a question behind it.
fn forms(name: &str, question: &str) -> Vec<(&'static str, Value)> {
    let (document, limit) = (text(name), 2);
    let turns = json!([
        {"role": "system", "content": document},
        {"role": "user", "content": question},
    ]);
    let ids: Vec<usize> = (0..800).map(|id| id * name.len()).chain([question.len()]).collect();
    vec![
        ("/v1/chat/completions", json!({"model": "tiny", "max_tokens": limit, "messages": turns})),
        (
            "/v1/completions",
            json!({"model": "tiny", "max_tokens": limit, "prompt": format!("{document}{question}")}),
        ),
        ("/v1/completions", json!({"model": "tiny", "max_tokens": limit, "prompt": ids})),
        (
            "/v1/responses",
            json!({"model": "tiny", "max_output_tokens": limit, "instructions": document, "input": question}),
        ),
        (
            "/v1/messages",
            json!({
                "model": "tiny", "max_tokens": limit, "system": document,
                "messages": [{"role": "user", "content": question}],
            }),
        ),
    ]
}

/// The turns of an agent as it sends them, in the order of time.
fn turns(agent: &str) -> impl Iterator<Item = Value> {
    let folder = project_root().join("tests/fixtures/agents");
    (1..=3).map(move |turn| {
        let file = folder.join(format!("{agent}_{turn}.json"));
        let mut body: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        body["model"] = "tiny".into();
        body
    })
}

/// What an agent writes anew with every request, and servers leave out, does not distinguish its turns: the attribution's
/// value, the mark up to where to cache, which moves, and what becomes a list of blocks where it gets one.
#[test]
fn an_agents_turns_stay_with_their_pod() {
    for configuration in BODY_MODES {
        let gateway = by_prefix(configuration).start();
        for (agent, path) in [
            ("claude_code", "/v1/messages"),
            ("translated", "/v1/chat/completions"),
            ("codex", "/v1/responses"),
        ] {
            let pods: BTreeSet<usize> = turns(agent).map(|body| ask(&gateway, path, &body)).collect();
            assert_eq!(pods.len(), 1, "{configuration} {agent}: {pods:?}");
        }
        let lines = gateway.envoy.access_log_until(9).unwrap();
        let matched = lines.iter().map(|line| matched_blocks(line["decision"].as_str().unwrap()));
        let matched: Vec<(usize, usize)> = matched.collect();
        for turns in matched.chunks(3) {
            let known = turns.windows(2).all(|turns| turns[1].0 + 1 >= turns[0].1 && turns[0].1 > 10);
            assert!(known, "{configuration}: {matched:?}");
        }
    }
}

/// How many blocks of a prompt the endpoint was known to have, and how many it has.
fn matched_blocks(decision: &str) -> (usize, usize) {
    let matched = decision.split(' ').find_map(|field| field.strip_prefix("matched_blocks="));
    let (known, all) = matched.unwrap().split_once('/').unwrap();
    (known.parse().unwrap(), all.parse().unwrap())
}

/// Servers' own APIs name the prompt otherwise. A pod that lacks the path answers 404, which says nothing of the pick.
#[test]
fn the_prompts_of_servers_own_apis_are_picked_by() {
    let document = text("own");
    let tokens = document.len().div_ceil(4);
    let files = json!([{"filename": "a.txt", "text": document}]);
    for configuration in BODY_MODES {
        // With published models, too: these APIs need none.
        let setup = by_prefix(configuration).plugin(|plugin| {
            plugin["models"] =
                json!([{"modelName": "m", "poolRef": {"name": plugin["pools"][0]["name"].clone()}}]);
        });
        let gateway = setup.start();
        let requests = [
            ("/completion", json!({"prompt": document, "n_predict": 2})),
            (
                "/infill",
                json!({"input_extra": files, "input_prefix": "a", "input_suffix": "b", "prompt": "c"}),
            ),
            ("/generate", json!({"text": document, "sampling_params": {"max_new_tokens": 2}})),
            ("/generate_stream", json!({"inputs": document, "parameters": {"max_new_tokens": 2}})),
            ("/", json!({"inputs": document})),
        ];
        for (path, body) in &requests {
            gateway.send(Request::post(path).json(body));
        }
        let lines = gateway.envoy.access_log_until(requests.len()).unwrap();
        for (line, (path, _)) in lines.iter().zip(&requests) {
            let decision = line["decision"].as_str().unwrap();
            let counted = decision.split(' ').find_map(|field| field.strip_prefix("prompt_tokens="));
            let counted: usize = counted.unwrap().parse().unwrap();
            assert!((tokens..tokens + 10).contains(&counted), "{configuration} {path}: {decision}");
            assert!(matched_blocks(decision).1 > 10, "{configuration} {path}: {decision}");
        }
    }
}

fn ask(gateway: &Gateway, path: &str, body: &Value) -> usize {
    let answer = gateway.send(Request::post(path).json(body));
    assert_eq!(answer.status, 200, "{}", answer.text());
    std::thread::sleep(EXCHANGED);
    gateway.served_by(&answer)
}

/// Prompt tokens that pods had cached, by their own counters.
fn cached_tokens(gateway: &Gateway) -> u64 {
    gateway.pods.servers().map(|pod| pod.counters().cached_tokens).sum()
}

/// Every form of prompt, asked five times with another question each, stays with one pod, which has it cached.
fn check(configuration: &str, workers: u32) {
    let gateway = by_prefix(configuration).concurrency(workers).start();
    for form in 0..forms("", "").len() {
        let name = format!("{configuration} {workers} {form}");
        let before = cached_tokens(&gateway);
        let questions = ["Who?", "What is it?", "Where was that?", "And when was it?", "Why is that so?"];
        let pods: BTreeSet<usize> = questions
            .iter()
            .map(|question| {
                let (path, body) = &forms(&name, question)[form];
                ask(&gateway, path, body)
            })
            .collect();
        assert_eq!(pods.len(), 1, "{name}: {pods:?}");
        assert!(cached_tokens(&gateway) - before > 4 * 600, "{name}");
    }
}

#[test]
fn a_prompt_goes_to_the_pod_that_has_its_beginning_in_every_api() {
    for configuration in ALL {
        check(configuration, 1);
    }
}

#[test]
fn workers_know_of_each_others_prompts() {
    check(STOP_ITERATION, 4);
}

#[test]
fn the_log_says_how_much_was_matched() {
    let gateway = by_prefix(STOP_ITERATION).start();
    let (path, body) = &forms("document", "Who?")[0];
    ask(&gateway, path, body);
    ask(&gateway, path, body);
    let lines = gateway.envoy.access_log_until(2).unwrap();
    let decisions: Vec<&str> = lines.iter().map(|line| line["decision"].as_str().unwrap()).collect();
    assert!(decisions[0].starts_with("PREFIX_CACHE cost="), "{decisions:?}");
    assert!(decisions[0].contains(" matched_blocks=0/12 "), "{decisions:?}");
    assert!(decisions[1].contains(" matched_blocks=12/12 uncached_tokens="), "{decisions:?}");
}

#[test]
fn nothing_is_learnt_from_requests_that_failed() {
    let gateway = by_prefix(STOP_ITERATION).start();
    gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.fail_status = Some(500)));
    let (path, body) = &forms("document", "Who?")[0];
    let answer = gateway.send(Request::post(path).json(body));
    assert_eq!(answer.status, 500);
    gateway.pods.servers().for_each(|pod| pod.set(|knobs| knobs.fail_status = None));
    std::thread::sleep(EXCHANGED);
    ask(&gateway, path, body);
    let lines = gateway.envoy.access_log_until(2).unwrap();
    let decision = lines[1]["decision"].as_str().unwrap();
    assert!(decision.contains(" matched_blocks=0/"), "{decision}");
}

/// One system prompt for all: no pod gets more than 1.5 times the mean, and nearly all of it is found cached.
#[test]
fn a_hot_prompt_is_spread_over_the_pods() {
    let gateway = by_prefix(STOP_ITERATION).concurrency(4).start();
    let request = |number: usize| {
        let (path, body) = &forms("hot", &format!("Question number {number}?"))[0];
        Request::post(path).json(body)
    };
    let mut shares = vec![0; 4];
    for round in 0..6 {
        let answers = gateway.burst((0..40).map(|number| request(round * 40 + number)).collect());
        gateway.shares(&answers).iter().zip(&mut shares).for_each(|(share, sum)| *sum += share);
    }
    assert!(shares.iter().all(|share| *share <= 90), "{shares:?}");
    let (prompt, cached) = gateway.pods.servers().fold((0, 0), |(prompt, cached), pod| {
        let counters = pod.counters();
        (prompt + counters.prompt_tokens, cached + counters.cached_tokens)
    });
    assert!(cached * 10 > prompt * 8, "{cached} of {prompt}");
}

/// Prompts that have nothing in common are spread as by DEFAULT.
#[test]
fn prompts_that_share_nothing_are_spread_evenly() {
    let gateway = by_prefix(STOP_ITERATION).concurrency(4).start();
    let request = |number: usize| {
        let (path, mut body) = forms(&format!("document {number}"), "Who?").swap_remove(0);
        // So long that the last is sent before the first has ended: what has ended counts no more.
        body["max_tokens"] = 200.into();
        Request::post(path).json(&body)
    };
    let shares = gateway.shares(&gateway.burst((0..64).map(request).collect()));
    assert!(shares.iter().all(|share| (11..=21).contains(share)), "{shares:?}");
}

/// The page and the cache of either server.
fn vllm(engine: EngineSettings) -> (&'static str, ServerSettings) {
    ("vllm", ServerSettings { engine, ..pod() })
}

fn sglang(engine: EngineSettings) -> (&'static str, ServerSettings) {
    let ranks = SglangRanks { data_parallel: 1, tensor_parallel: 2 };
    let metrics_page = MetricsPage::Sglang(ranks);
    ("sglang", ServerSettings { metrics_page, engine: engine.with_radix_cache(), ..pod() })
}

/// Four pods at these addresses.
fn in_front_of((server, pod): (&str, ServerSettings), addresses: &[SocketAddr; 4]) -> Gateway {
    let setup = by_prefix(STOP_ITERATION).plugin(|plugin| plugin["pools"][0]["modelServer"] = server.into());
    setup.pods(addresses.map(|address| ServerSettings { address, ..pod.clone() }).to_vec()).start()
}

fn free_addresses() -> [SocketAddr; 4] {
    [(); 4].map(|()| free_address().unwrap())
}

/// The share of prompt tokens that pods found cached, of questions about documents some of which are asked for more often.
fn hits(kind: (&str, ServerSettings), addresses: &[SocketAddr; 4]) -> f64 {
    let gateway = in_front_of(kind, addresses);
    let mut random = fastrand::Rng::with_seed(7);
    let client = gateway.client(Protocol::Http1);
    let requests = (0..400).map(|number| {
        let document = (random.f64() * random.f64() * 48.0) as usize;
        let text = format!("{document}: {}", "a document of which everybody asks something. ".repeat(160));
        let prompt = format!("{text}{number}?");
        Request::post("/v1/completions").json(&json!({"model": "tiny", "max_tokens": 4, "prompt": prompt}))
    });
    for request in requests {
        assert_eq!(client.send_blocking(request).unwrap().status, 200);
    }
    let (prompt, cached) = gateway.pods.servers().fold((0, 0), |(prompt, cached), pod| {
        let counters = pod.counters();
        (prompt + counters.prompt_tokens, cached + counters.cached_tokens)
    });
    cached as f64 / prompt as f64
}

#[test]
fn as_much_is_found_in_front_of_sglang_as_in_front_of_vllm() {
    // 32,000 tokens each, of 91,000 in all documents: what falls out then is for a simulation to compare, where nothing is by
    // chance.
    let engine = EngineSettings { blocks: 2_000, speed: 40.0, ..EngineSettings::default() };
    // Where a document begins is a matter of addresses.
    let addresses = free_addresses();
    let (vllm, sglang) = (hits(vllm(engine.clone()), &addresses), hits(sglang(engine), &addresses));
    assert!(vllm > 0.5, "{vllm}");
    assert!((sglang - vllm).abs() < 0.02 * vllm, "vLLM {vllm}, SGLang {sglang}");
}

/// After a restart nothing is cached. It is noticed with the next scrape, before the counters are what they were.
#[test]
fn a_server_that_has_started_anew_has_nothing_cached() {
    for (server, pod) in [vllm(EngineSettings::default()), sglang(EngineSettings::default())] {
        let gateway = in_front_of((server, pod), &free_addresses());
        let (path, body) = &forms("document", "Who?")[0];
        let first = ask(&gateway, path, body);
        gateway.wait_until_scraped();
        assert_eq!(ask(&gateway, path, body), first, "{server}");
        gateway.pods.server(first).restart();
        gateway.wait_until_scraped();
        ask(&gateway, path, body);
        let lines = gateway.envoy.access_log_until(3).unwrap();
        let matched: Vec<usize> =
            lines.iter().map(|line| matched_blocks(line["decision"].as_str().unwrap()).0).collect();
        assert!(matched[1] > 10 && matched[2] == 0, "{server}: {matched:?}");
    }
}

/// A pod that serves at several ports has one address, and is as many endpoints, each with a load, failures and a cache of its
/// own.
#[test]
fn ports_of_one_address_are_endpoints_of_their_own() {
    // On a machine that stands still for a moment, the first pod stays as full as it is set.
    let lasting = |plugin: &mut Value| plugin["metricsStaleAfter"] = "10s".into();
    let gateway = by_prefix(STOP_ITERATION).plugin(lasting).start();
    let addresses = gateway.pods.addresses();
    assert!(addresses.iter().all(|address| address.ip() == addresses[0].ip()), "{addresses:?}");
    gateway.pods.server(0).set(|knobs| knobs.gauges.waiting = Some(50.0));
    gateway.pods.server(1).set(|knobs| knobs.refuse = true);
    until("only the others are picked", || {
        let shares = gateway.shares(&gateway.burst(vec![chat("tiny"); 8]));
        shares[..2] == [0, 0]
    });
    for (path, body) in forms("ports", "Who?") {
        let pods: BTreeSet<usize> = (0..3).map(|_| ask(&gateway, path, &body)).collect();
        assert!(pods.len() == 1 && pods.iter().all(|pod| *pod > 1), "{path}: {pods:?}");
    }
    let cached: Vec<bool> = gateway.pods.servers().map(|pod| pod.counters().cached_tokens > 0).collect();
    assert_eq!(cached[..2], [false, false]);
}
