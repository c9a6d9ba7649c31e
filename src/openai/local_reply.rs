//! What Envoy answers by itself, or a filter behind this one does, in plain text: from its pieces to an OpenAI error object.
//!
//! Envoy's own words are known and say little, so a sentence of ours takes their place. Any other text was written by an
//! operator (`local_reply_config`, an authorization service, a firewall's page) and is the error's message. A text that is a
//! JSON object already passes as it is.

use serde::de::IgnoredAny;

use super::ApiError;

/// Bytes of the text that are kept; what follows is left out.
const MAX_TEXT_BYTES: usize = 16 << 10;

/// What Envoy 1.36 to 1.40 answer of themselves.
const ENVOYS_WORDS: [&str; 8] = [
    "",
    "no healthy upstream",
    "upstream request timeout",
    "Payload Too Large",
    "request timeout",
    "stream timeout",
    "downstream duration timeout",
    "envoy overloaded",
];
/// What such a text begins with that goes on with the reason.
const ENVOYS_RESET: &str = "upstream connect error or disconnect/reset before headers";

/// An answer that is none of a server's, while it comes.
#[derive(Debug)]
pub struct LocalReply {
    status: u16,
    /// Envoy's response code details.
    details: String,
    text: Vec<u8>,
    is_cut: bool,
}

impl LocalReply {
    /// Its headers are here.
    pub fn new(status: u16, details: String) -> LocalReply {
        LocalReply { status, details, text: Vec::new(), is_cut: false }
    }

    /// A fixed word for programs.
    pub fn code(&self) -> &'static str {
        self.sentence_and_code().1
    }

    /// How many bytes of a piece of this size are to be [pushed](LocalReply::push).
    pub fn wanted(&self, size: usize) -> usize {
        size.min(MAX_TEXT_BYTES + 1)
    }

    /// More of its body is here.
    pub fn push(&mut self, bytes: &[u8]) {
        let room = MAX_TEXT_BYTES - self.text.len();
        self.is_cut |= bytes.len() > room;
        self.text.extend(bytes.iter().take(room));
    }

    /// Its body has come to its end: the body that takes its place.
    pub fn body(self) -> Vec<u8> {
        let is_object = self.text.trim_ascii_start().starts_with(b"{");
        if is_object && !self.is_cut && serde_json::from_slice::<IgnoredAny>(&self.text).is_ok() {
            return self.text;
        }
        ApiError::from_gateway(self.status.into(), self.message(), self.code()).body()
    }

    fn message(&self) -> String {
        let text = self.readable_text();
        let sentence = self.sentence_and_code().0;
        if ENVOYS_WORDS.contains(&text.as_str()) {
            format!("{sentence} ({})", self.details)
        } else if text.starts_with(ENVOYS_RESET) {
            format!("{sentence} ({text})")
        } else {
            text
        }
    }

    /// Without control characters, but for those that break lines.
    fn readable_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.text);
        let is_readable = |character: char| !character.is_control() || matches!(character, '\n' | '\t');
        let readable = |character: char| if is_readable(character) { character } else { ' ' };
        let text: String = text.chars().map(readable).collect();
        let text = text.trim();
        // Where it is cut, a character may be.
        if self.is_cut { format!("{}…", text.trim_end_matches('\u{fffd}')) } else { text.to_owned() }
    }

    fn sentence_and_code(&self) -> (&'static str, &'static str) {
        match self.status {
            413 => ("The request body is larger than this gateway buffers; send less.", "request_too_large"),
            408 => ("The request did not arrive in time; send it again.", "request_timeout"),
            503 => ("No model server could be reached; try again later.", "no_endpoint"),
            504 => ("No model server answered in time; try again later.", "upstream_timeout"),
            _ => ("The gateway could not serve the request.", "gateway_error"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The body for a text that comes in pieces of this size.
    fn body_in_pieces(status: u16, text: &[u8], size: usize) -> Vec<u8> {
        let mut reply = LocalReply::new(status, "some_details".to_owned());
        for piece in text.chunks(size) {
            reply.push(&piece[..reply.wanted(piece.len())]);
        }
        reply.body()
    }

    /// However it is cut, the message is this one.
    #[track_caller]
    fn check(status: u16, text: impl AsRef<[u8]>, expected: &str) {
        let text = text.as_ref();
        for size in [1, 2, 3, 7, 1_000, usize::MAX] {
            let body = body_in_pieces(status, text, size);
            let value: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(value["error"]["message"], expected, "in pieces of {size}");
        }
    }

    #[test]
    fn of_envoys_own_words_a_sentence_is_made() {
        let unreached = "No model server could be reached; try again later. ";
        check(503, "no healthy upstream", &format!("{unreached}(some_details)"));
        check(503, "", &format!("{unreached}(some_details)"));
        check(
            413,
            "Payload Too Large",
            "The request body is larger than this gateway buffers; send less. (some_details)",
        );
        let reset = "upstream connect error or disconnect/reset before headers. reset reason: overflow";
        check(503, reset, &format!("{unreached}({reset})"));
    }

    #[test]
    fn what_an_operator_wrote_is_the_message() {
        check(403, "You are not in the group llm-users.\n", "You are not in the group llm-users.");
        check(503, "Maintenance until 6.\nAsk +49 30 1234.", "Maintenance until 6.\nAsk +49 30 1234.");
        check(503, "no healthy upstream; call 555", "no healthy upstream; call 555");
        check(429, "Gr\u{fc}\u{df}e, \"\u{1f600}\"", "Gr\u{fc}\u{df}e, \"\u{1f600}\"");
    }

    #[test]
    fn what_no_text_is_is_made_one() {
        check(403, b"a\x00b\x1b[31mc\x7f\xc2\x85d", "a b [31mc  d");
        check(403, b"caf\xe9 \xff", "caf\u{fffd} \u{fffd}");
        check(403, b"{not json", "{not json");
        check(403, "[1]", "[1]");
    }

    #[test]
    fn an_object_passes_as_it_is() {
        for size in [1, 5, usize::MAX] {
            let text = br#" {"error": {"message": "mine", "code": 7}} "#;
            assert_eq!(body_in_pieces(403, text, size), text);
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let text = "x".repeat(MAX_TEXT_BYTES - 1) + "\u{e9}\u{e9}";
        check(403, &text, &("x".repeat(MAX_TEXT_BYTES - 1) + "\u{2026}"));
        let whole = "x".repeat(MAX_TEXT_BYTES);
        check(403, &whole, &whole);
        let object = format!(r#"{{"x":"{whole}"}}"#);
        assert!(body_in_pieces(403, object.as_bytes(), 100).starts_with(br#"{"error":{"message":"{\"x\":"#));
    }
}
