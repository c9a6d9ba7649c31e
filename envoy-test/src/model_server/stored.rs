//! Responses that a server has stored, as vLLM 0.32 does in one process's memory with `VLLM_ENABLE_RESPONSES_API_STORE=1`:
//! one that it has not is 404, whether it is asked for, cancelled, or to be followed.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use hyper::{Response, StatusCode};
use serde_json::Value;

use super::answers::errors::ApiError;
use super::api::Api;
use super::response::{Body, json};

/// Where they are asked for.
const PATH: &str = "/v1/responses/";

/// The ids of all that are stored.
#[derive(Debug, Default)]
pub struct Stored(Mutex<HashSet<String>>);

impl Stored {
    /// Stores the response of this id, unless its request does not want it to be.
    pub fn add(&self, id: &str, request: &Value) {
        if request.get("store").and_then(Value::as_bool).unwrap_or(true) {
            self.ids().insert(id.to_owned());
        }
    }

    /// Whether the response that a request follows is here, if it follows one.
    pub fn check(&self, request: &Value) -> Result<(), ApiError> {
        match request.get("previous_response_id").and_then(Value::as_str) {
            Some(id) if !self.ids().contains(id) => Err(ApiError::no_such_response(id)),
            _ => Ok(()),
        }
    }

    /// Forgets all: the process is another.
    pub fn clear(&self) {
        self.ids().clear();
    }

    /// Answers a request for a stored response, or to cancel one; `None` for any other path.
    pub fn answer(&self, path: &str) -> Option<Response<Body>> {
        let named = path.strip_prefix(PATH)?;
        let id = named.strip_suffix("/cancel").unwrap_or(named);
        if !self.ids().contains(id) {
            let error = ApiError::no_such_response(id);
            return Some(json(error.status, error.body(Api::Responses)));
        }
        Some(json(StatusCode::OK, format!(r#"{{"id":"{id}","object":"response","status":"completed"}}"#)))
    }

    fn ids(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
