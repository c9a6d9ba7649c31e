//! A real server that is killed under load, and what clients see of it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::Result;
use envoy_test::envoy::Request;
use envoy_test::envoy::blocking::wait_for;

use crate::gateway::{Gateway, chat, chat_body, completion};
use crate::picking::first_pick;
use crate::servers::{MODEL, Servers};
use crate::{CONFIGURATIONS, check, until};

/// Half of them take their answers whole, half as streams.
const CLIENTS: usize = 4;
/// Load before the server is killed, and behind it.
const LOAD_TIME: Duration = Duration::from_secs(3);
/// More than the other servers work on at once.
const BURST: usize = 12;

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    good: usize,
    /// Streams that had begun: the only ones that may end with their server.
    broke_off: usize,
    failed: Vec<String>,
}

type Claim = fn(&[Gateway], &Servers);

/// All claims of this file, in their order. Returns those that do not hold.
pub fn check_all(servers: &Servers) -> Vec<String> {
    let gateways = &CONFIGURATIONS.map(|configuration| Gateway::start(configuration, servers));
    let claims: [(&str, Claim); 3] = [
        (
            "only_streams_that_had_begun_end_with_their_server",
            only_streams_that_had_begun_end_with_their_server,
        ),
        ("every_later_request_is_sent_to_another_server", every_later_request_is_sent_to_another_server),
        (
            "a_server_that_was_started_again_gets_requests_again",
            a_server_that_was_started_again_gets_requests_again,
        ),
    ];
    claims.into_iter().filter_map(|(name, claim)| check(name, || claim(gateways, servers))).collect()
}

/// Kills the server at 0 while clients use every gateway.
fn only_streams_that_had_begun_end_with_their_server(gateways: &[Gateway], servers: &Servers) {
    let seen = under_load(gateways, || {
        sleep(LOAD_TIME);
        servers.kill(0);
        sleep(LOAD_TIME);
    });
    let mut hit = 0;
    for (gateway, seen) in gateways.iter().zip(&seen) {
        let Seen { good, broke_off, failed } = seen;
        let configuration = gateway.configuration;
        let lines = gateway.log(good + broke_off + failed.len());
        let retried = lines.iter().filter(|line| line["attempts"].as_u64() > Some(1)).count();
        eprintln!(
            "    {configuration}: {good} answers, {retried} of them by a retry; {broke_off} streams broke off"
        );
        assert_eq!(*failed, Vec::<String>::new(), "{configuration}");
        assert!(*broke_off <= CLIENTS / 2 && *good > 10, "{configuration}: {seen:?}");
        hit += retried + broke_off;
    }
    assert!(hit > 0, "the server died while it had no request at all, which shows nothing");
}

/// After the one before.
fn every_later_request_is_sent_to_another_server(gateways: &[Gateway], _: &Servers) {
    for gateway in gateways {
        let survivors = gateway.servers.addresses()[1..].iter().map(SocketAddr::to_string);
        let survivors: Vec<String> = survivors.collect();
        for request in [chat(MODEL), completion(MODEL)].iter().cycle().take(20) {
            assert_eq!(gateway.send(request.clone()).status, 200, "{}", gateway.configuration);
        }
        for line in gateway.log(20) {
            let picked = first_pick(&line);
            assert!(survivors.iter().any(|survivor| survivor == picked), "{line}");
            assert_eq!(line["upstream"], picked, "{line}");
        }
    }
}

/// After the one before, which it undoes.
fn a_server_that_was_started_again_gets_requests_again(gateways: &[Gateway], servers: &Servers) {
    servers.start_again(0);
    for gateway in gateways {
        until("the server gets requests", || {
            let answers = gateway.burst(vec![chat(MODEL); BURST]);
            assert!(answers.iter().all(|answer| answer.status == 200), "{}", gateway.configuration);
            gateway.served_by(BURST).contains(&0)
        });
    }
}

/// What the clients of each gateway saw while `act` ran.
fn under_load(gateways: &[Gateway], act: impl FnOnce()) -> Vec<Seen> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let client = |gateway, streams| {
            let stop = &stop;
            scope.spawn(move || client(gateway, streams, stop))
        };
        let clients: Vec<Vec<_>> = gateways
            .iter()
            .map(|gateway| (0..CLIENTS).map(|index| client(gateway, index % 2 == 0)).collect())
            .collect();
        act();
        stop.store(true, Ordering::Relaxed);
        let joined =
            clients.into_iter().map(|clients| clients.into_iter().map(|client| client.join().unwrap()));
        joined.map(Iterator::collect::<Seen>).collect()
    })
}

/// One client: one request after the other.
fn client(gateway: &Gateway, streams: bool, stop: &AtomicBool) -> Seen {
    let mut seen = Seen::default();
    while !stop.load(Ordering::Relaxed) {
        gateway.count(1);
        let sent = if streams { stream(gateway, &mut seen) } else { whole(gateway, &mut seen) };
        if let Err(error) = sent {
            seen.failed.push(format!("{error:#}"));
        }
    }
    seen
}

fn whole(gateway: &Gateway, seen: &mut Seen) -> Result<()> {
    let answer = gateway.client().send_blocking(chat(MODEL))?;
    seen.count(answer.status, answer.text());
    Ok(())
}

fn stream(gateway: &Gateway, seen: &mut Seen) -> Result<()> {
    let mut body = chat_body(MODEL);
    body["stream"] = true.into();
    wait_for(async {
        let mut stream = gateway.client().open(Request::post("/v1/chat/completions").json(&body)).await?;
        let mut text = String::new();
        loop {
            match stream.next_chunk().await {
                Ok(Some(chunk)) => text.push_str(&String::from_utf8_lossy(&chunk.data)),
                Ok(None) => break seen.count(stream.status, text),
                Err(_) => break seen.broke_off += 1,
            }
        }
        Ok(())
    })
}

impl Seen {
    fn count(&mut self, status: u16, text: String) {
        match status {
            200 => self.good += 1,
            _ => self.failed.push(format!("{status}: {text}")),
        }
    }
}

impl FromIterator<Seen> for Seen {
    fn from_iter<T: IntoIterator<Item = Seen>>(all: T) -> Seen {
        all.into_iter().fold(Seen::default(), |mut sum, seen| {
            sum.good += seen.good;
            sum.broke_off += seen.broke_off;
            sum.failed.extend(seen.failed);
            sum
        })
    }
}
