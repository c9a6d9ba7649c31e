//! A server with several engines behind one port (`--data-parallel-size`), each of which tells of itself on one page.

use std::thread::sleep;

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
    let told = |name| number(line["decision"].as_str().unwrap(), name);
    assert_eq!((told("running"), told("queue")), (Some(OCCUPIED as f64), Some(0.0)), "{line}");
    drop(requests);
    until("the server is idle again", || gateway.servers.busy_with(0) == 0);
    sleep(SCRAPE_TIME);
}
