//! One hash of bytes that is the same in every worker, on every machine and after every start.

/// FNV-1a with 64 bits (Fowler, Noll and Vo; offset basis and prime as they published them), and the finishing mix of
/// MurmurHash3 behind it, because FNV's high bits depend little on the last bytes.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(hash)
}

/// The finishing mix of MurmurHash3 (Austin Appleby): every bit of the result depends on every bit of `hash`.
pub fn mix(hash: u64) -> u64 {
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}
