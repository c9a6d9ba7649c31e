//! LoRA adapters, by what real servers report about them.

use super::ADAPTERS;
use crate::gateway::Gateway;
use crate::picking::{occupy, served_one_by_one, wait_until_idle};
use crate::servers::Servers;

/// Each of several requests, one after the other, is served by the server at `expected`.
fn check_served_by(gateway: &Gateway, model: &str, expected: usize) {
    let served_by = served_one_by_one(gateway, model);
    let expected = vec![expected; served_by.len()];
    assert_eq!(served_by, expected, "{:?}\n{}", gateway.log(served_by.len()), gateway.known());
}

/// Has each server run an adapter of its own for a while; each has room for one.
fn load_adapters(servers: &Servers, adapters: [&str; 2]) {
    let requests = [0, 1].map(|index| occupy(servers, index, adapters[index], 1));
    drop(requests);
    wait_until_idle(servers);
}

/// Though it is the busier one: the other would have to load the adapter in place of its own.
pub fn an_adapters_request_goes_to_the_server_that_runs_it(gateway: &Gateway) {
    let [first, second] = ADAPTERS;
    for (adapters, busy) in [([first, second], 0), ([second, first], 1), ([second, first], 0)] {
        load_adapters(gateway.servers, adapters);
        let requests = occupy(gateway.servers, busy, adapters[busy], 1);
        check_served_by(gateway, adapters[busy], busy);
        drop(requests);
        wait_until_idle(gateway.servers);
    }
}

/// Servers report adapters only while they run them, and keep them loaded.
pub fn an_adapter_that_nobody_asked_for_in_between_is_still_where_it_ran(gateway: &Gateway) {
    let [first, second] = ADAPTERS;
    for adapters in [[first, second], [second, first]] {
        load_adapters(gateway.servers, adapters);
        for index in [0, 1, 0] {
            check_served_by(gateway, adapters[index], index);
        }
    }
}
