//! What is kept of a request for when Envoy sends it once more. An internal redirect begins it anew, and so does Envoy's filter for
//! custom responses, for a fallback; both with the body as the plugin has changed it. It is kept with the stream, in Envoy's filter
//! state, where no client can write.
//!
//! Its bytes: `1` or `0` for each of whether the usage is to be hidden, whether its endpoint was asked for its load, and whether it
//! was sent; the places of its own pool and of the one that served it; how long the host's name and the path are, which are 0 for a
//! redirect; each of these numbers with a `;` behind it; then the host's name, the path and the model.

/// How many of its bytes are flags.
const FLAGS: usize = 3;

/// What the first pass of a request has decided and its body does not show any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstPass {
    /// The model that the client asked for; empty where it named none.
    pub model: String,
    /// Whether the usage was asked for on the client's behalf.
    pub hides_usage: bool,
    /// Whether its endpoint was asked for its load on nobody's behalf but the plugin's.
    pub asks_for_load: bool,
    /// Whether it was sent to an endpoint before it was begun anew, and so was counted as sent.
    pub was_sent: bool,
    /// The place of its own pool.
    pub own_pool: usize,
    /// The place of the pool for which it was changed: another one's, where it has fallen back.
    pub pool: usize,
    /// What its headers were, if another pool is to serve it now than the one at `pool`.
    pub head: Option<Head>,
}

/// What Envoy's filter for custom responses changes in the headers of a request that it begins anew; the method was POST.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// `:authority`
    pub authority: String,
    /// `:path`
    pub path: String,
}

impl FirstPass {
    /// The bytes that are kept.
    pub fn to_bytes(&self) -> Vec<u8> {
        let FirstPass { model, hides_usage, asks_for_load, was_sent, own_pool, pool, head } = self;
        let (authority, path) = head.as_ref().map_or(("", ""), |head| (&head.authority, &head.path));
        let flags = [hides_usage, asks_for_load, was_sent].map(|flag| if *flag { '1' } else { '0' });
        let lengths = format!("{};{};", authority.len(), path.len());
        let numbers = format!("{own_pool};{pool};{lengths}");
        (String::from_iter(flags) + &numbers + authority + path + model).into_bytes()
    }

    /// What [`FirstPass::to_bytes`] has written.
    pub fn from_bytes(bytes: &[u8]) -> Option<FirstPass> {
        let (flags, rest) = bytes.split_first_chunk::<FLAGS>()?;
        if !flags.iter().all(|flag| matches!(flag, b'0' | b'1')) {
            return None;
        }
        let [hides_usage, asks_for_load, was_sent] = flags.map(|flag| flag == b'1');
        let mut rest = str::from_utf8(rest).ok()?;
        let mut number = || {
            let (number, behind) = rest.split_once(';')?;
            rest = behind;
            number.parse::<usize>().ok()
        };
        let (own_pool, pool) = (number()?, number()?);
        let (authority_len, path_len) = (number()?, number()?);
        let (authority, rest) = rest.split_at_checked(authority_len)?;
        let (path, model) = rest.split_at_checked(path_len)?;
        let head = Head { authority: authority.to_owned(), path: path.to_owned() };
        let head = Some(head).filter(|head| !head.path.is_empty());
        Some(FirstPass {
            model: model.to_owned(),
            hides_usage,
            asks_for_load,
            was_sent,
            own_pool,
            pool,
            head,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn what_is_kept_is_found_again_and_nothing_else() {
        let head =
            Head { authority: "models;example".to_owned(), path: "/v1/chat/completions?é;".to_owned() };
        for (model, [hides_usage, asks_for_load, was_sent], pool, head) in [
            ("a/b;é", [true, false, false], 255, None),
            ("", [false, true, false], 0, Some(head.clone())),
            ("m", [false, false, true], 1, Some(head)),
        ] {
            let model = model.to_owned();
            let kept = FirstPass { model, hides_usage, asks_for_load, was_sent, own_pool: 1, pool, head };
            assert_eq!(FirstPass::from_bytes(&kept.to_bytes()), Some(kept));
        }
        for other in [
            &b""[..],
            b"2000;0;0;0;m",
            b"0020;0;0;0;m",
            b"m",
            b"1000;0;0;0;\xff",
            b"100m",
            b"100;m",
            b"1000;m",
            b"1000;0;m",
            b"100-1;0;0;0;m",
            b"1000;0;9;0;m",
            b"1000;0;0;99999999999999999999;m",
            "1000;0;1;0;é".as_bytes(),
        ] {
            assert_eq!(FirstPass::from_bytes(other), None);
        }
    }
}
