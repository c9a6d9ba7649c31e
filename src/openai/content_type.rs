//! What bodies are, and which are encoded, by their headers.

use std::borrow::Cow;

/// Whether a body is JSON as it stands: `application/json` or one of the `+json` types, whatever its parameters, or
/// no type at all; and not encoded (compressed).
pub(super) fn is_json(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> bool {
    content_type.is_none_or(is_json_type) && !is_encoded(content_encoding)
}

/// Whether a body is encoded (compressed), by its `content-encoding`. `identity` is the name of no encoding, and `none` what
/// some servers and filters write for it.
pub fn is_encoded(content_encoding: Option<&[u8]>) -> bool {
    let encodings = content_encoding.unwrap_or_default().split(|byte| *byte == b',');
    encodings.map(<[u8]>::trim_ascii).any(|encoding| {
        !["", "identity", "none"].iter().any(|none| encoding.eq_ignore_ascii_case(none.as_bytes()))
    })
}

pub(super) fn is_json_type(content_type: &[u8]) -> bool {
    let media_type = media_type(content_type);
    let suffix = media_type.len().checked_sub(b"+json".len()).and_then(|start| media_type.get(start..));
    media_type.eq_ignore_ascii_case(b"application/json")
        || suffix.is_some_and(|suffix| suffix.eq_ignore_ascii_case(b"+json"))
}

/// A content type without its parameters.
pub(super) fn media_type(content_type: &[u8]) -> &[u8] {
    content_type.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii()
}

/// A parameter of a header's value (`form-data; name="model"`), by its name in small letters: as a word, or quoted with
/// escapes (RFC 9110, 5.6.6). `None` where it is not there, or the parameters cannot be read.
pub(super) fn parameter<'a>(value: &'a [u8], name: &str) -> Option<Cow<'a, [u8]>> {
    let mut rest = value.get(value.iter().position(|byte| *byte == b';')?..)?;
    loop {
        rest = rest.trim_ascii_start().strip_prefix(b";")?.trim_ascii_start();
        let key_end = rest.iter().position(|byte| matches!(byte, b'=' | b';'))?;
        let (key, behind) = rest.split_at_checked(key_end)?;
        let (text, behind) = match behind.strip_prefix(b"=")?.strip_prefix(b"\"") {
            Some(quoted) => quoted_text(quoted)?,
            None => word(behind.get(1..)?),
        };
        if key.trim_ascii().eq_ignore_ascii_case(name.as_bytes()) {
            return Some(text);
        }
        rest = behind;
    }
}

/// Up to the next parameter.
fn word(text: &[u8]) -> (Cow<'_, [u8]>, &[u8]) {
    let end = text.iter().position(|byte| *byte == b';').unwrap_or(text.len());
    let (word, rest) = text.split_at_checked(end).unwrap_or((text, &[]));
    (Cow::Borrowed(word.trim_ascii()), rest)
}

/// Up to the closing quote, which is passed over.
fn quoted_text(text: &[u8]) -> Option<(Cow<'_, [u8]>, &[u8])> {
    let plain = text.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    let (before, mut rest) = text.split_at_checked(plain)?;
    if let Some(rest) = rest.strip_prefix(b"\"") {
        return Some((Cow::Borrowed(before), rest));
    }
    let mut decoded = before.to_vec();
    loop {
        match rest {
            [b'"', rest @ ..] => return Some((Cow::Owned(decoded), rest)),
            [b'\\', byte, behind @ ..] | [byte, behind @ ..] => {
                decoded.push(*byte);
                rest = behind;
            }
            [] => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn json_is_known_by_its_type_and_only_as_it_stands() {
        let check = |content_type: Option<&str>, encoding: Option<&str>, expected| {
            let json = is_json(content_type.map(str::as_bytes), encoding.map(str::as_bytes));
            assert_eq!(json, expected, "{content_type:?} {encoding:?}");
        };
        check(Some("application/json"), None, true);
        check(Some("Application/JSON; charset=utf-8"), None, true);
        check(Some("application/vnd.api+JSON"), None, true);
        for none in ["identity", "Identity", " none", "", " ", "identity, none"] {
            check(None, Some(none), true);
        }
        check(None, Some("identity, gzip"), false);
        check(Some("multipart/form-data; boundary=x"), None, false);
        check(Some("text/plain"), None, false);
        check(Some(""), None, false);
        check(Some("application/json"), Some("gzip"), false);
    }

    #[test]
    fn parameters_are_words_or_quoted() {
        let check = |value: &str, expected: Option<&str>| {
            let found =
                parameter(value.as_bytes(), "name").map(|text| String::from_utf8_lossy(&text).into_owned());
            assert_eq!(found.as_deref(), expected, "{value}");
        };
        check("form-data; name=model", Some("model"));
        check("form-data; name=\"model\"", Some("model"));
        check("form-data; x=\"a;name=b\"; Name=\"c\" ; y=z", Some("c"));
        check("form-data; name=\"a\\\"b\\\\c\"", Some("a\"b\\c"));
        check("form-data; name=\"\"", Some(""));
        check("form-data; name=a; name=b", Some("a"));
        check("form-data; x=\"\\\"; name=a\"", None);
        for unreadable in
            ["form-data", "form-data;", "form-data; name", "form-data; name=\"a", "x; y=\"\" z; name=a"]
        {
            check(unreadable, None);
        }
    }
}
