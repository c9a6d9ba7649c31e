//! The field `model` of a multipart form (RFC 7578), wherever it stands: audio and image APIs take their files so.
//!
//! ```text
//! form = [preamble CRLF] delimiter *(part CRLF delimiter) "--" epilogue
//! delimiter = "--" boundary      then blanks and CRLF, or "--" behind the last
//! part = *(header CRLF) CRLF content
//! ```
//!
//! One pass for delimiters; a file is looked at for nothing else. What is not of this form is no form.

use std::ops::Range;

use memchr::memmem::{self, Finder};

use super::fields::MAX_MODEL_FIELDS;
use crate::openai::content_type::{media_type, parameter};

/// Bytes of a boundary: RFC 2046, 5.1.1, allows no more.
pub const MAX_BOUNDARY_BYTES: usize = 70;

const LINE_END: &[u8] = b"\r\n";

/// The boundary of a multipart form, by its content type.
pub(super) fn boundary(content_type: &[u8]) -> Option<Vec<u8>> {
    if !media_type(content_type).eq_ignore_ascii_case(b"multipart/form-data") {
        return None;
    }
    let boundary = parameter(content_type, "boundary")?;
    (1..=MAX_BOUNDARY_BYTES).contains(&boundary.len()).then(|| boundary.into_owned())
}

/// Where the values of the fields `model` stand in a form, in order. `None`: it is no form, or has too many of them.
pub(super) fn model_spans(body: &[u8], boundary: &[u8]) -> Option<Vec<Range<usize>>> {
    let mut spans = Vec::new();
    let text = [LINE_END, b"--", boundary].concat();
    let delimiters = Delimiters { body, finder: Finder::new(&text) };
    let mut delimiter = delimiters.first()?;
    while !delimiter.is_last {
        let next = delimiters.from(delimiter.end)?;
        let part = delimiter.end + LINE_END.len()..next.start;
        if let Some(span) = model_value(body, part)? {
            if spans.len() == MAX_MODEL_FIELDS {
                return None;
            }
            spans.push(span);
        }
        delimiter = next;
    }
    Some(spans)
}

/// A delimiter: from the line end before it to the one behind it.
struct Delimiter {
    start: usize,
    end: usize,
    is_last: bool,
}

struct Delimiters<'a> {
    body: &'a [u8],
    /// Looks for a line end and the delimiter.
    finder: Finder<'a>,
}

impl Delimiters<'_> {
    /// Nothing need stand before it, not even a line end.
    fn first(&self) -> Option<Delimiter> {
        let without_line_end = self.finder.needle().strip_prefix(LINE_END)?;
        let at_start = self.body.starts_with(without_line_end);
        let first = at_start.then(|| self.ending(0, without_line_end.len())).flatten();
        first.or_else(|| self.from(0))
    }

    /// The next that is not before `start`.
    fn from(&self, mut start: usize) -> Option<Delimiter> {
        loop {
            start += self.finder.find(self.body.get(start..)?)?;
            let end = start + self.finder.needle().len();
            if let Some(delimiter) = self.ending(start, end) {
                return Some(delimiter);
            }
            start = end;
        }
    }

    /// Whether what stands from `start` to `end` is a delimiter, by what follows; else it is content that begins like one.
    fn ending(&self, start: usize, end: usize) -> Option<Delimiter> {
        let behind = self.body.get(end..)?;
        if behind.starts_with(b"--") {
            return Some(Delimiter { start, end, is_last: true });
        }
        let blanks = behind.iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
        let end = end + blanks;
        self.body.get(end..)?.starts_with(LINE_END).then_some(Delimiter { start, end, is_last: false })
    }
}

/// Where a part's content stands, if it is the field `model`. The outer `None`: it is no part.
fn model_value(body: &[u8], part: Range<usize>) -> Option<Option<Range<usize>>> {
    let text = body.get(part.clone())?;
    let (headers, content) = match text.strip_prefix(LINE_END) {
        Some(_) => (0, LINE_END.len()),
        None => memmem::find(text, b"\r\n\r\n").map(|place| (place, place + 2 * LINE_END.len()))?,
    };
    let is_model = is_model_field(text.get(..headers)?);
    Some(is_model.then_some(part.start + content..part.end))
}

/// Whether a part with these headers is a field of that name, and no file.
fn is_model_field(headers: &[u8]) -> bool {
    let lines = headers.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let mut values = lines.filter_map(|line| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        name.eq_ignore_ascii_case(b"content-disposition").then(|| value.get(1..)).flatten()
    });
    values.next_back().is_some_and(|value| {
        let has = |name| parameter(value, name).is_some();
        media_type(value).eq_ignore_ascii_case(b"form-data")
            && parameter(value, "name").as_deref() == Some(b"model")
            && !has("filename")
            && !has("filename*")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const FILE: &str = "--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\nContent-Type: audio/wav\r\n\r\nRIFF\r\n";
    const MODEL: &str = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\nwhisper\r\n";

    fn check(body: &str, models: &[&str]) {
        let spans = model_spans(body.as_bytes(), b"x").unwrap_or_else(|| panic!("no form: {body}"));
        assert_eq!(spans.into_iter().map(|span| &body[span]).collect::<Vec<_>>(), models, "{body}");
    }

    #[test]
    fn the_boundary_is_a_word_or_quoted() {
        let check = |content_type: &str, expected: Option<&str>| {
            assert_eq!(
                boundary(content_type.as_bytes()).as_deref(),
                expected.map(str::as_bytes),
                "{content_type}"
            );
        };
        check("multipart/form-data; boundary=abc", Some("abc"));
        check("Multipart/Form-Data; charset=utf-8; Boundary=\"a b;c\"", Some("a b;c"));
        check(&format!("multipart/form-data; boundary={}", "b".repeat(70)), Some(&"b".repeat(70)));
        check(&format!("multipart/form-data; boundary={}", "b".repeat(71)), None);
        check("multipart/form-data; boundary=", None);
        check("multipart/form-data", None);
        check("multipart/mixed; boundary=abc", None);
    }

    #[test]
    fn the_model_is_found_before_and_behind_the_file() {
        check(&format!("{FILE}{MODEL}--x--\r\n"), &["whisper"]);
        check(&format!("{MODEL}{FILE}--x--"), &["whisper"]);
        check(&format!("for old clients\r\n{MODEL}{FILE}{MODEL}--x--\r\nbehind"), &["whisper", "whisper"]);
        check(&format!("{FILE}--x--\r\n"), &[]);
        check("--x--", &[]);
    }

    #[test]
    fn fields_are_known_by_their_headers_however_they_are_written() {
        for (headers, is_model) in [
            ("CONTENT-DISPOSITION:form-data;name=model", true),
            ("X-Other: 1\r\nContent-Disposition: form-data; name=\"mod\\el\"\r\nX-More: 2", true),
            ("Content-Disposition: form-data; name=\"Model\"", false),
            ("Content-Disposition: form-data; name=\"models\"", false),
            ("Content-Disposition: form-data; name=\"model\"; filename=\"m\"", false),
            ("Content-Disposition: form-data; name=\"model\"; filename*=UTF-8''m", false),
            ("Content-Disposition: attachment; name=\"model\"", false),
            ("Content-Type: text/plain", false),
        ] {
            let form = format!("--x \t\r\n{headers}\r\n\r\nm\r\n--x--");
            check(&form, if is_model { &["m"] } else { &[] });
        }
        check("--x\r\n\r\nno headers\r\n--x--", &[]);
    }

    #[test]
    fn what_begins_like_a_delimiter_is_content() {
        let field = |content: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=model\r\n\r\n{content}\r\n--x--")
        };
        for content in ["", "\r\n--xy", "\r\n--x y", "\r\n--x-", "\n--x\n", "\r\n-- x", "\r\n"] {
            check(&field(content), &[content]);
        }
    }

    #[test]
    fn what_is_no_form_is_known_to_be_none() {
        let whole = format!("{FILE}{MODEL}--x--");
        for end in 0..whole.len() {
            assert_eq!(model_spans(&whole.as_bytes()[..end], b"x"), None, "{end}");
        }
        for body in ["--y--", "--x\r\n--x--", "--x\r\nno end of headers\r\n--x--", "{\"model\":\"m\"}"] {
            assert_eq!(model_spans(body.as_bytes(), b"x"), None, "{body}");
        }
        let models = |count: usize| format!("{}--x--", MODEL.repeat(count));
        check(&models(16), &["whisper"; 16]);
        assert_eq!(model_spans(models(17).as_bytes(), b"x"), None);
    }

    #[cfg(not(target_family = "wasm"))]
    mod properties {
        use proptest::collection::vec;
        use proptest::prelude::*;
        use proptest::sample::select;

        use super::super::*;

        const NAMES: [&str; 4] = ["model", "file", "language", "prompt"];
        /// Pieces from which contents are made that look like what is around them.
        const PIECES: [&[u8]; 10] =
            [b"\r\n", b"--", b"x", b"\r\n--x", b" ", b"m", b"\r", b"\n", b"\xff\x00", b"name=\"model\""];

        fn bytes() -> impl Strategy<Value = Vec<u8>> {
            vec(select(&PIECES[..]), 0..8).prop_map(|pieces| pieces.concat())
        }

        /// The content a server would take it for: none that holds a delimiter.
        fn holds_delimiter(content: &[u8]) -> bool {
            let framed = [LINE_END, content, LINE_END].concat();
            let text = b"\r\n--x".to_vec();
            (0..framed.len()).filter(|place| framed[*place..].starts_with(&text)).any(|place| {
                let behind = &framed[place + text.len()..];
                let line = behind.iter().position(|byte| !b" \t".contains(byte)).unwrap_or(behind.len());
                behind.starts_with(b"--") || behind[line..].starts_with(LINE_END)
            })
        }

        proptest! {
            #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..Default::default() })]

            #[test]
            fn every_field_model_is_found_and_nothing_else(
                parts in vec((select(&NAMES[..]), any::<bool>(), bytes()), 0..6),
            ) {
                let (mut form, mut expected) = (Vec::new(), Vec::new());
                for (name, is_file, content) in parts.iter().filter(|part| !holds_delimiter(&part.2)) {
                    let file = if *is_file { "; filename=\"f\"" } else { "" };
                    form.extend(format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"{file}\r\n\r\n").bytes());
                    if *name == "model" && !is_file {
                        expected.push(form.len()..form.len() + content.len());
                    }
                    form.extend(content);
                    form.extend(LINE_END);
                }
                form.extend(b"--x--");
                prop_assert_eq!(model_spans(&form, b"x"), Some(expected));
            }

            #[test]
            fn any_bytes_do(body in bytes(), more in bytes()) {
                for spans in [model_spans(&body, b"x"), model_spans(&[&body[..], b"\r\n--x\r\n", &more].concat(), b"x")] {
                    prop_assert!(spans.unwrap_or_default().is_sorted_by(|one, next| one.end < next.start));
                }
            }
        }
    }
}
