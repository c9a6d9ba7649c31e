//! Where the name of a session may be: in headers, cookies, or fields of the body, in an order of preference.
//!
//! A name is distinguished from others by a digest of it, so that one of any length costs the same.

use crate::hash::digest;
use crate::header_pairs::HeaderPairs;
use crate::openai::{InferenceRequest, id_of, user_id_of};

/// A place where a session's name may be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The value of this header, in lower case.
    Header(String),
    /// The value of this cookie.
    Cookie(String),
    /// A field of the body.
    Body(Field),
}

/// A field of the body that may name a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// `prompt_cache_key`
    PromptCacheKey,
    /// `conversation`, or its `id`
    Conversation,
    /// `user`
    User,
    /// `user_id` in `metadata`
    MetadataUserId,
}

impl Field {
    /// All of them.
    pub const ALL: [Field; 4] =
        [Field::PromptCacheKey, Field::Conversation, Field::User, Field::MetadataUserId];

    /// As it is configured.
    pub fn name(self) -> &'static str {
        match self {
            Field::PromptCacheKey => "prompt_cache_key",
            Field::Conversation => "conversation",
            Field::User => "user",
            Field::MetadataUserId => "metadata.user_id",
        }
    }

    fn digest_in(self, request: &InferenceRequest<'_>) -> Option<u64> {
        let names = &request.names;
        match self {
            Field::PromptCacheKey => digest_of_json(names.prompt_cache_key?),
            Field::User => digest_of_json(request.user?),
            Field::Conversation => digest_of(id_of(names.conversation?)?.as_bytes()),
            Field::MetadataUserId => digest_of_json(user_id_of(names.metadata?)?),
        }
    }
}

/// The name of a session, if it is known by one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The place of the source where it was found.
    order: usize,
    /// Distinguishes it from others.
    pub digest: u64,
}

impl Name {
    /// The first that headers have.
    pub fn in_headers(sources: &[Source], headers: &HeaderPairs) -> Option<Name> {
        sources.iter().enumerate().find_map(|(order, source)| {
            let digest = match source {
                Source::Header(name) => digest_of(&headers.value(name)?),
                Source::Cookie(name) => digest_of(cookie(&headers.value("cookie")?, name.as_bytes())?),
                Source::Body(_) => None,
            }?;
            Some(Name { order, digest })
        })
    }

    /// The first of all: the one in the body, unless the headers have one of a source that comes before.
    pub fn in_body(
        sources: &[Source],
        request: &InferenceRequest<'_>,
        in_headers: Option<Name>,
    ) -> Option<Name> {
        let before = in_headers.map_or(sources.len(), |name| name.order);
        let in_body = sources.iter().enumerate().take(before).find_map(|(order, source)| match source {
            Source::Body(field) => Some(Name { order, digest: field.digest_in(request)? }),
            Source::Header(_) | Source::Cookie(_) => None,
        });
        in_body.or(in_headers)
    }
}

/// The value of the cookie of this name.
fn cookie<'a>(cookies: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    // Several headers come with commas between.
    let mut pairs = cookies.split(|byte| matches!(byte, b';' | b',')).map(<[u8]>::trim_ascii);
    pairs.find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))
}

/// That of a JSON string, as it is written.
fn digest_of_json(json: &str) -> Option<u64> {
    digest_of(json.strip_prefix('"')?.strip_suffix('"')?.as_bytes())
}

fn digest_of(name: &[u8]) -> Option<u64> {
    (!name.is_empty()).then(|| digest(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::read_request;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn sources() -> Vec<Source> {
        let mut sources = vec![
            Source::Header("x-session-id".to_owned()),
            Source::Body(Field::PromptCacheKey),
            Source::Cookie("sid".to_owned()),
        ];
        sources.extend(Field::ALL.map(Source::Body));
        sources
    }

    /// The session of a request with these headers and these fields is the one of this name.
    fn check(headers: &[(&str, &str)], fields: &str, expected: Option<&str>) {
        let body = format!(r#"{{"model":"m","prompt":"a"{fields}}}"#);
        let request = read_request(body.as_bytes()).unwrap();
        let in_headers = Name::in_headers(&sources(), &HeaderPairs::of(headers));
        let found = Name::in_body(&sources(), &request, in_headers);
        let expected = expected.map(|name| digest(name.as_bytes()));
        assert_eq!(found.map(|name| name.digest), expected, "{headers:?} {fields:.100}");
    }

    #[test]
    fn the_first_source_that_has_a_name_counts() {
        let (header, cookie) = (("x-session-id", "one"), ("cookie", "a=b; sid=two; sidx=three"));
        let key = r#","prompt_cache_key":"four""#;
        check(&[header, cookie], key, Some("one"));
        check(&[cookie], key, Some("four"));
        check(&[cookie], "", Some("two"));
        check(&[("x-session-id", ""), ("cookie", "sidx=1")], "", None);
        check(&[], r#","conversation":"c","user":"u""#, Some("c"));
        check(&[], r#","conversation":{"id":"c"},"user":"u""#, Some("c"));
        check(&[], r#","conversation":{},"user":"u""#, Some("u"));
        check(
            &[],
            r#","metadata":{"user_id":"user_1_session_2","x":{"user_id":7}}"#,
            Some("user_1_session_2"),
        );
    }

    #[test]
    fn what_is_no_text_names_none() {
        for fields in [
            r#","prompt_cache_key":7"#,
            r#","prompt_cache_key":"""#,
            r#","user":{"id":"x"}"#,
            r#","metadata":"user_id""#,
            r#","metadata":{"user_id":null}"#,
            r#","conversation":null"#,
        ] {
            check(&[], fields, None);
        }
    }

    #[test]
    fn long_names_are_distinguished_by_both_ends() {
        let long = |end: &str| format!("{}{end}", "a".repeat(4_096));
        check(&[("x-session-id", &long("b"))], "", Some(&long("b")));
        assert_ne!(digest(long("b").as_bytes()), digest(long("c").as_bytes()));
        check(&[], &format!(r#","user":"{}""#, long("b")), Some(&long("b")));
    }
}
