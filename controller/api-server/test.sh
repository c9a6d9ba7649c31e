#!/bin/sh
# Tests what the controller does with a real Kubernetes API server: `make test-kubernetes`. What it works out is the library's, and
# tested by `make test`, which has no use for what it takes to speak to an API server but to lint it.
. "$(dirname "$0")/../../envoy-test/setup/common.sh"

for program in go openssl; do
    if ! command -v "$program" >/dev/null; then
        echo "skipped: the controller and a Kubernetes API server: there is no $program on this machine"
        exit 0
    fi
done
sh envoy-test/setup/rust.sh
sh controller/api-server/setup.sh
cargo test --locked --package inference-picker-controller --test api_server -- --ignored --nocapture
