//! The memory of Envoy's process with many endpoints: what the plugin, one worker more, and a full index of prefixes add.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use envoy_test::document::grouped;
use envoy_test::statistics::Page;
use envoy_test::table::Table;
use fastrand::Rng;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::builds::Build;
use crate::gateway::{Gateway, GatewaySettings, Variant};
use crate::message::MessageStream;
use crate::model_servers::ModelServers;
use crate::requests::post;

const ENDPOINTS: u32 = 1_000;
/// Each has an index of its own.
const SEVERAL_WORKERS: u32 = 4;
/// By default, and four times that.
const BLOCKS_MAX: [u64; 2] = [250_000, 1_000_000];
/// Each prompt: 250 blocks, of which an endpoint's part of the smaller index is full.
const PROMPT_BYTES: usize = 64_000;
/// Prompts for each block of the index: with five times as many blocks as fit, hardly an endpoint's part is not full.
const PROMPTS_A_BLOCK: f64 = 0.02;
/// What the prompts are drawn from.
const SEED: u64 = 1;
/// Until all endpoints have been scraped: until then, only those that have are picked.
const SCRAPE_WAIT: Duration = Duration::from_secs(3);
/// The gauge of the blocks held; the plugin writes it once a second.
const BLOCKS: &str = "inference_picker_prefix_blocks";
const GAUGE_WAIT: Duration = Duration::from_millis(2_500);

/// What one Envoy holds.
#[derive(Debug, Serialize)]
pub struct Memory {
    pub variant: Variant,
    pub workers: u32,
    pub blocks_max: Option<u64>,
    pub build: Build,
    /// Blocks of prompts that the worker holds.
    pub blocks: u64,
    pub bytes: u64,
}

/// `other` is a checkout of the project with another build of the plugin.
pub fn measure(runtime: &Runtime, other: Option<&Path>) -> Result<Vec<Memory>> {
    let servers = ModelServers::start(runtime, ENDPOINTS)?;
    let without_index = [
        (Variant::Plain, 1),
        (Variant::Plain, SEVERAL_WORKERS),
        (Variant::DoesNothing, 1),
        (Variant::DoesNothing, SEVERAL_WORKERS),
        (Variant::Default, 1),
        (Variant::Default, SEVERAL_WORKERS),
    ]
    .map(|(variant, workers)| (variant, workers, None));
    let with_index = [(1, BLOCKS_MAX[0]), (SEVERAL_WORKERS, BLOCKS_MAX[0]), (1, BLOCKS_MAX[1])];
    let with_index =
        with_index.map(|(workers, blocks_max)| (Variant::PrefixCache, workers, Some(blocks_max)));
    let without_index = without_index.map(|case| (case, (Build::Own, None)));
    let with_index = Build::measured(other).flat_map(|build| with_index.map(|case| (case, build)));
    let cases = without_index.into_iter().chain(with_index);
    cases.map(|(case, build)| Memory::of(runtime, &servers, case, build)).collect()
}

impl Memory {
    fn of(
        runtime: &Runtime,
        servers: &ModelServers,
        (variant, workers, blocks_max): (Variant, u32, Option<u64>),
        (build, checkout): (Build, Option<&Path>),
    ) -> Result<Memory> {
        let settings =
            GatewaySettings { workers, prefix_blocks_max: blocks_max, ..GatewaySettings::default() };
        let gateway = Gateway::start_with(variant, &servers.addresses, settings, checkout)?;
        sleep(SCRAPE_WAIT);
        runtime.block_on(fill(&gateway, blocks_max.unwrap_or(BLOCKS_MAX[0])))?;
        gateway.check_that_it_runs()?;
        sleep(GAUGE_WAIT);
        let page = Page::of(&gateway.envoy)?;
        let blocks = page.sum(BLOCKS, &[]).unwrap_or_default() as u64;
        let bytes = gateway.envoy.memory_bytes()?;
        Ok(Memory { variant, workers, blocks_max, build, blocks, bytes })
    }

    fn name(&self) -> String {
        let workers = if self.workers > 1 { format!(", {} workers", self.workers) } else { String::new() };
        let index = self.blocks_max.map_or(String::new(), |most| format!(", `maxBlocks` {}", grouped(most)));
        format!("{}{workers}{index}{}", self.variant.name(), self.build.suffix())
    }
}

/// Sends prompts that share nothing, until an index of so many blocks is full; on several connections, so that every worker
/// has some.
async fn fill(gateway: &Gateway, blocks_max: u64) -> Result<()> {
    let mut rng = Rng::with_seed(SEED);
    let mut connections = Vec::new();
    for _ in 0..8 {
        connections.push(MessageStream::new(TcpStream::connect(gateway.envoy.address()).await?)?);
    }
    for index in 0..(blocks_max as f64 * PROMPTS_A_BLOCK) as usize {
        let text: String = (0..PROMPT_BYTES).map(|_| rng.alphanumeric()).collect();
        let body = format!(r#"{{"model":"llama","messages":[{{"role":"user","content":"{text}"}}]}}"#);
        let place = index % connections.len();
        connections[place].write(&post(&body)).await?;
        let answer = connections[place].next().await?.context("Envoy closed the connection")?;
        ensure!(answer.head.starts_with("HTTP/1.1 200 "), "not the answer expected: {}", answer.head);
    }
    Ok(())
}

pub fn table(held: &[Memory]) -> Table {
    let columns = ["blocks held", "memory", "more than plain Envoy", "each further worker"];
    let mut table = Table::new("with 1,000 endpoints", columns);
    for own in held {
        let plain = held.iter().find(|other| other.variant == Variant::Plain && other.workers == own.workers);
        let more = own.bytes as f64 - plain.map_or(0.0, |plain| plain.bytes as f64);
        let more =
            if own.variant == Variant::Plain { String::new() } else { format!("{:+.1} MB", more / 1e6) };
        let blocks = if own.blocks == 0 { String::new() } else { grouped(own.blocks) };
        let further =
            further_worker(held, own).map_or(String::new(), |bytes| format!("{:+.1} MB", bytes / 1e6));
        table.row(&own.name(), [blocks, format!("{:.1} MB", own.bytes as f64 / 1e6), more, further]);
    }
    if let Some(bytes) = bytes_a_block(held) {
        let cells = ["1,000,000".to_owned(), String::new(), format!("{bytes:+.1} MB"), String::new()];
        table.row("a million blocks more", cells);
    }
    table
}

/// What each worker but the first has added, where there are several.
fn further_worker(held: &[Memory], own: &Memory) -> Option<f64> {
    let is_alone = |other: &&Memory| {
        let is_same =
            (other.variant, other.blocks_max, other.build) == (own.variant, own.blocks_max, own.build);
        is_same && other.workers == 1
    };
    let alone = held.iter().find(is_alone).filter(|_| own.workers > 1)?;
    Some((own.bytes as f64 - alone.bytes as f64) / f64::from(own.workers - 1))
}

/// By the difference of two indexes of one worker.
fn bytes_a_block(held: &[Memory]) -> Option<f64> {
    let mut indexes = held.iter().filter(|own| own.blocks > 0 && own.workers == 1 && own.build == Build::Own);
    let (small, large) = (indexes.next()?, indexes.next()?);
    Some((large.bytes as f64 - small.bytes as f64) / (large.blocks as f64 - small.blocks as f64))
}
