//! What a request costs: by its size and by what stands in its way, and by the number of endpoints.

use std::sync::Arc;

use anyhow::Result;
use envoy_test::document::grouped;
use envoy_test::table::Table;
use serde::Serialize;
use tokio::runtime::Runtime;

use crate::gateway::{Gateway, GatewaySettings, Scraping, Variant};
use crate::model_servers::{ModelServers, STREAM_EVENTS};
use crate::rounds::{Cost, NEXT_WARM_UP_CPU_US, WARM_UP_CPU_US, compare, measure, measure_pools};

/// The last is as much as Envoy takes of a body for one upstream connection without further configuration.
const BODY_KILOBYTES: [usize; 4] = [1, 7, 100, 1_000];
pub const ENDPOINTS: u32 = 4;
const MANY_ENDPOINTS: [u32; 3] = [10, 100, 1_000];
/// Text with more escapes than most, and text with a new line now and then.
const QUOTES: &str = r#"The \"picker\" reads the body\nand picks. "#;
const PROSE: &str =
    r"The picker reads the body of each request once, from its first byte to its last, and picks.\n";
const PROSE_KILOBYTES: usize = 100;
/// The size of request that is sent to many endpoints.
pub const TYPICAL_KILOBYTES: usize = 7;

/// One line of a table.
#[derive(Debug, Serialize)]
pub struct RequestCost {
    pub name: String,
    pub costs: Vec<Cost>,
}

/// Requests that are not read, and chats of several sizes, in every variant.
pub fn by_size(runtime: &Runtime, rounds: usize) -> Result<Vec<RequestCost>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let gateways = start(&Variant::ALL, &servers, Scraping::Rarely)?;
    let mut results = Vec::new();
    for (name, request) in requests() {
        let warm_up = if results.is_empty() { WARM_UP_CPU_US } else { NEXT_WARM_UP_CPU_US };
        let costs = measure(runtime, &servers, &gateways, &request, warm_up, rounds)?;
        results.push(RequestCost { name, costs });
    }
    Ok(results)
}

/// A chat whose answer is streamed.
pub fn streamed(runtime: &Runtime, rounds: usize) -> Result<Vec<RequestCost>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let variants = [Variant::Plain, Variant::DoesNothing, Variant::Default, Variant::DefaultDeferred];
    let gateways = start(&variants, &servers, Scraping::Rarely)?;
    let costs = measure(runtime, &servers, &gateways, &chat(1, true), WARM_UP_CPU_US / 2, rounds)?;
    Ok(vec![RequestCost { name: format!("stream of {STREAM_EVENTS} events, with its request"), costs }])
}

/// A chat to pools of ever more endpoints. Nothing is scraped: this is the cost of the request alone.
pub fn by_number_of_endpoints(runtime: &Runtime, rounds: usize) -> Result<Vec<RequestCost>> {
    let variants = [Variant::Plain, Variant::Default, Variant::PrefixCache];
    let pool = |count| {
        let servers = ModelServers::start(runtime, count)?;
        let gateways = start(&variants, &servers, Scraping::Never)?;
        Ok((servers, gateways))
    };
    let started: Vec<(ModelServers, Vec<Gateway>)> =
        MANY_ENDPOINTS.into_iter().map(pool).collect::<Result<_>>()?;
    let pools: Vec<_> = started.iter().map(|(servers, gateways)| (servers, gateways.as_slice())).collect();
    let costs = measure_pools(runtime, &pools, &chat(TYPICAL_KILOBYTES, false), WARM_UP_CPU_US, rounds)?;
    let name = |count: u32| format!("{} endpoints", grouped(count.into()));
    Ok(MANY_ENDPOINTS
        .map(name)
        .into_iter()
        .zip(costs)
        .map(|(name, costs)| RequestCost { name, costs })
        .collect())
}

pub fn start(variants: &[Variant], servers: &ModelServers, scraping: Scraping) -> Result<Vec<Gateway>> {
    let settings = GatewaySettings { scraping, ..GatewaySettings::default() };
    variants.iter().map(|&variant| Gateway::start(variant, &servers.addresses, settings.clone())).collect()
}

fn requests() -> Vec<(String, Arc<[u8]>)> {
    let models = "GET /v1/models/llama HTTP/1.1\r\nhost: models\r\n\r\n".as_bytes();
    let unread = ("`GET /v1/models/llama`, not read".to_owned(), models.into());
    let chats = BODY_KILOBYTES.map(|kilobytes| (chat_name(kilobytes), chat(kilobytes, false)));
    let prose = (format!("{}, of prose", chat_name(PROSE_KILOBYTES)), chat_of(PROSE, PROSE_KILOBYTES, false));
    [unread].into_iter().chain(chats).chain([prose]).collect()
}

fn chat_name(kilobytes: usize) -> String {
    if kilobytes < 1_000 {
        format!("chat of {kilobytes} KB")
    } else {
        format!("chat of {} MB", kilobytes / 1_000)
    }
}

/// A chat request of about so many bytes, in which every fifteenth stands behind a backslash.
pub fn chat(kilobytes: usize, streamed: bool) -> Arc<[u8]> {
    chat_of(QUOTES, kilobytes, streamed)
}

/// A chat of as many bytes with further headers, each behind a line's end.
pub fn chat_with_headers(headers: &str, kilobytes: usize) -> Arc<[u8]> {
    post_with(headers, &chat_body(QUOTES, kilobytes, false))
}

fn chat_of(line: &str, kilobytes: usize, streamed: bool) -> Arc<[u8]> {
    post(&chat_body(line, kilobytes, streamed))
}

fn chat_body(line: &str, kilobytes: usize, streamed: bool) -> String {
    let message = format!(r#"{{"role":"user","content":"{}"}}"#, line.repeat(12));
    let messages = vec![message.as_str(); (kilobytes * 1_000).div_ceil(message.len() + 1)].join(",");
    format!(r#"{{"model":"llama","stream":{streamed},"max_tokens":100,"messages":[{messages}]}}"#)
}

/// A chat request with this body.
pub fn post(body: &str) -> Arc<[u8]> {
    post_with("", body)
}

/// The same with further headers, each behind a line's end.
fn post_with(headers: &str, body: &str) -> Arc<[u8]> {
    let head = "POST /v1/chat/completions HTTP/1.1\r\nhost: models\r\ncontent-type: application/json";
    let head = format!("{head}{headers}");
    format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes().into()
}

/// A column a variant: processor time, and below it instructions, where they were counted.
pub fn tables(lines: &[RequestCost]) -> String {
    with_instructions(time_table(lines), lines, instructions_table)
}

/// As [`tables`], and how much more the last line takes than the first.
pub fn growth_tables(lines: &[RequestCost]) -> String {
    let mut times = time_table(lines);
    add_growth(&mut times, lines, |first, last| {
        let (ratio, lowest, highest) = compare(&last.rounds_cpu_us, &first.rounds_cpu_us);
        format!("×{ratio:.2} ({lowest:.2}–{highest:.2})")
    });
    with_instructions(times, lines, |lines| {
        let mut table = instructions_table(lines);
        add_growth(&mut table, lines, |first, last| {
            let growth = last.instructions.zip(first.instructions).map(|(last, first)| last / first - 1.0);
            growth.map_or_else(String::new, |growth| format!("{:+.1} %", growth * 100.0))
        });
        table
    })
}

/// As [`tables`], and what each event costs more than plain Envoy's.
pub fn streams_tables(lines: &[RequestCost]) -> String {
    let mut times = time_table(lines);
    for line in lines {
        let plain_us = line.costs.first().map_or(0.0, |plain| plain.cpu_us);
        let more = |cost: &Cost| match cost.variant {
            Variant::Plain => String::new(),
            _ => format!("{:+.2} µs", (cost.cpu_us - plain_us) / STREAM_EVENTS as f64),
        };
        times.row("an event, more than plain Envoy's", line.costs.iter().map(more));
    }
    with_instructions(times, lines, instructions_table)
}

fn with_instructions(times: Table, lines: &[RequestCost], table: fn(&[RequestCost]) -> Table) -> String {
    if lines.iter().flat_map(|line| &line.costs).any(|cost| cost.instructions.is_none()) {
        return times.to_string();
    }
    format!("{times}\nThe same in instructions, those of Envoy's process in user mode:\n\n{}", table(lines))
}

fn time_table(lines: &[RequestCost]) -> Table {
    table(lines, |_, cost| {
        let Cost { variant, cpu_us, ratio, ratio_lowest, ratio_highest, .. } = cost;
        match variant {
            Variant::Plain => format!("{cpu_us:.1} µs"),
            _ => format!("{cpu_us:.1} µs, ×{ratio:.2} ({ratio_lowest:.2}–{ratio_highest:.2})"),
        }
    })
}

fn instructions_table(lines: &[RequestCost]) -> Table {
    table(lines, |plain, cost| {
        let instructions = cost.instructions.unwrap_or(f64::NAN);
        let thousands = grouped((instructions / 1e3).round() as u64);
        match cost.variant {
            Variant::Plain => format!("{thousands},000"),
            _ => format!("{thousands},000, ×{:.2}", instructions / plain.instructions.unwrap_or(f64::NAN)),
        }
    })
}

/// A column a variant; each cell is given the line's first, and its own.
fn table(lines: &[RequestCost], cell: impl Fn(&Cost, &Cost) -> String) -> Table {
    let variants = lines.first().map_or(&[][..], |line| &line.costs);
    let mut table = Table::new("", variants.iter().map(|cost| cost.variant.name()));
    for line in lines {
        if let [first, ..] = line.costs.as_slice() {
            table.row(&line.name, line.costs.iter().map(|own| cell(first, own)));
        }
    }
    table
}

/// How much more the last line takes than the first.
fn add_growth(table: &mut Table, lines: &[RequestCost], growth: impl Fn(&Cost, &Cost) -> String) {
    if let [first, .., last] = lines {
        let name = format!("{} against {}", last.name, first.name);
        table.row(&name, first.costs.iter().zip(&last.costs).map(|(first, last)| growth(first, last)));
    }
}
