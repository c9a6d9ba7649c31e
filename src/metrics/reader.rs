//! Reads a page in one pass: adds up what the server's row of the table selects.
//!
//! ```text
//! of an engine           = the highest that its ranks print
//! requests, cache size   = sum over the engines
//! queue and KV cache     = of the engine with the fewest requests, if the server picks it by that; else the mean of all
//! ```
//!
//! Where ranks of one engine print the same requests each, the highest value that an engine's ranks print counts: they may
//! differ for the length of a step.
//!
//! A value nobody can use makes its whole sum unusable, and is never left out of it: half a queue depth would
//! send requests to the fullest server.

use std::collections::BTreeMap;

use super::exposition::{Labels, Sample, after_name, begins_alike, is_whole, lines};
use super::model_server::{Metric, ModelServer, Series};
use super::{CacheConfig, EndpointMetrics, LoraState, MetricsError, gzip};

/// The longest page that is read, in bytes. vLLM prints about 66 KB for each engine: room for 31 engines.
pub const MAX_PAGE_BYTES: usize = 2 * 1024 * 1024;

/// Adapters taken from the running list, and again from the waiting list. A server holds far fewer at a time.
pub const MAX_ADAPTERS: usize = 256;

/// Reads the metrics page of a model server, which may be gzip.
pub fn read(server: ModelServer, page: &[u8]) -> Result<EndpointMetrics, MetricsError> {
    if page.len() > MAX_PAGE_BYTES {
        return Err(MetricsError::TooLarge { bytes: page.len() });
    }
    if gzip::is_gzip(page) {
        return read_plain(server, &gzip::inflate(page)?);
    }
    read_plain(server, page)
}

fn read_plain(server: ModelServer, page: &[u8]) -> Result<EndpointMetrics, MetricsError> {
    if !is_whole(page) {
        return Err(MetricsError::Incomplete);
    }
    let mut reading = Reading::default();
    let (selected, engine_label) = (server.series(), server.engine_label());
    let is_wanted = |family: &[u8]| selected.iter().any(|series| begins_alike(series.name, family));
    for line in lines(page, is_wanted) {
        for series in selected {
            if let Some(rest) = after_name(line, series.name) {
                reading.take(series, Sample::parse(rest), engine_label);
            }
        }
    }
    reading.finish(server)
}

/// What has been read so far.
#[derive(Default)]
struct Reading<'a> {
    waiting: Tally<'a>,
    running: Tally<'a>,
    kv_cache_utilization: Tally<'a>,
    prefix_cache_queries: Tally<'a>,
    prefix_cache_hits: Tally<'a>,
    activity: Tally<'a>,
    awake: Tally<'a>,
    lora: Option<Sample<'a>>,
    lora_slots: Tally<'a>,
    lora_slots_in_use: Tally<'a>,
    base_model: Option<&'a [u8]>,
    cache: Option<CacheConfig>,
    cache_tokens: Tally<'a>,
    cache_blocks: Tally<'a>,
    cache_block_tokens: Tally<'a>,
    context_tokens: Tally<'a>,
}

impl<'a> Reading<'a> {
    /// Takes one sample in; `None` is a line with the series' name that nobody can read.
    fn take(&mut self, series: &Series, sample: Option<Sample<'a>>, engine_label: Option<&str>) {
        if sample.is_some_and(|sample| !series.selects(sample.labels)) {
            return;
        }
        let value = sample.map_or(f64::NAN, |sample| sample.value);
        let engine =
            engine_label.map(|name| sample.and_then(|sample| sample.labels.get(name)).unwrap_or_default());
        match series.metric {
            Metric::Waiting => {
                self.waiting.add(value, engine);
                self.base_model =
                    sample.and_then(|sample| sample.labels.get("model_name")).or(self.base_model);
            }
            Metric::Running => self.running.add(value, engine),
            Metric::KvCacheUtilization => self.kv_cache_utilization.add(at_most_full(value), engine),
            Metric::PrefixCacheQueries => self.prefix_cache_queries.add(value, None),
            Metric::PrefixCacheHits => self.prefix_cache_hits.add(value, None),
            Metric::Activity => self.activity.add(value, None),
            Metric::Awake => self.awake.add(value, engine),
            Metric::Lora => self.lora = newest(self.lora, sample),
            Metric::LoraSlots => self.lora_slots.add(value, engine),
            Metric::LoraSlotsInUse => self.lora_slots_in_use.add(value, engine),
            Metric::CacheConfig => self.cache = summed(self.cache.take(), sample),
            Metric::CacheTokens => self.cache_tokens.add(value, engine),
            Metric::CacheBlocks => self.cache_blocks.add(value, engine),
            Metric::CacheBlockTokens => self.cache_block_tokens.add(value, engine),
            Metric::ContextTokens => self.context_tokens.add(value, engine),
        }
    }

    fn finish(self, server: ModelServer) -> Result<EndpointMetrics, MetricsError> {
        let waiting = self.waiting.requests(server, Metric::Waiting)?;
        let engines = self.waiting.of_engines.len().max(1) as u32;
        let next = self.next_engine(server);
        let kv_cache_utilization = self.kv_cache_utilization.at(next).or(self.kv_cache_utilization.mean());
        Ok(EndpointMetrics {
            waiting,
            running: self.running.requests(server, Metric::Running)?,
            engines,
            ranks: self.ranks(),
            next_queue: self.waiting.at(next).map_or(waiting / engines, |waiting| waiting as u32),
            kv_cache_utilization: kv_cache_utilization.map(|share| share as f32),
            base_model: self.base_model.map(Labels::unescape),
            lora: self.named_adapters(engines).or_else(|| self.unnamed_adapters()),
            prefix_cache_queries: self.prefix_cache_queries.counted(server),
            prefix_cache_hits: self.prefix_cache_hits.counted(server),
            context_tokens: self.context_tokens.mean().map(|tokens| tokens as u32),
            activity: self.activity.total(),
            is_resting: self.awake.total() == Some(0.0),
            cache: self.cache.or_else(|| {
                cache_of(self.cache_tokens.total(), self.cache_blocks.total(), self.cache_block_tokens.mean())
            }),
        })
    }

    /// The requests of each engine, if there are several and their labels are the numbers from 0.
    fn ranks(&self) -> Vec<u32> {
        let count = self.waiting.of_engines.len();
        if count < 2 {
            return Vec::new();
        }
        let requests = |rank: usize| {
            let engine = rank.to_string();
            let requests = |tally: &Tally<'_>| tally.at(Some(engine.as_bytes()));
            Some((requests(&self.waiting)? + requests(&self.running)?) as u32)
        };
        (0..count).map(requests).collect::<Option<_>>().unwrap_or_default()
    }

    /// The engine to which the server gives the next request, if there are several and it goes by their load.
    fn next_engine(&self, server: ModelServer) -> Option<&'a [u8]> {
        let requests = |engine| {
            self.waiting.at(Some(engine)).unwrap_or(0.0) + self.running.at(Some(engine)).unwrap_or(0.0)
        };
        let engines = self.waiting.of_engines.keys().copied();
        let fewest = engines.min_by(|one, other| requests(one).total_cmp(&requests(other)));
        fewest.filter(|_| server.picks_engine_by_load() && self.waiting.of_engines.len() > 1)
    }

    /// The adapters in use, if the page names them. It does not say on which of the engines, of which each has its own slots.
    fn named_adapters(&self, engines: u32) -> Option<LoraState> {
        let lora = lora_state(self.lora?.labels)?;
        Some(LoraState { slots: lora.slots.saturating_mul(engines), ..lora })
    }

    /// How many adapters there can be, where the page names none. A server that serves none has no slots.
    fn unnamed_adapters(&self) -> Option<LoraState> {
        let slots = self.lora_slots.total().filter(|slots| *slots >= 1.0)?;
        let slots_in_use = self.lora_slots_in_use.total().unwrap_or_default();
        Some(LoraState { adapters: Vec::new(), slots: slots as u32, slots_in_use: slots_in_use as u32 })
    }
}

/// A sum over engines. One value that is negative or not finite makes it NaN, and so it stays.
#[derive(Default)]
struct Tally<'a> {
    sum: f64,
    samples: usize,
    /// What each engine adds, where its ranks print the same.
    of_engines: BTreeMap<&'a [u8], f64>,
}

impl<'a> Tally<'a> {
    /// Adds a value, or that of an engine, of which the highest counts.
    fn add(&mut self, value: f64, engine: Option<&'a [u8]>) {
        let usable = if value.is_finite() && value >= 0.0 { value } else { f64::NAN };
        let Some(engine) = engine else {
            self.samples += 1;
            self.sum += usable;
            return;
        };
        let known = self.of_engines.entry(engine).or_insert(0.0);
        *known = if usable.is_nan() || known.is_nan() { f64::NAN } else { known.max(usable) };
    }

    /// What this engine adds, if that can be used.
    fn at(&self, engine: Option<&[u8]>) -> Option<f64> {
        self.of_engines.get(engine?).copied().filter(|value| value.is_finite())
    }

    fn samples(&self) -> usize {
        self.samples + self.of_engines.len()
    }

    fn total(&self) -> Option<f64> {
        let sum = self.sum + self.of_engines.values().sum::<f64>();
        (self.samples() > 0 && sum.is_finite()).then_some(sum)
    }

    fn mean(&self) -> Option<f64> {
        self.total().map(|sum| sum / self.samples() as f64)
    }

    /// Of a counter; what a server does not print before it has counted something is none of it.
    fn counted(&self, server: ModelServer) -> Option<f64> {
        match self.samples() {
            0 if server.prints_no_zero_counters() => Some(0.0),
            _ => self.total(),
        }
    }

    fn requests(&self, server: ModelServer, metric: Metric) -> Result<u32, MetricsError> {
        match self.total() {
            Some(sum) if sum <= f64::from(u32::MAX) => Ok(sum as u32),
            None if self.samples() == 0 && server.is_silent_until_used() => Ok(0),
            None if self.samples() == 0 => Err(MetricsError::Missing { server, metric }),
            _ => Err(MetricsError::NotACount { server, metric }),
        }
    }
}

/// More than the whole cache is the whole cache. Infinity and NaN stay what they are, for the tally to refuse.
fn at_most_full(share: f64) -> f64 {
    if share.is_finite() { share.min(1.0) } else { share }
}

/// The sample with the largest value, which is the time it was set: a server never removes an old set of
/// adapters from its page. Of two at the same time the later line counts.
fn newest<'a>(known: Option<Sample<'a>>, read: Option<Sample<'a>>) -> Option<Sample<'a>> {
    match (known, read.filter(|sample| sample.value.is_finite())) {
        (Some(known), Some(read)) if read.value < known.value => Some(known),
        (known, read) => read.or(known),
    }
}

/// The adapters in use. `None` if the number of slots cannot be read.
fn lora_state(labels: Labels<'_>) -> Option<LoraState> {
    let names = |list| {
        let value = labels.get(list).unwrap_or_default();
        value.split(|byte| *byte == b',').filter(|name| !name.is_empty()).take(MAX_ADAPTERS)
    };
    let adapters = names("running_lora_adapters").chain(names("waiting_lora_adapters")).map(Labels::unescape);
    Some(LoraState::named(adapters.collect(), number(labels, "max_lora")?))
}

/// Adds another engine's cache. An engine that does not know its size yet prints `None` and adds nothing.
fn summed(known: Option<CacheConfig>, read: Option<Sample<'_>>) -> Option<CacheConfig> {
    match (known, read.and_then(|sample| cache_config(sample.labels))) {
        (Some(known), Some(read)) => Some(CacheConfig {
            block_size_tokens: known.block_size_tokens,
            capacity_tokens: known.capacity_tokens.saturating_add(read.capacity_tokens),
        }),
        (known, read) => read.or(known),
    }
}

/// Versions without `kv_cache_size_tokens` have a cache of equal blocks.
fn cache_config(labels: Labels<'_>) -> Option<CacheConfig> {
    let block_size_tokens: u32 = number(labels, "block_size")?;
    let num_blocks: u32 = number(labels, "num_gpu_blocks")?;
    let equal_blocks = u64::from(block_size_tokens) * u64::from(num_blocks);
    let capacity_tokens = number(labels, "kv_cache_size_tokens").unwrap_or(equal_blocks);
    Some(CacheConfig { block_size_tokens, capacity_tokens })
}

/// A cache whose sizes are values of their own: of its tokens, or of as many blocks.
fn cache_of(tokens: Option<f64>, blocks: Option<f64>, block_tokens: Option<f64>) -> Option<CacheConfig> {
    let block_tokens = block_tokens?;
    let capacity_tokens = tokens.or_else(|| blocks.map(|blocks| blocks * block_tokens))? as u64;
    Some(CacheConfig { block_size_tokens: block_tokens as u32, capacity_tokens })
}

fn number<N: std::str::FromStr>(labels: Labels<'_>, name: &str) -> Option<N> {
    std::str::from_utf8(labels.get(name)?).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const IDLE: &[u8] = include_bytes!("../../tests/fixtures/vllm-0.32/metrics_idle.txt");
    const SGLANG_ALL_TP_RANKS: &[u8] =
        include_bytes!("../../tests/fixtures/sglang-0.5.23/metrics_all_tp_ranks.txt");
    const SGLANG_ONE_RANK: &[u8] = include_bytes!("../../tests/fixtures/sglang-0.5.23/metrics_one_rank.txt");
    const SGLANG_TWO_DP_RANKS: &[u8] =
        include_bytes!("../../tests/fixtures/sglang-0.5.23/metrics_two_dp_ranks.txt");
    const QUEUE_LORA: &[u8] = include_bytes!("../../tests/fixtures/vllm-0.32/metrics_queue_lora.txt");

    /// Nothing but the two needed numbers, of one engine.
    fn load(waiting: u32, running: u32) -> EndpointMetrics {
        EndpointMetrics { waiting, running, engines: 1, next_queue: waiting, ..EndpointMetrics::default() }
    }

    #[track_caller]
    fn check(server: ModelServer, page: &str, expected: Result<EndpointMetrics, MetricsError>) {
        assert_eq!(read(server, page.as_bytes()), expected, "{page}");
    }

    #[track_caller]
    fn read_vllm(page: &str) -> EndpointMetrics {
        read(ModelServer::Vllm, format!("{page}\n").as_bytes()).unwrap()
    }

    /// A vLLM page with two waiting and one running request and these lines.
    #[track_caller]
    fn vllm_with(lines: &str) -> EndpointMetrics {
        let page = format!("vllm:num_requests_waiting 2\nvllm:num_requests_running 1\n{lines}\n");
        read(ModelServer::Vllm, page.as_bytes()).unwrap()
    }

    fn lora(adapters: &[&str], slots: u32) -> Option<LoraState> {
        Some(LoraState::named(adapters.iter().map(|name| name.to_string()).collect(), slots))
    }

    #[test]
    fn a_real_page_of_an_idle_vllm_is_read() {
        let expected = EndpointMetrics {
            kv_cache_utilization: Some(0.0),
            cache: Some(CacheConfig { block_size_tokens: 128, capacity_tokens: 2_097_152 }),
            prefix_cache_queries: Some(0.0),
            prefix_cache_hits: Some(0.0),
            activity: Some(0.0),
            base_model: Some("tiny".into()),
            ..load(0, 0)
        };
        assert_eq!(read(ModelServer::Vllm, IDLE), Ok(expected));
    }

    #[test]
    fn a_real_page_of_a_vllm_with_a_queue_and_adapters_is_read() {
        let expected = EndpointMetrics {
            kv_cache_utilization: Some(0.033_444_816),
            lora: lora(&["lora-a"], 1),
            cache: Some(CacheConfig { block_size_tokens: 32, capacity_tokens: 9_600 }),
            prefix_cache_queries: Some(2_156.0),
            prefix_cache_hits: Some(832.0),
            activity: Some(2_849.0),
            base_model: Some("tiny".into()),
            ..load(7, 1)
        };
        assert_eq!(read(ModelServer::Vllm, QUEUE_LORA), Ok(expected));
    }

    /// One of the pages that a server's own code printed.
    macro_rules! page_of {
        ($path:literal) => {
            include_bytes!(concat!("../../tests/fixtures/", $path))
        };
    }

    #[test]
    fn a_page_of_sglang_reports_the_cache_and_its_hits() {
        let metrics = read(ModelServer::Sglang, page_of!("sglang-0.5.23/metrics_after_traffic.txt")).unwrap();
        let expected = EndpointMetrics {
            // 2,784 of the tokens that are not available can be dropped: they are not in use.
            kv_cache_utilization: Some(0.28),
            cache: Some(CacheConfig { block_size_tokens: 16, capacity_tokens: 16_384 }),
            context_tokens: Some(8_192),
            prefix_cache_queries: Some(4_000.0),
            prefix_cache_hits: Some(1_800.0),
            activity: metrics.activity,
            base_model: Some("tiny".into()),
            ..load(2, 4)
        };
        assert_eq!(metrics, expected);
    }

    #[test]
    fn sglangs_cache_is_that_of_all_engines_and_once_of_each() {
        let capacity = |page: &[u8]| read(ModelServer::Sglang, page).unwrap().cache;
        let cache = |capacity_tokens| Some(CacheConfig { block_size_tokens: 16, capacity_tokens });
        assert_eq!(capacity(SGLANG_ONE_RANK), cache(16_384));
        assert_eq!(capacity(SGLANG_ALL_TP_RANKS), cache(16_384));
        assert_eq!(capacity(SGLANG_TWO_DP_RANKS), cache(32_768));
    }

    #[test]
    fn sglang_counts_adapters_without_their_names() {
        let lora = |page: &[u8]| read(ModelServer::Sglang, page).unwrap().lora;
        let expected = LoraState { adapters: Vec::new(), slots: 8, slots_in_use: 1 };
        assert_eq!(lora(page_of!("sglang-0.5.23/metrics_lora.txt")), Some(expected));
        assert_eq!(lora(SGLANG_ONE_RANK), None);
        let none = b"sglang:num_queue_reqs 0\nsglang:num_running_reqs 0\nsglang:lora_pool_slots_total 0\n";
        assert_eq!(lora(none), None);
    }

    #[test]
    fn sglang_that_has_served_nothing_yet_has_looked_nothing_up() {
        let metrics = read(ModelServer::Sglang, SGLANG_ONE_RANK).unwrap();
        assert_eq!((metrics.prefix_cache_queries, metrics.prefix_cache_hits), (Some(0.0), Some(0.0)));
        let page = page_of!("sglang-0.5.23/metrics_priorities.txt");
        let metrics = read(ModelServer::Sglang, page).unwrap();
        assert_eq!((metrics.waiting, metrics.running), (2, 4));
    }

    #[test]
    fn at_lmdeploy_those_wait_too_that_wait_for_a_handle() {
        let idle = EndpointMetrics {
            kv_cache_utilization: Some(0.0),
            prefix_cache_queries: Some(0.0),
            prefix_cache_hits: Some(0.0),
            activity: Some(0.0),
            base_model: Some("tiny".into()),
            ..load(0, 0)
        };
        let busy = EndpointMetrics {
            kv_cache_utilization: Some(0.25),
            prefix_cache_queries: Some(1_000.0),
            prefix_cache_hits: Some(900.0),
            activity: Some(1.0),
            ..EndpointMetrics { waiting: 6, running: 4, next_queue: 6, ..idle.clone() }
        };
        let read = |page: &[u8]| read(ModelServer::Lmdeploy, page);
        assert_eq!(read(page_of!("lmdeploy-0.18.0/metrics_idle.txt")), Ok(idle));
        assert_eq!(read(page_of!("lmdeploy-0.18.0/metrics_busy.txt")), Ok(busy));
    }

    #[test]
    fn a_real_page_of_llama_cpp_counts_the_cached_tokens_of_prompts_apart() {
        let metrics = read(ModelServer::LlamaCpp, page_of!("llama.cpp-0.3.36/metrics_busy.txt")).unwrap();
        let counted = (metrics.prefix_cache_queries, metrics.prefix_cache_hits);
        assert_eq!(counted, (Some(9_225.0 + 12_809.0), Some(12_809.0)));
    }

    /// What a page of SGLang says of (waiting, running, KV cache).
    fn sglang(page: &[u8]) -> (u32, u32, Option<f32>) {
        let metrics = read(ModelServer::Sglang, page).unwrap();
        (metrics.waiting, metrics.running, metrics.kv_cache_utilization)
    }

    #[test]
    fn of_sglangs_ranks_only_the_data_parallel_ones_add_up() {
        assert_eq!(sglang(SGLANG_ONE_RANK), (2, 4, Some(0.28)));
        assert_eq!(sglang(SGLANG_ALL_TP_RANKS), (2, 4, Some(0.28)));
        assert_eq!(sglang(SGLANG_TWO_DP_RANKS), (2, 7, Some(0.28)));
        let page = |queue: [&str; 4]| {
            let line = |labels: &str| format!("sglang:num_queue_reqs{{{labels}}}");
            let [first, same, other, of_priority] = queue;
            format!(
                "sglang:num_running_reqs 0\n{} {first}\n{} {same}\n{} {other}\n{} {of_priority}\n",
                line(r#"dp_rank="0",tp_rank="0",priority="""#),
                line(r#"dp_rank="0",tp_rank="1",pp_rank="1",moe_ep_rank="1",priority="""#),
                line(r#"tp_rank="0",dp_rank="1""#),
                line(r#"dp_rank="2",priority="1""#),
            )
        };
        for (queue, expected) in [
            (["1", "1", "2", "9"], Some(3)),
            (["1", "4", "2", "9"], Some(6)),
            (["4", "1", "2", "NaN"], Some(6)),
            (["4", "NaN", "2", "0"], None),
            (["NaN", "4", "2", "0"], None),
            (["4", "-1", "2", "0"], None),
        ] {
            let waiting =
                read(ModelServer::Sglang, page(queue).as_bytes()).ok().map(|metrics| metrics.waiting);
            assert_eq!(waiting, expected, "{queue:?}");
        }
    }

    #[test]
    fn a_server_rests_when_all_its_engines_sleep() {
        let check = |states: &[&str], rests: bool| {
            let state = |(engine, awake): (usize, &&str)| {
                let labels = |state| format!("engine=\"{engine}\",sleep_state=\"{state}\"");
                let name = "vllm:engine_sleep_state";
                format!("{name}{{{}}} {awake}\n{name}{{{}}} 0\n", labels("awake"), labels("discard_all"))
            };
            let lines: String = states.iter().enumerate().map(state).collect();
            assert_eq!(vllm_with(&lines).is_resting, rests, "{states:?}");
        };
        check(&[], false);
        check(&["1.0"], false);
        check(&["0.0"], true);
        check(&["0.0", "0.0"], true);
        check(&["0.0", "1.0"], false);
        check(&["NaN"], false);
    }

    /// As prometheus-client 0.26 prints it.
    const OPEN_METRICS: &str = "\
# HELP vllm:num_requests_waiting Requests waiting.
# TYPE vllm:num_requests_waiting gauge
vllm_num_requests_waiting{engine=\"0\",model_name=\"tiny\"} 5.0
# HELP vllm:num_requests_running Requests running.
# TYPE vllm:num_requests_running gauge
vllm_num_requests_running{engine=\"0\",model_name=\"tiny\"} 3.0
# HELP vllm:prompt_tokens Prompt \\\"tokens\\\".
# TYPE vllm:prompt_tokens counter
vllm_prompt_tokens_total{model_name=\"tiny\"} 7.0 # {trace_id=\"a#b\"} 7.0 1795998614.6984713
vllm_prompt_tokens_created{model_name=\"tiny\"} 1.7959986146984594e+09
# HELP vllm:ttft x
# TYPE vllm:ttft histogram
vllm_ttft_bucket{le=\"2.0\"} 1.0 # {trace_id=\"x\"} 1.5 1795998614.698552
vllm_ttft_sum 1.5
# EOF
";

    #[test]
    fn open_metrics_and_gzip_say_what_the_text_says() {
        let expected = EndpointMetrics { activity: Some(7.0), base_model: Some("tiny".into()), ..load(5, 3) };
        check(ModelServer::Vllm, OPEN_METRICS, Ok(expected.clone()));
        check(ModelServer::Vllm, &OPEN_METRICS.replace("vllm_", "vllm:"), Ok(expected.clone()));
        check(ModelServer::Vllm, OPEN_METRICS.trim_end(), Ok(expected));
        let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3];
        gzip.extend(miniz_oxide::deflate::compress_to_vec(QUEUE_LORA, 6));
        gzip.extend([0; 4]);
        gzip.extend((QUEUE_LORA.len() as u32).to_le_bytes());
        assert_eq!(read(ModelServer::Vllm, &gzip), read(ModelServer::Vllm, QUEUE_LORA));
    }

    #[test]
    fn a_real_page_survives_the_snapshot() {
        let metrics = read(ModelServer::Vllm, QUEUE_LORA).unwrap();
        let bytes = postcard::to_stdvec(&metrics).unwrap();
        assert_eq!(postcard::from_bytes::<EndpointMetrics>(&bytes).unwrap(), metrics);
    }

    #[test]
    fn every_server_is_read_by_its_own_names() {
        let read_as = |server, page: &str, kv_cache_utilization| {
            let metrics = read(server, page.as_bytes()).unwrap();
            let read = (metrics.waiting, metrics.running, metrics.kv_cache_utilization);
            assert_eq!(read, (3, 4, kv_cache_utilization), "{page}");
        };
        read_as(
            ModelServer::Vllm,
            "vllm:num_requests_waiting 3\nvllm:num_requests_running 4\nvllm:gpu_cache_usage_perc 0.5\n",
            Some(0.5),
        );
        read_as(
            ModelServer::Sglang,
            "sglang:num_running_reqs{model=\"m\"} 4.0\nsglang:num_queue_reqs{model=\"m\"} 3.0\n\
             sglang:token_usage{model=\"m\"} 0.28\n",
            Some(0.28),
        );
        read_as(
            ModelServer::TensorrtLlm,
            "trtllm_num_requests_waiting 3\ntrtllm_num_requests_running 4\ntrtllm_kv_cache_utilization 0.25\n",
            Some(0.25),
        );
        read_as(
            ModelServer::Triton,
            "nv_trt_llm_request_metrics{model=\"m\",request_type=\"waiting\",version=\"1\"} 3\n\
             nv_trt_llm_request_metrics{model=\"m\",request_type=\"scheduled\",version=\"1\"} 4\n\
             nv_trt_llm_request_metrics{model=\"m\",request_type=\"max\",version=\"1\"} 512\n\
             nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"fraction\",model=\"m\",version=\"1\"} 0.75\n\
             nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type=\"max\",model=\"m\",version=\"1\"} 6239\n",
            Some(0.75),
        );
        read_as(
            ModelServer::LlamaCpp,
            "llamacpp:requests_deferred 3\nllamacpp:requests_processing 4\n",
            None,
        );
        read_as(ModelServer::Tgi, "tgi_batch_current_size 4\ntgi_queue_size 3\n", None);
        read_as(
            ModelServer::Lmdeploy,
            "lmdeploy:num_requests_waiting 3\nlmdeploy:num_requests_running 4\nlmdeploy:gpu_cache_usage_perc 0.1\n",
            Some(0.1),
        );
    }

    #[test]
    fn a_cache_is_as_large_as_its_blocks_where_these_are_reported() {
        let cache = |server, page: &str| read(server, page.as_bytes()).unwrap().cache;
        let expected = Some(CacheConfig { block_size_tokens: 32, capacity_tokens: 3_200 });
        let trtllm = "trtllm_num_requests_waiting 3\ntrtllm_num_requests_running 4\n\
                      trtllm_kv_cache_max_blocks 100\ntrtllm_kv_cache_tokens_per_block 32\n";
        assert_eq!(cache(ModelServer::TensorrtLlm, trtllm), expected);
        let name = "nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type";
        let triton = format!(
            "nv_trt_llm_request_metrics{{request_type=\"waiting\"}} 3\n\
             nv_trt_llm_request_metrics{{request_type=\"scheduled\"}} 4\n\
             {name}=\"max\"}} 100\n{name}=\"tokens_per\"}} 32\n{name}=\"used\"}} 7\n"
        );
        assert_eq!(cache(ModelServer::Triton, &triton), expected);
        assert_eq!(cache(ModelServer::Triton, &triton.replace("tokens_per", "other")), None);
    }

    #[test]
    fn priorities_are_not_counted_beside_their_total() {
        check(
            ModelServer::Sglang,
            "sglang:num_queue_reqs{priority=\"\"} 5\nsglang:num_queue_reqs{priority=\"0\"} 2\n\
             sglang:num_queue_reqs{priority=\"1\"} 3\nsglang:num_running_reqs 1\n",
            Ok(EndpointMetrics {
                prefix_cache_queries: Some(0.0),
                prefix_cache_hits: Some(0.0),
                ..load(5, 1)
            }),
        );
    }

    #[test]
    fn engines_are_added_up_and_the_next_request_goes_to_the_one_with_the_fewest() {
        let metrics = read_vllm(
            "vllm:num_requests_waiting{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"0\"} 1\n\
             vllm:num_requests_waiting{engine=\"1\"} 3\nvllm:num_requests_running{engine=\"1\"} 4\n\
             vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n\
             vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"a\"} 1\n\
             vllm:prefix_cache_queries_total{engine=\"0\"} 10\nvllm:prefix_cache_queries_total{engine=\"1\"} 5\n\
             vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"10\",engine=\"0\"} 1\n\
             vllm:cache_config_info{block_size=\"16\",num_gpu_blocks=\"20\",engine=\"1\"} 1",
        );
        let expected = EndpointMetrics {
            engines: 2,
            ranks: vec![3, 7],
            next_queue: 2,
            kv_cache_utilization: Some(0.25),
            lora: Some(LoraState { slots: 4, ..lora(&["a"], 2).unwrap() }),
            cache: Some(CacheConfig { block_size_tokens: 16, capacity_tokens: 480 }),
            prefix_cache_queries: Some(15.0),
            ..load(5, 5)
        };
        assert_eq!(metrics, expected);
    }

    #[test]
    fn engines_have_ranks_if_they_are_numbered_from_0() {
        let check = |engines: &[&str], expected: &[u32]| {
            let line = |(number, engine): (usize, &&str)| {
                let waiting = format!("vllm:num_requests_waiting{{engine=\"{engine}\"}} {number}\n");
                waiting + &format!("vllm:num_requests_running{{engine=\"{engine}\"}} 10\n")
            };
            let page: String = engines.iter().enumerate().map(line).collect();
            assert_eq!(read_vllm(&page).ranks, expected, "{engines:?}");
        };
        check(&["0", "1", "2"], &[10, 11, 12]);
        check(&["1", "0"], &[11, 10]);
        let eleven = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"];
        check(&eleven, &[10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20]);
        for engines in [&["0"][..], &["1", "2"], &["0", "2"], &["00", "1"], &["0", "one"], &["0", ""]] {
            check(engines, &[]);
        }
    }

    #[test]
    fn what_the_next_request_finds_is_that_of_the_engine_that_gets_it() {
        let page = |server: ModelServer, engines: &[(u32, u32, f64)]| {
            let (prefix, label, names) = match server {
                ModelServer::Sglang => {
                    ("sglang", "dp_rank", ["num_queue_reqs", "num_running_reqs", "token_usage"])
                }
                _ => (
                    "vllm",
                    "engine",
                    ["num_requests_waiting", "num_requests_running", "kv_cache_usage_perc"],
                ),
            };
            let line = |(engine, (waiting, running, kv)): (usize, &(u32, u32, f64))| {
                let values = names.iter().zip([f64::from(*waiting), f64::from(*running), *kv]);
                values
                    .map(|(name, value)| format!("{prefix}:{name}{{{label}=\"{engine}\"}} {value}\n"))
                    .collect()
            };
            engines.iter().enumerate().map(line).collect::<Vec<String>>().concat()
        };
        let check = |server, engines: &[(u32, u32, f64)], expected: (u32, u32, Option<f32>)| {
            let metrics = read(server, page(server, engines).as_bytes()).unwrap();
            let read = (metrics.engines, metrics.next_queue, metrics.kv_cache_utilization);
            assert_eq!(read, expected, "{server:?} {engines:?}");
        };
        check(ModelServer::Vllm, &[(3, 1, 0.5)], (1, 3, Some(0.5)));
        check(ModelServer::Vllm, &[(9, 9, 1.0), (0, 1, 0.25)], (2, 0, Some(0.25)));
        check(ModelServer::Vllm, &[(0, 9, 0.75), (2, 1, 0.25)], (2, 2, Some(0.25)));
        // Of none is known how full it is where one is not known; the mean of the others says nothing of it.
        check(ModelServer::Vllm, &[(0, 9, 0.75), (2, 1, f64::NAN)], (2, 2, None));
        check(ModelServer::Sglang, &[(9, 9, 1.0), (0, 1, 0.25)], (2, 4, Some(0.625)));
    }

    #[test]
    fn a_count_that_is_none_is_an_error_and_not_a_small_number() {
        for value in ["NaN", "+Inf", "-Inf", "-1", "1e10", "", "1 x", "{engine=\"1} 1"] {
            let page = format!(
                "vllm:num_requests_running 1\nvllm:num_requests_waiting 1\nvllm:num_requests_waiting {value}\n"
            );
            let error = MetricsError::NotACount { server: ModelServer::Vllm, metric: Metric::Waiting };
            check(ModelServer::Vllm, &page, Err(error));
        }
    }

    #[test]
    fn a_tgi_that_has_served_nothing_yet_prints_nothing_and_is_idle() {
        let page = "tgi_queue_size 2\n";
        assert_eq!(
            read(ModelServer::Tgi, b"\n").map(|metrics| (metrics.waiting, metrics.running)),
            Ok((0, 0))
        );
        assert_eq!(
            read(ModelServer::Tgi, page.as_bytes()).map(|metrics| (metrics.waiting, metrics.running)),
            Ok((2, 0))
        );
    }

    #[test]
    fn a_page_without_a_needed_series_is_an_error() {
        let missing = |metric| Err(MetricsError::Missing { server: ModelServer::Vllm, metric });
        check(ModelServer::Vllm, "\n", missing(Metric::Waiting));
        check(ModelServer::Vllm, "<html>404</html>\n", missing(Metric::Waiting));
        check(ModelServer::Vllm, "tgi_queue_size 1\ntgi_batch_current_size 1\n", missing(Metric::Waiting));
        check(ModelServer::Vllm, "vllm:num_requests_waiting 1\n", missing(Metric::Running));
        check(
            ModelServer::Vllm,
            "vllm:num_requests_waiting_by_reason{reason=\"capacity\"} 7\nvllm:num_requests_running 1\n",
            missing(Metric::Waiting),
        );
    }

    #[test]
    fn a_page_cut_anywhere_but_behind_a_line_is_refused() {
        let page = "vllm:num_requests_running 12\nvllm:num_requests_waiting 10\n";
        for (cut, byte) in page.bytes().enumerate() {
            let expected = if cut > 0 && page.as_bytes()[cut - 1] == b'\n' {
                MetricsError::Missing { server: ModelServer::Vllm, metric: Metric::Waiting }
            } else {
                MetricsError::Incomplete
            };
            assert_eq!(read(ModelServer::Vllm, &page.as_bytes()[..cut]), Err(expected), "before {byte}");
        }
    }

    #[test]
    fn a_page_over_the_limit_is_refused_and_one_at_the_limit_is_read() {
        let page = |bytes: usize| {
            let needed = "vllm:num_requests_waiting 2\nvllm:num_requests_running 1\n";
            needed.to_owned() + &"\n".repeat(bytes - needed.len())
        };
        check(ModelServer::Vllm, &page(MAX_PAGE_BYTES), Ok(load(2, 1)));
        let bytes = MAX_PAGE_BYTES + 1;
        assert_eq!(read(ModelServer::Vllm, page(bytes).as_bytes()), Err(MetricsError::TooLarge { bytes }));
    }

    #[test]
    fn a_cache_share_is_clamped_if_over_one_and_unknown_if_it_is_no_share() {
        for (value, expected) in [
            ("0", Some(0.0)),
            ("0.5", Some(0.5)),
            ("1", Some(1.0)),
            ("1.01", Some(1.0)),
            ("85", Some(1.0)),
            ("-0.1", None),
            ("NaN", None),
            ("+Inf", None),
            ("-Inf", None),
            ("full", None),
        ] {
            let metrics = vllm_with(&format!("vllm:kv_cache_usage_perc {value}"));
            assert_eq!(metrics.kv_cache_utilization, expected, "{value}");
        }
    }

    #[test]
    fn one_engine_of_unknown_cache_share_makes_the_share_unknown() {
        let metrics = vllm_with("vllm:kv_cache_usage_perc NaN\nvllm:kv_cache_usage_perc 0.5");
        assert_eq!(metrics.kv_cache_utilization, None);
    }

    #[test]
    fn the_adapters_are_those_of_the_latest_series() {
        let line = |running: &str, waiting: &str, time: &str| {
            format!(
                "vllm:lora_requests_info{{max_lora=\"2\",running_lora_adapters=\"{running}\",\
                 waiting_lora_adapters=\"{waiting}\"}} {time}\n"
            )
        };
        let cases = [
            (vec![("", "", "1e9")], lora(&[], 2)),
            (vec![("b,a", "a,c", "1e9")], lora(&["a", "b", "c"], 2)),
            (vec![("a", "a", "1.5e9"), ("b", "b", "1e9")], lora(&["a"], 2)),
            (vec![("a", "a", "1e9"), ("b", "b", "1.5e9")], lora(&["b"], 2)),
            (vec![("a", "", "1e9"), ("b", "", "1e9")], lora(&["b"], 2)),
            (vec![("a", "", "1e9"), ("b", "", "NaN"), ("c", "", "soon")], lora(&["a"], 2)),
            (vec![("a", "", "NaN")], None),
            (vec![(r#"a \"x\",,"#, ",", "1e9")], lora(&["a \"x\""], 2)),
        ];
        for (series, expected) in cases {
            let lines: String =
                series.iter().map(|(running, waiting, time)| line(running, waiting, time)).collect();
            assert_eq!(vllm_with(&lines).lora, expected, "{lines}");
        }
        assert_eq!(vllm_with("vllm:lora_requests_info{running_lora_adapters=\"a\"} 1").lora, None);
    }

    #[test]
    fn no_more_adapters_are_kept_than_the_limit() {
        let names: Vec<String> = (0..=MAX_ADAPTERS).map(|name| name.to_string()).collect();
        let list = names.join(",");
        let metrics = vllm_with(&format!(
            "vllm:lora_requests_info{{max_lora=\"1\",running_lora_adapters=\"{list}\"}} 1"
        ));
        assert_eq!(metrics.lora.unwrap().adapters.len(), MAX_ADAPTERS);
    }

    #[test]
    fn the_cache_capacity_is_what_the_server_says_or_its_blocks() {
        let cache = |capacity_tokens| Some(CacheConfig { block_size_tokens: 16, capacity_tokens });
        for (labels, expected) in [
            ("block_size=\"16\",num_gpu_blocks=\"4\",kv_cache_size_tokens=\"48\"", cache(48)),
            ("block_size=\"16\",num_gpu_blocks=\"4\",kv_cache_size_tokens=\"None\"", cache(64)),
            ("block_size=\"16\",num_gpu_blocks=\"4\"", cache(64)),
            ("block_size=\"16\",num_gpu_blocks=\"None\"", None),
            ("block_size=\"-16\",num_gpu_blocks=\"4\"", None),
            ("", None),
        ] {
            assert_eq!(
                vllm_with(&format!("vllm:cache_config_info{{{labels}}} 1")).cache,
                expected,
                "{labels}"
            );
        }
    }

    #[test]
    fn errors_say_what_is_wrong_and_where() {
        let error = MetricsError::Missing { server: ModelServer::Tgi, metric: Metric::Running };
        assert_eq!(error.to_string(), "no Running series of Tgi on the page");
    }
}
