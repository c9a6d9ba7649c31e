//! From a request body to prompt tokens.
//!
//! The chat template puts the tools first, as real ones do, then each message as its role and its text. Parts of a
//! message that are no text count with their JSON, so that different images are different prompts.

use std::fmt::Write;

use serde_json::Value;

use super::tokens::tokens_of;

/// The prompt of `/v1/chat/completions` and, with its `system` field, of `/v1/messages`.
pub fn of_messages(body: &Value) -> Option<Vec<u32>> {
    let messages = body.get("messages")?.as_array()?;
    let system = body.get("system").map(|content| ("system", content));
    let messages = messages.iter().map(|message| (role_of(message), message));
    Some(chat_tokens(body, system.into_iter().chain(messages)))
}

/// The prompt of `/v1/responses`.
pub fn of_response_input(body: &Value) -> Option<Vec<u32>> {
    let instructions = body.get("instructions").map(|content| ("system", content));
    let input = match body.get("input")? {
        Value::Array(items) => items.iter().map(|item| (role_of(item), item)).collect(),
        text => vec![("user", text)],
    };
    Some(chat_tokens(body, instructions.into_iter().chain(input)))
}

/// The prompts of `/v1/completions` and `/v1/embeddings`: a text, a list of token ids, or a list of either.
pub fn of_completion(prompt: &Value) -> Option<Vec<Vec<u32>>> {
    match prompt {
        Value::Array(items) if !items.iter().all(Value::is_number) => {
            items.iter().map(single_prompt).collect()
        }
        one => single_prompt(one).map(|prompt| vec![prompt]),
    }
}

fn single_prompt(prompt: &Value) -> Option<Vec<u32>> {
    match prompt {
        Value::String(text) => Some(tokens_of(text.as_bytes())),
        Value::Array(ids) => ids.iter().map(|id| u32::try_from(id.as_u64()?).ok()).collect(),
        _ => None,
    }
}

fn role_of(message: &Value) -> &str {
    message.get("role").and_then(Value::as_str).unwrap_or("user")
}

fn chat_tokens<'a>(body: &Value, messages: impl Iterator<Item = (&'a str, &'a Value)>) -> Vec<u32> {
    let mut text = String::new();
    if let Some(tools) = body.get("tools").filter(|tools| !tools.is_null()) {
        push_turn(&mut text, "tools", &tools.to_string());
    }
    for (role, message) in messages {
        push_turn(&mut text, role, &text_of(message));
    }
    text.push_str("<|assistant|>\n");
    tokens_of(text.as_bytes())
}

fn push_turn(text: &mut String, role: &str, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "<|{role}|>\n{content}");
}

/// The text of a message, or of its content.
fn text_of(message: &Value) -> String {
    match message.get("content").unwrap_or(message) {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(part_text).collect(),
        other => other.to_string(),
    }
}

fn part_text(part: &Value) -> String {
    part.get("text").and_then(Value::as_str).map_or_else(|| part.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tools_come_before_messages() {
        let messages = json!([{"role": "user", "content": "Hello"}]);
        let plain = of_messages(&json!({"messages": messages})).unwrap();
        let with_tools =
            of_messages(&json!({"messages": messages, "tools": [{"type": "function"}]})).unwrap();
        assert_ne!(plain[0..3], with_tools[0..3]);
    }

    #[test]
    fn equal_starts_of_conversations_give_equal_starts_of_tokens() {
        let first = json!({"role": "system", "content": "You are a helpful assistant."});
        let one = of_messages(&json!({"messages": [first, {"role": "user", "content": "One"}]})).unwrap();
        let two = of_messages(&json!({"messages": [first, {"role": "user", "content": "Two"}]})).unwrap();
        let shared = "<|system|>\nYou are a helpful assistant.\n<|user|>\n".len() / 4;
        assert_eq!(one[..shared], two[..shared]);
        assert_ne!(one, two);
    }

    #[test]
    fn a_message_of_text_parts_is_its_text() {
        let parts = json!([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]);
        let split = of_messages(&json!({"messages": [{"role": "user", "content": parts}]}));
        assert_eq!(split, of_messages(&json!({"messages": [{"role": "user", "content": "Hello"}]})));
    }

    #[test]
    fn completions_take_texts_token_ids_and_lists_of_either() {
        let cases = [
            (json!("12345678"), vec![tokens_of(b"12345678")]),
            (json!([7, 8, 9]), vec![vec![7, 8, 9]]),
            (json!([[7], [8, 9]]), vec![vec![7], vec![8, 9]]),
            (json!(["1234", "5678"]), vec![tokens_of(b"1234"), tokens_of(b"5678")]),
        ];
        for (prompt, tokens) in cases {
            assert_eq!(of_completion(&prompt), Some(tokens), "{prompt}");
        }
        assert_eq!(of_completion(&json!([1, "mixed"])), None);
    }
}
