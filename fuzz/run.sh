#!/bin/sh
# run.sh SECONDS [TARGET...]: runs fuzz targets, all or those that are named, each for so long, from the inputs that earlier runs
# have kept.
set -eu
cd "$(dirname "$0")"

NIGHTLY=nightly
CARGO_FUZZ=0.13.2

command -v c++ >/dev/null || {
    echo "libFuzzer is built from source, and there is no C++ compiler on this machine" >&2
    exit 1
}
rustup toolchain list | grep -q "^$NIGHTLY" || rustup toolchain install "$NIGHTLY" --profile minimal
tool=../.build/cargo-fuzz
[ -x "$tool/bin/cargo-fuzz" ] ||
    cargo install --quiet --locked --debug cargo-fuzz --version "$CARGO_FUZZ" --root "$tool"
seconds=$1
shift
[ $# -gt 0 ] || set -- $(sed -n 's/^name = "\([a-z_]*\)"$/\1/p' Cargo.toml)
for target in "$@"; do
    echo "==> $target"
    kept=target/kept/$target
    mkdir -p "$kept" "target/found/$target"
    [ ! -f "corpus/$target.tar.xz" ] || tar -xJf "corpus/$target.tar.xz" -C "$kept"
    RUSTUP_TOOLCHAIN=$NIGHTLY "$tool/bin/cargo-fuzz" run "$target" "target/found/$target" "$kept" "corpus/$target" -- \
        -max_total_time="$seconds" -verbosity=0 -print_final_stats=1
done
