//! Which API a request is for, by its path.

use std::borrow::Cow;

/// What is served at a path, as far as a gateway has to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's chat completions.
    Chat,
    /// OpenAI's completions.
    Completions,
    /// OpenAI's responses.
    Responses,
    /// Anthropic's messages.
    Messages,
    /// What servers generate by APIs of their own: llama.cpp's completions and infill, SGLang's, TGI's and vLLM's generate. They
    /// take a prompt under other names, know no options of streams, and need no model.
    OwnCompletions,
    /// An input is computed and nothing generated: embeddings, and vLLM's pooling and classify.
    Embeddings,
    /// Any other.
    Other,
}

/// How paths of the APIs end; any prefix may stand before them. The first that fits counts.
const ENDS: [(&str, Api); 12] = [
    ("/chat/completions", Api::Chat),
    ("/v1/completions", Api::Completions),
    ("/completions", Api::OwnCompletions),
    ("/completion", Api::OwnCompletions),
    ("/infill", Api::OwnCompletions),
    ("/generate", Api::OwnCompletions),
    ("/generate_stream", Api::OwnCompletions),
    ("/v1/responses", Api::Responses),
    ("/v1/messages", Api::Messages),
    ("/embeddings", Api::Embeddings),
    ("/pooling", Api::Embeddings),
    ("/classify", Api::Embeddings),
];

/// Without their version these are an API's whole paths only: other paths end so too (`/v1/threads/ID/messages`). TGI
/// generates at the root as well.
const WHOLE: [(&str, Api); 3] =
    [("/responses", Api::Responses), ("/messages", Api::Messages), ("", Api::OwnCompletions)];

impl Api {
    /// The API at a path, whatever its query; a slash may follow, and characters may be written by number.
    pub fn at(path: &[u8]) -> Api {
        let path = decoded(without_query(path));
        let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
        let path = path.get(..end).unwrap_or_default();
        let whole = WHOLE.iter().find(|(known, _)| path == known.as_bytes());
        let known = whole.or_else(|| ENDS.iter().find(|(known, _)| path.ends_with(known.as_bytes())));
        known.map_or(Api::Other, |(_, api)| *api)
    }

    /// Whether its requests carry a prompt that the model computes.
    pub fn has_prompt(self) -> bool {
        self != Api::Other
    }

    /// Whether its answers are generated.
    pub fn generates(self) -> bool {
        self.has_prompt() && self != Api::Embeddings
    }

    /// Whether it knows `stream_options`.
    pub fn has_stream_options(self) -> bool {
        matches!(self, Api::Chat | Api::Completions)
    }
}

/// A path without its query.
pub(super) fn without_query(path: &[u8]) -> &[u8] {
    path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default()
}

/// With the characters that are written by number (`%73`), as servers read paths.
pub(super) fn decoded(path: &[u8]) -> Cow<'_, [u8]> {
    if !path.contains(&b'%') {
        return Cow::Borrowed(path);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, tail)) = rest.split_first() {
        let number = (byte == b'%').then(|| tail.split_at_checked(2)).flatten();
        let number = number.and_then(|(digits, after)| {
            digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
            Some((u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?, after))
        });
        let (byte, after) = number.unwrap_or((byte, tail));
        decoded.push(byte);
        rest = after;
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(path: &str, api: Api) {
        assert_eq!(Api::at(path.as_bytes()), api, "{path}");
    }

    #[test]
    fn the_apis_are_known_under_any_prefix_with_a_slash_behind_and_a_query() {
        for (path, api) in ENDS {
            check(path, api);
            check(&format!("/team-a/llm{path}?api-version=1"), api);
            check(&format!("{path}//"), api);
        }
    }

    #[test]
    fn they_are_known_without_a_version() {
        check("/chat/completions", Api::Chat);
        check("/completions", Api::OwnCompletions);
        check("/responses/", Api::Responses);
        check("/messages", Api::Messages);
    }

    #[test]
    fn servers_own_apis_are_known() {
        for path in ["/", "/infill", "/generate", "/generate_stream/", "/inference/v1/generate"] {
            check(path, Api::OwnCompletions);
        }
    }

    #[test]
    fn they_are_known_by_what_servers_read() {
        check("/v1/chat%2Fcompletions", Api::Chat);
        check("/v1/chat/completion%73", Api::Chat);
        check("/%76%31/messages%2f", Api::Messages);
        for unfinished in ["/v1/messages%", "/v1/messages%zz", "/v1/message%+3", "/v1/message%7"] {
            check(unfinished, Api::Other);
        }
    }

    #[test]
    fn other_paths_are_other_apis() {
        for path in [
            "/v1/models",
            "/v1/generates",
            "/v1/images/generations",
            "/v1/messages/count_tokens",
            "/v1/threads/thread-1/messages",
            "/tokenize",
            "/v1/audio/transcriptions",
            "/v1/Completions",
            "/v1/x?y=/v1/completions",
            "/notcompletions",
        ] {
            check(path, Api::Other);
        }
    }
}
