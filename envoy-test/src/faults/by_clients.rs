//! Clients that do harm to others, or would: they leave, or never come to the end of a request.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;
use serde_json::json;

use super::list::{NORMAL, of};
use super::{Fault, Happening, Promise, Stage};
use crate::envoy::blocking::wait_for;
use crate::envoy::{Client, RawConnection, Request};
use crate::load::Load;

/// Clients besides those whose answers are counted.
const OTHER_CLIENTS: usize = 8;
/// A time in which some have had the beginning of an answer and none its end.
const SHORT_PATIENCE: Duration = Duration::from_millis(20);
/// More bodies than the pods take requests at a time.
const HALF_BODIES: usize = 100;

pub const BY_CLIENTS: &[Fault] = &[
    of_others("eight more clients leave, each after 20 ms", leave_soon),
    of_others("eight more clients leave, each after its answer's first event", leave_in_mid_stream),
    of_others("a hundred more clients send half a body, and no more", send_half_a_body),
];

const fn of_others(name: &'static str, act: fn(&mut Stage) -> Result<()>) -> Fault {
    Fault { lasts: Duration::ZERO, ..of(name, Happening::ToGateway(act, |_| Ok(())), Promise::NothingLeft) }
}

fn leave_soon(stage: &mut Stage) -> Result<()> {
    let client = stage.client();
    Load { client, clients: OTHER_CLIENTS, patience: SHORT_PATIENCE, request: &long_answer }
        .during(|_| std::thread::sleep(NORMAL));
    Ok(())
}

fn leave_in_mid_stream(stage: &mut Stage) -> Result<()> {
    let client = stage.client();
    let until = Instant::now() + NORMAL;
    wait_for(try_join_all((0..OTHER_CLIENTS).map(|_| leave_until(client, until))))?;
    Ok(())
}

async fn leave_until(client: Client, until: Instant) -> Result<()> {
    while Instant::now() < until {
        client.open(long_answer()).await?.next_chunk().await?;
    }
    Ok(())
}

fn send_half_a_body(stage: &mut Stage) -> Result<()> {
    let half = "POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n\
                content-length: 1000\r\n\r\n{\"model\":\"tiny\",";
    let open: Result<Vec<RawConnection>> = (0..HALF_BODIES)
        .map(|_| {
            let mut connection = RawConnection::open(stage.listener.address())?;
            connection.send(half)?;
            Ok(connection)
        })
        .collect();
    let _open = open?;
    std::thread::sleep(NORMAL);
    Ok(())
}

/// An answer for which nobody in a hurry waits.
fn long_answer() -> Request {
    let prompt = format!("{:016x}", fastrand::u64(..));
    Request::post("/v1/completions")
        .json(&json!({"model": "tiny", "prompt": prompt, "max_tokens": 200, "stream": true}))
}
