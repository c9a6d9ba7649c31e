//! The rules of `alerts.yaml`.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;

/// A recording rule or an alert.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub name: String,
    pub is_alert: bool,
    /// What is recorded; of an alert, what is held against its threshold.
    pub vector: String,
}

pub fn rules() -> Result<Vec<Rule>> {
    let text = fs::read_to_string(super::file("alerts.yaml"))?;
    let document: Value = serde_saphyr::from_str(&text)?;
    let groups = document["groups"].as_array().context("no groups")?;
    groups.iter().flat_map(|group| group["rules"].as_array()).flatten().map(Rule::read).collect()
}

impl Rule {
    fn read(rule: &Value) -> Result<Rule> {
        let expression = rule["expr"].as_str().context("a rule without expr")?;
        if let Some(name) = rule["record"].as_str() {
            return Ok(Rule { name: name.to_owned(), is_alert: false, vector: expression.to_owned() });
        }
        let name = rule["alert"].as_str().context("a rule that is neither recorded nor an alert")?;
        let (vector, threshold) =
            expression.trim_end().rsplit_once('\n').with_context(|| format!("{name} has no threshold"))?;
        threshold
            .strip_prefix(['>', '<'])
            .and_then(|number| number.trim().parse::<f64>().ok())
            .with_context(|| format!("the last line of {name} is no threshold: {threshold}"))?;
        Ok(Rule { name: name.to_owned(), is_alert: true, vector: vector.to_owned() })
    }
}
