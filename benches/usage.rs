//! What one event of a stream costs to read, and to change where its usage is to be hidden and its model renamed.

#[cfg(not(target_family = "wasm"))]
mod native {
    use std::hint::black_box;

    use criterion::{Criterion, Throughput, criterion_group};
    use inference_picker::openai::{AnswerFormat, AnswerReader, Usage};

    const CHAT: &str = include_str!("../tests/fixtures/vllm-0.32/chat_stream_usage.http");
    const COMPLETION: &str = include_str!("../tests/fixtures/vllm-0.32/comp_stream_usage.http");

    /// The events of a recorded stream.
    fn events(answer: &str) -> Vec<String> {
        let body = answer.split_once("\r\n\r\n").or_else(|| answer.split_once("\n\n")).unwrap().1;
        body.split_inclusive("\n\n").map(str::to_owned).collect()
    }

    /// As in most set-ups: the usage was asked for on the client's behalf.
    fn hiding() -> AnswerReader {
        let mut answer = AnswerReader::new(AnswerFormat::Events);
        answer.hide_usage();
        answer
    }

    /// One event with output, of some 210 bytes, over and over.
    fn event(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("usage_of_one_event");
        for (name, answer) in [("chat", CHAT), ("completion", COMPLETION)] {
            let event = events(answer).swap_remove(1);
            group.throughput(Throughput::Bytes(event.len() as u64));
            group.bench_function(format!("{name}/read"), |bencher| {
                let mut usage = AnswerReader::new(AnswerFormat::Events);
                let mut expected = 0;
                bencher.iter(|| {
                    usage.push(black_box(event.as_bytes()), false);
                    expected += 1;
                    assert_eq!(usage.output_events(), expected);
                });
            });
            group.bench_function(format!("{name}/hide"), |bencher| {
                let mut hidden = hiding();
                bencher.iter(|| {
                    assert_eq!(hidden.push(black_box(event.as_bytes()), false), event.as_bytes());
                });
            });
        }
    }

    /// The same with the model's name given back, too.
    fn rename(criterion: &mut Criterion) {
        let event = events(CHAT).swap_remove(1);
        let expected = event.replace(r#""model":"tiny""#, r#""model":"another""#);
        let mut group = criterion.benchmark_group("rename_one_event");
        group.throughput(Throughput::Bytes(event.len() as u64));
        group.bench_function("chat", |bencher| {
            let mut answer = hiding();
            answer.rename_model("tiny", "another");
            bencher.iter(|| assert_eq!(answer.push(black_box(event.as_bytes()), false), expected.as_bytes()));
        });
    }

    /// A whole stream, event by event.
    fn stream(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("usage_of_one_stream");
        let events = events(CHAT);
        let stream_bytes: usize = events.iter().map(String::len).sum();
        let usage_event = events.iter().rev().nth(1).unwrap();
        let (_, put_back) = usage_event.trim_end().rsplit_once("}}").unwrap();
        let hidden_bytes = usage_event.len() - put_back.trim_end_matches('}').len();
        group.throughput(Throughput::Bytes(stream_bytes as u64));
        group.bench_function(format!("{} events/read", events.len()), |bencher| {
            bencher.iter(|| {
                let mut usage = AnswerReader::new(AnswerFormat::Events);
                for event in &events {
                    usage.push(black_box(event.as_bytes()), false);
                }
                let expected = Usage { prompt_tokens: 55, completion_tokens: 12, cached_tokens: Some(32) };
                assert_eq!(usage.usage(), Some(expected));
            });
        });
        group.bench_function(format!("{} events/hide", events.len()), |bencher| {
            bencher.iter(|| {
                let mut hidden = hiding();
                let passed = events.iter().map(|event| hidden.push(black_box(event.as_bytes()), false).len());
                assert_eq!(passed.sum::<usize>(), stream_bytes - hidden_bytes);
            });
        });
    }

    /// An answer that is one document: a list of numbers, as embeddings are.
    fn document(criterion: &mut Criterion) {
        let mut group = criterion.benchmark_group("usage_of_one_document");
        let embedding = vec!["-0.012345678"; 4_096].join(",");
        let answer = format!(
            r#"{{"object":"list","data":[{{"index":0,"embedding":[{embedding}]}}],"usage":{{"prompt_tokens":9}}}}"#
        );
        group.throughput(Throughput::Bytes(answer.len() as u64));
        group.bench_function("embedding/read", |bencher| {
            bencher.iter(|| {
                let mut usage = AnswerReader::new(AnswerFormat::Document);
                usage.push(black_box(answer.as_bytes()), false);
                assert_eq!(usage.usage().map(|usage| usage.prompt_tokens), Some(9));
            });
        });
    }

    criterion_group!(benches, event, rename, stream, document);
}

#[cfg(not(target_family = "wasm"))]
criterion::criterion_main!(native::benches);

#[cfg(target_family = "wasm")]
fn main() {}
