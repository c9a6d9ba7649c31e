#!/bin/sh
# Makes what a release consists of, from the last commit, in target/release-of-VERSION/: the plugin, its image, its bill of
# materials and checksums. The plugin is built twice, from two folders of different names, and has to be the same bytes.
set -eu
cd "$(dirname "$0")/.."

CYCLONEDX=0.5.9

fail() {
    echo "release failed: $*" >&2
    exit 1
}

[ -z "$(git status --porcelain)" ] || fail "there are changes that are not committed"
version=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"/\1/p' Cargo.toml)
grep -q "^## $version" CHANGELOG.md || fail "CHANGELOG.md says nothing of $version"
target=${CARGO_TARGET_DIR:-$PWD/target}
out=$target/release-of-$version
rm -rf "$out"
mkdir -p "$out"

# build FOLDER: a clone of the last commit, built in the folder, without the folder's or the machine's paths in the result.
build() {
    rm -rf "$1"
    git clone --quiet . "$1"
    cargo_home=${CARGO_HOME:-$HOME/.cargo}
    (
        cd "$1"
        unset CARGO_TARGET_DIR
        RUSTFLAGS="--remap-path-prefix=$PWD=. --remap-path-prefix=$cargo_home/registry/src=dependencies" \
            cargo build --locked --quiet --package inference-picker --release --target wasm32-wasip1
    )
}

once=$target/release-built-once
again=$target/a-folder-of-another-name/release-built-again
built=target/wasm32-wasip1/release/inference_picker.wasm
echo "building the plugin, and building it again ..."
build "$once"
build "$again"
cmp "$once/$built" "$again/$built" || fail "two builds of the same commit differ"
plugin=$out/inference-picker-$version.wasm
cp "$once/$built" "$plugin"
chmod 644 "$plugin"

echo "packing its image ..."
cargo run --locked --quiet --package plugin-image -- "$plugin" "$out/image"
tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner -C "$out" -cf "$out/inference-picker-$version.oci.tar" image
rm -rf "$out/image"

echo "listing what it is made of ..."
cyclonedx=.build/cargo-cyclonedx
[ -x "$cyclonedx/bin/cargo-cyclonedx" ] ||
    cargo install --quiet --locked --debug cargo-cyclonedx --version "$CYCLONEDX" --root "$cyclonedx"
(
    cd "$once"
    SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
    export SOURCE_DATE_EPOCH
    "$OLDPWD/$cyclonedx/bin/cargo-cyclonedx" cyclonedx --quiet --manifest-path Cargo.toml --format json \
        --target wasm32-wasip1 --no-build-deps --override-filename bill-of-materials
)
# Without the folder that it was made in.
sed "s,file://$once,file://.,g" "$once/bill-of-materials.json" >"$out/inference-picker-$version.cdx.json"

rm -rf "$once" "$target/a-folder-of-another-name"
(cd "$out" && sha256sum -- * >SHA256SUMS)
echo "in $out:"
(cd "$out" && wc -c inference-picker-* && cat SHA256SUMS)
