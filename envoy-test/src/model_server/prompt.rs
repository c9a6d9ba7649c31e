//! From a request body to prompt tokens.
//!
//! The chat template puts the tools first, as real ones do, then each message as its role and its text. Parts of a
//! message that are no text count with their JSON, so that different images are different prompts.
//!
//! Claude Code begins its system prompt with a block that changes with every request. vLLM 0.32 leaves it out: the whole
//! block in `/v1/messages`, its first line in `/v1/chat/completions`.

use std::fmt::Write;

use serde_json::Value;

use super::tokens::tokens_of;

/// How a text begins that only says whom Claude Code works for.
const BILLING_HEADER: &str = "x-anthropic-billing-header";

/// The prompt of `/v1/chat/completions`.
pub fn of_chat(body: &Value) -> Option<Vec<u32>> {
    let messages = body.get("messages")?.as_array()?.iter();
    let turns = messages.map(|message| turn(role_of(message), message, after_billing_line));
    Some(chat_tokens(body, turns))
}

/// The prompt of `/v1/messages`.
pub fn of_messages(body: &Value) -> Option<Vec<u32>> {
    let messages = body.get("messages")?.as_array()?.iter();
    let system = body.get("system").map(|content| turn("system", content, unless_billing));
    let turns = messages.map(|message| turn(role_of(message), message, unless_billing));
    Some(chat_tokens(body, system.into_iter().chain(turns)))
}

/// The prompt of `/v1/responses`.
pub fn of_response_input(body: &Value) -> Option<Vec<u32>> {
    let turn = |role, content| turn(role, content, after_billing_line);
    let instructions = body.get("instructions").map(|content| turn("system", content));
    let input = match body.get("input")? {
        Value::Array(items) => items.iter().map(|item| turn(role_of(item), item)).collect(),
        text => vec![turn("user", text)],
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

/// A role and its text; of system prompts what `keep` leaves of each piece.
fn turn<'a>(role: &'a str, message: &Value, keep: fn(&str) -> &str) -> (&'a str, String) {
    (role, text_of(message, if role == "system" { keep } else { |text| text }))
}

fn unless_billing(text: &str) -> &str {
    if text.starts_with(BILLING_HEADER) { "" } else { text }
}

fn after_billing_line(text: &str) -> &str {
    let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
    if text.starts_with(BILLING_HEADER) { rest } else { text }
}

fn chat_tokens<'a>(body: &Value, turns: impl Iterator<Item = (&'a str, String)>) -> Vec<u32> {
    let mut text = String::new();
    if let Some(tools) = body.get("tools").filter(|tools| !tools.is_null()) {
        push_turn(&mut text, "tools", &tools.to_string());
    }
    for (role, content) in turns {
        push_turn(&mut text, role, &content);
    }
    text.push_str("<|assistant|>\n");
    tokens_of(text.as_bytes())
}

fn push_turn(text: &mut String, role: &str, content: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "<|{role}|>\n{content}");
}

/// The text of a message, or of its content.
fn text_of(message: &Value, keep: fn(&str) -> &str) -> String {
    match message.get("content").unwrap_or(message) {
        Value::String(text) => keep(text).to_owned(),
        Value::Array(parts) => parts.iter().map(|part| keep(&part_text(part)).to_owned()).collect(),
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
        let plain = of_chat(&json!({"messages": messages})).unwrap();
        let with_tools = of_chat(&json!({"messages": messages, "tools": [{"type": "function"}]})).unwrap();
        assert_ne!(plain[0..3], with_tools[0..3]);
    }

    #[test]
    fn equal_starts_of_conversations_give_equal_starts_of_tokens() {
        let first = json!({"role": "system", "content": "You are a helpful assistant."});
        let one = of_chat(&json!({"messages": [first, {"role": "user", "content": "One"}]})).unwrap();
        let two = of_chat(&json!({"messages": [first, {"role": "user", "content": "Two"}]})).unwrap();
        let shared = "<|system|>\nYou are a helpful assistant.\n<|user|>\n".len() / 4;
        assert_eq!(one[..shared], two[..shared]);
        assert_ne!(one, two);
    }

    #[test]
    fn a_message_of_text_parts_is_its_text() {
        let parts = json!([{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]);
        let split = of_chat(&json!({"messages": [{"role": "user", "content": parts}]}));
        assert_eq!(split, of_chat(&json!({"messages": [{"role": "user", "content": "Hello"}]})));
    }

    #[test]
    fn the_billing_header_of_a_system_prompt_is_left_out() {
        let block = |text: &str| json!({"type": "text", "text": text});
        let user = json!({"role": "user", "content": "Hello"});
        let messages = |header: &str| {
            let system = [block(&format!("x-anthropic-billing-header: {header}")), block("You are Claude.")];
            of_messages(&json!({"system": system, "messages": [user]})).unwrap()
        };
        assert_eq!(messages("cch=1"), messages("cch=2\nfor nobody"));
        let chat = |system: &str| {
            of_chat(&json!({"messages": [{"role": "system", "content": system}, user]})).unwrap()
        };
        assert_eq!(chat("x-anthropic-billing-header: cch=1\nYou are Claude."), chat("You are Claude."));
        assert_ne!(
            chat("Not x-anthropic-billing-header: cch=1"),
            chat("Not x-anthropic-billing-header: cch=2")
        );
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
