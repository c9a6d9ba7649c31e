//! What is asked and what is answered: completions as text, streamed.
//!
//! A token of the traffic is a word of three letters and a space. The simulated servers take four bytes for a token, so it
//! is exactly one there; a real tokenizer makes one or two of it.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;

/// The words that there are: three letters each.
const WORDS: u32 = 26 * 26 * 26;
/// Spreads neighbouring numbers over all words (Knuth's multiplicative hash).
const SPREAD: u32 = 2_654_435_761;

/// The text of tokens that are numbered.
pub fn text_of(tokens: &[u32]) -> String {
    let mut text = String::with_capacity(tokens.len() * 4);
    for token in tokens {
        let word = (token.wrapping_mul(SPREAD) >> 8) % WORDS;
        for letter in [word % 26, word / 26 % 26, word / 676] {
            text.push(char::from(b'a' + letter as u8));
        }
        text.push(' ');
    }
    text
}

/// The body of a request. `ignore_eos` has a real server answer as many tokens as were asked for.
pub fn body(model: &str, prompt: &str, output_tokens: usize) -> String {
    let body = json!({
        "model": model,
        "prompt": prompt,
        "max_tokens": output_tokens,
        "temperature": 0,
        "ignore_eos": true,
        "stream": true,
        "stream_options": {"include_usage": true},
    });
    body.to_string()
}

/// What a streamed answer said.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub text: String,
    pub output_tokens: usize,
    /// Whether it came to its mark of the end, and reported no error before: some gateways put an error and that mark behind
    /// what a server has broken off.
    pub is_whole: bool,
}

#[derive(Deserialize)]
struct Event {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Usage>,
    error: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    text: String,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    completion_tokens: usize,
}

/// Reads the events of a whole answer. Lines that are no events of a completion are passed over.
pub fn said(answer: &[u8]) -> Said {
    let (mut said, mut has_failed) = (Said::default(), false);
    let lines = answer.split(|&byte| byte == b'\n').filter_map(|line| line.strip_prefix(b"data:"));
    for data in lines.map(<[u8]>::trim_ascii) {
        said.is_whole |= data == b"[DONE]";
        let Ok(event) = serde_json::from_slice::<Event>(data) else { continue };
        has_failed |= event.error.is_some();
        said.text.extend(event.choices.into_iter().map(|choice| choice.text));
        said.output_tokens = event.usage.map_or(said.output_tokens, |usage| usage.completion_tokens);
    }
    said.is_whole &= !has_failed;
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_server::tokens::tokens_of;

    #[test]
    fn a_token_is_one_to_the_simulated_servers_and_neighbours_differ() {
        let tokens: Vec<u32> = (0..1_000).collect();
        let text = text_of(&tokens);
        let read = tokens_of(text.as_bytes());
        assert_eq!(read.len(), tokens.len());
        assert!(read.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(text_of(&[7, 8]), text_of(&[7, 8]));
    }

    #[test]
    fn an_answer_is_its_text_its_tokens_and_its_end() {
        let events = concat!(
            "data: {\"choices\":[{\"text\":\"000 \"}]}\n\n",
            ": a comment\n\n",
            "data: {\"choices\":[{\"text\":\"001 002 \"}],\"usage\":null}\n\n",
            "data: {\"choices\":[],\"usage\":{\"completion_tokens\":3}}\n\n",
            "data: [DONE]\n\n",
        );
        let expected = Said { text: "000 001 002 ".to_owned(), output_tokens: 3, is_whole: true };
        assert_eq!(said(events.as_bytes()), expected);
        assert!(!said(&events.as_bytes()[..120]).is_whole);
        let failed = "data: {\"choices\":[{\"text\":\"000 \"}]}\n\ndata: {\"error\":{\"message\":\"broken off\"}}\n\ndata: [DONE]\n\n";
        assert!(!said(failed.as_bytes()).is_whole);
    }
}
