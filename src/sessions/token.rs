//! The token that a client holds in place of an entry in a table: it leads back to an endpoint in gateways that know nothing of
//! each other, and shows its holder nothing.
//!
//! ```text
//! token  = hexadecimal of: nonce (16 bytes) | sealed (18) | tag (16)
//! sealed = address (16 bytes, IPv4 as IPv6 maps it) and port (2) ⊕ HMAC-SHA256(key, "seal" | nonce | pool)
//! tag    = HMAC-SHA256(key, "tag" | nonce | sealed | pool)
//! ```
//!
//! So no client can make one or change one, two of the same endpoint have nothing in common, and one of another pool is none.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

const NONCE_BYTES: usize = 16;
const ADDRESS_BYTES: usize = 16;
const SEALED_BYTES: usize = ADDRESS_BYTES + 2;
const TAG_BYTES: usize = 16;
const TOKEN_BYTES: usize = NONCE_BYTES + SEALED_BYTES + TAG_BYTES;

/// What all gateways seal tokens with. It is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenKey(Vec<u8>);

impl fmt::Debug for TokenKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("TokenKey")
    }
}

impl TokenKey {
    /// A key that somebody has made up at random.
    pub fn new(text: &str) -> TokenKey {
        TokenKey(text.as_bytes().to_vec())
    }

    /// A token for an endpoint of the pool of this name. `nonce` is to be drawn at random for each.
    pub fn seal(&self, pool: &str, endpoint: SocketAddr, nonce: u128) -> Option<String> {
        let nonce = nonce.to_le_bytes();
        let (ip, port) = (to_v6(endpoint.ip()).octets(), endpoint.port().to_be_bytes());
        let plain = ip.into_iter().chain(port);
        let sealed: Vec<u8> = plain
            .zip(self.mac(&[b"seal", &nonce, pool.as_bytes()])?)
            .map(|(byte, mask)| byte ^ mask)
            .collect();
        let tag = self.mac(&[b"tag", &nonce, &sealed, pool.as_bytes()])?;
        let tag = tag.get(..TAG_BYTES)?;
        Some(to_hex([&nonce, sealed.as_slice(), tag].concat()))
    }

    /// The endpoint that a token of this pool is for; `None` for whatever no gateway with this key has sealed.
    pub fn open(&self, pool: &str, token: &[u8]) -> Option<SocketAddr> {
        let token = from_hex(token)?;
        let (nonce, rest) = token.split_first_chunk::<NONCE_BYTES>()?;
        let (sealed, tag) = rest.split_at_checked(SEALED_BYTES)?;
        let expected = self.mac(&[b"tag", nonce, sealed, pool.as_bytes()])?;
        if !is_same(expected.get(..TAG_BYTES)?, tag) {
            return None;
        }
        let mask = self.mac(&[b"seal", nonce, pool.as_bytes()])?;
        let plain: Vec<u8> = sealed.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect();
        let (ip, port) = plain.split_first_chunk::<ADDRESS_BYTES>()?;
        let ip = Ipv6Addr::from(*ip).to_canonical();
        Some(SocketAddr::new(ip, u16::from_be_bytes(port.try_into().ok()?)))
    }

    fn mac(&self, parts: &[&[u8]]) -> Option<[u8; 32]> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        parts.iter().for_each(|part| mac.update(part));
        Some(mac.finalize().into_bytes().into())
    }
}

/// Whether both are the same, in a time that does not show where they differ.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |all, (one, other)| all | (one ^ other)) == 0
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

fn to_hex(bytes: Vec<u8>) -> String {
    let digits = bytes.into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let (pairs, []) = text.as_chunks::<2>() else { return None };
    let digit = |letter: u8| char::from(letter).to_digit(16);
    let bytes = pairs.iter().map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok());
    if pairs.len() == TOKEN_BYTES { bytes.collect() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn key() -> TokenKey {
        TokenKey::new("0123456789abcdef0123456789abcdef")
    }

    fn endpoints() -> [SocketAddr; 3] {
        ["10.0.0.1:8000", "[2001:db8::7]:65535", "0.0.0.0:1"].map(|text| text.parse().unwrap())
    }

    #[test]
    fn what_was_sealed_is_opened_by_whoever_has_the_key() {
        for (nonce, endpoint) in (0_u128..).zip(endpoints()) {
            let token = key().seal("p", endpoint, nonce).unwrap();
            assert_eq!(key().open("p", token.as_bytes()), Some(endpoint));
            assert_eq!(key().open("q", token.as_bytes()), None, "another pool's");
            assert_eq!(TokenKey::new("another").open("p", token.as_bytes()), None, "another key's");
        }
    }

    #[test]
    fn a_token_reveals_nothing_of_its_endpoint() {
        let [endpoint, ..] = endpoints();
        let tokens: Vec<String> =
            (0..100).map(|nonce| key().seal("p", endpoint, nonce << 64).unwrap()).collect();
        let sealed = |token: &String| token[2 * NONCE_BYTES..].to_owned();
        let distinct: std::collections::HashSet<String> = tokens.iter().map(sealed).collect();
        assert_eq!(distinct.len(), tokens.len(), "two of the same endpoint have nothing in common");
        assert!(tokens.iter().all(|token| !token.contains("0a000001") && token.len() == 100));
        assert_eq!(format!("{:?}", key()), "TokenKey");
    }

    #[test]
    fn whatever_was_changed_is_no_token() {
        let token = key().seal("p", endpoints()[0], 7).unwrap();
        for place in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[place] = if changed[place] == b'0' { b'1' } else { b'0' };
            assert_eq!(key().open("p", &changed), None, "{place}");
            assert_eq!(key().open("p", &token.as_bytes()[..place]), None, "cut at {place}");
        }
        for other in
            [&b""[..], b"zz", &[b'a'; 4_096], "é".repeat(50).as_bytes(), &[token.as_bytes(), b"00"].concat()]
        {
            assert_eq!(key().open("p", other), None);
        }
    }
}
