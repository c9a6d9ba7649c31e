//! Istio's own agent, which makes Envoy's bootstrap, runs it, stands between it and the control plane, and downloads
//! plugins for it.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};

use envoy_test::envoy::binary::{NEWEST, find, project_root};
use envoy_test::envoy::{appended, free_address};
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cluster::Front;
use crate::programs::built;
use crate::setup::PROXY;

/// The agent keeps what it downloads in /var/lib/istio/data, wherever it runs. This gives it one that nobody else sees,
/// in namespaces of its own.
const OWN_DATA_FOLDER: &str =
    r#"mount -t tmpfs none /var/lib && mkdir -p /var/lib/istio/data && exec "$0" "$@""#;

/// Files in the folder that every agent has.
const LOG: &str = "log";
const OUTPUT: &str = "output";

/// Ends, and Envoy with it, when it is dropped.
pub struct Agent {
    pub admin: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl Agent {
    /// Starts it as in the pod of a gateway; `bootstrap_override` is what a ConfigMap adds to Envoy's bootstrap. Without one
    /// the pod has the annotations of `istio/telemetry`.
    pub fn start(xds: SocketAddr, front: Front, mesh: &Value, bootstrap_override: Option<&str>) -> Agent {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(&root.join("etc/istio/config/mesh"), &mesh.to_string());
        let [admin, status, envoy_status, prometheus] = [(); 4].map(|()| free_address().unwrap());
        let proxy_config = json!({"binaryPath": find(NEWEST).unwrap(), "configPath": root.join("proxy"),
            "discoveryAddress": xds, "controlPlaneAuthPolicy": "NONE", "concurrency": 2,
            "proxyAdminPort": admin.port(), "statusPort": status.port()});
        let (kind, _) = front.node();
        let (name, namespace) = PROXY.split_once('.').unwrap();
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", OWN_DATA_FOLDER])
            .arg(built("bin/pilot-agent"))
            .args(["proxy", kind, "--domain", "default.svc.cluster.local", "--templateFile"])
            .arg(built("envoy_bootstrap.json"))
            .args(["--log_target", "stderr"])
            .current_dir(root)
            .envs([("INSTANCE_IP", "127.0.0.1"), ("POD_NAME", name), ("POD_NAMESPACE", namespace)])
            .env("ISTIO_META_CLUSTER_ID", "Kubernetes")
            .env("ISTIO_METAJSON_LABELS", front.labels().to_string())
            .env("PROXY_CONFIG", proxy_config.to_string())
            .env("ENVOY_STATUS_PORT", envoy_status.port().to_string())
            .env("ENVOY_PROMETHEUS_PORT", prometheus.port().to_string())
            // Nothing is encrypted, and no registry knows who asks.
            .envs([("FILE_MOUNTED_CERTS", "true"), ("PEER_METADATA_DISCOVERY", "false")])
            .env("DOCKER_CONFIG", root);
        if bootstrap_override.is_none() {
            write(&root.join("etc/istio/pod/annotations"), &annotations());
        }
        if let Some(text) = bootstrap_override {
            let file = root.join("etc/istio/custom-bootstrap/custom_bootstrap.json");
            write(&file, text);
            command.env("ISTIO_BOOTSTRAP_OVERRIDE", file);
        }
        let [output, log] = [OUTPUT, LOG].map(|file| appended(&root.join(file)).unwrap());
        let child = command.process_group(0).stdout(output).stderr(log).spawn().unwrap();
        Agent { admin, child, folder }
    }

    /// What the agent and Envoy have logged.
    pub fn log_text(&self) -> String {
        self.read(LOG)
    }

    /// What Envoy has written to standard output: the access log.
    pub fn output_text(&self) -> String {
        self.read(OUTPUT)
    }

    fn read(&self, file: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.path().join(file)).unwrap()).into_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: then they have ended already.
        let _ = kill_process_group(Pid::from_child(&self.child), Signal::KILL);
        let _ = self.child.wait();
    }
}

/// What `istio/telemetry` patches gateways' pods with, as Kubernetes hands it to the agent: a line each, the value quoted.
fn annotations() -> String {
    let file = project_root().join("istio/telemetry/gateway-patch.yaml");
    let patch: Value = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let annotations = patch["spec"]["template"]["metadata"]["annotations"].as_object().unwrap();
    annotations.iter().map(|(name, value)| format!("{name}={:?}\n", value.as_str().unwrap())).collect()
}

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}
