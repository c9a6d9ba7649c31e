//! A running control plane: istiod's generators over resources that a test gives it (`istio/test/control-plane`).

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Child;

use envoy_test::envoy::{Client, Protocol, Request, free_address};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::gateway::until;
use crate::programs::program;

/// What istiod has in its environment: the Gateway API's InferencePools are off by default, and two filters that only
/// Istio's own build of Envoy has are left out.
const ENVIRONMENT: [(&str, &str); 3] = [
    ("ENABLE_GATEWAY_API_INFERENCE_EXTENSION", "true"),
    ("PILOT_ENABLE_ALPN_FILTER", "false"),
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false"),
];

/// Ends when it is dropped.
pub struct ControlPlane {
    pub xds: SocketAddr,
    debug: SocketAddr,
    child: Child,
    folder: TempDir,
}

impl ControlPlane {
    /// Returns when it serves.
    pub fn start(mesh: &Value, kubernetes: &[Value], istio: &[Value]) -> ControlPlane {
        let folder = tempfile::tempdir().unwrap();
        let [xds, debug] = [(); 2].map(|()| free_address().unwrap());
        let file = |name: &str| folder.path().join(name);
        fs::write(file("mesh"), mesh.to_string()).unwrap();
        write(&file("kubernetes"), kubernetes);
        write(&file("istio"), istio);
        let log = File::create(file("log")).unwrap();
        let mut command = program("control-plane");
        command.envs(ENVIRONMENT).args(["--xds", &xds.to_string(), "--debug", &debug.to_string()]);
        for name in ["mesh", "kubernetes", "istio"] {
            command.arg(format!("--{name}")).arg(file(name));
        }
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let mut control_plane = ControlPlane { xds, debug, child, folder };
        control_plane.wait_until_ready();
        control_plane
    }

    /// Has it read Istio's resources anew, as after `kubectl apply`.
    pub fn apply(&self, istio: &[Value]) {
        write(&self.folder.path().join("istio"), istio);
        kill_process(Pid::from_child(&self.child), Signal::HUP).unwrap();
    }

    /// What it has generated for this proxy, which must be connected.
    pub fn generated(&self, proxy: &str) -> Value {
        let path = format!("/debug/config_dump?proxyID={proxy}");
        let answer = Client::new(self.debug, Protocol::Http1).send_blocking(Request::get(&path)).unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json().unwrap()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn wait_until_ready(&mut self) {
        until("the control plane is ready", || {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "the control plane ended ({ended:?}):\n{}", self.log());
            self.log().lines().any(|line| line == "ready")
        });
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Neither can fail in a way that matters: then it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// JSON is YAML too. Moved into place, so that it is never read half.
fn write(file: &Path, resources: &[Value]) {
    let documents: Vec<String> = resources.iter().map(Value::to_string).collect();
    let next = file.with_extension("next");
    fs::write(&next, documents.join("\n---\n")).unwrap();
    fs::rename(next, file).unwrap();
}
