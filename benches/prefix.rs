//! What going by prefixes costs: cutting a prompt into blocks, looking them up, and learning those of others.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::borrow::Cow;
    use std::hint::black_box;
    use std::net::SocketAddr;

    use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group};
    use inference_picker::ledger::{Entry, Event, entries};
    use inference_picker::load::{LoadId, LoadTracker};
    use inference_picker::openai::read_request;
    use inference_picker::prefix::{
        BLOCK_BYTES, BlockHash, BlockHasher, PrefixIndex, PromptBlocks, PromptEvent, PromptKey,
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
        let mut loads = LoadTracker::default();
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

    /// So many blocks that no prompt of another number has.
    fn new_blocks(number: u64, count: usize) -> Vec<BlockHash> {
        let mut rng = fastrand::Rng::with_seed(number);
        (0..count).map(|_| rng.u32(..).to_le_bytes()).collect()
    }

    /// What another worker has sent and what became of it, in an index that is full.
    fn learn(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("learn a prompt of another worker");
        for (count, is_new) in [(28, true), (28, false), (400, true), (400, false)] {
            let (mut index, ids) = endpoints(4);
            let mut learn = |number: u64, hashes: &[BlockHash]| {
                let key = PromptKey { worker: 0, number };
                index.sent(key, ids[number as usize % ids.len()], hashes, 64, 0);
                index.answered(key, 100);
            };
            let prompts = 1_000_000 / count as u64;
            (0..prompts).for_each(|number| learn(number, &new_blocks(number, count)));
            let mut number = prompts;
            let mut next = || {
                number += if is_new { 1 } else { 0 };
                (number, new_blocks(number, count))
            };
            let name = format!("{count} {} blocks", if is_new { "new" } else { "known" });
            group.bench_function(name, |bencher| {
                bencher.iter_batched(
                    &mut next,
                    |(number, hashes)| learn(number, black_box(&hashes)),
                    BatchSize::SmallInput,
                );
            });
            assert!((740_000..=1_000_000).contains(&index.len()), "{} blocks", index.len());
            assert!(!is_new || index.cache_bytes() <= 9 * index.len(), "{} bytes", index.cache_bytes());
        }
    }

    fn publish(criterion: &mut Criterion) {
        let hashes = blocks(&chat(100)).hashes;
        let address = SocketAddr::from(([10, 0, 0, 1], 8000));
        let hashes = Cow::Owned(hashes);
        let event = Event::Prompt(PromptEvent::Sent { number: 1, address, block_tokens: 64, hashes });
        let entry = Entry { worker: 1, is_remote: false, event };
        criterion.bench_function("publish 100 KB of prompt to workers, and receive it", |bencher| {
            bencher.iter(|| {
                let bytes = black_box(&entry).to_bytes();
                assert!(entries(&bytes, 2).any(|received| received == entry));
            });
        });
    }

    criterion_group!(benches, hash, find, learn, publish);
}

#[cfg(not(target_family = "wasm"))]
criterion::criterion_main!(native::benches);

#[cfg(target_family = "wasm")]
fn main() {}
