//! Forms with files: as much of `multipart/form-data` as clients of transcriptions send.

use serde_json::{Map, Value};

/// The boundary that a content type names.
pub fn boundary(content_type: &str) -> Option<&str> {
    let parameters = content_type.strip_prefix("multipart/form-data")?;
    let boundary = parameters.split(';').find_map(|parameter| parameter.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"'))
}

/// The fields that are text, by name. Files are left out.
pub fn fields(body: &[u8], boundary: &str) -> Value {
    let text = String::from_utf8_lossy(body);
    let delimiter = format!("--{boundary}");
    let fields: Map<String, Value> = text.split(&*delimiter).filter_map(field).collect();
    Value::Object(fields)
}

fn field(part: &str) -> Option<(String, Value)> {
    let (head, content) = part.split_once("\r\n\r\n")?;
    let content = content.strip_suffix("\r\n")?;
    let is_file = head.contains("filename=");
    let name = head.split_once(" name=\"")?.1.split('"').next()?;
    (!is_file).then(|| (name.to_owned(), content.into()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_are_read_before_and_behind_a_file() {
        let body = "--x\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\ntiny\r\n\
            --x\r\ncontent-disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\nRIFF\r\n\
            --x\r\ncontent-disposition: form-data; name=\"language\"\r\n\r\nen\r\n--x--\r\n";
        let boundary = boundary("multipart/form-data; boundary=\"x\"").unwrap();
        assert_eq!(fields(body.as_bytes(), boundary), json!({"model": "tiny", "language": "en"}));
    }

    #[test]
    fn other_types_have_no_boundary() {
        assert_eq!(boundary("application/json"), None);
    }
}
