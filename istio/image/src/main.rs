//! Packs the plugin as an image, or the controller: `plugin-image PLUGIN.wasm|CONTROLLER FOLDER`; `make image` and
//! `make image-of-controller` run it.
//!
//! The folder becomes an OCI image layout, which `crane push`, `skopeo copy` and `oras cp` take to a registry. The image
//! has one layer, an archive with one file. For the plugin that is `plugin.wasm`: the form that every host which pulls wasm
//! understands, and that every registry takes. The controller is a program that needs nothing else ([`program`]). The same file
//! gives the same bytes, and so the same digest.
//!
//! It speaks to no registry.

use std::env;
use std::fs;
use std::io::Write;
use std::path::Path;

mod program;

use anyhow::{Context, Result, bail};
use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
const LAYER_TYPE: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// How the plugin's file in the layer must be called.
const PLUGIN_NAME: &str = "plugin.wasm";
/// What every WebAssembly module begins with.
const MAGIC: &[u8] = b"\0asm";
/// Who may do what with the plugin's file: everybody read it.
const PLUGIN_MODE: u32 = 0o644;

/// What is packed.
struct Contents {
    /// The file's name in the layer.
    name: &'static str,
    /// Who may do what with it.
    mode: u32,
    /// Where and how it runs, as the image's configuration says it.
    platform: Value,
    /// The manifest's annotations.
    annotations: Value,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [file, folder] = arguments.as_slice() else {
        bail!("usage: plugin-image PLUGIN.wasm|CONTROLLER FOLDER");
    };
    let bytes = fs::read(file).with_context(|| format!("reading {file}"))?;
    let digest =
        write_image(&bytes, Path::new(folder)).with_context(|| format!("packing {file} in {folder}"))?;
    println!("{folder}: {digest}");
    Ok(())
}

/// Writes the image, in place of what the folder held, and returns its digest.
fn write_image(bytes: &[u8], folder: &Path) -> Result<String> {
    let contents = contents(bytes)?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs)?;
    let archive = archive(&contents, bytes)?;
    let layer = write_blob(&blobs, LAYER_TYPE, &compressed(&archive)?)?;
    let config = write_blob(&blobs, CONFIG_TYPE, config(&contents, &archive).to_string().as_bytes())?;
    let manifest = manifest(&contents, &config, &layer).to_string();
    let reference = write_blob(&blobs, MANIFEST_TYPE, manifest.as_bytes())?;
    let index = json!({"schemaVersion": 2, "manifests": [reference]});
    fs::write(folder.join("index.json"), index.to_string())?;
    fs::write(folder.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    Ok(digest(manifest.as_bytes()))
}

/// Writes a part of the image under its digest, and returns what refers to it.
fn write_blob(blobs: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest = digest(bytes);
    let name = digest.trim_start_matches("sha256:");
    fs::write(blobs.join(name), bytes)?;
    Ok(json!({"mediaType": media_type, "digest": digest, "size": bytes.len()}))
}

fn contents(bytes: &[u8]) -> Result<Contents> {
    if !bytes.starts_with(MAGIC) {
        return program::contents(bytes);
    }
    Ok(Contents {
        name: PLUGIN_NAME,
        mode: PLUGIN_MODE,
        platform: json!({"architecture": "wasm", "os": "wasip1", "config": {}}),
        annotations: json!({"module.wasm.image/variant": "compat"}),
    })
}

fn config(contents: &Contents, archive: &[u8]) -> Value {
    let mut config = contents.platform.clone();
    config["rootfs"] = json!({"type": "layers", "diff_ids": [digest(archive)]});
    config
}

fn manifest(contents: &Contents, config: &Value, layer: &Value) -> Value {
    json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPE, "config": config, "layers": [layer],
        "annotations": contents.annotations})
}

fn archive(contents: &Contents, bytes: &[u8]) -> Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(contents.mode);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, contents.name, bytes)?;
    Ok(archive.into_inner()?)
}

fn compressed(archive: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    encoder.write_all(archive)?;
    Ok(encoder.finish()?)
}

fn digest(bytes: &[u8]) -> String {
    let hexadecimal: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hexadecimal}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const MODULE: &[u8] = b"\0asm\x01\0\0\0";

    fn read(folder: &Path, file: &str) -> Value {
        serde_json::from_slice(&fs::read(folder.join(file)).unwrap()).unwrap()
    }

    /// The blob that a reference names, which must be as long as that says and have that digest.
    fn blob(folder: &Path, reference: &Value) -> Vec<u8> {
        let name = reference["digest"].as_str().unwrap();
        let bytes = fs::read(folder.join("blobs").join(name.replace(':', "/"))).unwrap();
        assert_eq!(
            (bytes.len() as u64, digest(&bytes)),
            (reference["size"].as_u64().unwrap(), name.to_owned())
        );
        bytes
    }

    #[test]
    fn the_image_holds_the_plugin_under_the_name_that_hosts_look_for() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("image");
        let image_digest = write_image(MODULE, &folder).unwrap();
        let reference = &read(&folder, "index.json")["manifests"][0];
        assert_eq!(reference["digest"], *image_digest);
        let manifest: Value = serde_json::from_slice(&blob(&folder, reference)).unwrap();
        blob(&folder, &manifest["config"]);
        let layer = blob(&folder, &manifest["layers"][0]);
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(layer.as_slice()));
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some("plugin.wasm"));
        let mut module = Vec::new();
        entry.read_to_end(&mut module).unwrap();
        assert_eq!(module, MODULE);
    }

    #[test]
    fn the_same_plugin_gives_the_same_image_and_takes_the_place_of_an_older_one() {
        let folder = tempfile::tempdir().unwrap();
        let first = write_image(MODULE, folder.path()).unwrap();
        fs::write(folder.path().join("stale"), "").unwrap();
        assert_eq!(write_image(MODULE, folder.path()).unwrap(), first);
        assert!(!folder.path().join("stale").exists());
    }

    #[test]
    fn what_is_no_module_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let error = write_image(b"<html>", folder.path()).unwrap_err();
        assert_eq!(error.to_string(), "this is neither a WebAssembly module nor a program for Linux");
    }
}
