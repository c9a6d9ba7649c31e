//! A real server that is killed under load, and what clients see of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use anyhow::Result;
use envoy_test::envoy::blocking::wait_for;
use serde_json::json;

use crate::gateway::{Gateway, chat, chat_body, completion};
use crate::picking::first_pick;
use crate::servers::{MODEL, Servers};
use envoy_test::envoy::Request;

/// Half of them take their answers whole, half as streams.
const CLIENTS: usize = 4;
/// Load before the server is killed, and behind it.
const LOAD_TIME: Duration = Duration::from_secs(3);

/// What clients saw.
#[derive(Debug, Default)]
struct Seen {
    good: usize,
    /// Streams that had begun: the only ones that may end with their server.
    broke_off: usize,
    failed: Vec<String>,
}

/// Kills the server at 0 while clients use every gateway.
pub fn only_streams_that_had_begun_end_with_their_server(gateways: &[Gateway], servers: &Servers) {
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
pub fn every_later_request_is_sent_to_the_other_server(gateways: &[Gateway]) {
    for gateway in gateways {
        let survivor = gateway.servers.addresses()[1].to_string();
        for request in [chat(MODEL), completion(MODEL)].iter().cycle().take(20) {
            assert_eq!(gateway.send(request.clone()).status, 200, "{}", gateway.configuration);
        }
        for line in gateway.log(20) {
            assert_eq!((first_pick(&line), &line["upstream"]), (&*survivor, &json!(survivor)), "{line}");
        }
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
