#!/bin/sh
# Prints the path of the Envoy that `make run` uses: the user's own (ENVOY_PATH, or the one func-e runs), else the
# newest of those the tests run on, which it installs.
. "$(dirname "$0")/common.sh"

envoy_of_func_e() {
    command -v func-e >/dev/null || return 1
    path=$(func-e which 2>/dev/null | tail -n 1)
    [ -x "$path" ] && echo "$path"
}

if [ -n "${ENVOY_PATH:-}" ]; then
    echo "$ENVOY_PATH"
elif ! envoy_of_func_e; then
    sh envoy-test/setup/envoy.sh "$ENVOY_NEWEST" || fail "found no Envoy; install one and set ENVOY_PATH to its binary"
    echo "$PWD/.build/envoy-$ENVOY_NEWEST/envoy"
fi
