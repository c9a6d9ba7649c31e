//! A server with several engines behind one port (`--data-parallel-size`), each of which has its own series on one page, and runs what
//! names it.

use std::thread::sleep;

use envoy_test::envoy::Request;
use serde_json::json;

use super::VLLM;
use crate::gateway::{Gateway, completion};
use crate::picking::{SCRAPE_TIME, number, occupy};
use crate::servers::MODEL;
use crate::until;

/// More than one engine runs at once, fewer than both do.
const OCCUPIED: usize = VLLM.running_max + 2;

pub fn what_both_engines_run_and_queue_is_added_up(gateway: &Gateway) {
    let page = gateway.servers.page(0);
    for engine in [r#"vllm:num_requests_running{engine="0""#, r#"vllm:num_requests_running{engine="1""#] {
        assert!(page.contains(engine), "{engine}: {page}");
    }
    let requests = occupy(gateway.servers, 0, MODEL, OCCUPIED);
    let answer = gateway.send(completion(MODEL));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let line = &gateway.log(1)[0];
    let reported = |name| number(line["decision"].as_str().unwrap(), name);
    assert_eq!((reported("running"), reported("queue")), (Some(OCCUPIED as f64), Some(0.0)), "{line}");
    drop(requests);
    until("the server is idle again", || gateway.servers.busy_with(0) == 0);
    sleep(SCRAPE_TIME);
}

/// Turns of a conversation, each of which begins with the one before.
const TURNS: usize = 4;
/// Of prompts that begin like no others so many that both engines get some: one in 2^19 times they do not.
const DIFFERENT: usize = 20;

/// Prompt tokens that each engine has looked up in its cache, and those that it has found there.
fn cached(gateway: &Gateway) -> [[f64; 2]; 2] {
    let page = gateway.servers.page(0);
    let of_engine = |engine: usize| {
        ["vllm:prefix_cache_queries_total", "vllm:prefix_cache_hits_total"].map(|name| {
            let series = format!("{name}{{engine=\"{engine}\"");
            let line = page.lines().find(|line| line.starts_with(&series));
            line.and_then(|line| line.rsplit_once(' ')?.1.parse().ok()).unwrap_or(0.0)
        })
    };
    [0, 1].map(of_engine)
}

/// What was looked up and found since.
fn gained(after: [[f64; 2]; 2], before: [[f64; 2]; 2]) -> [[f64; 2]; 2] {
    [0, 1].map(|engine| [0, 1].map(|count| after[engine][count] - before[engine][count]))
}

pub fn an_engine_runs_what_names_it(gateway: &Gateway) {
    let unique = |name: &str, words: usize| {
        let text = format!("{name} {} {}", fastrand::u64(..), "and so on ".repeat(words));
        json!({"model": MODEL, "prompt": text, "max_tokens": 1})
    };
    let before = cached(gateway);
    for _ in 0..DIFFERENT {
        let request = Request::post("/v1/completions").json(&unique("different", 10));
        assert_eq!(gateway.send(request).status, 200);
    }
    let of_each = gained(cached(gateway), before);
    assert!(of_each.iter().all(|[looked_up, _]| *looked_up > 0.0), "{of_each:?}");

    let begin = unique("a conversation", 600)["prompt"].as_str().unwrap().to_owned();
    let before = cached(gateway);
    for turn in 1..=TURNS {
        let body =
            json!({"model": MODEL, "prompt": begin.clone() + &"next ".repeat(40 * turn), "max_tokens": 1});
        let answer =
            gateway.send(Request::post("/v1/completions").json(&body).header("x-data-parallel-rank", "7"));
        assert_eq!(answer.status, 200, "a client's rank is not obeyed: {}", answer.text());
    }
    let of_each = gained(cached(gateway), before);
    let [looked_up, found] = [0, 1].map(|count| of_each.iter().map(|of| of[count]).fold(0.0, f64::max));
    assert!(of_each.iter().any(|[looked_up, _]| *looked_up == 0.0), "one engine gets all turns: {of_each:?}");
    assert!(found > looked_up * 0.6, "three of four turns find the one before: {of_each:?}");
}
