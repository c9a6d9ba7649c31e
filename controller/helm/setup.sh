#!/bin/sh
# Builds Helm, which the chart is tested with, from source into .build/helm.
. "$(dirname "$0")/../../envoy-test/setup/common.sh"

TARGET=.build/helm
HERE=controller/helm

build_helm() {
    echo "            (built from source, once: 2 minutes of processor time)" >&2
    mkdir -p "$TARGET/bin"
    program=$(cd "$TARGET/bin" && pwd)/helm
    (cd "$HERE" && CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w" -o "$program" helm.sh/helm/v3/cmd/helm) ||
        fail "Go could not build Helm; check the network and the space on the disk, then run it again"
}

command -v go >/dev/null || fail "there is no Go on this machine; install it from https://go.dev/doc/install, then run it again"
install_once "$TARGET" "Helm ($(edition "$HERE/go.mod"))" build_helm
