//! What Kubernetes' own controllers and a kubelet would do, of which there are none here: pods that are ready, and the
//! endpoints of Services.

use serde_json::{Value, json};

use crate::cluster::Cluster;

/// A pod that is ready, of this name and address.
pub fn pod(cluster: &Cluster, namespace: &str, (name, ip): (&str, &str), labels: &Value) {
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "node", "containers": [{"name": "server", "image": "server"}]}});
    cluster.apply(&pod.to_string());
    let status = json!({"status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    let patch = ["patch", "pod", name, "-n", namespace, "--subresource=status", "--type=merge", "-p"];
    cluster.succeed(&[&patch[..], &[&status.to_string()]].concat());
}

/// A gateway's Service and its pod, as Istio's controller of gateways makes them.
pub fn gateway(cluster: &Cluster, namespace: &str, name: &str, (pod_name, ip): (&str, &str), port: u16) {
    let labels = json!({"gateway.networking.k8s.io/gateway-name": name});
    let service = json!({"apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("{name}-istio"), "namespace": namespace, "labels": labels},
        "spec": {"selector": labels, "ports": [{"name": "http", "port": port, "targetPort": port}]}});
    cluster.apply(&service.to_string());
    pod(cluster, namespace, (pod_name, ip), &labels);
    update_endpoints(cluster, namespace);
}

/// The endpoints of each Service of a namespace become the pods that it selects now.
pub fn update_endpoints(cluster: &Cluster, namespace: &str) {
    let pods = cluster.list("pods", namespace, "");
    let slices = cluster.list("services", namespace, "").into_iter().filter_map(|service| {
        let selector = service["spec"]["selector"].as_object()?;
        let is_selected = |pod: &&Value| {
            selector.iter().all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
        };
        Some(slice(&service, pods.iter().filter(is_selected)).to_string())
    });
    cluster.apply(&slices.collect::<Vec<_>>().join("\n---\n"));
}

/// The pods behind a Service.
fn slice<'a>(service: &Value, pods: impl Iterator<Item = &'a Value>) -> Value {
    let ports = service["spec"]["ports"].as_array().unwrap().iter();
    let ports: Vec<_> = ports
        .map(|port| json!({"name": port["name"], "protocol": "TCP", "port": port["targetPort"]}))
        .collect();
    let (name, namespace) = (&service["metadata"]["name"], &service["metadata"]["namespace"]);
    let endpoint = |pod: &Value| {
        json!({"addresses": [pod["status"]["podIP"]], "conditions": {"ready": true},
            "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"], "namespace": namespace}})
    };
    let endpoints: Vec<_> = pods.map(endpoint).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "addressType": "IPv4", "ports": ports, "endpoints": endpoints})
}
