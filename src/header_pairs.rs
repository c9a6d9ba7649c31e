//! A list of headers in the form of the proxy-wasm ABI: the count, the sizes of every name and value, then the texts, each
//! ended by a zero byte; numbers are 32 bits, little-endian.
//!
//! All headers come in one call of the host. One call for each costs more from the second on: what a call returns needs
//! room, for which the host calls back.

use std::borrow::Cow;

/// The bytes of a size, or of the count.
const NUMBER_BYTES: usize = 4;

/// The headers of a request or an answer. Whatever is no such list ends it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct HeaderPairs {
    bytes: Vec<u8>,
    /// In their order: each is asked for a dozen times.
    places: Vec<Place>,
}

/// Where a header stands in the bytes: its name, and its value one byte behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    name: usize,
    name_bytes: usize,
    value_bytes: usize,
}

impl HeaderPairs {
    /// A list as the host hands it over.
    pub fn new(bytes: Vec<u8>) -> HeaderPairs {
        let places = places(&bytes);
        HeaderPairs { bytes, places }
    }

    /// The list of these names and values.
    pub fn of(headers: &[(&str, &str)]) -> HeaderPairs {
        let mut bytes = (headers.len() as u32).to_le_bytes().to_vec();
        for (name, value) in headers {
            bytes.extend((name.len() as u32).to_le_bytes());
            bytes.extend((value.len() as u32).to_le_bytes());
        }
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            bytes.extend(text.as_bytes());
            bytes.push(0);
        }
        HeaderPairs::new(bytes)
    }

    /// The list as the host wants it.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The value of the header of this name, which is in small letters; of several, all, with commas between.
    pub fn value(&self, name: &str) -> Option<Cow<'_, [u8]>> {
        let mut values = self.places.iter().filter(|place| place.name_bytes == name.len());
        let mut next = || values.by_ref().find_map(|place| self.value_at(place, name.as_bytes()));
        let mut all = Cow::Borrowed(next()?);
        while let Some(value) = next() {
            all = Cow::Owned([&all, value].join(&b','));
        }
        Some(all)
    }

    /// Whether the connection is to become another protocol's, as Envoy sees it: what follows such headers is no body and
    /// has no end. Envoy shows a WebSocket over HTTP/2 (extended CONNECT) in this form, too.
    pub fn ask_for_upgrade(&self) -> bool {
        let is_upgrade = |token: &[u8]| token.trim_ascii().eq_ignore_ascii_case(b"upgrade");
        self.value("upgrade").is_some_and(|protocol| !protocol.is_empty())
            && self
                .value("connection")
                .is_some_and(|tokens| tokens.split(|byte| *byte == b',').any(is_upgrade))
    }

    /// The value of the header that stands here, if that is its name.
    fn value_at(&self, place: &Place, name: &[u8]) -> Option<&[u8]> {
        let behind = place.name + place.name_bytes;
        self.bytes.get(place.name..behind).filter(|own| *own == name)?;
        self.bytes.get(behind + 1..behind + 1 + place.value_bytes)
    }
}

/// Where the headers stand that are there whole.
fn places(bytes: &[u8]) -> Vec<Place> {
    let count = number(bytes).unwrap_or(0);
    let sizes = bytes.get(NUMBER_BYTES..).unwrap_or_default();
    let sizes_bytes = count.checked_mul(2 * NUMBER_BYTES).filter(|size| *size <= sizes.len()).unwrap_or(0);
    let mut end = NUMBER_BYTES + sizes_bytes;
    let sizes = sizes.get(..sizes_bytes).unwrap_or_default();
    let places = sizes.chunks_exact(2 * NUMBER_BYTES).map_while(|sizes| {
        let (name_bytes, value_bytes) = (number(sizes)?, number(sizes.get(NUMBER_BYTES..)?)?);
        let name = end;
        // A zero byte ends each.
        end = name.checked_add(name_bytes)?.checked_add(value_bytes)?.checked_add(2)?;
        (end <= bytes.len()).then_some(Place { name, name_bytes, value_bytes })
    });
    places.collect()
}

fn number(bytes: &[u8]) -> Option<usize> {
    bytes.first_chunk().map(|bytes| u32::from_le_bytes(*bytes) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn check(pairs: &HeaderPairs, name: &str, expected: Option<&str>) {
        assert_eq!(pairs.value(name).as_deref(), expected.map(str::as_bytes), "{name} in {pairs:?}");
    }

    #[test]
    fn a_header_is_found_by_its_name() {
        let pairs = HeaderPairs::of(&[(":path", "/v1"), ("x-empty", ""), ("content-type", "text/plain")]);
        check(&pairs, ":path", Some("/v1"));
        check(&pairs, "x-empty", Some(""));
        check(&pairs, "content-type", Some("text/plain"));
        check(&pairs, "path", None);
        check(&HeaderPairs::default(), ":path", None);
    }

    #[test]
    fn of_several_of_one_name_all_values_are_given() {
        let pairs = HeaderPairs::of(&[("te", "gzip"), ("a", "b"), ("te", "identity"), ("te", "")]);
        check(&pairs, "te", Some("gzip,identity,"));
    }

    #[test]
    fn an_upgrade_is_asked_for_by_two_headers() {
        let asked = |headers: &[(&str, &str)]| HeaderPairs::of(headers).ask_for_upgrade();
        assert!(asked(&[("connection", "Upgrade"), ("upgrade", "websocket")]));
        assert!(asked(&[("connection", "keep-alive , UPGRADE"), ("upgrade", "x")]));
        assert!(asked(&[("connection", "keep-alive"), ("connection", "upgrade"), ("upgrade", "websocket")]));
        assert!(!asked(&[("upgrade", "websocket")]));
        assert!(!asked(&[("connection", "upgrade")]));
        assert!(!asked(&[("connection", "upgrade"), ("upgrade", "")]));
        assert!(!asked(&[("connection", "upgrades"), ("upgrade", "websocket")]));
    }

    #[test]
    fn what_is_cut_or_lies_about_its_sizes_ends_the_list() {
        let pairs = HeaderPairs::of(&[("a", "b"), ("c", "d")]);
        for size in 0..pairs.bytes.len() {
            let cut = HeaderPairs::new(pairs.bytes[..size].to_vec());
            assert_eq!(cut.value("c"), None, "{size} bytes");
        }
        for place in 0..4 + 16 {
            let mut bytes = pairs.bytes.clone();
            bytes[place] = 0xff;
            assert!(HeaderPairs::new(bytes).places.len() <= 2, "byte {place}");
        }
    }
}
