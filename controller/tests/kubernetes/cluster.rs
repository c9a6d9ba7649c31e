//! An API server and its etcd, with Istio's resources and those of the Inference Extension, and controllers.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long anything that must happen may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long the API server is gone for.
pub const OUTAGE: Duration = Duration::from_secs(30);
/// Lines of a log that say why something did not come about.
const TAIL: usize = 20;
/// The API server's own, which may not be a loopback address.
const ADDRESS: &str = "10.244.0.1";
/// Who is distinguished by nothing but this token; the API server takes it for an administrator.
const TOKEN: &str = "administrator";
const SERVICE_ACCOUNT: &str = "inference-picker-controller";
pub const WORKS: &str = "this controller works now";

/// A process that ends with its owner.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An API server and its etcd.
pub struct Cluster {
    pub folder: tempfile::TempDir,
    pub programs: PathBuf,
    port: u16,
    etcd_port: u16,
    _etcd: Running,
    pub server: Option<Running>,
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started_at = Instant::now();
    while !holds() {
        assert!(started_at.elapsed() < PATIENCE, "still not so: {what}");
        sleep(Duration::from_millis(50));
    }
}

pub fn start(command: &mut Command, log: &Path) -> Running {
    let log = File::create(log).unwrap();
    let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Running(
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run `make test-kubernetes`")),
    )
}

impl Cluster {
    pub fn start() -> Cluster {
        let folder = tempfile::tempdir().unwrap();
        let programs = root().join(".build/kubernetes/bin");
        let [port, etcd_port, peer_port] = [free_port(), free_port(), free_port()];
        let at = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = start(
            Command::new(programs.join("etcd"))
                .args(["--data-dir", folder.path().join("etcd").to_str().unwrap()])
                .args(["--listen-client-urls", &at(etcd_port), "--advertise-client-urls", &at(etcd_port)])
                .args(["--listen-peer-urls", &at(peer_port)]),
            &folder.path().join("etcd.log"),
        );
        let tokens = format!("{TOKEN},admin,admin,\"system:masters\"\n");
        fs::write(folder.path().join("tokens.csv"), tokens).unwrap();
        let key = Command::new("openssl").args(["genrsa", "-out"]).arg(folder.path().join("key")).output();
        assert!(key.unwrap().status.success(), "openssl makes a key for service accounts");
        let mut cluster = Cluster { folder, programs, port, etcd_port, _etcd: etcd, server: None };
        cluster.write_kubeconfig("administrator", TOKEN);
        cluster.start_server();
        cluster
    }

    fn write_kubeconfig(&self, name: &str, token: &str) {
        let text = format!(
            "apiVersion: v1
kind: Config
clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{}', insecure-skip-tls-verify: true}}}}]
users: [{{name: u, user: {{token: {token}}}}}]
contexts: [{{name: x, context: {{cluster: c, user: u}}}}]
current-context: x
",
            self.port
        );
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    pub fn start_server(&mut self) {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let key = path("key");
        let server = start(
            Command::new(self.programs.join("kube-apiserver"))
                .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
                .arg("--service-account-issuer=https://kubernetes")
                .args([
                    format!("--service-account-key-file={key}"),
                    format!("--service-account-signing-key-file={key}"),
                ])
                .args(["--service-cluster-ip-range=10.96.0.0/16", "--bind-address=127.0.0.1"])
                .arg(format!("--advertise-address={ADDRESS}"))
                .args([
                    format!("--cert-dir={}", path("certificates")),
                    format!("--secure-port={}", self.port),
                ])
                .arg(format!("--token-auth-file={}", path("tokens.csv")))
                .args(["--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount"]),
            &self.folder.path().join("server.log"),
        );
        self.server = Some(server);
        let started_at = Instant::now();
        while !self.kubectl(&["get", "--raw", "/readyz"], "").0 {
            assert!(
                started_at.elapsed() < PATIENCE,
                "the API server is not ready: {}",
                self.tail("server.log")
            );
            sleep(Duration::from_millis(100));
        }
        println!("the API server is ready after {} ms", started_at.elapsed().as_millis());
    }

    /// Runs kubectl; whether it succeeded, and what it said.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> (bool, String) {
        let file = self.folder.path().join("input.yaml");
        fs::write(&file, input).unwrap();
        let output = Command::new(self.programs.join("kubectl"))
            .env("KUBECONFIG", self.folder.path().join("administrator"))
            .args(arguments)
            .stdin(File::open(file).unwrap())
            .output()
            .unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    /// Runs a command of kubectl that has to succeed; what it said.
    #[track_caller]
    pub fn succeed(&self, arguments: &[&str]) -> String {
        let (is_done, said) = self.kubectl(arguments, "");
        assert!(is_done, "{arguments:?}: {said}");
        said
    }

    #[track_caller]
    pub fn apply(&self, text: &str) {
        let (is_done, said) = self.kubectl(&["apply", "-f", "-"], text);
        assert!(is_done, "{said}");
    }

    /// The objects of a kind in a namespace that have a label; with an empty one, all.
    #[track_caller]
    pub fn list(&self, kind: &str, namespace: &str, label: &str) -> Vec<Value> {
        let text = self.succeed(&["get", kind, "-n", namespace, "-l", label, "-o", "json"]);
        let list: Value = serde_json::from_str(&text).unwrap();
        list["items"].as_array().unwrap().clone()
    }

    /// An object as it is; `None` if it is not there.
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let (is_there, text) = self.kubectl(&["get", kind, "-n", namespace, name, "-o", "json"], "");
        is_there.then(|| serde_json::from_str(&text).unwrap())
    }

    /// Starts a controller of this name with the rights of its service account.
    pub fn controller(&self, name: &str, more: &[&str]) -> Running {
        start(
            Command::new(env!("CARGO_BIN_EXE_inference-picker-controller"))
                .env("KUBECONFIG", self.folder.path().join("controller"))
                .args(["--identity", name, "--lease-namespace", "inference-picker"])
                .args(["--listen", &format!("127.0.0.1:{}", free_port())])
                .args(more),
            &self.folder.path().join(name),
        )
    }

    pub fn log(&self, controller: &str) -> String {
        fs::read_to_string(self.folder.path().join(controller)).unwrap()
    }

    pub fn tail(&self, log: &str) -> String {
        let text = self.log(log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Whether the controller may do this in a namespace.
    pub fn may(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        let who = format!("--as=system:serviceaccount:inference-picker:{SERVICE_ACCOUNT}");
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let part = format!("--subresource={part}");
        self.kubectl(&["auth", "can-i", verb, resource, &part, "-n", namespace, &who], "").0
    }
}

/// A cluster with Istio's resources and those of the Inference Extension, and what `kubectl apply -k istio/controller` makes.
pub fn prepared() -> Cluster {
    let cluster = Cluster::start();
    let definitions = root().join(".build/kubernetes/definitions");
    let (is_done, said) =
        cluster.kubectl(&["apply", "--server-side", "-f", definitions.to_str().unwrap()], "");
    assert!(is_done, "{said}");
    cluster.apply("{apiVersion: v1, kind: Namespace, metadata: {name: istio-system}}");
    let folder = root().join("istio/controller");
    until("what the folder has is there", || {
        cluster.kubectl(&["apply", "-k", folder.to_str().unwrap()], "").0
    });
    let (is_done, token) =
        cluster.kubectl(&["create", "token", SERVICE_ACCOUNT, "-n", "inference-picker"], "");
    assert!(is_done, "{token}");
    cluster.write_kubeconfig("controller", token.trim());
    cluster
}
