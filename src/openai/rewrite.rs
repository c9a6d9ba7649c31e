//! Replaces the model's name in a body by span: every other byte stays as the client sent it.

use std::ops::Range;

/// The body with `model`, as a JSON string, in place of each span. The spans are in order and within the body, as
/// [`super::read_request`] gives them.
pub fn replace_model(body: &[u8], spans: &[Range<usize>], model: &str) -> Vec<u8> {
    let value = serde_json::Value::from(model).to_string();
    let mut rewritten = Vec::with_capacity(body.len() + spans.len() * value.len());
    let mut copied = 0;
    for span in spans {
        rewritten.extend(body.get(copied..span.start).unwrap_or_default());
        rewritten.extend(value.as_bytes());
        copied = span.end;
    }
    rewritten.extend(body.get(copied..).unwrap_or_default());
    rewritten
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::read_request;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(body: &str, model: &str, expected: &str) {
        let spans = read_request(body.as_bytes()).unwrap().model_spans;
        let rewritten = replace_model(body.as_bytes(), &spans, model);
        assert_eq!(String::from_utf8(rewritten).unwrap(), expected);
    }

    #[test]
    fn only_the_models_value_changes() {
        check(
            r#"{ "model" : "a" ,"x":1e400, "y":{"model":"a"}}"#,
            "longer",
            r#"{ "model" : "longer" ,"x":1e400, "y":{"model":"a"}}"#,
        );
        check(r#"{"model":"a","model":"b"}"#, "c", r#"{"model":"c","model":"c"}"#);
        check(r#"{"model":"\u0061"}"#, "q\"\n", r#"{"model":"q\"\n"}"#);
    }
}
