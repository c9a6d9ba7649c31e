#!/bin/sh
# Installs the toolchain, components and targets that rust-toolchain.toml names. Never relies on rustup's
# automatic installation, which may be off (RUSTUP_AUTO_INSTALL=0).
. "$(dirname "$0")/common.sh"

# field NAME: the value of NAME in rust-toolchain.toml, a list as words.
field() {
    sed -n "s/^$1 *= *//p" rust-toolchain.toml | tr -d '[]",'
}

toolchain=$(field channel)

# An installed file for each part: asking rustup itself would need the network.
is_complete() {
    root=$(RUSTUP_AUTO_INSTALL=0 rustup run "$toolchain" rustc --print sysroot 2>/dev/null) || return 1
    for target in $(field targets); do
        [ -d "$root/lib/rustlib/$target/lib" ] || return 1
    done
    [ -x "$root/bin/cargo" ] && [ -x "$root/bin/cargo-clippy" ] && [ -x "$root/bin/rustfmt" ]
}

command -v rustup >/dev/null || fail "rustup is missing; install it (https://rustup.rs), then run it again"
is_complete && exit 0

progress "Rust $toolchain with $(field components) for $(field targets) ..."
set --
for component in $(field components); do
    set -- "$@" --component "$component"
done
for target in $(field targets); do
    set -- "$@" --target "$target"
done
rustup toolchain install "$toolchain" --profile "$(field profile)" --no-self-update "$@" ||
    fail "rustup could not install Rust $toolchain; check the network, then run it again"
