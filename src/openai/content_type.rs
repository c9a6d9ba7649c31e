//! Which bodies are JSON, and which are encoded, by their headers.

/// Whether a body is JSON as it stands: `application/json` or one of the `+json` types, whatever its parameters, or
/// no type at all; and not encoded (compressed).
pub fn is_json(content_type: Option<&[u8]>, content_encoding: Option<&[u8]>) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn json_is_known_by_its_type_and_read_only_as_it_stands() {
        let check = |content_type: Option<&str>, encoding: Option<&str>, expected| {
            let json = is_json(content_type.map(str::as_bytes), encoding.map(str::as_bytes));
            assert_eq!(json, expected, "{content_type:?} {encoding:?}");
        };
        check(Some("application/json"), None, true);
        check(Some("Application/JSON; charset=utf-8"), None, true);
        check(Some("application/vnd.api+JSON"), None, true);
        for none in ["identity", "Identity", " none", "", "identity, none"] {
            check(None, Some(none), true);
        }
        check(None, Some("identity, gzip"), false);
        check(Some("multipart/form-data; boundary=x"), None, false);
        check(Some("text/plain"), None, false);
        check(Some(""), None, false);
        check(Some("application/json"), Some("gzip"), false);
    }
}
