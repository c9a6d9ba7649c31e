#!/bin/sh
# Builds what the folders for Istio and Envoy Gateway are tested with, from source, into .build/istio/bin: a control plane
# around istiod's own generators, Istio's agent and command, kustomize, crane, which has a registry for images, and Envoy
# Gateway's command. The Go modules come from Go's module proxy: 1 GB, and 4 GB of build cache; both stay in Go's folders.
. "$(dirname "$0")/../../envoy-test/setup/common.sh"

TARGET=.build/istio
ISTIO=istio/test/control-plane
ENVOY_GATEWAY=istio/test/envoy-gateway

# Another one when a file changes, so that everything is built anew.
edition() {
    cat istio/test/*/* istio/test/setup.sh | cksum | cut -d ' ' -f 1
}

build_programs() {
    echo "            (built from source, once: 12 minutes of processor time, if Go has none of it yet)" >&2
    mkdir -p "$TARGET/bin"
    programs=$(cd "$TARGET/bin" && pwd)
    # The control plane is by far the largest; what follows shares most of it.
    build_program "$ISTIO" .
    build_program "$ISTIO" istio.io/istio/pilot/cmd/pilot-agent
    build_program "$ISTIO" istio.io/istio/istioctl/cmd/istioctl
    build_program "$ISTIO" sigs.k8s.io/kustomize/kustomize/v5
    build_program "$ISTIO" github.com/google/go-containerregistry/cmd/crane
    build_program "$ENVOY_GATEWAY" github.com/envoyproxy/gateway/cmd/egctl
    # What the agent makes Envoy's bootstrap from; it comes with Istio's images.
    istio=$(cd "$ISTIO" && go list -m -f '{{.Dir}}' istio.io/istio)
    cp "$istio/tools/packaging/common/envoy_bootstrap.json" "$TARGET/"
}

# build_program FOLDER PACKAGE. Go names every package that it has compiled; every hundredth line is enough.
build_program() {
    progress "  $1: $2"
    (cd "$1" && CGO_ENABLED=0 go build -v -buildvcs=false -ldflags "-s -w" -o "$programs/" "$2" 2>&1 ||
        echo "go build failed: $2") | awk '
            /^go build failed/ { print; exit 1 }
            / / { print; next }
            ++count % 100 == 0 { print "            " count " packages"; fflush() }' >&2 ||
        fail "Go could not build $2 in $1; check the network and the space on the disk, then run it again"
}

command -v go >/dev/null || fail "there is no Go on this machine; install it from https://go.dev/doc/install, then run it again"
install_once "$TARGET" "Istio's programs ($(edition))" build_programs
