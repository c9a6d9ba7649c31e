//! What Envoy thinks of a host counts, although `override_host` would send a request to any that a pick names.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crate::gateway::{ALL, CLUSTER, Gateway, STOP_ITERATION, Setup, WORKER_SCRAPING, chat, until};
use envoy_test::envoy::{Configuration, NEWEST, OLDEST};
use envoy_test::model_server::ModelServers;
use serde_json::{Value, json};

/// A cluster's host, as it is configured.
fn host(address: SocketAddr) -> Value {
    let socket = json!({"address": address.ip().to_string(), "port_value": address.port()});
    json!({"endpoint": {"address": {"socket_address": socket}}})
}

fn with_health(address: SocketAddr, health: &str) -> Value {
    let mut host = host(address);
    host["health_status"] = health.into();
    host
}

/// Puts these hosts, by priority, in place of the pool's.
fn set_hosts(envoy: &mut Configuration, priorities: &[Vec<Value>]) {
    let endpoints: Vec<Value> = priorities
        .iter()
        .zip(0..)
        .map(|(hosts, priority)| json!({"priority": priority, "lb_endpoints": hosts}))
        .collect();
    envoy.cluster(CLUSTER)["load_assignment"] = json!({"cluster_name": CLUSTER, "endpoints": endpoints});
}

/// Has Envoy's admin asked, also where it is not in the configuration that is shipped.
fn asking_admin(configuration: &str) -> Setup {
    let edit = |plugin: &mut Value| {
        plugin["adminCluster"] = "admin".into();
        // On a busy machine, a pod whose scrapes are late is not to count as one that cannot be reached.
        plugin["scrapeTimeout"] = "20s".into();
    };
    Setup::new(configuration).plugin(edit).envoy(|envoy| {
        let clusters = envoy.at("/static_resources/clusters").as_array().unwrap();
        if clusters.iter().all(|cluster| cluster["name"] != "admin") {
            let hosts = json!([{"lb_endpoints": [host(envoy.admin_address().unwrap())]}]);
            let admin = json!({"name": "admin", "type": "STATIC",
                "load_assignment": {"cluster_name": "admin", "endpoints": hosts}});
            envoy.at("/static_resources/clusters").as_array_mut().unwrap().push(admin);
        }
    })
}

/// Starts a gateway whose pool has the hosts that are made of its four pods' addresses, by priority.
fn start(configuration: &str, hosts: impl FnOnce(&[SocketAddr]) -> Vec<Vec<Value>>) -> Gateway {
    asking_admin(configuration).start_with(|envoy, at| set_hosts(envoy, &hosts(at)))
}

/// How many of so many requests, one after the other, each pod answers.
fn shares(gateway: &Gateway, requests: usize) -> Vec<usize> {
    let answers: Vec<_> = (0..requests).map(|_| gateway.send(chat("tiny"))).collect();
    gateway.shares(&answers)
}

/// Sends requests until none goes to these pods; then none of 40 does, and all others are picked.
#[track_caller]
fn check_left_out(gateway: &Gateway, left_out: &[usize], what: &str) {
    until(&format!("{what}: nothing goes to {left_out:?}"), || {
        let shares = gateway.shares(&gateway.burst(vec![chat("tiny"); 16]));
        left_out.iter().all(|pod| shares[*pod] == 0)
    });
    let shares = shares(gateway, 40);
    let as_expected = |(pod, share): (usize, &usize)| (*share == 0) == left_out.contains(&pod);
    assert!(shares.iter().enumerate().all(as_expected), "{what}: {shares:?}");
}

#[test]
fn a_host_that_fails_its_health_check_gets_nothing() {
    for configuration in ALL {
        let gateway = asking_admin(configuration).start_with(|envoy, at| {
            let mut hosts: Vec<Value> = at.iter().copied().map(host).collect();
            // The pod answers requests; nobody answers health checks.
            hosts[0]["endpoint"]["health_check_config"] = json!({"port_value": 1});
            set_hosts(envoy, &[hosts]);
            envoy.cluster(CLUSTER)["health_checks"] = json!([{
                "timeout": "1s", "interval": "0.1s", "no_traffic_interval": "0.1s",
                "unhealthy_threshold": 1, "healthy_threshold": 1, "http_health_check": {"path": "/health"},
            }]);
        });
        check_left_out(&gateway, &[0], configuration);
    }
}

#[test]
fn a_host_that_the_control_plane_drains_or_holds_unhealthy_gets_nothing() {
    for configuration in ALL {
        let gateway = start(configuration, |at| {
            vec![vec![
                with_health(at[0], "DRAINING"),
                host(at[1]),
                with_health(at[2], "UNHEALTHY"),
                host(at[3]),
            ]]
        });
        check_left_out(&gateway, &[0, 2], configuration);
    }
}

#[test]
fn a_host_that_outlier_detection_has_ejected_gets_nothing() {
    for configuration in ALL {
        let gateway = asking_admin(configuration).start_with(|envoy, _| {
            envoy.cluster(CLUSTER)["outlier_detection"] = json!({
                "consecutive_5xx": 1, "enforcing_consecutive_5xx": 100, "interval": "0.1s",
                "base_ejection_time": "300s", "max_ejection_percent": 50,
            });
        });
        // One failure is none in a row for the plugin itself.
        let failing = gateway.pods.server(0);
        failing.set(|knobs| knobs.fail_status = Some(500));
        until("it has failed", || {
            gateway.send(chat("tiny"));
            failing.counters().failed > 0
        });
        failing.set(|knobs| knobs.fail_status = None);
        check_left_out(&gateway, &[0], configuration);
    }
}

#[test]
fn a_lower_priority_gets_nothing_while_the_first_has_enough_hosts_and_then_what_is_spilled_over() {
    for configuration in ALL {
        let gateway =
            start(configuration, |at| vec![vec![host(at[0]), host(at[1])], vec![host(at[2]), host(at[3])]]);
        check_left_out(&gateway, &[2, 3], configuration);
        let gateway = start(configuration, |at| {
            vec![vec![host(at[0]), with_health(at[1], "UNHEALTHY")], vec![host(at[2]), host(at[3])]]
        });
        check_left_out(&gateway, &[1], configuration);
        // 70 % of 200, within five standard deviations.
        let shares = shares(&gateway, 200);
        assert!((108..=172).contains(&shares[0]) && shares[1] == 0, "{configuration}: {shares:?}");
    }
}

#[test]
fn a_degraded_host_gets_nothing_while_enough_are_healthy_and_all_where_none_is() {
    for configuration in ALL {
        let gateway = start(configuration, |at| {
            vec![vec![host(at[0]), host(at[1]), host(at[2]), with_health(at[3], "DEGRADED")]]
        });
        check_left_out(&gateway, &[3], configuration);
        let gateway = start(configuration, |at| {
            let [first, second, third] = [at[0], at[1], at[2]].map(|at| with_health(at, "UNHEALTHY"));
            vec![vec![first, second, third, with_health(at[3], "DEGRADED")]]
        });
        check_left_out(&gateway, &[0, 1, 2], configuration);
    }
}

#[test]
fn where_no_host_is_healthy_all_are_picked_from() {
    let gateway =
        start(STOP_ITERATION, |at| vec![at.iter().map(|at| with_health(*at, "UNHEALTHY")).collect()]);
    check_left_out(&gateway, &[], "all are unhealthy");
}

/// Makes each pod an address inside Envoy, as ambient Istio does: a listener there leads on to it.
fn lead_through_internal_listeners(envoy: &mut Configuration, at: &[SocketAddr]) {
    let name = |pod: usize| format!("to-pod-{pod}");
    for (pod, address) in at.iter().enumerate() {
        let proxy = json!({"name": "tcp", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name(pod), "cluster": name(pod)}});
        let listener =
            json!({"name": name(pod), "internal_listener": {}, "filter_chains": [{"filters": [proxy]}]});
        envoy.at("/static_resources/listeners").as_array_mut().unwrap().push(listener);
        let cluster = json!({"name": name(pod), "type": "STATIC", "load_assignment":
            {"cluster_name": name(pod), "endpoints": [{"lb_endpoints": [host(*address)]}]}});
        envoy.at("/static_resources/clusters").as_array_mut().unwrap().push(cluster);
    }
    let extension = json!({"name": "envoy.bootstrap.internal_listener", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.bootstrap.internal_listener.v3.InternalListener"}});
    match envoy.at("")["bootstrap_extensions"].as_array_mut() {
        Some(extensions) => extensions.push(extension),
        None => envoy.at("")["bootstrap_extensions"] = json!([extension]),
    }
    let internal = |(pod, address): (usize, &SocketAddr)| {
        json!({"endpoint": {"address": {"envoy_internal_address":
            {"server_listener_name": name(pod), "endpoint_id": address.to_string()}}}})
    };
    set_hosts(envoy, &[at.iter().enumerate().map(internal).collect()]);
}

#[test]
fn hosts_inside_envoy_are_followed_by_the_address_that_is_their_id() {
    for version in [OLDEST, NEWEST] {
        for configuration in ALL {
            let setup = asking_admin(configuration).version(version);
            let gateway = setup.start_with(lead_through_internal_listeners);
            let picked = || {
                gateway.send(chat("tiny"));
                let lines = gateway.envoy.access_log().unwrap();
                lines
                    .last()
                    .is_some_and(|line| line["picked"].as_str().is_some_and(|to| to.starts_with("envoy://")))
            };
            until("they are discovered", picked);
            gateway.check_burst_is_spread(configuration);
            // Only a pick keeps requests away from a pod that is full by its metrics.
            gateway.pods.server(1).set(|knobs| knobs.gauges.waiting = Some(50.0));
            check_left_out(&gateway, &[1], configuration);
        }
    }
}

/// Leads what comes by a Unix socket to a pod, for as long as the test runs.
fn lead_socket_to(path: &Path, pod: SocketAddr) {
    let listener = UnixListener::bind(path).unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            std::thread::spawn(move || lead_to(client, pod));
        }
    });
}

fn lead_to(mut client: UnixStream, pod: SocketAddr) -> io::Result<()> {
    let mut server = TcpStream::connect(pod)?;
    let (mut back_from, mut back_to) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || io::copy(&mut back_from, &mut back_to));
    io::copy(&mut client, &mut server).map(drop)
}

#[test]
fn where_a_host_cannot_be_named_envoy_balances_and_the_log_says_so_once() {
    let folder = tempfile::tempdir().unwrap();
    for named in [0, 2] {
        let pods = ModelServers::start(crate::gateway::four_pods()).unwrap();
        let socket = folder.path().join(format!("{named}.sock"));
        lead_socket_to(&socket, pods.addresses()[3]);
        let pipe = json!({"endpoint": {"address": {"pipe": {"path": socket.to_string_lossy()}}}});
        let mut hosts: Vec<Value> = pods.addresses()[..named].iter().copied().map(host).collect();
        hosts.push(pipe);
        let setup = asking_admin(WORKER_SCRAPING).pods(vec![]).unscraped();
        let gateway = setup.start_with(|envoy, _| set_hosts(envoy, &[hosts]));
        let decision = || {
            let answer = gateway.send(chat("tiny"));
            assert_eq!(answer.status, 200, "{}", answer.text());
            gateway.envoy.access_log().unwrap().last().map(|line| line["decision"].clone())
        };
        until("it is Envoy that balances", || decision() == Some("hosts that cannot be named".into()));
        std::thread::sleep(Duration::from_secs(1));
        decision();
        let lines = gateway.envoy.log_text().matches("Envoy balances this pool").count();
        assert_eq!(lines, 1, "{named}");
    }
}
