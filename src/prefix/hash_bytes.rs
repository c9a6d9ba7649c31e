//! Hashes as bytes, for serde: four to a hash, the least significant first. All their bits count, so that numbers of as many
//! bytes as they need would be longer, and each byte of them a step.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

const HASH_BYTES: usize = size_of::<u32>();

pub fn serialize<S: Serializer>(hashes: &[u32], serializer: S) -> Result<S::Ok, S::Error> {
    let bytes: Vec<[u8; HASH_BYTES]> = hashes.iter().map(|hash| hash.to_le_bytes()).collect();
    serializer.serialize_bytes(bytes.as_flattened())
}

/// Refuses a number of bytes that is that of no hashes.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u32>, D::Error> {
    let bytes = <&[u8]>::deserialize(deserializer)?;
    let (hashes, rest) = bytes.as_chunks::<HASH_BYTES>();
    if !rest.is_empty() {
        return Err(D::Error::invalid_length(bytes.len(), &"four bytes for each hash"));
    }
    Ok(hashes.iter().map(|hash| u32::from_le_bytes(*hash)).collect())
}

#[cfg(test)]
mod tests {
    use serde::Serialize;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Hashes(#[serde(with = "super")] Vec<u32>);

    #[test]
    fn hashes_come_back_as_they_were_and_take_four_bytes_each() {
        for hashes in [vec![], vec![1], vec![u32::MAX, 0, 0x0102_0304], vec![7; 1_000]] {
            let hashes = Hashes(hashes);
            let bytes = postcard::to_stdvec(&hashes).unwrap();
            assert!(bytes.len() <= HASH_BYTES * hashes.0.len() + 2, "{hashes:?}: {bytes:?}");
            assert_eq!(postcard::from_bytes(&bytes), Ok(hashes));
        }
    }

    #[test]
    fn bytes_that_are_no_hashes_are_refused() {
        for count in [1, 3, 5] {
            let bytes = postcard::to_stdvec(&vec![1_u8; count]).unwrap();
            assert!(postcard::from_bytes::<Hashes>(&bytes).is_err(), "{count} bytes");
        }
    }
}
