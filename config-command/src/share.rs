//! What all namespaces together may put into one configuration, so that no owner of one namespace can keep the others' out.
//!
//! Everything has a size, its bytes as they are printed, and the list of its kind a place. Each namespace may use what
//! there is up to one level: the highest at which all fit, `Σ min(used, level) ≤ limit`. What a namespace has beyond is
//! refused, its youngest resources first.

use std::collections::BTreeMap;

use inference_picker::config::{MAX_MODELS, MAX_OBJECTIVES, MAX_POOLS};
use serde::Serialize;

use crate::document::Document;
use crate::findings::Findings;
use crate::models::Models;
use crate::pools::PlannedPool;
use crate::resources::Identity;

/// Bytes of all entries together as they are printed: the API server refuses a resource of 1.5 MiB, which would keep every
/// change out.
const MAX_CONFIGURATION_BYTES: usize = 1_000_000;

/// The deepest indentation at which entries are printed.
const INDENTATION: usize = 24;

/// Refuses what does not fit.
pub fn refuse_surplus(
    document: &Document,
    planned: &[PlannedPool<'_>],
    published: &Models,
    findings: &mut Findings,
) {
    let pools = planned.iter().map(|planned| &planned.pool.identity);
    let models = published.published.iter().map(|published| &published.identity);
    let objectives = published.objectives.iter().map(|named| &named.identity);
    let defaults = published.defaults.iter();
    let sizes = pools.clone().zip(document.pools.iter().map(size));
    let sizes = sizes.chain(models.clone().zip(document.models.iter().map(size)));
    let sizes = sizes.chain(objectives.clone().zip(document.objectives.iter().map(size)));
    let sizes = sizes.chain(defaults.map(|of| (&of.identity, size(&of.targets))));
    refuse(pools.map(one), MAX_POOLS, "pools", findings);
    refuse(models.map(one), MAX_MODELS, "models", findings);
    refuse(objectives.map(one), MAX_OBJECTIVES, "objectives", findings);
    refuse(sizes, MAX_CONFIGURATION_BYTES, "bytes", findings);
}

fn one(identity: &Identity) -> (&Identity, usize) {
    (identity, 1)
}

fn size(entry: &impl Serialize) -> usize {
    let text = serde_json::to_string_pretty(entry).unwrap_or_default();
    text.len() + (text.lines().count() + 1) * INDENTATION
}

fn refuse<'a>(
    uses: impl Iterator<Item = (&'a Identity, usize)>,
    limit: usize,
    what: &str,
    findings: &mut Findings,
) {
    let mut of_namespaces: BTreeMap<&str, Vec<(&Identity, usize)>> = BTreeMap::new();
    for (identity, used) in uses {
        of_namespaces.entry(&identity.namespace).or_default().push((identity, used));
    }
    let sum = |uses: &Vec<(&Identity, usize)>| uses.iter().map(|(_, used)| used).sum::<usize>();
    let level = level(of_namespaces.values().map(sum).collect(), limit);
    for (namespace, uses) in of_namespaces {
        let mut sum = 0;
        for (identity, used) in uses {
            sum += used;
            if sum > level {
                let problem = format!(
                    "is more than the {level} {what} that the namespace `{namespace}` has in all {limit}"
                );
                findings.refuse(identity, "spec", problem);
            }
        }
    }
}

/// The highest level at which all fit.
fn level(mut uses: Vec<usize>, limit: usize) -> usize {
    uses.sort_unstable();
    let (mut left, mut count) = (limit, uses.len());
    for used in uses {
        let share = left / count.max(1);
        if used > share {
            return share;
        }
        left -= used;
        count -= 1;
    }
    limit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_uses_little_has_all_of_it_and_the_others_share_the_rest() {
        assert_eq!(level(vec![5, 10_000], 4_096), 4_091);
        assert_eq!(level(vec![9_000, 5, 10_000], 4_096), 2_045);
        assert_eq!(level(vec![5, 6], 4_096), 4_096);
        assert_eq!(level(vec![], 4_096), 4_096);
    }
}
