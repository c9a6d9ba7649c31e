//! Starts one Prometheus on the scrape job and the rules that the project ships, and asks it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::envoy::binary::project_root;
use crate::envoy::{Client, Protocol, Request, free_address};

/// It starts in a second; a busy machine takes some more.
const START_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait before looking again.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// A running Prometheus. Dropping it ends it and removes its data.
pub struct Prometheus {
    child: Child,
    folder: TempDir,
    address: SocketAddr,
}

/// One line of a range query's result.
#[derive(Debug, Clone, Deserialize)]
pub struct Series {
    #[serde(rename = "metric")]
    pub labels: BTreeMap<String, String>,
    values: Vec<(f64, String)>,
}

impl Series {
    /// Times in seconds since 1970, and values; without those that are no numbers.
    pub fn points(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self.values.iter().map(|(time_s, value)| (*time_s, number(value)));
        points.filter(|(_, value)| value.is_finite())
    }
}

impl Prometheus {
    pub fn is_installed() -> bool {
        binary("prometheus").is_file() && binary("promtool").is_file()
    }

    /// Starts it on `prometheus.yaml`, with these Envoys' admin listeners as targets.
    pub fn start(admins: &[SocketAddr], scrape_interval: Duration) -> Result<Prometheus> {
        let folder = tempfile::tempdir()?;
        let address = free_address()?;
        let configuration = folder.path().join("prometheus.json");
        fs::write(&configuration, configuration_for(admins, scrape_interval)?.to_string())?;
        let log = File::create(folder.path().join("log"))?;
        let child = Command::new(binary("prometheus"))
            .arg(format!("--config.file={}", configuration.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("starting Prometheus")?;
        let mut prometheus = Prometheus { child, folder, address };
        prometheus.wait_until_ready()?;
        Ok(prometheus)
    }

    /// The values of the expression now.
    pub fn query(&self, expression: &str) -> Result<Vec<f64>> {
        let data = self.get(&format!("/api/v1/query?query={}", encoded(expression)))?;
        let elements = data["result"].as_array().into_iter().flatten();
        Ok(elements.map(|element| number(element["value"][1].as_str().unwrap_or_default())).collect())
    }

    /// What the expression was in the last `length`, one value each `step`; and when that began, in seconds since 1970.
    pub fn query_range(
        &self,
        expression: &str,
        length: Duration,
        step: Duration,
    ) -> Result<(f64, Vec<Series>)> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let (start, end) = ((now - length).as_secs_f64(), now.as_secs_f64());
        let step = step.as_secs_f64();
        let query = encoded(expression);
        let data =
            self.get(&format!("/api/v1/query_range?query={query}&start={start}&end={end}&step={step}"))?;
        Ok((start, serde_json::from_value(data["result"].clone())?))
    }

    /// Its rules by name, and the state of each: `ok`, or what is wrong.
    pub fn rule_health(&self) -> Result<BTreeMap<String, String>> {
        let data = self.get("/api/v1/rules")?;
        let groups = data["groups"].as_array().into_iter().flatten();
        let rules = groups.flat_map(|group| group["rules"].as_array()).flatten();
        let text = |rule: &Value, field: &str| rule[field].as_str().unwrap_or_default().to_owned();
        Ok(rules
            .map(|rule| (text(rule, "name"), format!("{}{}", text(rule, "health"), text(rule, "lastError"))))
            .collect())
    }

    fn get(&self, path: &str) -> Result<Value> {
        let answer = Client::new(self.address, Protocol::Http1).send_blocking(Request::get(path))?;
        let mut body = answer.json()?;
        if body["status"] != "success" {
            bail!("Prometheus answered {} to {path}: {}", answer.status, body["error"]);
        }
        Ok(body["data"].take())
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started_at = Instant::now();
        let client = Client::new(self.address, Protocol::Http1);
        let is_ready =
            || client.send_blocking(Request::get("/-/ready")).is_ok_and(|answer| answer.status == 200);
        while !is_ready() {
            let ended = self.child.try_wait()?;
            if ended.is_some() || started_at.elapsed() > START_LIMIT {
                let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
                bail!("Prometheus did not start ({ended:?}):\n{log}");
            }
            sleep(POLL_INTERVAL);
        }
        Ok(())
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Its data goes with its folder, so there is nothing that it had to finish.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs promtool on files of `filter-config/observed/`.
pub fn promtool(arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(binary("promtool"));
    command.args(arguments).current_dir(super::file("")).output().context("starting promtool")
}

fn binary(name: &str) -> PathBuf {
    project_root().join(".build/prometheus/usr/bin").join(name)
}

fn configuration_for(admins: &[SocketAddr], scrape_interval: Duration) -> Result<Value> {
    let path: &Path = &super::file("prometheus.yaml");
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let mut document: Value = serde_saphyr::from_str(&text)?;
    let interval = format!("{}ms", scrape_interval.as_millis());
    document["global"] = json!({"scrape_interval": interval, "evaluation_interval": interval});
    document["rule_files"] = json!([super::file("alerts.yaml"), super::file("llm-d-aliases.yaml")]);
    let targets: Vec<String> = admins.iter().map(SocketAddr::to_string).collect();
    document["scrape_configs"][0]["static_configs"] = json!([{"targets": targets}]);
    Ok(document)
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// Prometheus writes numbers as text, and `NaN` and `+Inf` too.
fn number(text: &str) -> f64 {
    text.parse().unwrap_or(f64::NAN)
}
