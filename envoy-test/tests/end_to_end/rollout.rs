//! Every pod of a pool is replaced under load: nothing new goes to one that leaves, its streams end, and no request that had not
//! begun is lost.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::discovery::{read_endpoints_from, write_endpoints};
use crate::gateway::{DEFERRED, Gateway, Setup, WORKER_SCRAPING, chat_with, pod, until};
use envoy_test::envoy::{Configuration, NEWEST, OLDEST, Protocol};
use envoy_test::load::{Load, Seen};
use envoy_test::model_server::ModelServers;
use serde_json::{Value, json};

/// How a pod leaves.
#[derive(Debug, Clone, Copy)]
enum Leaving {
    /// The control plane says that it drains, and takes it off the list when it is idle.
    Draining,
    /// It is off the list at once, while its streams go on.
    Unlisted,
    /// It dies, and is taken off the list afterwards.
    Killed,
}

/// The pod at each of these places leaves so, and another one comes in its place.
const REPLACED: [Leaving; 3] = [Leaving::Draining, Leaving::Unlisted, Leaving::Killed];
const CLIENTS: usize = 12;
/// More good answers than this are seen.
const ANSWERS: usize = 100;
const FILTERS: &str = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than between two looks at Envoy's list of hosts, and with so many clients longer than any pod that is picked has nothing.
const QUIET: Duration = Duration::from_millis(600);

/// The pods of a pool that are replaced, followed by those that replace them.
struct Rollout<'a> {
    folder: &'a Path,
    pods: &'a ModelServers,
}

impl Rollout<'_> {
    /// Lists the pods from the one at this place on that are not replaced yet, with what is said of the first, and those that
    /// have come so far.
    fn list(&self, first: usize, health: Option<&'static str>, come: usize) {
        let at = self.pods.addresses();
        let count = REPLACED.len();
        let leaving = health.map(|health| (at[first], health));
        let staying = (first + 1..count + come).map(|place| (at[place], "HEALTHY"));
        write_endpoints(self.folder, &leaving.into_iter().chain(staying).collect::<Vec<_>>());
    }

    fn requests(&self, place: usize) -> u64 {
        self.pods.server(place).counters().requests_for("tiny")
    }

    fn replace(&self, place: usize, leaving: Leaving) {
        let pod = self.pods.server(place);
        match leaving {
            Leaving::Draining => self.list(place, Some("DRAINING"), place + 1),
            Leaving::Unlisted => self.list(place, None, place + 1),
            Leaving::Killed => pod.set(|knobs| knobs.refuse = true),
        }
        until(&format!("{leaving:?}: it gets nothing new, and its streams have ended"), || {
            let before = self.requests(place);
            sleep(QUIET);
            self.requests(place) == before && pod.counters().in_flight == 0
        });
        self.list(place, None, place + 1);
        pod.set(|knobs| knobs.refuse = true);
        until("the new one serves", || self.requests(REPLACED.len() + place) > 0);
    }
}

/// The filters that stand behind the plugin in deferred mode.
fn add_filters_of_deferred_mode(envoy: &mut Configuration) {
    let shipped = Configuration::shipped(DEFERRED).unwrap().at(FILTERS).clone();
    let behind: Vec<Value> = shipped.as_array().unwrap()[1..].to_vec();
    let filters = envoy.at(FILTERS).as_array_mut().unwrap();
    filters.truncate(1);
    filters.extend(behind);
}

fn start(version: &'static str, is_deferred: bool, folder: &Path) -> Gateway {
    let mut setup = Setup::new(WORKER_SCRAPING).version(version).concurrency(4).pods(vec![]).unscraped();
    if is_deferred {
        setup = setup.plugin(|plugin| plugin["pickTo"] = "filterState".into());
        setup = setup.envoy(add_filters_of_deferred_mode);
    }
    setup.start_with(|envoy, _| read_endpoints_from(envoy, folder))
}

fn check(version: &'static str, is_deferred: bool) {
    let folder = tempfile::tempdir().unwrap();
    let pods = ModelServers::start(vec![pod(); 2 * REPLACED.len()]).unwrap();
    let rollout = Rollout { folder: folder.path(), pods: &pods };
    rollout.list(0, Some("HEALTHY"), 0);
    let gateway = start(version, is_deferred, folder.path());
    let what = format!("{version}, deferred: {is_deferred}");
    let client = gateway.client(Protocol::Http1);
    let request = || chat_with(json!({"model": "tiny", "max_tokens": 40, "stream": true}));
    let load = Load { client, clients: CLIENTS, patience: PATIENCE, request: &request };
    let seen: Seen = load.during(|_| {
        until("every pod serves", || (0..REPLACED.len()).all(|place| rollout.requests(place) > 0));
        REPLACED.into_iter().enumerate().for_each(|(place, leaving)| rollout.replace(place, leaving));
        // On a slow machine too, and more by those that are still on their way.
        let requests = || (0..pods.servers().count()).map(|place| rollout.requests(place)).sum::<u64>();
        until("there are enough requests", || requests() > (ANSWERS + 2 * CLIENTS) as u64);
    });
    assert_eq!(seen.failed_before_answer(), 0, "{what}: {:?}", seen.complaints());
    assert!(seen.good > ANSWERS, "{what}: {seen:?}");
    for (place, leaving) in REPLACED.into_iter().enumerate() {
        let counters = pods.server(place).counters();
        let is_killed = matches!(leaving, Leaving::Killed);
        assert!(is_killed || counters.cancelled + counters.failed == 0, "{what} {leaving:?}: {counters:?}");
    }
}

#[test]
fn every_pod_is_replaced_under_load_and_no_request_that_had_not_begun_is_lost() {
    std::thread::scope(|scope| {
        let cases = [(OLDEST, false), (OLDEST, true), (NEWEST, false), (NEWEST, true)];
        let checks = cases.map(|(version, is_deferred)| scope.spawn(move || check(version, is_deferred)));
        checks.into_iter().for_each(|check| check.join().unwrap());
    });
}
