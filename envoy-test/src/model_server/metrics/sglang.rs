//! The page of SGLang 0.5.23: the scheduler's gauges and the tokenizer's counters, as its own code printed them
//! (`tests/fixtures/sglang-0.5.23/`; the other counters and the histograms are left out). Every rank that prints has a series
//! of its own in each family of gauges. Of counters there is nothing until a request has ended.

use std::fmt::Write;

use super::engines::share;
use super::number::python_number;
use super::source::PageSource;

/// Families with their help and type, then `NAME VALUE`, where a `$name` stands for a value of the engine. `@with_adapters`
/// and `@always` say when the lines after them are printed.
const TEMPLATE: &str = include_str!("sglang.template");

/// Labels of what the tokenizer counts by whether answers are streamed, and by where prompts were cached. The simulated
/// server counts all of one kind.
const STREAMED: &str = r#"engine_type="unified",is_streaming="true""#;
const CACHED: &str = r#"cache_source="device",engine_type="unified""#;

/// What the tokenizer counts when a request ends: name, help, labels.
const COUNTERS: [(&str, &str, &str); 4] = [
    ("prompt_tokens_total", "Number of prefill tokens processed.", STREAMED),
    ("generation_tokens_total", "Number of generation tokens processed.", STREAMED),
    ("cached_tokens_total", "Number of cached prompt tokens by source (device/host/storage).", CACHED),
    ("num_requests_total", "Number of requests processed.", STREAMED),
];

/// Which ranks print. A server without data parallelism has no label `dp_rank`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SglangRanks {
    /// Engines that share the server's work, 1 or more. The simulated engine's load is reported in that many shares.
    pub data_parallel: usize,
    /// Ranks that print the same numbers again for each engine, 1 or more; above 1 with
    /// `--enable-metrics-for-all-schedulers`.
    pub tensor_parallel: usize,
}

pub fn render(source: &PageSource, ranks: SglangRanks) -> String {
    let mut page = String::new();
    let mut printed = true;
    for line in TEMPLATE.lines() {
        match line.split_once(' ') {
            _ if line == "@with_adapters" => printed = source.has_adapters(),
            _ if line == "@always" => printed = true,
            _ if !printed => {}
            Some((name, value)) if name != "#" => print_family(&mut page, source, ranks, name, value),
            _ => push_line(&mut page, line),
        }
    }
    print_counters(&mut page, source);
    page
}

fn print_counters(page: &mut String, source: &PageSource) {
    let tokens = source.statistics.finished_tokens;
    let counts = [tokens.prompt, tokens.generation, tokens.cached, source.statistics.finished_requests];
    let counted = COUNTERS.into_iter().zip(counts).filter(|(_, count)| *count > 0);
    for ((name, help, labels), count) in counted {
        let (model, count) = (source.model, python_number(count as f64));
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "# HELP sglang:{name} {help}\n# TYPE sglang:{name} counter\nsglang:{name}{{{labels},model_name=\"{model}\"}} {count}"
        );
    }
}

fn push_line(page: &mut String, line: &str) {
    page.push_str(line);
    page.push('\n');
}

fn print_family(page: &mut String, source: &PageSource, ranks: SglangRanks, name: &str, value: &str) {
    let model = source.model;
    for engine in 0..ranks.data_parallel {
        let value = value_of(source, ranks, engine, value);
        let dp_rank = if ranks.data_parallel > 1 { format!(r#"dp_rank="{engine}","#) } else { String::new() };
        for rank in 0..ranks.tensor_parallel {
            let rank = engine * ranks.tensor_parallel + rank;
            // Writing to a string cannot fail.
            let _ = writeln!(
                page,
                r#"{name}{{{dp_rank}engine_type="unified",model_name="{model}",moe_ep_rank="{rank}",pp_rank="0",tp_rank="{rank}"}} {value}"#
            );
        }
    }
}

/// What one engine reports: of requests its share, of the cache its part.
fn value_of(source: &PageSource, ranks: SglangRanks, engine: usize, value: &str) -> String {
    let settings = source.engine.settings();
    let engines = ranks.data_parallel;
    let tokens = (settings.kv_cache_tokens() / engines) as f64;
    let used_tokens = (tokens * source.kv_cache_usage()).round();
    let evictable_tokens = (source.evictable_tokens() / engines) as f64;
    python_number(match value {
        "$running" => share(source.running(), engine, engines),
        "$waiting" => share(source.waiting(), engine, engines),
        "$kv_cache_usage" => source.kv_cache_usage(),
        "$kv_cache_tokens" => tokens,
        "$context_tokens" => source.context_tokens as f64,
        "$block_tokens" => settings.block_tokens as f64,
        "$blocks" => (settings.blocks / engines) as f64,
        "$kv_used_tokens" => used_tokens,
        "$kv_evictable_tokens" => evictable_tokens,
        "$kv_available_tokens" => tokens - used_tokens - evictable_tokens,
        "$lora_slots" => settings.lora_slots as f64,
        "$lora_slots_in_use" => share(source.active_adapters() as f64, engine, engines),
        constant => return constant.to_owned(),
    })
}
