//! The OpenAI API as far as a gateway must know it: which requests carry a prompt, what is in them, and what an
//! error looks like. The only module that knows these formats; it decides nothing.

mod answer;
mod content_type;
mod error;
mod json;
mod local_reply;
mod models;
mod not_found;
mod path;
mod request;
mod stored;

pub use answer::{AnswerFailure, AnswerFormat, AnswerReader, MAX_ID_BYTES, Usage};
pub use content_type::is_encoded;
pub use error::ApiError;
pub use local_reply::LocalReply;
pub use models::{is_model_list_path, list_models};
pub use not_found::NotFound;
pub use path::Api;
pub use request::{
    Edit, ExpectedBody, InferenceRequest, MAX_BOUNDARY_BYTES, MAX_MODEL_NAME_BYTES, Names, PromptParts,
    SMALL_REQUEST_TOKENS, apply_edits, include_usage, model_edits, read_request,
};
pub use stored::{Stored, id_of, input_file, named_in, user_id_of};
