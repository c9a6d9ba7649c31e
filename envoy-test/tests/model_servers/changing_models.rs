//! Models that come and go, and requests that name none.

use super::*;

fn chat(model: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1})
}

#[tokio::test]
async fn a_server_with_another_model_answers_404_for_the_one_it_had() {
    let servers = quick();
    let server = servers.server(0);
    server.set(|knobs| knobs.served_models = Some(vec!["small".to_owned()]));
    let answer = post(&server, CHAT, &chat("tiny")).await;
    let expected = r#"{"error":{"message":"The model `tiny` does not exist. Valid aliases: small.","type":"NotFoundError","param":"model","code":404}}"#;
    assert_eq!((answer.status, &*answer.text()), (404, expected));
    assert_eq!(post(&server, CHAT, &chat("small")).await.json().unwrap()["model"], "small");
    assert!(server.metrics_page().contains(r#"model_name="small""#));
    server.set(|knobs| knobs.served_models = None);
    assert_eq!(post(&server, CHAT, &chat("tiny")).await.status, 200);
}

#[tokio::test]
async fn adapters_are_loaded_and_unloaded_at_runtime() {
    let servers = quick();
    let server = servers.server(0);
    let name = json!({"lora_name": "lora-c", "lora_path": "/adapters/lora-c"});
    assert_eq!(post(&server, CHAT, &chat("lora-c")).await.status, 404);
    let loaded = post(&server, "/v1/load_lora_adapter", &name).await;
    assert_eq!((loaded.status, &*loaded.text()), (200, "Success: LoRA adapter 'lora-c' added successfully."));
    assert_eq!(post(&server, "/v1/load_lora_adapter", &name).await.status, 400);
    assert_eq!(post(&server, CHAT, &chat("lora-c")).await.status, 200);
    let listed = get(&server, "/v1/models").await.text();
    assert!(listed.contains("lora-a") && listed.contains("lora-c"), "{listed}");
    let unloaded = post(&server, "/v1/unload_lora_adapter", &name).await;
    assert_eq!(
        (unloaded.status, &*unloaded.text()),
        (200, "Success: LoRA adapter 'lora-c' removed successfully.")
    );
    assert_eq!(post(&server, CHAT, &chat("lora-c")).await.status, 404);
    assert_eq!(post(&server, "/v1/unload_lora_adapter", &name).await.status, 404);
}

#[tokio::test]
async fn only_messages_need_a_model() {
    let servers = quick();
    let server = servers.server(0);
    let without = json!({"messages": [{"role": "user", "content": "Hello"}], "prompt": "x", "input": "x", "max_tokens": 1});
    for model in [None, Some(Value::Null), Some(json!(""))] {
        let mut body = without.clone();
        if let Some(model) = &model {
            body["model"] = model.clone();
        }
        for (path, status) in [(CHAT, 200), (COMPLETIONS, 200), (RESPONSES, 200), (MESSAGES, 400)] {
            assert_eq!(post(&server, path, &body).await.status, status, "{path}: {model:?}");
        }
    }
    assert_eq!(server.counters().requests_for(""), 12);
}
