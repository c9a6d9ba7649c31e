//! What is kept of a request for when Envoy sends it once more: an internal redirect begins it anew, with the body as the
//! plugin has changed it. It is kept with the stream, in Envoy's filter state, where no client can write.
//!
//! Its bytes: `1` or `0` for whether the usage is to be hidden, the places of its own pool and of the one that serves it, each
//! with a `;` behind it, then the model.

/// What the first pass of a request has decided and its body does not show any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstPass {
    /// The model that the client asked for; empty where it named none.
    pub model: String,
    /// Whether the usage was asked for on the client's behalf.
    pub hides_usage: bool,
    /// The place of its own pool.
    pub own_pool: usize,
    /// The place of the pool for which it was changed: another one's, where it has fallen back.
    pub pool: usize,
}

impl FirstPass {
    /// The bytes that are kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let FirstPass { model, hides_usage, own_pool, pool } = self;
        format!("{}{own_pool};{pool};{model}", u8::from(*hides_usage)).into_bytes()
    }

    /// What [`FirstPass::to_bytes`] has written.
    pub fn from_bytes(bytes: &[u8]) -> Option<FirstPass> {
        let (hides_usage, rest) = bytes.split_first()?;
        let hides_usage = match hides_usage {
            b'0' => false,
            b'1' => true,
            _ => return None,
        };
        let (own_pool, rest) = str::from_utf8(rest).ok()?.split_once(';')?;
        let (pool, model) = rest.split_once(';')?;
        let (own_pool, pool) = (own_pool.parse().ok()?, pool.parse().ok()?);
        Some(FirstPass { model: model.to_owned(), hides_usage, own_pool, pool })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else() {
        for (model, hides_usage, pool) in [("a/b;é", true, 255), ("", false, 0)] {
            let kept = FirstPass { model: model.to_owned(), hides_usage, own_pool: 1, pool };
            assert_eq!(FirstPass::from_bytes(&kept.to_bytes()), Some(kept));
        }
        for other in [&b""[..], b"20;0;m", b"m", b"10;0;\xff", b"1m", b"1;m", b"10;m", b"1-1;0;m"] {
            assert_eq!(FirstPass::from_bytes(other), None);
        }
    }
}
