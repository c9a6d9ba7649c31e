#!/bin/sh
# Runs the steps given as arguments, or all: what `make test` and `make check` do. Each step is a function below.
. "$(dirname "$0")/common.sh"

ALL_STEPS="set_up formatting lints lints_of_the_plugin documentation dependencies
    fuzz_targets core_tests core_tests_as_wasm config_command_tests plugin end_to_end_tests istio"

set_up() {
    for part in rust envoy openai_client prometheus wasm_test_runner cargo_deny; do
        sh "envoy-test/setup/$part.sh"
    done
}

formatting() {
    cargo fmt --all --check
}

lints() {
    cargo clippy --locked --workspace --all-targets -- -D warnings
}

lints_of_the_plugin() {
    cargo clippy --locked --package inference-picker --target wasm32-wasip1 -- -D warnings
}

# That they are right: running them takes a nightly compiler, and as long as one likes.
fuzz_targets() {
    if ! command -v c++ >/dev/null; then
        skip "the fuzz targets: libFuzzer is built from source, and there is no C++ compiler on this machine"
        return
    fi
    RUSTFLAGS="-D warnings" cargo check --locked --manifest-path fuzz/Cargo.toml
}

documentation() {
    RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --document-private-items
}

dependencies() {
    deny=.build/cargo-deny/bin/cargo-deny
    "$deny" --locked --workspace check bans licenses sources
    if "$deny" fetch db >/dev/null 2>&1; then
        "$deny" --locked --workspace check advisories
    else
        skip "known vulnerabilities of dependencies: the RustSec database could not be fetched from GitHub"
    fi
}

core_tests() {
    cargo test --locked --package inference-picker
}

# The runner is content with no test at all; this step is not.
core_tests_as_wasm() {
    # There only where the machine has no Node that is new enough.
    PATH="$PWD/.build/node/bin:$PATH"
    CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="$PWD/.build/wasm-test-runner/bin/wasm-bindgen-test-runner"
    export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER
    set -- --locked --package inference-picker --lib --test routing --target wasm32-unknown-unknown
    cargo test "$@" --no-run
    cargo test "$@" >.build/core_tests_as_wasm.log 2>&1 || { cat .build/core_tests_as_wasm.log; return 1; }
    cat .build/core_tests_as_wasm.log
    grep -q '^test result: ok\. [1-9]' .build/core_tests_as_wasm.log || { echo "no test ran as wasm"; return 1; }
}

config_command_tests() {
    cargo test --locked --package inference-picker-config
}

plugin() {
    cargo build --locked --package inference-picker --release --target wasm32-wasip1
    cargo test --locked --package plugin-image
}

end_to_end_tests() {
    [ -x .build/prometheus/usr/bin/prometheus ] ||
        skip "dashboard and alerts in a real Prometheus: Debian's package of it could not be had"
    cargo test --locked --package envoy-test -- --test-threads "$(waiting_threads)"
}

istio() {
    if ! command -v go >/dev/null; then
        skip "the deployments for Istio: istiod is built from source, and there is no Go on this machine"
        return
    fi
    sh istio/test/setup.sh
    set -- --ignored
    if ! unshare --user --map-root-user --mount true 2>/dev/null; then
        skip "the deployments under Istio's agent: it needs a /var/lib/istio/data, and this machine gives it none of its" \
            "own (unshare --user --mount)"
        set -- "$@" --skip under_the_agent::
    fi
    cargo test --locked --package envoy-test --test istio -- "$@" --test-threads "$(waiting_threads)"
}

# Tests that run Envoys wait for half of their time.
waiting_threads() {
    echo $((2 * $(getconf _NPROCESSORS_ONLN)))
}

skip() {
    echo "skipped: $*"
    skipped="$skipped
skipped: $*"
    skipped_count=$((skipped_count + 1))
}

# Prints how it ended, also when a step fails, which ends the script.
report() {
    exit_code=$?
    [ -z "$step" ] || echo "FAILED: $step" | tr _ ' '
    echo "${skipped#?}"
    echo "steps: $passed_count passed, $([ -z "$step" ] && echo 0 || echo 1) failed, $skipped_count skipped"
    exit "$exit_code"
}

skipped=
skipped_count=0
passed_count=0
trap report EXIT

# The tests claim things of pinned versions.
if [ -n "${ENVOY_PATH:-}" ]; then
    echo "ENVOY_PATH is set; the tests do not use it"
    unset ENVOY_PATH
fi

[ $# -gt 0 ] || set -- $ALL_STEPS
for step in "$@"; do
    echo "==> $step" | tr _ ' '
    started_at=$(date +%s)
    "$step"
    echo "    ($(($(date +%s) - started_at)) s)"
    passed_count=$((passed_count + 1))
done
step=
