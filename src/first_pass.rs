//! What is kept of a request for when Envoy sends it once more: an internal redirect begins it anew, with the body as the
//! plugin has changed it. It is kept with the stream, in Envoy's filter state, where no client can write.
//!
//! Its bytes: `1` or `0` for whether the usage is to be hidden, then the model.

/// What the first pass of a request has decided and its body does not show any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstPass {
    /// The model that the client asked for; empty where it named none.
    pub model: String,
    /// Whether the usage was asked for on the client's behalf.
    pub hides_usage: bool,
}

impl FirstPass {
    /// The bytes that are kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        [if self.hides_usage { b"1" } else { b"0" }, self.model.as_bytes()].concat()
    }

    /// What [`FirstPass::to_bytes`] has written.
    pub fn from_bytes(bytes: &[u8]) -> Option<FirstPass> {
        let (hides_usage, model) = bytes.split_first()?;
        let hides_usage = match hides_usage {
            b'0' => false,
            b'1' => true,
            _ => return None,
        };
        Some(FirstPass { model: str::from_utf8(model).ok()?.to_owned(), hides_usage })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else() {
        for (model, hides_usage) in [("a/b é", true), ("", false)] {
            let kept = FirstPass { model: model.to_owned(), hides_usage };
            assert_eq!(FirstPass::from_bytes(&kept.to_bytes()), Some(kept));
        }
        for other in [&b""[..], b"2m", b"m", b"1\xff"] {
            assert_eq!(FirstPass::from_bytes(other), None);
        }
    }
}
