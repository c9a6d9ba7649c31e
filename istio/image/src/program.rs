//! The controller as the only file of an image: a program for Linux (ELF, 64 bits, little-endian) that loads nothing else.

use anyhow::{Result, bail};
use serde_json::json;

use crate::Contents;

/// Its name in the image.
const NAME: &str = "inference-picker-controller";
/// Everybody may run it.
const MODE: u32 = 0o755;
/// Who runs it, unless the pod says otherwise: nobody in particular.
const USER: &str = "65532:65532";
/// What a program of this kind begins with.
const MAGIC: &[u8] = b"\x7fELF\x02\x01";
/// Where its header says for which processor it is, where its segments are listed, the size of an entry and their number.
const MACHINE: usize = 18;
const LIST: usize = 32;
const ENTRY_SIZE: usize = 54;
const ENTRIES: usize = 56;
/// A segment of this kind names the loader of shared libraries.
const LOADER: u32 = 3;

/// How it is packed.
pub fn contents(program: &[u8]) -> Result<Contents> {
    if !program.starts_with(MAGIC) {
        bail!("this is neither a WebAssembly module nor a program for Linux");
    }
    let architecture = match number(program, MACHINE, 2) {
        Some(62) => "amd64",
        Some(183) => "arm64",
        machine => bail!("a program for a processor that is not known here: {machine:?}"),
    };
    if has_loader(program) != Some(false) {
        bail!(
            "the program loads shared libraries, which the image has not; build it with -C target-feature=+crt-static"
        );
    }
    let config = json!({"Entrypoint": [format!("/{NAME}")], "User": USER});
    Ok(Contents {
        name: NAME,
        mode: MODE,
        platform: json!({"architecture": architecture, "os": "linux", "config": config}),
        annotations: json!({}),
    })
}

/// Whether any segment names a loader; `None` where they cannot be read.
fn has_loader(program: &[u8]) -> Option<bool> {
    let [list, size, count] =
        [(LIST, 8), (ENTRY_SIZE, 2), (ENTRIES, 2)].map(|(at, bytes)| number(program, at, bytes));
    let (list, size) = (usize::try_from(list?).ok()?, usize::try_from(size?).ok()?);
    for index in 0..usize::try_from(count?).ok()? {
        let entry = index.checked_mul(size)?.checked_add(list)?;
        if number(program, entry, 4)? == u64::from(LOADER) {
            return Some(true);
        }
    }
    Some(false)
}

fn number(program: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let bytes = program.get(at..at.checked_add(bytes)?)?;
    Some(bytes.iter().rev().fold(0, |number, byte| (number << 8) | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program for x86-64 with one segment of this kind.
    fn program(segment: u8) -> Vec<u8> {
        let mut program = vec![0; 64 + 56];
        program[..MAGIC.len()].copy_from_slice(MAGIC);
        program[MACHINE] = 62;
        program[LIST] = 64;
        program[ENTRY_SIZE] = 56;
        program[ENTRIES] = 1;
        program[64] = segment;
        program
    }

    fn refusal(program: &[u8]) -> String {
        contents(program).err().unwrap().to_string()
    }

    #[test]
    fn a_program_that_needs_nothing_else_is_an_images_entry_point() {
        let contents = contents(&program(1)).unwrap();
        assert_eq!((contents.name, contents.mode), (NAME, 0o755));
        let expected = json!({"architecture": "amd64", "os": "linux",
            "config": {"Entrypoint": ["/inference-picker-controller"], "User": "65532:65532"}});
        assert_eq!(contents.platform, expected);
    }

    #[test]
    fn one_that_would_not_start_is_refused() {
        assert!(refusal(&program(3)).contains("shared libraries"));
        assert!(refusal(&program(1)[..66]).contains("shared libraries"));
        let mut other = program(1);
        other[MACHINE] = 1;
        assert!(refusal(&other).contains("a processor that is not known"));
        // The test's own program has shared libraries.
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(refusal(&own).contains("shared libraries"));
    }
}
