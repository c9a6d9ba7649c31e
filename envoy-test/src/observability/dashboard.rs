//! The panels of `dashboard.json`, and their expressions without Grafana's variables.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panel {
    pub title: String,
    pub targets: Vec<Target>,
}

/// What one panel asks for, and how its lines are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// With Grafana's variables.
    pub expression: String,
    /// With labels as `{{endpoint}}`.
    legend: String,
}

/// All panels that have expressions, in the dashboard's order.
pub fn panels() -> Result<Vec<Panel>> {
    let document: Value = serde_json::from_slice(&fs::read(super::file("dashboard.json"))?)?;
    let panels = document["panels"].as_array().context("no panels")?;
    panels.iter().filter(|panel| panel["type"] != "row").map(Panel::read).collect()
}

/// The expression as Grafana sends it when everything is selected.
pub fn without_variables(expression: &str, rate_interval: &str) -> String {
    expression.replace("$__rate_interval", rate_interval).replace("$pool", ".*").replace("$model", ".*")
}

impl Panel {
    fn read(panel: &Value) -> Result<Panel> {
        let title = panel["title"].as_str().context("a panel without title")?.to_owned();
        let targets = panel["targets"].as_array().with_context(|| format!("{title} has no targets"))?;
        let targets: Option<Vec<Target>> = targets.iter().map(Target::read).collect();
        Ok(Panel { targets: targets.with_context(|| format!("{title} has targets without expr"))?, title })
    }
}

impl Target {
    fn read(target: &Value) -> Option<Target> {
        let text = |field: &str| target[field].as_str().map(str::to_owned);
        Some(Target { expression: text("expr")?, legend: text("legendFormat")? })
    }

    /// What a line with these labels is called.
    pub fn name(&self, labels: &BTreeMap<String, String>) -> String {
        labels.iter().fold(self.legend.clone(), |name, (label, value)| {
            name.replace(&format!("{{{{{label}}}}}"), value)
        })
    }
}
