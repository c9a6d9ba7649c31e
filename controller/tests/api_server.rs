//! The controller and a real Kubernetes API server, with no more rights than `istio/controller` gives it. `make test-kubernetes`
//! builds the server and runs this.

#![expect(clippy::disallowed_methods, reason = "waits for what happens in other processes")]

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
const OUTAGE: Duration = Duration::from_secs(30);
/// Lines of a log that say why something did not come about.
const TAIL: usize = 20;
/// Who is told apart by nothing but this token; the API server takes it for an administrator.
const TOKEN: &str = "administrator";
const SERVICE_ACCOUNT: &str = "inference-picker-controller";
const WORKS: &str = "this controller works now";

const POOL: &str = "
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama, namespace: default}
spec:
  selector: {matchLabels: {app: llama}}
  targetPorts: [{number: 8000}]
  endpointPickerRef: {name: picker, port: {number: 9002}}
";

fn rewrite(pool: &str, weight: u32) -> String {
    format!(
        "
apiVersion: inference.networking.x-k8s.io/v1alpha2
kind: InferenceModelRewrite
metadata: {{name: food, namespace: default}}
spec:
  poolRef: {{name: {pool}}}
  rules:
  - matches: [{{model: {{type: Exact, value: food}}}}]
    targets: [{{modelRewrite: food-v1, weight: {weight}}}, {{modelRewrite: food-v2, weight: 10}}]
"
    )
}

/// A process that ends with its owner.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An API server and its etcd.
struct Cluster {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    etcd_port: u16,
    _etcd: Running,
    server: Option<Running>,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[track_caller]
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let started_at = Instant::now();
    while !holds() {
        assert!(started_at.elapsed() < PATIENCE, "still not so: {what}");
        sleep(Duration::from_millis(50));
    }
}

fn start(command: &mut Command, log: &Path) -> Running {
    let log = File::create(log).unwrap();
    let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    Running(
        command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}; run `make test-kubernetes`")),
    )
}

impl Cluster {
    fn start() -> Cluster {
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

    fn start_server(&mut self) {
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
    fn kubectl(&self, arguments: &[&str], input: &str) -> (bool, String) {
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

    #[track_caller]
    fn apply(&self, text: &str) {
        let (is_done, said) = self.kubectl(&["apply", "-f", "-"], text);
        assert!(is_done, "{said}");
    }

    /// An object as it is; `None` if it is not there.
    fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let (is_there, text) = self.kubectl(&["get", kind, "-n", namespace, name, "-o", "json"], "");
        is_there.then(|| serde_json::from_str(&text).unwrap())
    }

    /// The weight of the first target of the one model that the plugin in the gateway has.
    fn weight(&self) -> Option<u64> {
        let plugin = self.get("wasmplugin", "istio-system", "inference-picker")?;
        plugin["spec"]["pluginConfig"]["models"][0]["targetModels"][0]["weight"].as_u64()
    }

    /// Starts a controller of this name with the rights of its service account.
    fn controller(&self, name: &str) -> Running {
        start(
            Command::new(env!("CARGO_BIN_EXE_inference-picker-controller"))
                .env("KUBECONFIG", self.folder.path().join("controller"))
                .args(["--identity", name, "--lease-namespace", "inference-picker"])
                .args(["--listen", &format!("127.0.0.1:{}", free_port())]),
            &self.folder.path().join(name),
        )
    }

    fn log(&self, controller: &str) -> String {
        fs::read_to_string(self.folder.path().join(controller)).unwrap()
    }

    fn tail(&self, log: &str) -> String {
        let text = self.log(log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(TAIL)..].join("\n")
    }

    /// Weights that are asked for and then waited for.
    #[track_caller]
    fn change_weight(&self, weight: u32) {
        self.apply(&rewrite("llama", weight));
        let started_at = Instant::now();
        until("a change of weights is there", || self.weight() == Some(weight.into()));
        println!(
            "a weight is in the plugin's configuration {} ms after it was applied",
            started_at.elapsed().as_millis()
        );
    }

    /// Whether the rewrite's condition is that what it says now is wrong, and what it said before counts.
    fn is_refused(&self) -> bool {
        self.condition("Accepted").is_some_and(|condition| {
            let message = condition["message"].as_str().unwrap_or_default();
            condition["status"] == "False"
                && message.starts_with("spec.poolRef.name: ")
                && message.ends_with("counts as it was when it was last right")
        })
    }

    /// Whether the controller may do this in a namespace.
    fn may(&self, verb: &str, resource: &str, namespace: &str) -> bool {
        let who = format!("--as=system:serviceaccount:inference-picker:{SERVICE_ACCOUNT}");
        let (resource, part) = resource.split_once('/').unwrap_or((resource, ""));
        let part = format!("--subresource={part}");
        self.kubectl(&["auth", "can-i", verb, resource, &part, "-n", namespace, &who], "").0
    }

    /// The condition of this type of the rewrite.
    fn condition(&self, kind: &str) -> Option<Value> {
        let rewrite = self.get("inferencemodelrewrite", "default", "food")?;
        let conditions = rewrite["status"]["conditions"].as_array()?.clone();
        conditions.into_iter().find(|condition| condition["type"] == kind)
    }
}

/// A cluster with Istio's resources and those of the Inference Extension, and what `kubectl apply -k istio/controller` makes.
fn prepared() -> Cluster {
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

fn check_rights(cluster: &Cluster) {
    for (verb, resource, namespace) in [
        ("patch", "wasmplugins", "istio-system"),
        ("list", "inferencepools", "default"),
        ("patch", "inferencepools/status", "default"),
    ] {
        assert!(cluster.may(verb, resource, namespace), "{verb} {resource} {namespace}");
    }
    for (verb, resource, namespace) in [
        ("get", "secrets", "inference-picker"),
        ("list", "secrets", "istio-system"),
        ("list", "pods", "default"),
        ("list", "configmaps", "istio-system"),
        ("patch", "wasmplugins", "default"),
        ("patch", "inferencepools", "default"),
        ("create", "clusterroles", "default"),
    ] {
        assert!(!cluster.may(verb, resource, namespace), "{verb} {resource} {namespace}");
    }
}

#[test]
#[ignore = "starts a real kube-apiserver: make test-kubernetes"]
fn what_is_applied_is_in_the_gateways_resources_whatever_happens_to_controllers_and_the_api_server() {
    let mut cluster = prepared();
    check_rights(&cluster);
    // Somebody else's, in the same namespace.
    cluster.apply(
        "{apiVersion: extensions.istio.io/v1alpha1, kind: WasmPlugin, metadata: {name: other, namespace: istio-system},
          spec: {url: 'oci://registry.example.com/other:1'}}",
    );
    cluster.apply(&[POOL, &rewrite("llama", 90)].join("---"));

    let one = cluster.controller("one");
    until("the plugin's configuration is there", || cluster.weight() == Some(90));
    let accepted = || cluster.condition("Accepted").is_some_and(|condition| condition["status"] == "True");
    until("the rewrite is accepted", accepted);
    cluster.change_weight(50);

    // Wrong: the condition says which field, and what was right stays.
    cluster.apply(&rewrite("nowhere", 7));
    until("the condition names the field", || cluster.is_refused());
    assert_eq!(cluster.condition("Accepted").unwrap()["observedGeneration"], 3);
    assert_eq!(cluster.weight(), Some(50));

    // Killed, and started anew: what was right is not forgotten.
    assert!(!cluster.log("one").contains("orbidden"), "{}", cluster.log("one"));
    drop(one);
    let anew = cluster.controller("anew");
    until("it works", || cluster.log("anew").contains("\"written\""));
    assert_eq!(cluster.weight(), Some(50));
    assert!(cluster.is_refused());
    cluster.change_weight(60);
    until("it is right again", accepted);

    // Two controllers: one works, and the other when that one is gone.
    let two = cluster.controller("two");
    sleep(Duration::from_secs(3));
    assert!(!cluster.log("two").contains(WORKS), "{}", cluster.log("two"));
    drop(anew);
    until("the other works", || cluster.log("two").contains(WORKS));
    cluster.change_weight(70);
    assert!(!cluster.log("two").contains("orbidden"), "{}", cluster.log("two"));

    // The API server is gone for a while.
    cluster.server = None;
    sleep(OUTAGE);
    cluster.start_server();
    assert_eq!(cluster.weight(), Some(70));
    cluster.change_weight(80);

    // What it made goes with the pool, and nothing else does.
    let (is_done, said) = cluster.kubectl(&["delete", "inferencepool", "llama"], "");
    assert!(is_done, "{said}");
    let made = [
        ("wasmplugin", "inference-picker"),
        ("trafficextension", "inference-picker"),
        ("envoyfilter", "inference-picker-scrape"),
    ];
    for (kind, name) in made {
        until(&format!("{kind} {name} is gone"), || cluster.get(kind, "istio-system", name).is_none());
    }
    assert!(cluster.get("wasmplugin", "istio-system", "other").is_some());
    until("the rewrite says that its pool is gone", || {
        cluster.condition("ResolvedRefs").is_some_and(|condition| condition["status"] == "False")
    });
    drop(two);
}
