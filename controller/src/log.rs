//! A line of JSON for each thing that happens, on standard error.

use std::io::Write;

use serde_json::{Map, Value, json};

/// How much a line matters.
#[derive(Debug, Clone, Copy)]
pub enum Level {
    /// As it should be.
    Info,
    /// Somebody should look.
    Warn,
}

/// Writes a line: `fields` is an object.
pub fn log(level: Level, message: &str, fields: Value) {
    let mut line = Map::new();
    let level = match level {
        Level::Info => "info",
        Level::Warn => "warn",
    };
    line.insert("time".to_owned(), json!(k8s_openapi::jiff::Timestamp::now().to_string()));
    line.insert("level".to_owned(), json!(level));
    line.insert("message".to_owned(), json!(message));
    line.extend(fields.as_object().cloned().unwrap_or_default());
    // There is nothing to be done where not even this can be said.
    let _ = writeln!(std::io::stderr(), "{}", Value::Object(line));
}
