//! The list of models, as `GET /v1/models` gives it.

use serde::Serialize;

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Model<'a>>,
}

#[derive(Serialize)]
struct Model<'a> {
    id: &'a str,
    object: &'static str,
    /// Unknown here, but clients expect a number.
    created: u64,
    owned_by: &'static str,
}

/// Whether a GET of this path asks for the list of models.
pub fn is_model_list_path(path: &[u8]) -> bool {
    super::path::without_query(path).ends_with(b"/v1/models")
}

/// The list of these models.
pub fn list_models<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    let model = |id| Model { id, object: "model", created: 0, owned_by: "inference-picker" };
    let list = List { object: "list", data: names.map(model).collect() };
    serde_json::to_vec(&list).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn only_the_path_of_the_list_asks_for_it() {
        assert!(is_model_list_path(b"/team/v1/models?x=1"));
        assert!(!is_model_list_path(b"/v1/models/tiny"));
        assert!(!is_model_list_path(b"/v1/x?y=/v1/models"));
    }

    #[test]
    fn the_list_has_openais_form() {
        let list: serde_json::Value = serde_json::from_slice(&list_models(["a", "b\""].into_iter())).unwrap();
        assert_eq!(list["object"], "list");
        assert_eq!(list["data"][1]["id"], "b\"");
        assert_eq!(list["data"][0]["object"], "model");
    }
}
