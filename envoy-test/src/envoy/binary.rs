//! Finds the Envoy binary to run.

use anyhow::{Result, bail};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The versions that `make setup` installs; `envoy-test/setup/common.sh` names the same ones.
pub const NEWEST: &str = "1.40.0";
pub const OLDEST: &str = "1.36.4";

/// The binary of Envoy `version`: `ENVOY_PATH` where it is set, whatever version that is, else the one that
/// `make setup` installed.
pub fn find(version: &str) -> Result<PathBuf> {
    find_with(env::var_os("ENVOY_PATH"), version)
}

pub(super) fn find_with(envoy_path: Option<OsString>, version: &str) -> Result<PathBuf> {
    if let Some(path) = envoy_path.filter(|path| !path.is_empty()) {
        return existing(path.into(), "ENVOY_PATH names a file that does not exist");
    }
    let installed = project_root().join(format!(".build/envoy-{version}/envoy"));
    existing(installed, &format!("Envoy {version} is not installed; run `make setup`"))
}

fn existing(path: PathBuf, complaint: &str) -> Result<PathBuf> {
    if !path.is_file() {
        bail!("{complaint} (looked for {})", path.display());
    }
    Ok(path)
}

/// The folder that holds the workspace's Cargo.toml; file names in configurations are relative to it.
pub fn project_root() -> &'static Path {
    let harness = Path::new(env!("CARGO_MANIFEST_DIR"));
    harness.parent().unwrap_or(harness)
}

/// Where `make build` leaves the plugin.
pub fn plugin_file() -> PathBuf {
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    project_root().join(target).join("wasm32-wasip1/release/inference_picker.wasm")
}
