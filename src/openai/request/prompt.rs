//! How much prompt a JSON value holds, in estimated tokens.
//!
//! One flat pass over text that is already known to be valid JSON: no recursion, no allocation, no decoding.
//!
//! `tokens = bytes of string values ÷ BYTES_PER_TOKEN + numbers + MEDIA_TOKENS × media parts`
//!
//! Numbers count one each, because a prompt may be a list of token ids. What stands under a key of [`MEDIA_KEYS`]
//! (an image's data URL, say) counts [`MEDIA_TOKENS`], however long it is.

use crate::openai::json::{JsonString, read_string};

/// English text and code have about four bytes to a token.
pub(super) const BYTES_PER_TOKEN: usize = 4;

/// No token of a tokenizer in use stands for more of a prompt's text, on the whole: those of the longest runs of blanks and
/// dashes have 128, those of words a tenth of this.
const MOST_BYTES_PER_TOKEN: usize = 128;

/// An image or a sound costs a model a few hundred tokens.
pub(super) const MEDIA_TOKENS: usize = 512;

/// Keys under which chat messages carry media by value or URL.
const MEDIA_KEYS: [&[u8]; 8] =
    [b"image_url", b"input_audio", b"video_url", b"audio_url", b"source", b"file_data", b"url", b"data"];

/// How the text of a system block begins that Claude Code puts before its prompt: `x-anthropic-billing-header:
/// cc_version=2.1.101.e51; cc_entrypoint=cli; cch=a5145;`. vLLM 0.32 leaves it out, llama.cpp writes over its `cch`.
pub(super) const ATTRIBUTION: &[u8] = b"x-anthropic-billing-header:";
/// The key of the mark up to which a client would have the prompt cached; vLLM 0.32 and llama.cpp do not read it.
pub(super) const CACHE_MARK_KEY: &[u8] = b"cache_control";
/// The key of the text of a block.
pub(super) const TEXT_KEY: &[u8] = b"text";

/// The size of one prompt-bearing JSON value.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PromptSize {
    text_bytes: usize,
    numbers: usize,
    media_parts: usize,
    /// Whether something in it is written otherwise, or not at all, in the plain form of its text.
    is_rewritten: bool,
}

impl PromptSize {
    /// Adds what `json`, a valid JSON value, holds.
    pub(super) fn add(&mut self, json: &[u8]) {
        let mut rest = json;
        let mut under_media = false;
        while let Some((&byte, tail)) = rest.split_first() {
            rest = match byte {
                b'"' => self.count_string(tail, &mut under_media),
                b'-' | b'0'..=b'9' => self.count_number(tail),
                _ => tail,
            };
        }
    }

    /// The estimate in tokens, at least 1: even an empty prompt is a request.
    pub(super) fn tokens(&self) -> u32 {
        let text = self.text_bytes.div_ceil(BYTES_PER_TOKEN);
        let tokens = text + self.numbers + self.media_parts * MEDIA_TOKENS;
        u32::try_from(tokens).unwrap_or(u32::MAX).max(1)
    }

    /// Tokens that its text has, whatever the tokenizer is.
    pub(super) fn least_tokens(&self) -> u32 {
        u32::try_from(self.text_bytes / MOST_BYTES_PER_TOKEN).unwrap_or(u32::MAX)
    }

    /// Its numbers, which are tokens where they are the prompt.
    pub(super) fn numbers(&self) -> u32 {
        u32::try_from(self.numbers).unwrap_or(u32::MAX)
    }

    /// Whether the plain form of its text is the text itself, but for white space and escapes.
    pub(super) fn is_as_written(&self) -> bool {
        self.media_parts == 0 && !self.is_rewritten
    }

    /// Counts a string that is not a key. The first one under a media key stands for the medium.
    pub(super) fn add_text(&mut self, string: &JsonString<'_>, under_media: &mut bool) {
        if std::mem::take(under_media) {
            self.media_parts += 1;
        } else {
            self.text_bytes += string.decoded_bytes;
            self.is_rewritten |= string.content.starts_with(ATTRIBUTION);
        }
    }

    /// Notes a key, whose raw text is given; whether the next string below it counts as a medium.
    pub(super) fn add_key(&mut self, key: &[u8]) -> bool {
        self.is_rewritten |= key == TEXT_KEY || key == CACHE_MARK_KEY;
        is_media_key(key)
    }

    pub(super) fn add_number(&mut self) {
        self.numbers += 1;
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.text_bytes += other.text_bytes;
        self.numbers += other.numbers;
        self.media_parts += other.media_parts;
        self.is_rewritten |= other.is_rewritten;
    }

    /// Counts the string whose opening quote was just read, unless it is a key, and returns what follows it.
    fn count_string<'a>(&mut self, text: &'a [u8], under_media: &mut bool) -> &'a [u8] {
        let Some(string) = read_string(text) else {
            return &[];
        };
        if string.rest.trim_ascii_start().first() == Some(&b':') {
            *under_media = self.add_key(string.content);
        } else {
            self.add_text(&string, under_media);
        }
        string.rest
    }

    fn count_number<'a>(&mut self, text: &'a [u8]) -> &'a [u8] {
        self.add_number();
        let digits =
            text.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
        text.get(digits.count()..).unwrap_or_default()
    }
}

/// Whether the next string below this key, whose raw text is given, counts as a medium.
pub(super) fn is_media_key(key: &[u8]) -> bool {
    MEDIA_KEYS.contains(&key)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(json: &str, text_bytes: usize, numbers: usize, media_parts: usize) {
        let mut size = PromptSize::default();
        size.add(json.as_bytes());
        assert_eq!(
            (size.text_bytes, size.numbers, size.media_parts),
            (text_bytes, numbers, media_parts),
            "{json}"
        );
    }

    #[test]
    fn string_values_count_and_keys_do_not() {
        check(r#""Once upon""#, 9, 0, 0);
        check(r#"["ab","cde"]"#, 5, 0, 0);
        check(r#"[{"role":"user","content" : "hello"}]"#, 9, 0, 0);
        check("\"\"", 0, 0, 0);
    }

    #[test]
    fn escapes_count_as_what_they_stand_for() {
        check(r#""a\nb""#, 3, 0, 0);
        check(r#""\"\\""#, 2, 0, 0);
        check(r#""\u4e2d\u6587""#, 6, 0, 0);
        check("\"\u{4e2d}\u{6587}\"", 6, 0, 0);
        check(r#""\ud800""#, 3, 0, 0);
    }

    #[test]
    fn token_ids_count_one_each() {
        check("[1, 22,-3]", 0, 3, 0);
        check("[[1,2],[3.5e+7]]", 0, 3, 0);
    }

    #[test]
    fn media_counts_the_same_however_long_it_is() {
        let image =
            format!(r#"[{{"type":"image_url","image_url":{{"url":"data:{}"}}}}]"#, "A".repeat(100_000));
        check(&image, "image_url".len(), 0, 1);
        check(r#"{"image_url":"http://x/y.png","text":"hi"}"#, 2, 0, 1);
    }

    #[test]
    fn an_estimate_is_never_zero() {
        assert_eq!(PromptSize::default().tokens(), 1);
        assert_eq!(
            PromptSize { text_bytes: 9, numbers: 2, media_parts: 1, is_rewritten: true }.tokens(),
            3 + 2 + 512
        );
    }
}
