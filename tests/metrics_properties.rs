//! The reader against an obviously right one: for any page, in whatever form its lines come, both must say the
//! same.
#![cfg(not(target_family = "wasm"))]

use inference_picker::metrics::{
    CacheConfig, EndpointMetrics, LoraState, Metric, MetricsError, ModelServer, read,
};
use std::collections::BTreeMap;

use proptest::prelude::*;

/// One sample, read in the slowest way: name, labels and value, all owned.
struct NaiveSample {
    name: String,
    labels: Vec<(String, String)>,
    value: f64,
}

impl NaiveSample {
    fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| label == name).map_or("", |(_, value)| value)
    }
}

/// Splits on quotes first: every second piece is a label value. Escapes are taken out of the way before that.
fn naive_sample(line: &str) -> Option<NaiveSample> {
    let line = line.replace("\\\\", "\u{1}").replace("\\\"", "\u{2}").replace("\\n", "\u{3}");
    let unescape = |text: &str| text.replace('\u{1}', "\\").replace('\u{2}', "\"").replace('\u{3}', "\n");
    let pieces: Vec<&str> = line.split('"').collect();
    let (last, label_pieces) = pieces.split_last()?;
    let mut labels = vec![];
    let mut name = String::new();
    for pair in label_pieces.chunks(2) {
        let [before, value] = pair else { return None };
        let before = before.trim().strip_suffix('=')?.trim();
        let label = match before.split_once('{') {
            Some((metric, label)) => {
                name = metric.trim().to_string();
                label.trim()
            }
            None => before.strip_prefix(',')?.trim(),
        };
        labels.push((label.to_string(), unescape(value)));
    }
    let words = match last.split_once('}') {
        Some((_, words)) if !labels.is_empty() => words.to_string(),
        Some((start, words)) => {
            name = start.trim().strip_suffix('{')?.trim().to_string();
            words.to_string()
        }
        None => {
            let (metric, words) = last.trim_start().split_once([' ', '\t'])?;
            name = metric.to_string();
            words.to_string()
        }
    };
    Some(NaiveSample { name, labels, value: words.split_whitespace().next()?.parse().ok()? })
}

fn naive_read(page: &str) -> Option<EndpointMetrics> {
    let samples: Vec<NaiveSample> =
        page.lines().filter(|line| !line.trim_start().starts_with('#')).filter_map(naive_sample).collect();
    let total = |names: &[&str]| {
        let values: Vec<f64> = samples
            .iter()
            .filter(|sample| names.contains(&sample.name.as_str()))
            .map(|sample| sample.value)
            .collect();
        let is_usable = values.iter().all(|value| *value >= 0.0 && *value < f64::INFINITY);
        (is_usable && !values.is_empty()).then(|| values.iter().sum::<f64>())
    };
    let of_engines = |names: &[&str]| naive_engines(&samples, names, "engine", |_| true);
    let waiting = of_engines(&["vllm:num_requests_waiting"])?;
    let running = of_engines(&["vllm:num_requests_running"])?;
    let shares =
        naive_of_all_engines(&samples, &["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"], "engine");
    let requests = |engine: &str| {
        waiting.get(engine).copied().unwrap_or_default() + running.get(engine).copied().unwrap_or_default()
    };
    let fewest = waiting.keys().map(|engine| requests(engine)).fold(f64::INFINITY, f64::min);
    let next = waiting.keys().find(|engine| requests(engine) == fewest).filter(|_| waiting.len() > 1);
    let engines = waiting.len() as u32;
    let mean = naive_mean(&shares);
    let next_share = next.and_then(|next| shares.get(next)).filter(|share| share.is_finite());
    let sum = naive_requests(&waiting)?;
    let rank = |rank: usize| {
        let engine = rank.to_string();
        Some((waiting.get(&engine)? + running.get(&engine)?) as u32)
    };
    let ranks: Option<Vec<u32>> = (0..waiting.len()).map(rank).collect();
    Some(EndpointMetrics {
        waiting: sum,
        ranks: ranks.filter(|ranks| ranks.len() > 1).unwrap_or_default(),
        running: naive_requests(&running)?,
        engines,
        next_queue: next.map_or(sum, |next| waiting[next] as u32),
        kv_cache_utilization: next_share.map(|share| *share as f32).or(mean),
        base_model: naive_base_model(&samples),
        lora: naive_lora(&samples)
            .map(|lora| LoraState { slots: lora.slots.saturating_mul(engines), ..lora }),
        cache: naive_cache(&samples),
        context_tokens: None,
        prefix_cache_queries: total(&["vllm:prefix_cache_queries_total"]),
        prefix_cache_hits: total(&["vllm:prefix_cache_hits_total"]),
        activity: total(&["vllm:prompt_tokens_total", "vllm:generation_tokens_total"]),
        is_resting: naive_sleeps(&samples),
    })
}

fn naive_sleeps(samples: &[NaiveSample]) -> bool {
    let awake = |sample: &NaiveSample| sample.label("sleep_state") == "awake";
    let states = naive_engines(samples, &["vllm:engine_sleep_state"], "engine", awake);
    states.is_some_and(|states| states.values().all(|value| *value == 0.0))
}

/// What each engine prints, the highest of its ranks; NaN where a value cannot be used. Nothing is `None`.
fn naive_values(
    samples: &[NaiveSample],
    names: &[&str],
    label: &str,
    selects: impl Fn(&NaiveSample) -> bool,
) -> BTreeMap<String, f64> {
    let mut engines: BTreeMap<String, f64> = BTreeMap::new();
    let found = samples.iter().filter(|sample| names.contains(&sample.name.as_str()) && selects(sample));
    for sample in found {
        let is_usable = sample.value >= 0.0 && sample.value < f64::INFINITY;
        let known = engines.entry(sample.label(label).to_owned()).or_insert(0.0);
        let is_known_usable = !known.is_nan();
        *known = if is_usable && is_known_usable { known.max(sample.value) } else { f64::NAN };
    }
    engines
}

/// The same, where all can be used and there are some.
fn naive_engines(
    samples: &[NaiveSample],
    names: &[&str],
    label: &str,
    selects: impl Fn(&NaiveSample) -> bool,
) -> Option<BTreeMap<String, f64>> {
    let engines = naive_values(samples, names, label, selects);
    (!engines.is_empty() && engines.values().all(|value| value.is_finite())).then_some(engines)
}

/// The shares that engines print, none above one.
fn naive_of_all_engines(samples: &[NaiveSample], names: &[&str], label: &str) -> BTreeMap<String, f64> {
    let shares = naive_values(samples, names, label, |_| true);
    shares
        .into_iter()
        .map(|(engine, share)| (engine, if share.is_nan() { share } else { share.min(1.0) }))
        .collect()
}

fn naive_mean(shares: &BTreeMap<String, f64>) -> Option<f32> {
    let mean = shares.values().sum::<f64>() / shares.len() as f64;
    mean.is_finite().then_some(mean as f32)
}

fn naive_requests(engines: &BTreeMap<String, f64>) -> Option<u32> {
    let sum = engines.values().sum::<f64>();
    (sum <= f64::from(u32::MAX)).then_some(sum as u32)
}

/// SGLang's sums and means, each engine once: (waiting, running, engines, queue of the next, KV cache).
fn naive_sglang(page: &str) -> Option<(u32, u32, u32, u32, Option<f32>)> {
    let samples: Vec<NaiveSample> = page.lines().filter_map(naive_sample).collect();
    let total = |sample: &NaiveSample| sample.label("priority").is_empty();
    let waiting = naive_engines(&samples, &["sglang:num_queue_reqs"], "dp_rank", total)?;
    let running = naive_engines(&samples, &["sglang:num_running_reqs"], "dp_rank", total)?;
    let shares = naive_of_all_engines(&samples, &["sglang:token_usage"], "dp_rank");
    let (queue, engines) = (naive_requests(&waiting)?, waiting.len() as u32);
    Some((queue, naive_requests(&running)?, engines, queue / engines, naive_mean(&shares)))
}

/// The last name that labels the queue.
fn naive_base_model(samples: &[NaiveSample]) -> Option<String> {
    let queues = samples.iter().filter(|sample| sample.name == "vllm:num_requests_waiting");
    let names = queues.flat_map(|sample| sample.labels.iter().find(|(label, _)| label == "model_name"));
    names.last().map(|(_, name)| name.clone())
}

fn naive_lora(samples: &[NaiveSample]) -> Option<LoraState> {
    let series =
        samples.iter().filter(|sample| sample.name == "vllm:lora_requests_info" && sample.value.is_finite());
    let newest = series.reduce(|newest, next| if next.value < newest.value { newest } else { next })?;
    let lists =
        format!("{},{}", newest.label("running_lora_adapters"), newest.label("waiting_lora_adapters"));
    let mut adapters: Vec<String> =
        lists.split(',').map(str::to_string).filter(|name| !name.is_empty()).collect();
    adapters.sort();
    adapters.dedup();
    let slots_in_use = adapters.len() as u32;
    Some(LoraState { adapters, slots: newest.label("max_lora").parse().ok()?, slots_in_use })
}

fn naive_cache(samples: &[NaiveSample]) -> Option<CacheConfig> {
    let configs =
        samples.iter().filter(|sample| sample.name == "vllm:cache_config_info").filter_map(|sample| {
            let block_size: u32 = sample.label("block_size").parse().ok()?;
            let blocks: u32 = sample.label("num_gpu_blocks").parse().ok()?;
            let tokens = sample
                .label("kv_cache_size_tokens")
                .parse()
                .unwrap_or(u64::from(block_size) * u64::from(blocks));
            Some(CacheConfig { block_size_tokens: block_size, capacity_tokens: tokens })
        });
    configs.reduce(|sum, next| CacheConfig {
        block_size_tokens: sum.block_size_tokens,
        capacity_tokens: sum.capacity_tokens + next.capacity_tokens,
    })
}

fn metric_name() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "vllm:num_requests_waiting",
        "vllm:num_requests_waiting",
        "vllm:num_requests_running",
        "vllm:num_requests_running",
        "vllm:num_requests_waiting_by_reason",
        "vllm:num_requests",
        "vllm:kv_cache_usage_perc",
        "vllm:gpu_cache_usage_perc",
        "vllm:prefix_cache_queries_total",
        "vllm:prefix_cache_queries_created",
        "vllm:prefix_cache_hits_total",
        "vllm:lora_requests_info",
        "vllm:cache_config_info",
        "vllm:prompt_tokens_total",
        "vllm:generation_tokens_total",
        "vllm:engine_sleep_state",
        "vllm:engine_sleep_state",
        "http_requests_total",
    ])
}

/// Mostly usable values, as one that is not makes the page unreadable.
fn metric_value() -> impl Strategy<Value = String> {
    prop_oneof![
        12 => (0_u32..100).prop_map(|value| value.to_string()),
        6 => (0.0..1.5).prop_map(|value: f64| value.to_string()),
        4 => (0.0..1e12).prop_map(|value: f64| format!("{value:e}")),
        1 => prop::sample::select(vec!["NaN", "+Inf", "-Inf", "-1", "-0"]).prop_map(str::to_string),
    ]
}

fn label() -> impl Strategy<Value = (String, String)> {
    let name = prop::sample::select(vec![
        "engine",
        "model_name",
        "max_lora",
        "running_lora_adapters",
        "waiting_lora_adapters",
        "block_size",
        "num_gpu_blocks",
        "kv_cache_size_tokens",
        "sleep_state",
        "sleep_state",
    ]);
    let value = prop_oneof![
        4 => (0_u32..1000).prop_map(|number| number.to_string()),
        2 => prop::sample::select(vec!["lora-a", "lora-b,lora-c", "lora-c, lora-a", "None", "", "awake", "awake"]).prop_map(str::to_string),
        2 => r#"[a-c,={}#" \\\n]{0,8}"#.prop_map(|text: String| text),
    ];
    (name.prop_map(str::to_string), value)
}

fn blanks() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["", "", "", " ", "\t", "  "])
}

fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

prop_compose! {
    fn sample_line()(
        name in metric_name(),
        labels in prop::option::of(prop::collection::vec(label(), 0..5)),
        value in metric_value(),
        blank in blanks(),
        comma in prop::sample::select(vec!["", ","]),
        end in prop::sample::select(vec!["", "", " ", " 1795322263000", "\r", " 1795322263.25\r"]),
    ) -> String {
        let labels = labels.map_or(String::new(), |labels| {
            let written: Vec<String> = labels
                .iter()
                .map(|(label, value)| format!("{blank}{label}{blank}={blank}\"{}\"{blank}", escape(value)))
                .collect();
            let comma = if written.is_empty() { "" } else { comma };
            format!("{blank}{{{}{comma}{blank}}}", written.join(","))
        });
        format!("{blank}{name}{labels} {blank}{value}{end}\n")
    }
}

/// Lines of SGLang's ranks, few of which are no numbers.
fn sglang_lines() -> impl Strategy<Value = Vec<String>> {
    let name =
        prop::sample::select(vec!["num_queue_reqs", "num_running_reqs", "token_usage", "num_queue_reqs_x"]);
    let label = |name: &'static str| {
        prop::option::of(0..3_u32).prop_map(move |rank| rank.map(|rank| format!("{name}=\"{rank}\"")))
    };
    let priority = prop::sample::select(vec![None, None, Some(""), Some("0")])
        .prop_map(|value| value.map(|value| format!("priority=\"{value}\"")));
    let value = prop_oneof![
        20 => (0..9_u32).prop_map(|value| value.to_string()),
        4 => (0.0..1.5).prop_map(|value: f64| value.to_string()),
        1 => prop::sample::select(vec!["NaN", "+Inf", "-1"]).prop_map(str::to_string),
    ];
    let labels = (label("tp_rank"), label("dp_rank"), label("pp_rank"), label("moe_ep_rank"), priority);
    let line = (name, labels, value).prop_map(|(name, (tp, dp, pp, moe_ep, priority), value)| {
        let labels: Vec<String> = [tp, dp, pp, moe_ep, priority].into_iter().flatten().collect();
        format!("sglang:{name}{{{}}} {value}\n", labels.join(","))
    });
    prop::collection::vec(line, 0..16)
}

fn noise_line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("\n".to_string()),
        "# (HELP|TYPE) vllm:num_requests_waiting [ -~]{0,20}\n".prop_map(|text: String| text),
        "#vllm:num_requests_waiting [0-9]{1,3}\n".prop_map(|text: String| text),
        // With a `g` next, the first would be a name that is wanted.
        "(vllm:num_requests_waitin|um_requests_waiting|x)([ -fh-~][ -~]{0,19})?\n"
            .prop_map(|text: String| text),
    ]
}

fn sample_lines() -> impl Strategy<Value = Vec<String>> {
    let needed = (0_u32..9, 0_u32..9).prop_map(|(waiting, running)| {
        vec![
            format!("vllm:num_requests_waiting {waiting}\n"),
            format!("vllm:num_requests_running {running}\n"),
        ]
    });
    (needed, prop::collection::vec(sample_line(), 0..12))
        .prop_map(|(needed, more)| [needed, more].concat())
        .prop_shuffle()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_page_is_read_as_the_naive_reader_reads_it(lines in sample_lines()) {
        let page = lines.concat();
        prop_assert_eq!(read(ModelServer::Vllm, page.as_bytes()).ok(), naive_read(&page));
    }

    #[test]
    fn ranks_of_sglang_are_read_as_the_naive_reader_reads_them(lines in sglang_lines()) {
        let page = lines.concat() + "\n";
        let read = read(ModelServer::Sglang, page.as_bytes()).ok();
        let read = read.map(|metrics| {
            (metrics.waiting, metrics.running, metrics.engines, metrics.next_queue, metrics.kv_cache_utilization)
        });
        prop_assert_eq!(read, naive_sglang(&page));
    }

    #[test]
    fn lines_of_no_interest_change_nothing(
        lines in sample_lines(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), noise_line()), 0..12),
    ) {
        let mut noisy = lines.clone();
        for (place, line) in noise {
            noisy.insert(place.index(noisy.len() + 1), line);
        }
        let (noisy, plain) = (noisy.concat(), lines.concat());
        prop_assert_eq!(read(ModelServer::Vllm, noisy.as_bytes()), read(ModelServer::Vllm, plain.as_bytes()));
    }

    #[test]
    fn types_change_nothing(lines in sample_lines()) {
        let name = |line: &str| line.trim_start().split(['{', ' ', '\t']).next().unwrap_or_default().to_owned();
        let typed = lines.iter().map(|line| format!("# HELP {0} H.\n# TYPE {0} gauge\n{line}", name(line)));
        let (typed, plain) = (typed.collect::<String>() + "# EOF", lines.concat());
        prop_assert_eq!(read(ModelServer::Vllm, typed.as_bytes()), read(ModelServer::Vllm, plain.as_bytes()));
    }

    #[test]
    fn a_page_cut_within_a_line_is_never_believed(lines in sample_lines(), place in any::<prop::sample::Index>()) {
        let page = lines.concat();
        let cut = &page.as_bytes()[..place.index(page.len())];
        if cut.last() != Some(&b'\n') {
            prop_assert_eq!(read(ModelServer::Vllm, cut), Err(MetricsError::Incomplete));
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused_by_every_server(mut page in prop::collection::vec(any::<u8>(), 0..2000)) {
        page.push(b'\n');
        for server in ModelServer::ALL {
            let metric = Metric::Waiting;
            let expected = match server {
                // Prints nothing until it is used.
                ModelServer::Tgi => Ok(EndpointMetrics { engines: 1, ..EndpointMetrics::default() }),
                _ => Err(MetricsError::Missing { server, metric }),
            };
            prop_assert_eq!(read(server, &page), expected);
        }
    }
}
