//! Pages that a server, or what stands before it, compresses whatever it was asked for: gzip (RFC 1952), as one member.
//!
//! What inflates to more than [`MAX_PAGE_BYTES`] is refused as too large, whatever its size is said to be, and is inflated no
//! further than that. The length at the end must be the page's; the checksum is not looked at, as TCP has one.

use miniz_oxide::inflate::{TINFLStatus, decompress_to_vec_with_limit};

use super::{MAX_PAGE_BYTES, MetricsError};

/// How a gzip file begins, and its only method.
const MAGIC: &[u8] = &[0x1f, 0x8b, 8];
/// Bits of the flags, which say what stands before the data.
const HEADER_CHECKSUM: u8 = 2;
const EXTRA: u8 = 4;
const NAME: u8 = 8;
const COMMENT: u8 = 16;
/// Behind the data: the checksum, and the length.
const TRAILER_BYTES: usize = 8;

/// Whether the page is compressed. No other page begins so.
pub fn is_gzip(page: &[u8]) -> bool {
    page.starts_with(MAGIC)
}

/// The page as it was before it was compressed.
pub fn inflate(file: &[u8]) -> Result<Vec<u8>, MetricsError> {
    let (data, length) = parts(file).ok_or(MetricsError::BadGzip)?;
    match decompress_to_vec_with_limit(data, MAX_PAGE_BYTES) {
        Ok(page) if page.len() == length as usize => Ok(page),
        Err(error) if error.status == TINFLStatus::HasMoreOutput => {
            Err(MetricsError::TooLarge { bytes: length as usize })
        }
        _ => Err(MetricsError::BadGzip),
    }
}

/// The compressed data, and how long the page is said to be.
fn parts(file: &[u8]) -> Option<(&[u8], u32)> {
    let (&flags, rest) = file.strip_prefix(MAGIC)?.split_first()?;
    // The time, what was compressed how, and on which system.
    let mut rest = rest.get(6..)?;
    if flags & EXTRA != 0 {
        let (length, behind) = rest.split_first_chunk::<2>()?;
        rest = behind.get(u16::from_le_bytes(*length).into()..)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = memchr::memchr(0, rest)?;
            rest = rest.get(end + 1..)?;
        }
    }
    if flags & HEADER_CHECKSUM != 0 {
        rest = rest.get(2..)?;
    }
    let (data, trailer) = rest.split_at_checked(rest.len().checked_sub(TRAILER_BYTES)?)?;
    let length = trailer.last_chunk::<4>()?;
    Some((data, u32::from_le_bytes(*length)))
}

#[cfg(test)]
mod tests {
    use miniz_oxide::deflate::compress_to_vec;

    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// A file with this between its flags' ten bytes and the data.
    fn file(flags: u8, between: &[u8], page: &[u8], length: usize) -> Vec<u8> {
        let head = [0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 3];
        let length = (length as u32).to_le_bytes();
        [&head, between, &compress_to_vec(page, 6), &[0; 4], &length].concat()
    }

    #[test]
    fn a_page_is_what_it_was_whatever_its_file_says_of_itself() {
        let page = b"vllm:num_requests_waiting 5\n".repeat(2_000);
        for (flags, between) in [
            (0, &b""[..]),
            (NAME, b"metrics\0"),
            (COMMENT, b"\0"),
            (EXTRA, b"\x03\0abc"),
            (HEADER_CHECKSUM, b"xx"),
            (EXTRA | NAME | COMMENT | HEADER_CHECKSUM, b"\x01\0a\0c\0xx"),
        ] {
            let file = file(flags, between, &page, page.len());
            assert!(is_gzip(&file));
            assert_eq!(inflate(&file), Ok(page.clone()), "{flags}");
        }
    }

    #[test]
    fn a_file_that_is_cut_or_spoilt_is_no_page() {
        let page = b"vllm:num_requests_waiting 5\n".repeat(99);
        let whole = file(NAME, b"metrics\0", &page, page.len());
        for end in 0..whole.len() {
            assert_eq!(inflate(&whole[..end]), Err(MetricsError::BadGzip), "{end}");
        }
        assert_eq!(inflate(&file(0, b"", &page, page.len() + 1)), Err(MetricsError::BadGzip));
        assert_eq!(inflate(&file(NAME, b"", b"", 0)), Err(MetricsError::BadGzip));
    }

    #[test]
    fn a_small_file_does_not_become_a_large_page() {
        for bytes in [MAX_PAGE_BYTES + 1, 64 << 20] {
            let bomb = file(0, b"", &vec![b'\n'; bytes], bytes);
            assert!(bomb.len() < 128 << 10);
            assert_eq!(inflate(&bomb), Err(MetricsError::TooLarge { bytes }));
        }
        assert!(inflate(&file(0, b"", &vec![b'\n'; MAX_PAGE_BYTES], MAX_PAGE_BYTES)).is_ok());
    }
}
