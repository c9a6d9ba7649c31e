#!/bin/sh
# Tests what the controller does with a real Kubernetes API server: `make test-kubernetes`. What it works out is the library's, and
# tested by `make test`, which has no use for what it takes to speak to an API server but to lint it.
. "$(dirname "$0")/../../envoy-test/setup/common.sh"

skip() {
    echo "skipped: the controller and a Kubernetes API server: $*"
    exit 0
}

for program in go openssl ip unshare; do
    command -v "$program" >/dev/null || skip "there is no $program on this machine"
done
# Pods have no loopback addresses in Kubernetes, so the tests have a network of their own with others.
NETWORK='ip link set lo up && ip address add 10.244.0.1/16 dev lo && exec "$@"'
in_own_network() {
    unshare --user --map-root-user --net sh -c "$NETWORK" sh "$@"
}
in_own_network true 2>/dev/null || skip "this machine gives the tests no network of their own (unshare --user --net)"

sh envoy-test/setup/rust.sh
sh envoy-test/setup/envoy.sh
sh controller/api-server/setup.sh
sh controller/helm/setup.sh
set -- --locked --package inference-picker-controller --test kubernetes
cargo test "$@" --no-run
in_own_network cargo test "$@" -- --ignored --nocapture --test-threads 1
