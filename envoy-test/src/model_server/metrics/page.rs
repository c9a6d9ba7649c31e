//! Prints the page: the template with the values of one server.

use std::fmt::Write;

use super::number::python_number;
use super::sglang::{self, SglangRanks};
use super::source::PageSource;
use super::statistics::unix_seconds;
use super::template::TEMPLATE;
use super::{engines, llama_cpp};
use crate::model_server::knobs::{FixedGauges, Sleep};

/// Bytes reserved for a page: a real one has 49 to 66 KB.
const PAGE_BYTES: usize = 70_000;

/// Whose page is printed. The server answers as vLLM does, whatever its page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricsPage {
    /// vLLM 0.32 with as many engines behind one port (`--data-parallel-size`), 1 or more.
    Vllm {
        engines: usize,
    },
    Sglang(SglangRanks),
    LlamaCpp,
}

/// Prints the page.
pub fn render(source: &PageSource, page: MetricsPage) -> String {
    match page {
        MetricsPage::Vllm { engines: 1 } => render_engine(source),
        MetricsPage::Vllm { engines } => engines::multiplied(&render_engine(source), engines),
        MetricsPage::Sglang(ranks) => sglang::render(source, ranks),
        MetricsPage::LlamaCpp => llama_cpp::render(source),
    }
}

/// The page of vLLM with one engine.
fn render_engine(source: &PageSource) -> String {
    let mut page = String::with_capacity(PAGE_BYTES);
    let mut printed = true;
    for line in TEMPLATE.lines() {
        match line.strip_prefix('@') {
            Some("always") => printed = true,
            Some("after_traffic") => printed = source.statistics.had_traffic(),
            Some("with_adapters") => printed = source.has_adapters(),
            _ if !printed => {}
            Some("adapters") => source.print_adapters(&mut page),
            Some(directive) => source.print_histogram(&mut page, directive),
            None => source.print_line(&mut page, line),
        }
    }
    page
}

impl PageSource<'_> {
    /// Whether the server sleeps like this: 1 or 0.
    fn sleeps(&self, sleep: Sleep) -> f64 {
        f64::from(self.fixed.sleep == sleep)
    }

    fn has_fixed_adapters(&self) -> bool {
        let FixedGauges { running_adapters, waiting_adapters, max_lora, .. } = self.fixed;
        running_adapters.is_some() || waiting_adapters.is_some() || max_lora.is_some()
    }

    pub fn has_adapters(&self) -> bool {
        self.engine.settings().lora_slots > 0 || self.has_fixed_adapters()
    }

    fn print_line(&self, page: &mut String, line: &str) {
        let mut pieces = line.split('$');
        page.push_str(pieces.next().unwrap_or_default());
        for piece in pieces {
            let name_end = piece.find(|letter: char| !letter.is_ascii_lowercase() && letter != '_');
            let (name, text) = piece.split_at(name_end.unwrap_or(piece.len()));
            page.push_str(&self.value(name));
            page.push_str(text);
        }
        page.push('\n');
    }

    /// The value of `$name` in the template.
    fn value(&self, name: &str) -> String {
        let settings = self.engine.settings();
        let number = match name {
            "model" => return self.model.to_owned(),
            "block_tokens" => return settings.block_tokens.to_string(),
            "blocks" => return settings.blocks.to_string(),
            "kv_cache_tokens" => return settings.kv_cache_tokens().to_string(),
            "concurrency" => settings.sequences_max as f64,
            "waiting" => self.waiting(),
            "running" => self.running(),
            "capacity" => self.waiting() - self.deferred(),
            "deferred" => self.deferred(),
            "kv_cache_usage" => self.kv_cache_usage(),
            "awake" => self.sleeps(Sleep::Awake),
            "weights_offloaded" => self.sleeps(Sleep::WeightsOffloaded),
            "discard_all" => self.sleeps(Sleep::DiscardAll),
            _ => self.total(name),
        };
        python_number(number)
    }

    fn total(&self, name: &str) -> f64 {
        let cache = self.engine.cache_totals();
        let statistics = self.statistics;
        let count = match name {
            "created" => return statistics.created,
            "prefix_queried_tokens" => cache.prefix_queried_tokens,
            "prefix_hit_tokens" => cache.prefix_hit_tokens,
            "preemptions" => cache.preemptions,
            "prompt_tokens" => statistics.prompt_tokens,
            "computed_prompt_tokens" => statistics.prompt_tokens.saturating_sub(cache.prefix_hit_tokens),
            "generation_tokens" => statistics.generation_tokens,
            "finished_requests" => statistics.finished_requests,
            "aborted_requests" => statistics.aborted_requests,
            _ => panic!("the page's template has an unknown value: {name}"),
        };
        count as f64
    }

    /// The part of the waiting requests that waits for an adapter.
    fn deferred(&self) -> f64 {
        match self.fixed.waiting {
            Some(_) => 0.0,
            None => self.engine.gauges().deferred as f64,
        }
    }

    fn print_histogram(&self, page: &mut String, directive: &str) {
        let name = directive.split(' ').nth(1).unwrap_or_default();
        if let Some(histogram) = self.statistics.histogram(name) {
            histogram.print(page, self.model);
        }
    }

    /// Prints one series for each set of adapters seen; the largest value marks the current one. Both lists of a
    /// series are the same, as in vLLM 0.32. A fixed set is always the current one.
    fn print_adapters(&self, page: &mut String) {
        for (names, &seen) in &self.statistics.adapters_seen {
            self.print_adapter_series(page, names, names, seen);
        }
        if self.has_fixed_adapters() {
            let joined = |names: &Option<Vec<String>>| names.as_deref().unwrap_or_default().join(",");
            let (running, waiting) =
                (joined(&self.fixed.running_adapters), joined(&self.fixed.waiting_adapters));
            self.print_adapter_series(page, &running, &waiting, unix_seconds());
        }
    }

    fn print_adapter_series(&self, page: &mut String, running: &str, waiting: &str, seen: f64) {
        let slots = self.engine.settings().lora_slots;
        let max_lora = self.fixed.max_lora.map_or(slots, |fixed| fixed as usize);
        let seen = python_number(seen);
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            r#"vllm:lora_requests_info{{max_lora="{max_lora}",running_lora_adapters="{running}",waiting_lora_adapters="{waiting}"}} {seen}"#
        );
    }
}
