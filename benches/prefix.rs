//! What going by prefixes costs: cutting a prompt into blocks, and looking them up.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::hint::black_box;
    use std::net::SocketAddr;

    use criterion::{BenchmarkId, Criterion, Throughput, criterion_group};
    use inference_picker::ledger::{Entry, Event, entries};
    use inference_picker::load::{LoadBook, LoadId};
    use inference_picker::openai::read_request;
    use inference_picker::prefix::{
        BLOCK_BYTES, BlockHasher, PrefixIndex, PromptBlocks, PromptEvent, PromptKey,
    };

    /// A chat of about so many bytes.
    fn chat(kilobytes: usize) -> String {
        let line =
            r"The picker reads the body of each request once, from its first byte to its last, and picks.\n";
        let message = format!(r#"{{"role":"user","content":"{}"}}"#, line.repeat(12));
        let messages = vec![message.as_str(); (kilobytes * 1_000).div_ceil(message.len() + 1)].join(",");
        format!(r#"{{"model":"llama","messages":[{messages}]}}"#)
    }

    fn blocks(body: &str) -> PromptBlocks {
        let request = read_request(body.as_bytes()).unwrap();
        let mut hasher = BlockHasher::new(&request.model, request.cache_salt);
        request.prompt.visit(|text| hasher.push(text));
        hasher.finish()
    }

    fn hash(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("cut a prompt into blocks");
        for kilobytes in [7, 100] {
            let body = chat(kilobytes);
            let request = read_request(body.as_bytes()).unwrap();
            group.throughput(Throughput::Bytes(body.len() as u64));
            group.bench_function(BenchmarkId::from_parameter(format!("{kilobytes} KB")), |bencher| {
                bencher.iter(|| {
                    let mut hasher = BlockHasher::new(&request.model, request.cache_salt);
                    black_box(&request).prompt.visit(|text| hasher.push(text));
                    let blocks = hasher.finish();
                    assert!(blocks.hashes.len() > kilobytes * 900 / BLOCK_BYTES);
                    blocks
                });
            });
        }
    }

    fn endpoints(count: u16) -> (PrefixIndex, Vec<LoadId>) {
        let mut loads = LoadBook::default();
        let ids: Vec<LoadId> =
            (0..count).map(|port| loads.id(SocketAddr::from(([10, 0, 0, 1], port)))).collect();
        let mut index = PrefixIndex::new(1_000_000, 42);
        index.follow(ids.iter().copied());
        (index, ids)
    }

    fn find(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("find 100 KB of prompt");
        let prompt = blocks(&chat(100));
        for count in [4, 100] {
            let (mut index, ids) = endpoints(count);
            for (number, id) in ids.iter().enumerate().step_by(2) {
                let key = PromptKey { worker: 0, number: number as u64 };
                index.sent(key, *id, &prompt.hashes, 64, 0);
                index.answered(key, 100);
            }
            group.bench_function(BenchmarkId::from_parameter(format!("{count} endpoints")), |bencher| {
                bencher.iter(|| {
                    let matched = ids.iter().map(|id| index.matched(*id, black_box(&prompt)).blocks);
                    let matched: usize = matched.sum();
                    assert_eq!(matched, prompt.hashes.len() * ids.len().div_ceil(2));
                });
            });
        }
    }

    fn learn(criterion: &mut Criterion) {
        let (mut index, ids) = endpoints(4);
        let prompt = blocks(&chat(100));
        let mut number = 0;
        criterion.bench_function("learn 100 KB of prompt", |bencher| {
            bencher.iter(|| {
                number += 1;
                let key = PromptKey { worker: 0, number };
                index.sent(key, ids[0], black_box(&prompt.hashes), 64, 0);
                index.answered(key, 0);
                assert_eq!(index.len(), prompt.hashes.len());
            });
        });
    }

    fn tell(criterion: &mut Criterion) {
        let hashes = blocks(&chat(100)).hashes;
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        let event = Event::Prompt(PromptEvent::Sent { number: 1, address, hashes, block_tokens: 64 });
        let entry = Entry { worker: 1, is_remote: false, event };
        criterion.bench_function("tell workers of 100 KB of prompt, and hear it", |bencher| {
            bencher.iter(|| {
                let bytes = black_box(&entry).to_bytes();
                assert!(entries(&bytes, 2).any(|heard| heard == entry));
            });
        });
    }

    criterion_group!(benches, hash, find, learn, tell);
}

#[cfg(not(target_family = "wasm"))]
criterion::criterion_main!(native::benches);

#[cfg(target_family = "wasm")]
fn main() {}
