#!/bin/sh
# Builds the controller as one program that needs no libraries, and packs it as an image, without Docker.
set -eu
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
machine=$(rustc -vV | sed -n 's/^host: //p')
# With the flags of who calls it, such as a release's.
RUSTFLAGS="${RUSTFLAGS:-} -C target-feature=+crt-static" \
    cargo build --locked --release --package inference-picker-controller --target "$machine"
cargo run --locked --quiet --package plugin-image -- \
    "$target/$machine/release/inference-picker-controller" "$target/image-of-controller"
