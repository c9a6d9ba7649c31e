#!/bin/sh
# Makes what a release consists of, from the last commit, in target/release-of-VERSION/: the plugin, the images of the plugin
# and of the controller (for this machine's architecture), their bills of materials, the chart and checksums. The plugin and the
# controller are built twice, in two folders of different names, and have to be the same bytes.
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
grep -qx "version: $version" istio/chart/Chart.yaml || fail "istio/chart/Chart.yaml has another version than $version"
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
        export RUSTFLAGS="--remap-path-prefix=$PWD=. --remap-path-prefix=$cargo_home/registry/src=dependencies"
        cargo build --locked --quiet --package inference-picker --release --target wasm32-wasip1
        sh istio/image/controller.sh
    )
}

# tar_alike OPTION...: an archive on standard output that is the same bytes for the same files.
tar_alike() {
    tar --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --mode=u+w,go-w -c "$@"
}

# archive NAME: the folder `image` as the release's image of this name.
archive() {
    tar_alike -C "$out" image >"$out/$1-$version.oci.tar"
    rm -rf "$out/image"
}

# list_materials NAME MANIFEST OPTION...: the bill of materials of a package.
list_materials() {
    name=$1
    manifest=$2
    shift 2
    (
        cd "$once"
        SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
        export SOURCE_DATE_EPOCH
        "$OLDPWD/$cyclonedx/bin/cargo-cyclonedx" cyclonedx --quiet --manifest-path "$manifest" --format json "$@" \
            --no-build-deps --override-filename bill-of-materials
    )
    # Without the folder that it was made in.
    sed "s,file://$once,file://.,g" "$once/$(dirname "$manifest")/bill-of-materials.json" >"$out/$name-$version.cdx.json"
}

once=$target/release-built-once
again=$target/a-folder-of-another-name/release-built-again
built=target/wasm32-wasip1/release/inference_picker.wasm
machine=$(rustc -vV | sed -n 's/^host: //p')
controller=target/$machine/release/inference-picker-controller
echo "building the plugin and the controller, and building them again ..."
build "$once"
build "$again"
for file in "$built" "$controller"; do
    cmp "$once/$file" "$again/$file" || fail "two builds of the same commit differ"
done
plugin=$out/inference-picker-$version.wasm
cp "$once/$built" "$plugin"
chmod 644 "$plugin"

echo "packing their images ..."
cargo run --locked --quiet --package plugin-image -- "$plugin" "$out/image"
archive inference-picker
mv "$once/target/image-of-controller" "$out/image"
archive inference-picker-controller

echo "listing what they are made of ..."
cyclonedx=.build/cargo-cyclonedx
[ -x "$cyclonedx/bin/cargo-cyclonedx" ] ||
    cargo install --quiet --locked --debug cargo-cyclonedx --version "$CYCLONEDX" --root "$cyclonedx"
list_materials inference-picker Cargo.toml --target wasm32-wasip1
list_materials inference-picker-controller controller/Cargo.toml --target "$machine"

echo "packing the chart ..."
# Helm takes a chart's name for that of its folder.
tar_alike -C "$once/istio" --transform 's,^chart,inference-picker,' chart | gzip -n >"$out/inference-picker-chart-$version.tgz"

rm -rf "$once" "$target/a-folder-of-another-name"
(cd "$out" && sha256sum -- * >SHA256SUMS)
echo "in $out:"
(cd "$out" && wc -c inference-picker-* && cat SHA256SUMS)
