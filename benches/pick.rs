//! How fast a request is read and an endpoint picked, by body size and by number of endpoints.

#[cfg(not(target_family = "wasm"))]
#[path = "../tests/common/mod.rs"]
mod common;

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::hint::black_box;

    use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
    use inference_picker::openai::read_request;

    use super::common::{Pod, World};

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

    fn pick(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("pick");
        for count in [10, 100, 1_000] {
            let mut pods = vec![Pod::queue(3).kv(0.5).running(9).adapters(&["a", "b"], 4); count];
            pods[count / 2] = Pod::queue(0).kv(0.5).adapters(&["llama"], 4);
            let mut world = World::new("DEFAULT", &pods, 1);
            group.bench_function(BenchmarkId::from_parameter(format!("{count} endpoints")), |bencher| {
                bencher.iter(|| {
                    let picked = world.decide_read(black_box("llama"), 1_000);
                    assert!(picked.starts_with(&super::common::address(count / 2).to_string()));
                });
            });
        }
    }

    criterion_group!(benches, read, pick);
}

#[cfg(not(target_family = "wasm"))]
criterion::criterion_main!(native::benches);

#[cfg(target_family = "wasm")]
fn main() {}
