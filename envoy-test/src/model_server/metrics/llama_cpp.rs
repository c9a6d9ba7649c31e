//! The page of llama.cpp's llama-server: no labels, no KV cache (`tests/fixtures/llama.cpp-0.3.36/`).

use std::fmt::Write;

use super::source::PageSource;

/// Each family as `TYPE NAME HELP`, in the order of the real page.
const FAMILIES: [(&str, &str, &str); 15] = [
    ("counter", "prompt_tokens_total", "Number of prompt tokens processed, excluding cached tokens"),
    ("counter", "prompt_tokens_cached_total", "Number of prompt tokens reused from the cache"),
    ("counter", "prompt_seconds_total", "Total time spent processing prompts"),
    ("counter", "tokens_predicted_total", "Number of generation tokens processed"),
    ("counter", "tokens_predicted_seconds_total", "Total time spent generating tokens"),
    (
        "counter",
        "n_decode_total",
        "Total number of llama_decode() calls, excluding speculative decoding and multimodal decoding",
    ),
    ("counter", "n_tokens_max", "Largest observed sequence length (prompt + generation)"),
    ("counter", "spec_decode_num_draft_tokens_total", "Speculative: Total draft tokens generated"),
    (
        "counter",
        "spec_decode_num_accepted_tokens_total",
        "Speculative: Total draft tokens accepted by the target model",
    ),
    ("counter", "spec_decode_num_drafts_total", "Speculative: Total speculative decoding verification steps"),
    ("gauge", "prompt_tokens_seconds", "Average prompt throughput in tokens/s"),
    ("gauge", "predicted_tokens_seconds", "Average generation throughput in tokens/s"),
    ("gauge", "requests_processing", "Number of requests processing"),
    ("gauge", "requests_deferred", "Number of requests deferred"),
    ("gauge", "n_busy_slots_per_decode", "Average number of busy slots per llama_decode() call"),
];

pub fn render(source: &PageSource) -> String {
    let mut page = String::new();
    for (kind, name, help) in FAMILIES {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "# HELP llamacpp:{name} {help}\n# TYPE llamacpp:{name} {kind}\nllamacpp:{name} {}",
            value(source, name)
        );
    }
    page
}

/// What routing does not use stays at 0.
fn value(source: &PageSource, name: &str) -> f64 {
    let cached_tokens = source.engine.cache_totals().prefix_hit_tokens;
    let prompt_tokens = source.statistics.prompt_tokens;
    match name {
        "prompt_tokens_total" => prompt_tokens.saturating_sub(cached_tokens) as f64,
        "prompt_tokens_cached_total" => cached_tokens as f64,
        "tokens_predicted_total" => source.statistics.generation_tokens as f64,
        "requests_processing" => source.running(),
        "requests_deferred" => source.waiting(),
        _ => 0.0,
    }
}
