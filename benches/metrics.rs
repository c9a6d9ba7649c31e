//! How fast a real metrics page is read. One is scraped from each endpoint many times a second.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::hint::black_box;

    use criterion::{Criterion, Throughput, criterion_group};
    use inference_picker::metrics::{ModelServer, read};

    struct Page {
        name: &'static str,
        text: &'static [u8],
        waiting: u32,
    }

    const PAGES: [Page; 2] = [
        Page {
            name: "vllm_idle_49_KB",
            text: include_bytes!("../tests/fixtures/vllm-0.32/metrics_idle.txt"),
            waiting: 0,
        },
        Page {
            name: "vllm_queue_lora_66_KB",
            text: include_bytes!("../tests/fixtures/vllm-0.32/metrics_queue_lora.txt"),
            waiting: 7,
        },
    ];

    fn read_pages(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("metrics_read");
        for page in PAGES {
            group.throughput(Throughput::Bytes(page.text.len() as u64));
            group.bench_function(page.name, |bencher| {
                bencher.iter(|| {
                    let metrics = read(ModelServer::Vllm, black_box(page.text));
                    assert_eq!(metrics.as_ref().map(|metrics| metrics.waiting), Ok(page.waiting));
                    metrics
                });
            });
        }
        group.finish();
    }

    criterion_group!(benches, read_pages);
}

#[cfg(not(target_family = "wasm"))]
criterion::criterion_main!(native::benches);

#[cfg(target_family = "wasm")]
fn main() {}
