//! What a request costs: by its size and mode, and by the number of endpoints.

use std::sync::Arc;

use anyhow::Result;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, Scraping, Variant};
use crate::model_servers::{ModelServers, STREAM_EVENTS};
use crate::rounds::{Cost, measure};

const BODY_KILOBYTES: [usize; 3] = [1, 7, 100];
const ENDPOINTS: u32 = 4;
const MANY_ENDPOINTS: [u32; 3] = [10, 100, 1_000];
/// The size of request that is sent to many endpoints.
const TYPICAL_KILOBYTES: usize = 7;

/// One line of a table.
#[derive(Debug, Serialize)]
pub struct RequestCost {
    pub name: String,
    pub costs: Vec<Cost>,
}

/// Memory of an Envoy's process after it was measured.
#[derive(Debug, Serialize)]
pub struct Memory {
    pub variant: Variant,
    pub resident_kb: u64,
}

/// Requests that are not read, and chats of several sizes, in every mode.
pub fn by_size(runtime: &Runtime, rounds: usize) -> Result<(Vec<RequestCost>, Vec<Memory>)> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let variants = [Variant::Plain, Variant::StopIteration, Variant::PrefixCache, Variant::Deferred];
    let gateways = start(&variants, &servers, Scraping::Rarely)?;
    let mut results = Vec::new();
    for (name, request) in requests() {
        eprintln!("measuring {name} in {} modes, {rounds} rounds ...", variants.len());
        results.push(RequestCost { costs: measure(runtime, &servers, &gateways, &request, rounds)?, name });
    }
    let memory = gateways
        .iter()
        .map(|gateway| Ok(Memory { variant: gateway.variant, resident_kb: gateway.resident_kb()? }));
    Ok((results, memory.collect::<Result<_>>()?))
}

/// A chat whose answer is streamed, and what the plugin adds to each of its events.
pub fn streamed(runtime: &Runtime, rounds: usize) -> Result<Vec<RequestCost>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let variants = [Variant::Plain, Variant::StopIteration, Variant::Deferred];
    let gateways = start(&variants, &servers, Scraping::Rarely)?;
    eprintln!("measuring streams in {} modes, {rounds} rounds ...", variants.len());
    let name = format!("stream of {STREAM_EVENTS}");
    Ok(vec![RequestCost { name, costs: measure(runtime, &servers, &gateways, &chat(1, true), rounds)? }])
}

/// A chat to pools of ever more endpoints. Nothing is scraped: this is the cost of the request alone.
pub fn by_number_of_endpoints(runtime: &Runtime, rounds: usize) -> Result<Vec<RequestCost>> {
    let mut results = Vec::new();
    for count in MANY_ENDPOINTS {
        eprintln!("measuring {count} endpoints, {rounds} rounds ...");
        let servers = ModelServers::start(runtime, count)?;
        let gateways = start(&[Variant::Plain, Variant::StopIteration], &servers, Scraping::Never)?;
        let costs = measure(runtime, &servers, &gateways, &chat(TYPICAL_KILOBYTES, false), rounds)?;
        results.push(RequestCost { name: format!("{count} endpoints"), costs });
    }
    Ok(results)
}

fn start(variants: &[Variant], servers: &ModelServers, scraping: Scraping) -> Result<Vec<Gateway>> {
    variants.iter().map(|&variant| Gateway::start(variant, &servers.addresses, scraping)).collect()
}

fn requests() -> Vec<(String, Arc<[u8]>)> {
    let models = "GET /v1/models HTTP/1.1\r\nhost: models\r\n\r\n".as_bytes();
    let chats = BODY_KILOBYTES.map(|kilobytes| (format!("chat of {kilobytes} KB"), chat(kilobytes, false)));
    [("GET /v1/models".to_owned(), models.into())].into_iter().chain(chats).collect()
}

/// A chat request of about so many bytes, with the escapes that text has.
fn chat(kilobytes: usize, streamed: bool) -> Arc<[u8]> {
    let line = r#"The \"picker\" reads the body\nand picks. "#;
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, line.repeat(12));
    let messages = vec![message.as_str(); (kilobytes * 1_000).div_ceil(message.len() + 1)].join(",");
    let body = format!(r#"{{"model":"llama","stream":{streamed},"max_tokens":100,"messages":[{messages}]}}"#);
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: models\r\ncontent-type: application/json";
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes().into()
}
