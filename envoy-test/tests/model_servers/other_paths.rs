//! Paths beside those that generate: answered in their own shapes, and the model's name is noted as it came.

use super::*;

/// Every path with a JSON body, and where its answer names what was done.
const JSON_PATHS: [(&str, &str); 13] = [
    ("/v1/messages/count_tokens", "/input_tokens"),
    ("/tokenize", "/tokens"),
    ("/detokenize", "/prompt"),
    ("/rerank", "/results/0/relevance_score"),
    ("/v1/rerank", "/results/0/relevance_score"),
    ("/v2/rerank", "/results/0/relevance_score"),
    ("/score", "/data/0/score"),
    ("/v1/score", "/data/0/score"),
    ("/classify", "/data/0/label"),
    ("/pooling", "/data/0/data"),
    ("/v1/images/generations", "/data/0/b64_json"),
    ("/v1/embeddings", "/data/0/embedding"),
    ("/v1/completions", "/choices/0/text"),
];

fn body(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}], "input": "x", "prompt": "x", "tokens": [1]})
}

fn form(model: &str, model_first: bool) -> String {
    let model = format!("--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n");
    let file =
        "--x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n".to_owned();
    let parts = if model_first { [model, file] } else { [file, model] };
    format!("{}--x--\r\n", parts.concat())
}

async fn post_form(server: &ModelServer, path: &str, form: String) -> Response {
    let request = Request::post(path).header("content-type", "multipart/form-data; boundary=x").body(form);
    client_of(server).send(request).await.unwrap()
}

#[tokio::test]
async fn each_path_answers_in_its_shape_and_refuses_models_it_does_not_have() {
    let servers = quick();
    let server = servers.server(0);
    for (path, field) in JSON_PATHS {
        let answer = post(&server, path, &body("tiny")).await;
        let json = answer.json().unwrap();
        assert!(answer.status == 200 && json.pointer(field).is_some(), "{path}: {json}");
        let refused = post(&server, path, &body("alias")).await;
        assert_eq!(refused.status, 404, "{path}: {}", refused.text());
        let counters = server.counters();
        let seen = ["tiny", "alias"].map(|model| counters.requests_to_for(path, model));
        assert_eq!(seen, [1, 1], "{path}");
    }
    let speech = post(&server, "/v1/audio/speech", &body("tiny")).await;
    assert_eq!((speech.status, speech.header("content-type")), (200, Some("audio/wav")));
}

#[tokio::test]
async fn a_form_names_its_model_before_or_behind_the_file_or_not_at_all() {
    let servers = quick();
    let server = servers.server(0);
    for path in ["/v1/audio/transcriptions", "/v1/audio/translations"] {
        for model_first in [true, false] {
            let answer = post_form(&server, path, form("tiny", model_first)).await;
            assert!(answer.json().unwrap()["text"].is_string(), "{path}");
            assert_eq!(post_form(&server, path, form("alias", model_first)).await.status, 404, "{path}");
        }
        assert_eq!(server.counters().requests_to_for(path, "tiny"), 2, "{path}");
        let without = "--x\r\ncontent-disposition: form-data; name=\"file\"\r\n\r\nRIFF\r\n--x--\r\n";
        assert_eq!(post_form(&server, path, without.to_owned()).await.status, 200, "{path}");
    }
}

#[tokio::test]
async fn a_path_that_is_not_served_notes_the_model_too() {
    let servers = quick();
    let server = servers.server(0);
    for path in ["/v1/moderations", "/chat/completions"] {
        assert_eq!(post(&server, path, &body("tiny")).await.status, 404, "{path}");
        assert_eq!(server.counters().requests_to_for(path, "tiny"), 1, "{path}");
    }
}
