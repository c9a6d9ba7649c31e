#!/bin/sh
# Builds what the controller is tested with, from source, into .build/kubernetes: a Kubernetes API server, etcd, kubectl and
# istiod; and gets the resource definitions of Istio, the Gateway API and its Inference Extension. All of it comes from Go's
# module proxy.
. "$(dirname "$0")/../../envoy-test/setup/common.sh"

TARGET=.build/kubernetes
HERE=controller/api-server
ISTIO=istio/test/control-plane
INFERENCE_EXTENSION=v1.5.0

edition() {
    cat "$HERE/go.mod" "$HERE/setup.sh" "$ISTIO/go.mod" | cksum | cut -d ' ' -f 1
}

build_programs() {
    echo "            (built from source, once: 10 minutes of processor time, if Go has none of it yet)" >&2
    mkdir -p "$TARGET/bin" "$TARGET/definitions"
    programs=$(cd "$TARGET/bin" && pwd)
    for package in go.etcd.io/etcd/server/v3 k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kubectl; do
        progress "  $package"
        # Not `name`, which is install_once's.
        program=$(basename "$package")
        [ "$program" != v3 ] || program=etcd
        (cd "$HERE" && CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w" -o "$programs/$program" "$package") ||
            fail "Go could not build $package; check the network and the space on the disk, then run it again"
    done
    progress "  istio.io/istio/pilot/cmd/pilot-discovery"
    (cd "$ISTIO" && CGO_ENABLED=0 go build -buildvcs=false -ldflags "-s -w" -o "$programs/" istio.io/istio/pilot/cmd/pilot-discovery) ||
        fail "Go could not build istiod; check the network and the space on the disk, then run it again"
    extension=$(module_folder "sigs.k8s.io/gateway-api-inference-extension@$INFERENCE_EXTENSION")
    cp "$extension"/config/crd/bases/*.yaml "$TARGET/definitions/"
    istio=$(cd "$ISTIO" && go list -m -f '{{.Dir}}' istio.io/istio)
    cp "$istio/manifests/charts/base/files/crd-all.gen.yaml" "$TARGET/definitions/istio.yaml"
    gateway_api=$(cd "$ISTIO" && go list -m -f '{{.Dir}}' sigs.k8s.io/gateway-api)
    for kind in gatewayclasses gateways httproutes grpcroutes referencegrants backendtlspolicies listenersets; do
        cp "$gateway_api/config/crd/standard/gateway.networking.k8s.io_$kind.yaml" "$TARGET/definitions/"
    done
    chmod u+w "$TARGET"/definitions/*
}

# Where Go has this module.
module_folder() {
    go mod download -json "$1" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p'
}

command -v go >/dev/null || fail "there is no Go on this machine; install it from https://go.dev/doc/install, then run it again"
install_once "$TARGET" "a Kubernetes API server ($(edition))" build_programs
