// Istio's control plane without Kubernetes: istiod's own generators, over a Kubernetes API that is a map in memory.
//
// It serves xDS on one address and istiod's debug pages on another. Files are read at its start; on SIGHUP those
// of --istio are read again and what they hold is pushed, as after `kubectl apply`.
//
// It does what istiod does with resources once they are there. It does not do what other controllers do in a cluster
// (Services, Pods, EndpointSlices and the status of routes are given, in --kubernetes), and nothing is encrypted.
package main

import (
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"

	"istio.io/istio/pilot/pkg/config/kube/crd"
	"istio.io/istio/pilot/test/xds"
	"istio.io/istio/pkg/config/mesh"
	"istio.io/istio/pkg/config/schema/gvr"
	"istio.io/istio/pkg/kube"
	"istio.io/istio/pkg/kube/kclient/clienttest"
	"istio.io/istio/pkg/test"
)

// Where resources without a namespace belong.
const defaultNamespace = "default"

var (
	xdsAddress     = flag.String("xds", "127.0.0.1:15010", "where proxies connect to, unencrypted")
	debugAddress   = flag.String("debug", "127.0.0.1:15014", "where istiod's debug pages are")
	meshFile       = flag.String("mesh", "", "a MeshConfig")
	kubernetesFile = flag.String("kubernetes", "", "resources of Kubernetes, the Gateway API and its inference extension")
	istioFile      = flag.String("istio", "", "resources of Istio")
)

func main() {
	flag.Parse()
	if err := test.Wrap(serve); err != nil {
		log.Fatal(err)
	}
}

// serve returns on SIGTERM and SIGINT.
func serve(t test.Failer) {
	meshConfig, err := mesh.ApplyMeshConfig(read(t, *meshFile), mesh.DefaultMeshConfig())
	check(t, err)
	server := xds.NewFakeDiscoveryServer(t, xds.FakeOptions{
		KubernetesObjectString: read(t, *kubernetesFile),
		ConfigString:           read(t, *istioFile),
		MeshConfig:             meshConfig,
		KubeClientModifier:     func(client kube.Client) { clienttest.MakeCRD(t, client, gvr.InferencePool) },
		ListenerBuilder:        func() (net.Listener, error) { return net.Listen("tcp", *xdsAddress) },
	})
	debug, err := net.Listen("tcp", *debugAddress)
	check(t, err)
	go func() { log.Print(http.Serve(debug, server.DiscoveryDebug)) }()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT)
	fmt.Println("ready")
	for <-signals == syscall.SIGHUP {
		push(t, server)
	}
}

// push puts what the file of Istio's resources holds now in place of what there is.
func push(t test.Failer, server *xds.FakeDiscoveryServer) {
	resources, unknown, err := crd.ParseInputs(read(t, *istioFile))
	check(t, err)
	if len(unknown) > 0 {
		t.Fatalf("not resources of Istio: %v", unknown)
	}
	for _, resource := range resources {
		if resource.Namespace == "" {
			resource.Namespace = defaultNamespace
		}
		known := server.Store().Get(resource.GroupVersionKind, resource.Name, resource.Namespace)
		if known == nil {
			_, err = server.Store().Create(resource)
		} else {
			resource.ResourceVersion = known.ResourceVersion
			_, err = server.Store().Update(resource)
		}
		check(t, err)
	}
}

func read(t test.Failer, file string) string {
	if file == "" {
		return ""
	}
	text, err := os.ReadFile(file)
	check(t, err)
	return string(text)
}

func check(t test.Failer, err error) {
	if err != nil {
		t.Fatal(err)
	}
}
