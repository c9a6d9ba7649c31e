//! Files, folders and standard input, as texts of one or more YAML documents. Knows nothing of resources.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use serde_json::Value;

/// The largest text that is read, in bytes. 4,096 models (more the plugin does not take) are some 5 MB as kubectl prints
/// them.
const MAX_TEXT_BYTES: u64 = 64 << 20;

/// The name of standard input among the files.
const STANDARD_INPUT: &str = "-";

/// The endings of a folder's files that are read.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// One file's text.
pub struct Text {
    /// The file's path, for messages.
    pub source: String,
    yaml: String,
}

impl Text {
    /// Its documents; empty ones are left out. The reader bounds depth, nodes and aliases.
    pub fn documents(&self) -> anyhow::Result<Vec<Value>> {
        documents(&self.yaml, &self.source)
    }
}

/// The documents of a text, which `source` names in messages.
///
/// # Errors
/// Where it is not YAML.
pub fn documents(yaml: &str, source: &str) -> anyhow::Result<Vec<Value>> {
    serde_saphyr::from_multiple_with_options(yaml, options())
        .with_context(|| format!("{source}: cannot be read as YAML"))
}

/// A pool may be called `n` or `on`: what is true or false in YAML 1.1 alone is text.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! { strict_booleans: true }
}

/// Reads all files, those of a folder in the order of their names.
pub fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Text>> {
    let mut texts = Vec::new();
    for path in paths {
        if path.is_dir() {
            for file in files_of(path)? {
                texts.push(read_file(&file)?);
            }
        } else {
            texts.push(read_file(path)?);
        }
    }
    Ok(texts)
}

fn files_of(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    files.retain(|file| file.is_file() && is_read(file));
    files.sort();
    if files.is_empty() {
        bail!("{}: has no .yaml, .yml or .json file", folder.display());
    }
    Ok(files)
}

fn is_read(file: &Path) -> bool {
    file.extension().is_some_and(|ending| ENDINGS.iter().any(|known| ending == *known))
}

fn read_file(path: &Path) -> anyhow::Result<Text> {
    let source = path.display().to_string();
    let yaml = if source == STANDARD_INPUT {
        read_bounded(io::stdin().lock())
    } else {
        File::open(path).map_err(Into::into).and_then(read_bounded)
    };
    Ok(Text { yaml: yaml.with_context(|| source.clone())?, source })
}

/// Reads one YAML or JSON document.
pub fn read_document(path: &Path) -> anyhow::Result<Value> {
    let text = read_file(path)?;
    serde_saphyr::from_str_with_options(&text.yaml, options())
        .with_context(|| format!("{}: cannot be read as YAML", text.source))
}

fn read_bounded(from: impl Read) -> anyhow::Result<String> {
    let mut text = String::new();
    from.take(MAX_TEXT_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_TEXT_BYTES {
        bail!("is longer than {MAX_TEXT_BYTES} bytes");
    }
    Ok(text)
}
