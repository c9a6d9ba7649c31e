//! Cuts a JSON document that comes in pieces into tokens, in constant memory and whatever the pieces cut.
//!
//! Contract: of valid JSON every bracket, key and value is given, but for strings in lists. What is no JSON gives
//! some tokens, the same however it is cut. Of a string or word up to [`MAX_TEXT_BYTES`] are kept, as they are spelled;
//! escapes are decoded where the whole string was kept, so names mean the same however they are spelled.

use memchr::{memchr2, memchr3};

use super::special_bytes::{SHORT_BLOCK_BYTES, short_string_bytes};

/// Bytes that are kept of a string or word: more than the longest name anybody looks for has, which is one of 27 letters,
/// each spelled with an escape of six.
const MAX_TEXT_BYTES: usize = 192;

/// What has just been read. What a key, string or word says is in [`JsonTokens::text`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::openai) enum Token {
    /// `{` or `[`; the depth is that inside of it.
    Open(Bracket),
    /// `}` or `]`; the depth is that outside of it.
    Close {
        /// Whether nothing stood between the brackets. One that was skipped is not called empty.
        empty: bool,
    },
    /// A string and its colon.
    Key,
    /// A string that is the value of a key.
    Text,
    /// A number, `true`, `false`, `null`, or what stands in such a place. The byte behind it is still to be read.
    Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::openai) enum Bracket {
    Object,
    List,
}

/// The reading of one document.
#[derive(Debug)]
pub(in crate::openai) struct JsonTokens {
    state: State,
    /// Whether the next byte stands behind a backslash.
    escaped: bool,
    /// Whether there was one in the string being read.
    has_escapes: bool,
    depth: u64,
    /// Whether a bracket was opened, and nothing but whitespace has come since.
    just_opened: bool,
    text: Text,
}

/// What is kept of a string or word.
#[derive(Debug)]
struct Text {
    bytes: [u8; MAX_TEXT_BYTES],
    length: usize,
}

impl Text {
    fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    fn clear(&mut self) {
        self.length = 0;
    }

    /// Takes as much as there is room for of the first so many bytes.
    fn add(&mut self, bytes: &[u8], count: usize) {
        let Some((_, room)) = self.bytes.split_at_mut_checked(self.length) else { return };
        let count = count.min(room.len());
        self.length += count;
        match (room.first_chunk_mut::<SHORT_BLOCK_BYTES>(), bytes.first_chunk::<SHORT_BLOCK_BYTES>()) {
            // Copied whole, they need no call; what is beyond the end does not count.
            (Some(room), Some(bytes)) if count <= SHORT_BLOCK_BYTES => *room = *bytes,
            _ => room.iter_mut().zip(bytes).take(count).for_each(|(room, byte)| *room = *byte),
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum State {
    Between,
    BehindColon,
    KeyText,
    ValueText,
    Word,
    /// In a value that is skipped, this many brackets of its own kind deep.
    Skipped(Bracket, u64),
    SkippedText(Bracket, u64),
    /// Behind the document, or in what is none.
    Ended,
}

impl JsonTokens {
    pub(in crate::openai) fn new() -> JsonTokens {
        JsonTokens {
            state: State::Between,
            escaped: false,
            has_escapes: false,
            depth: 0,
            just_opened: false,
            text: Text { bytes: [0; MAX_TEXT_BYTES], length: 0 },
        }
    }

    /// Whether nothing but whitespace has been read of the document.
    pub(in crate::openai) fn is_fresh(&self) -> bool {
        self.depth == 0 && matches!(self.state, State::Between)
    }

    /// Forgets the document: the next byte begins another.
    pub(in crate::openai) fn restart(&mut self) {
        self.state = State::Between;
        self.escaped = false;
        self.has_escapes = false;
        self.depth = 0;
    }

    /// How many brackets are open.
    pub(in crate::openai) fn depth(&self) -> u64 {
        self.depth
    }

    /// The key, string or word just read, without quotes and decoded; of a long one the beginning, as it is spelled.
    pub(in crate::openai) fn text(&self) -> &[u8] {
        self.text.as_slice()
    }

    /// Passes over what is in the bracket just opened: the next token is its `Close`.
    pub(in crate::openai) fn skip(&mut self, bracket: Bracket) {
        self.state = State::Skipped(bracket, 1);
        self.just_opened = false;
    }

    /// Reads on to the end of the next token and takes what was read off `bytes`. `None` when they are used up.
    pub(in crate::openai) fn next(&mut self, bytes: &mut &[u8]) -> Option<Token> {
        while !bytes.is_empty() {
            let token = match self.state {
                State::Between | State::BehindColon => self.read_byte(bytes),
                State::KeyText | State::ValueText => self.read_text(bytes),
                State::Word => self.read_word(bytes),
                State::Skipped(bracket, depth) => self.read_skipped(bytes, bracket, depth),
                State::SkippedText(bracket, depth) => {
                    if self.reach_quote(bytes).1 {
                        self.state = State::Skipped(bracket, depth);
                    }
                    None
                }
                State::Ended => {
                    *bytes = &[];
                    None
                }
            };
            if token.is_some() {
                return token;
            }
        }
        None
    }

    fn read_byte(&mut self, bytes: &mut &[u8]) -> Option<Token> {
        let before = *bytes;
        let byte = take(bytes, 1).first()?;
        if matches!(byte, b' ' | b'\t' | b'\r' | b'\n') {
            return None;
        }
        let empty = std::mem::take(&mut self.just_opened);
        if byte != &b':' {
            // A colon makes a name of what stands right before it, and of nothing else.
            self.text.clear();
        }
        match byte {
            b'{' => Some(self.open(Bracket::Object)),
            b'[' => Some(self.open(Bracket::List)),
            _ if self.depth == 0 => {
                self.state = State::Ended;
                None
            }
            b'}' | b']' => Some(self.close(empty)),
            b',' => {
                self.state = State::Between;
                None
            }
            b':' => {
                self.state = State::BehindColon;
                Some(Token::Key)
            }
            b'"' => {
                self.has_escapes = false;
                self.state =
                    if matches!(self.state, State::BehindColon) { State::ValueText } else { State::KeyText };
                self.read_text(bytes)
            }
            _ => {
                *bytes = before;
                self.state = State::Word;
                self.read_word(bytes)
            }
        }
    }

    fn open(&mut self, bracket: Bracket) -> Token {
        self.depth += 1;
        self.just_opened = true;
        self.state = State::Between;
        Token::Open(bracket)
    }

    fn close(&mut self, empty: bool) -> Token {
        self.depth = self.depth.saturating_sub(1);
        self.state = if self.depth == 0 { State::Ended } else { State::Between };
        Token::Close { empty }
    }

    fn read_text(&mut self, bytes: &mut &[u8]) -> Option<Token> {
        let before = *bytes;
        let (text_bytes, ended) = self.reach_quote(bytes);
        self.text.add(before, text_bytes);
        if !ended {
            return None;
        }
        if std::mem::take(&mut self.has_escapes) {
            self.decode();
        }
        if matches!(std::mem::replace(&mut self.state, State::Between), State::ValueText) {
            return Some(Token::Text);
        }
        // Its colon, if that stands right behind it.
        let behind = bytes.strip_prefix(b":")?;
        *bytes = behind;
        self.state = State::BehindColon;
        Some(Token::Key)
    }

    fn read_word(&mut self, bytes: &mut &[u8]) -> Option<Token> {
        let ends = |byte: &u8| {
            matches!(byte, b',' | b'}' | b']' | b' ' | b'\t' | b'\r' | b'\n' | b':' | b'"' | b'{' | b'[')
        };
        let before = *bytes;
        let length = bytes.iter().position(ends);
        let word_bytes = take(bytes, length.unwrap_or(bytes.len())).len();
        self.text.add(before, word_bytes);
        length?;
        self.state = State::Between;
        Some(Token::Word)
    }

    /// Brackets of the other kind need not be looked at: in JSON they are balanced.
    fn read_skipped(&mut self, bytes: &mut &[u8], bracket: Bracket, depth: u64) -> Option<Token> {
        let (open, close) = match bracket {
            Bracket::Object => (b'{', b'}'),
            Bracket::List => (b'[', b']'),
        };
        let length = memchr3(b'"', open, close, bytes).map_or(bytes.len(), |place| place + 1);
        let byte = *take(bytes, length).last()?;
        self.state = match byte {
            b'"' => State::SkippedText(bracket, depth),
            _ if byte == open => State::Skipped(bracket, depth + 1),
            _ if byte == close && depth == 1 => return Some(self.close(false)),
            _ if byte == close => State::Skipped(bracket, depth - 1),
            _ => self.state,
        };
        None
    }

    /// Takes what there is of a string's text, up to its end or to the middle of an escape: how much, and whether it ended.
    fn reach_quote(&mut self, bytes: &mut &[u8]) -> (usize, bool) {
        if std::mem::take(&mut self.escaped) {
            return (take(bytes, 1).len(), false);
        }
        let short = bytes.first_chunk().and_then(short_string_bytes);
        let place = short.or_else(|| memchr2(b'"', b'\\', bytes)).unwrap_or(bytes.len());
        if bytes.get(place) == Some(&b'\\') {
            self.escaped = true;
            self.has_escapes = true;
            return (take(bytes, place + 1).len(), false);
        }
        take(bytes, place);
        (place, !take(bytes, 1).is_empty())
    }

    /// Decodes the string that was kept, if all of it was and JSON knows its escapes.
    fn decode(&mut self) {
        let whole = Some(self.text.as_slice()).filter(|text| text.len() < MAX_TEXT_BYTES);
        let decoded = whole.and_then(|text| decode_string(&[b"\"", text, b"\""].concat()));
        if let Some(decoded) = decoded {
            self.text.clear();
            self.text.add(decoded.as_bytes(), decoded.len());
        }
    }
}

/// What a JSON string, in its quotes, says; `None` if it is none.
pub(in crate::openai) fn decode_string(string: &[u8]) -> Option<String> {
    serde_json::from_slice(string).ok()
}

/// Takes up to so many bytes off the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(count.min(bytes.len()));
    *bytes = rest;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The tokens of a document that comes in such pieces, in short; what stands under a key `skip` is skipped.
    fn tokens<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut tokens = JsonTokens::new();
        let (mut found, mut skips) = (vec![], false);
        for mut piece in pieces {
            while let Some(token) = tokens.next(&mut piece) {
                let text = String::from_utf8_lossy(tokens.text()).into_owned();
                found.push(match token {
                    Token::Open(bracket) if skips => {
                        tokens.skip(bracket);
                        format!("skip{}", tokens.depth())
                    }
                    Token::Open(Bracket::Object) => format!("{{{}", tokens.depth()),
                    Token::Open(Bracket::List) => format!("[{}", tokens.depth()),
                    Token::Close { empty: true } => "empty".to_owned(),
                    Token::Close { empty: false } => format!("close{}", tokens.depth()),
                    Token::Key => format!("{text}:"),
                    Token::Text => format!("'{text}'"),
                    Token::Word => text.clone(),
                });
                skips = token == Token::Key && text == "skip";
            }
        }
        if matches!(tokens.state, State::Ended) {
            found.push("ended".to_owned());
        }
        found.join(" ")
    }

    /// The same whole, byte by byte, and in two pieces however cut.
    fn check(document: &str, expected: &str) {
        let bytes = document.as_bytes();
        assert_eq!(tokens([bytes]), expected, "{document}");
        assert_eq!(tokens(bytes.chunks(1)), expected, "{document}");
        for cut in 0..=bytes.len() {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(tokens([first, second]), expected, "cut at {cut}: {document}");
        }
    }

    #[test]
    fn every_bracket_key_and_value_is_given_but_strings_in_lists() {
        check("{}", "{1 empty ended");
        check(" [ 1 , \"a\" , null ] ", "[1 1 null close0 ended");
        check(
            "{\"a\":\"é\", \"b\" : -1.5e3,\"c\":[true,{\"d\":\"\"}],\"e\":[ ]}",
            "{1 a: 'é' b: -1.5e3 c: [2 true {3 d: '' close2 close1 e: [2 empty close0 ended",
        );
    }

    #[test]
    fn strings_end_at_the_quote_that_is_not_escaped_and_are_decoded_if_they_are_short_and_right() {
        check(r#"{"\"a\\":"\\\"{"}"#, r#"{1 "a\: '\"{' close0 ended"#);
        check(r#"{"\u0061b\ud83d\ude00":"\u00e9"}"#, "{1 ab😀: 'é' close0 ended");
        check(r#"{"\x":"\ud83d"}"#, r"{1 \x: '\ud83d' close0 ended");
        let long = r"\n".repeat(MAX_TEXT_BYTES / 2);
        check(&format!("{{\"a\":\"{long}\"}}"), &format!("{{1 a: '{long}' close0 ended"));
        let text = format!("{}b", "a".repeat(MAX_TEXT_BYTES));
        let kept = "a".repeat(MAX_TEXT_BYTES);
        check(
            &format!("{{\"{text}\":\"{text}\",\"x\":{text}}}"),
            &format!("{{1 {kept}: '{kept}' x: {kept} close0 ended"),
        );
    }

    #[test]
    fn what_is_skipped_gives_no_token_but_its_end() {
        check(
            r#"{"skip":{"a":["}"],"b":{"c":"\"}"}},"skip":[[1],"]\\",{"a":[2]}],"b":3}"#,
            "{1 skip: skip2 close1 skip: skip2 close1 b: 3 close0 ended",
        );
        check(r#"{"skip":[],"a":[]}"#, "{1 skip: skip2 close1 a: [2 empty close0 ended");
        check(r#"{"skip":[]}"#, "{1 skip: skip2 close1 close0 ended");
    }

    #[test]
    fn nothing_is_read_behind_a_document_or_of_what_is_none() {
        check("{\"a\":1}{\"a\":1}", "{1 a: 1 close0 ended");
        for none in ["x{}", "\"a\":{}", "}", ",[]", "1"] {
            check(none, "ended");
        }
        check("{\"a\":1", "{1 a:");
    }
}
