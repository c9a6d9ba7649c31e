//! How fast a request is read, by body size, and how fast an endpoint is picked and the request accounted for, by
//! number of endpoints.

#[cfg(not(target_family = "wasm"))]
#[path = "../tests/common/mod.rs"]
mod common;

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::hint::black_box;

    use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
    use inference_picker::config::Config;
    use inference_picker::decide::{Decision, Pick, ResolvedRequest};
    use inference_picker::openai::read_request;
    use inference_picker::picker::{Outcome, Picker};

    use super::common::{Pod, address, snapshot};

    /// Text with more escapes than most, and text with a new line now and then.
    const TEXTS: [(&str, &str); 2] = [
        ("many escapes", r#"The \"picker\" reads the body\nand picks. "#),
        (
            "few escapes",
            r"The picker reads the body of each request once, from its first byte to its last, and picks.\n",
        ),
    ];

    /// A chat of about so many bytes.
    fn chat(line: &str, bytes: usize) -> String {
        let message = format!(r#"{{"role":"user","content":"{}"}}"#, line.repeat(12));
        let messages = vec![message.as_str(); bytes.div_ceil(message.len() + 1)].join(",");
        format!(r#"{{"model":"llama","stream":true,"max_tokens":100,"messages":[{messages}]}}"#)
    }

    fn read(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("read_request");
        let sizes = [1, 7, 100].into_iter();
        for (kilobytes, (text, line)) in sizes.flat_map(|size| TEXTS.map(|text| (size, text))) {
            let body = chat(line, kilobytes * 1_000);
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_with_input(
                BenchmarkId::from_parameter(format!("{kilobytes} KB, {text}")),
                &body,
                |bencher, body| {
                    bencher.iter(|| {
                        let request = read_request(black_box(body.as_bytes())).unwrap();
                        assert_eq!((&*request.model, request.stream), ("llama", true));
                        request.prompt_tokens
                    });
                },
            );
        }
    }

    const NOW_MS: u64 = 100_000;

    /// One worker with a pool of so many pods, one of which is idle: it has the adapter and holds the prompt.
    struct World {
        picker: Picker<()>,
        best: String,
    }

    impl World {
        fn new(strategy: &str, count: usize) -> World {
            let document = format!(
                r#"{{"scrapeCluster":"s","adminCluster":"a","pools":[{{"name":"p","cluster":"c","routingStrategy":"{strategy}"}}]}}"#
            );
            let config = Config::parse(document.as_bytes()).unwrap();
            let mut picker = Picker::new(config, fastrand::Rng::with_seed(1));
            let busy =
                |index: usize| Pod::queue(1 + index as u32 % 7).kv(0.5).running(9).adapters(&["a", "b"], 4);
            let mut pods: Vec<Pod> = (0..count).map(busy).collect();
            pods[count / 2] = Pod::idle().kv(0.5).adapters(&["adapter"], 4);
            picker.apply([(0, snapshot(&pods))].into_iter());
            World { picker, best: address(count / 2).to_string() }
        }

        fn prepare(&mut self, model: &str) -> ResolvedRequest {
            let body = chat(TEXTS[1].1, 7_000).replace("llama", model);
            self.picker.prepare(&read_request(body.as_bytes()).unwrap(), None, 0).unwrap()
        }

        fn pick(&mut self, resolved: &ResolvedRequest) -> Pick {
            match self.picker.decide(0, black_box(resolved), || (), NOW_MS) {
                Outcome::Decided(Decision::Send(pick)) => {
                    assert_eq!(pick.first_choice(), self.best);
                    pick
                }
                other => panic!("not sent: {other:?}"),
            }
        }

        /// All that a worker does for a request, answered at once.
        fn serve(&mut self, resolved: &ResolvedRequest) {
            let pick = self.pick(resolved);
            let mut sent = self.picker.send(&pick, NOW_MS);
            assert!(!black_box(self.picker.loads_mut().take_unpublished()).is_empty());
            self.picker.first_output(&mut sent, NOW_MS);
            self.picker.succeeded(0, &sent, NOW_MS);
            self.picker.answered(&mut sent, 0, None, NOW_MS);
            self.picker.end(sent, NOW_MS);
            self.picker.take_events();
        }
    }

    const COUNTS: [usize; 3] = [10, 100, 1_000];

    fn pick(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("pick");
        for (case, strategy, model) in [
            ("DEFAULT", "DEFAULT", "m"),
            ("an adapter", "DEFAULT", "adapter"),
            ("PREFIX_CACHE", "PREFIX_CACHE", "m"),
        ] {
            for count in COUNTS {
                let mut world = World::new(strategy, count);
                let resolved = world.prepare(model);
                world.serve(&resolved);
                group.bench_function(format!("{case}, {count} endpoints"), |bencher| {
                    bencher.iter(|| world.pick(&resolved));
                });
            }
        }
    }

    fn serve(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("serve");
        for (strategy, count) in
            ["DEFAULT", "PREFIX_CACHE"].iter().flat_map(|name| COUNTS.map(|count| (name, count)))
        {
            let mut world = World::new(strategy, count);
            let resolved = world.prepare("m");
            group.bench_function(format!("{strategy}, {count} endpoints"), |bencher| {
                bencher.iter(|| world.serve(&resolved));
            });
        }
    }

    /// What a worker does every ten milliseconds, whether or not there are requests.
    fn tick(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("tick");
        for count in COUNTS {
            let mut world = World::new("DEFAULT", count);
            group.bench_function(format!("{count} endpoints"), |bencher| {
                let mut now_ms = NOW_MS;
                bencher.iter(|| {
                    now_ms += 10;
                    assert!(!world.picker.tick(black_box(now_ms)));
                });
            });
        }
    }

    criterion_group!(benches, read, pick, serve, tick);
}

#[cfg(not(target_family = "wasm"))]
criterion::criterion_main!(native::benches);

#[cfg(target_family = "wasm")]
fn main() {}
