//! Changes a body by span: every byte outside of the spans stays as the client sent it.

use std::ops::Range;

use super::InferenceRequest;

/// What is put in place of a part of a body; an insertion where the span is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// Where that part stands.
    pub span: Range<usize>,
    /// What is put there.
    pub text: String,
}

/// Puts `model` in place of every model that the request names, as its body writes it.
pub fn model_edits(request: &InferenceRequest<'_>, model: &str) -> Vec<Edit> {
    let text = if request.is_form { model.to_owned() } else { serde_json::Value::from(model).to_string() };
    request.model_spans.iter().map(|span| Edit { span: span.clone(), text: text.clone() }).collect()
}

/// The body with every edit made. Their spans are within the body and do not overlap; their order does not matter.
pub fn apply_edits(body: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_by_key(|edit| edit.span.start);
    let added: usize = edits.iter().map(|edit| edit.text.len()).sum();
    let mut rewritten = Vec::with_capacity(body.len() + added);
    let mut copied = 0;
    for edit in &edits {
        rewritten.extend(body.get(copied..edit.span.start).unwrap_or_default());
        rewritten.extend(edit.text.as_bytes());
        copied = edit.span.end;
    }
    rewritten.extend(body.get(copied..).unwrap_or_default());
    rewritten
}

#[cfg(test)]
mod tests {
    use super::super::read_form;
    use super::*;
    use crate::openai::read_request;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(body: &str, model: &str, expected: &str) {
        let request = read_request(body.as_bytes()).unwrap();
        let rewritten = apply_edits(body.as_bytes(), model_edits(&request, model));
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
        check("\u{feff}{\"model\":\"a\"}", "b", "\u{feff}{\"model\":\"b\"}");
    }

    #[test]
    fn in_a_form_it_stands_as_it_is() {
        let form = |model: &str| {
            format!("--x\r\nContent-Disposition: form-data; name=model\r\n\r\n{model}\r\n--x--")
        };
        let body = form("a");
        let request = read_form(body.as_bytes(), b"x").unwrap();
        let rewritten = apply_edits(body.as_bytes(), model_edits(&request, "q\"é"));
        assert_eq!(String::from_utf8(rewritten).unwrap(), form("q\"é"));
    }

    #[test]
    fn edits_replace_insert_and_remove_in_any_order() {
        let edit = |span, text: &str| Edit { span, text: text.to_owned() };
        let edits = vec![edit(6..6, "!"), edit(2..4, "CDE"), edit(0..0, "_"), edit(4..5, "")];
        assert_eq!(apply_edits(b"abcdef", edits), b"_abCDEf!");
        assert_eq!(apply_edits(b"abcdef", vec![]), b"abcdef");
    }
}
