//! The plugin as it ships, but with so little memory that a large body, or a large metrics page, is more than it can hold:
//! its allocation fails, and its VM traps. A real way to end it.

use super::binary::plugin_file;
use anyhow::{Result, bail, ensure};
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// WebAssembly pages of 64 KiB that the plugin is allowed: 3 MiB, of which it needs about half.
const MEMORY_PAGES: u32 = 48;
/// More than that memory holds, and less than the plugin's own limits.
pub const TOO_LARGE_BYTES: usize = 6 << 20;
const MEMORY_SECTION: u8 = 5;
/// A module's magic number and version.
const HEAD_BYTES: usize = 8;

/// Writes it into a folder of its own, which must be kept as long as Envoys are to load it.
pub fn plugin_with_little_memory() -> Result<(TempDir, PathBuf)> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("little_memory.wasm");
    fs::write(&file, limit_memory(&fs::read(plugin_file())?, MEMORY_PAGES)?)?;
    Ok((folder, file))
}

/// The module with a largest size in its memory section, which has none as the compiler writes it.
fn limit_memory(module: &[u8], pages: u32) -> Result<Vec<u8>> {
    let (head, mut rest) = module.split_at(HEAD_BYTES);
    let mut out = head.to_vec();
    while let Some((&section, after)) = rest.split_first() {
        let (length, used) = read_number(after)?;
        let content = &after[used..used + length as usize];
        out.push(section);
        if section == MEMORY_SECTION {
            ensure!(content[..2] == [1, 0], "not one memory without a limit");
            let mut limited = vec![1, 1];
            limited.extend(&content[2..]);
            write_number(&mut limited, pages);
            write_number(&mut out, limited.len() as u32);
            out.extend(limited);
        } else {
            out.extend(&after[..used]);
            out.extend(content);
        }
        rest = &after[used + length as usize..];
    }
    Ok(out)
}

/// An unsigned LEB128 number, and how many bytes it took.
fn read_number(bytes: &[u8]) -> Result<(u32, usize)> {
    let mut number = 0;
    for (index, byte) in bytes.iter().enumerate() {
        number |= u32::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok((number, index + 1));
        }
    }
    bail!("a number without an end")
}

fn write_number(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}
