//! The text of a prompt and its blocks: those of a naive hash over the whole text, however the text is cut, and however
//! much white space is between the values. Any body, and any bytes as the content of a message.
#![no_main]

use inference_picker::openai::{InferenceRequest, read_request};
use inference_picker::prefix::{BLOCK_BYTES, BlockHasher, MAX_PROMPT_BLOCKS, PromptBlocks};
use libfuzzer_sys::fuzz_target;
use twox_hash::XxHash64;

fuzz_target!(|body: &[u8]| {
    check(body);
    let open =
        br#"{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"#;
    check(&[open, body, b"}]}"].concat());
});

fn check(body: &[u8]) {
    let Ok(request) = read_request(body) else { return };
    let text = text_of(&request);
    let expected = naive_blocks(&request, &text);
    for length in [1, 7, BLOCK_BYTES, usize::MAX] {
        assert_eq!(blocks(&request, text.chunks(length)), expected);
    }
    let spaced = spaced(body);
    assert_eq!(text_of(&read_request(&spaced).unwrap()), text);
}

fn text_of(request: &InferenceRequest<'_>) -> Vec<u8> {
    let mut text = Vec::new();
    request.prompt.visit(|piece| text.extend_from_slice(piece));
    text
}

fn blocks<'a>(request: &InferenceRequest<'_>, pieces: impl Iterator<Item = &'a [u8]>) -> PromptBlocks {
    let mut hasher = BlockHasher::new(&request.model, request.cache_salt);
    pieces.for_each(|piece| hasher.push(piece));
    hasher.finish()
}

fn naive_blocks(request: &InferenceRequest<'_>, text: &[u8]) -> PromptBlocks {
    let before = XxHash64::oneshot(XxHash64::oneshot(0, request.cache_salt), request.model.as_bytes());
    let blocks = text.chunks_exact(BLOCK_BYTES).take(MAX_PROMPT_BLOCKS);
    let hashes = blocks.scan(before, |last, block| {
        *last = XxHash64::oneshot(*last, block);
        Some((*last as u32).to_le_bytes())
    });
    PromptBlocks { hashes: hashes.collect(), bytes: text.len() }
}

/// The same JSON with white space around everything that is not in a string or a number.
fn spaced(json: &[u8]) -> Vec<u8> {
    let (mut spaced, mut in_string, mut escaped) = (Vec::new(), false, false);
    for &byte in json {
        let is_mark = !in_string && b"{}[],:".contains(&byte);
        let around: &[u8] = if is_mark { b" \n" } else { b"" };
        spaced.extend([around, &[byte], around].concat());
        in_string ^= byte == b'"' && !escaped;
        escaped = in_string && byte == b'\\' && !escaped;
    }
    spaced
}
