//! From the model a client asks for to the model the servers know, and to the pool that serves it.
//!
//! A name may stand for a model in each of several pools, each with targets of its own. The route decides among them: a
//! route that splits traffic over two pools is a canary of pools. Where the route's pool has no model of the name, the
//! first pool that has one serves it. A pool may have default targets, which are for every model that it does not name
//! itself: then no other pool is asked.
//!
//! The targets of a pool's model take turns by smooth weighted round robin: at each request every target's credit grows by its
//! weight, the one with the most credit is taken and pays the sum of all weights. Over any `sum` requests each
//! target gets exactly its weight, and in between it is never more than one request away from its share.
//!
//! A user who is to stay on one target gets the one with the highest score, by weighted rendezvous hashing:
//! `score = −weight ÷ ln(hash(user, target))`, the hash as a fraction of one. Each target's share of the users is that
//! of its weight, and when weights change only those users move who must.

use crate::config::{Config, STANDARD_PRIORITY, Target};
use crate::hash::fnv1a;

/// Where each model's targets stand in their turn.
#[derive(Debug)]
pub struct TargetSelector {
    /// Of each model.
    models: Vec<Vec<i64>>,
    /// Of each pool's default targets.
    defaults: Vec<Vec<i64>>,
}

/// What becomes of the model asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution<'a> {
    /// The name under which it goes to the servers; `None`: the one asked for.
    pub target: Option<&'a str>,
    /// How much it matters.
    pub priority: i32,
    /// The place of the pool that serves it.
    pub pool: usize,
}

/// A model that is not published: where such are let through, it goes as asked to where its route leads.
fn unpublished(route_pool: usize) -> Resolution<'static> {
    Resolution { target: None, priority: STANDARD_PRIORITY, pool: route_pool }
}

impl TargetSelector {
    /// Nobody has had a turn.
    pub fn new(config: &Config) -> TargetSelector {
        TargetSelector {
            models: config.models.iter().map(|model| vec![0; model.targets.len()]).collect(),
            defaults: config.pools.iter().map(|pool| vec![0; pool.default_targets.len()]).collect(),
        }
    }

    /// What becomes of the model asked for on a route to the pool at `route_pool`; takes a turn, unless `user` decides.
    /// `None`: it is unknown, and such are refused.
    pub fn resolve<'a>(
        &mut self,
        config: &'a Config,
        asked: &str,
        route_pool: usize,
        user: Option<&[u8]>,
    ) -> Option<Resolution<'a>> {
        let place = config.place_of_model(asked, route_pool);
        let found = place.and_then(|place| Some((config.models.get(place)?, self.models.get_mut(place)?)));
        let Some((model, credits)) = found else {
            return self.unnamed(config, asked, route_pool, user);
        };
        let target = target(&model.targets, credits, user).filter(|name| *name != model.name);
        Some(Resolution { target, priority: model.criticality.priority(), pool: model.pool })
    }

    /// What becomes of a model that has no entry.
    fn unnamed<'a>(
        &mut self,
        config: &'a Config,
        asked: &str,
        route_pool: usize,
        user: Option<&[u8]>,
    ) -> Option<Resolution<'a>> {
        let defaults = config.pools.get(route_pool).map(|pool| &pool.default_targets);
        let found = defaults.filter(|targets| !targets.is_empty()).zip(self.defaults.get_mut(route_pool));
        let Some((targets, credits)) = found else {
            return (!config.reject_unknown_models).then_some(unpublished(route_pool));
        };
        let target = target(targets, credits, user).filter(|name| *name != asked);
        Some(Resolution { target, ..unpublished(route_pool) })
    }
}

fn target<'a>(targets: &'a [Target], credits: &mut [i64], user: Option<&[u8]>) -> Option<&'a str> {
    let target = match user {
        Some(user) => target_of_user(targets, user),
        None => next_target(targets, credits),
    };
    target.map(|target| target.name.as_str())
}

/// Whether the pool at this place serves the model asked for, under whatever name.
pub fn is_served_by(config: &Config, asked: &str, pool: usize) -> bool {
    match config.place_of_model(asked, pool).and_then(|place| config.models.get(place)) {
        Some(model) => model.pool == pool,
        None => {
            let has_default = config.pools.get(pool).is_some_and(|pool| !pool.default_targets.is_empty());
            has_default || !config.reject_unknown_models
        }
    }
}

/// What becomes of the model asked for, but for its target; nobody takes a turn.
pub fn unturned(config: &Config, asked: &str, route_pool: usize) -> Resolution<'static> {
    let found = config.place_of_model(asked, route_pool).and_then(|place| config.models.get(place));
    found.map_or(unpublished(route_pool), |model| Resolution {
        target: None,
        priority: model.criticality.priority(),
        pool: model.pool,
    })
}

fn next_target<'a>(targets: &'a [Target], credits: &mut [i64]) -> Option<&'a Target> {
    let sum: i64 = targets.iter().map(|target| i64::from(target.weight)).sum();
    let mut richest: Option<(&Target, &mut i64)> = None;
    for (target, credit) in targets.iter().zip(credits).filter(|(target, _)| target.weight > 0) {
        *credit += i64::from(target.weight);
        if richest.as_ref().is_none_or(|(_, most)| *credit > **most) {
            richest = Some((target, credit));
        }
    }
    let (target, credit) = richest?;
    *credit -= sum;
    Some(target)
}

fn target_of_user<'a>(targets: &'a [Target], user: &[u8]) -> Option<&'a Target> {
    let score = |target: &Target| {
        let hash = fnv1a(&[user, &[0], target.name.as_bytes()].concat());
        // Above zero and below one, so that the logarithm is finite and below zero.
        let fraction = ((hash >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
        -f64::from(target.weight) / fraction.ln()
    };
    targets.iter().max_by(|one, other| score(one).total_cmp(&score(other)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{CRITICAL_PRIORITY, SHEDDABLE_PRIORITY};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn config(models: &str) -> Config {
        let document = format!(
            r#"{{"pools":[{{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"]}},
            {{"name":"q","cluster":"d","endpoints":["1.1.1.1:2"]}}],{models}}}"#
        );
        Config::parse(document.as_bytes()).unwrap()
    }

    /// A model of these targets and weights.
    fn weighted(weights: &[(&str, u32)]) -> Config {
        let targets: Vec<_> = weights
            .iter()
            .map(|(name, weight)| format!(r#"{{"name":"{name}","weight":{weight}}}"#))
            .collect();
        let targets = targets.join(",");
        config(&format!(
            r#""models":[{{"modelName":"m","poolRef":{{"name":"p"}},"targetModels":[{targets}]}}]"#
        ))
    }

    fn next<'a>(selector: &mut TargetSelector, config: &'a Config) -> &'a str {
        selector.resolve(config, "m", 0, None).unwrap().target.unwrap()
    }

    fn of_user(config: &Config, user: u32) -> &str {
        TargetSelector::new(config)
            .resolve(config, "m", 0, Some(&user.to_le_bytes()))
            .unwrap()
            .target
            .unwrap()
    }

    #[test]
    fn targets_get_their_share_over_every_window() {
        let config = weighted(&[("a", 9), ("b", 1)]);
        let mut selector = TargetSelector::new(&config);
        let picks: Vec<_> = (0..100).map(|_| next(&mut selector, &config)).collect();
        for window in picks.windows(10) {
            assert_eq!(window.iter().filter(|pick| **pick == "b").count(), 1);
        }
    }

    #[test]
    fn a_target_of_weight_zero_gets_nothing() {
        let config = weighted(&[("a", 0), ("b", 5)]);
        let mut selector = TargetSelector::new(&config);
        assert!((0..20).all(|_| next(&mut selector, &config) == "b"));
        assert!((0..200).all(|user| of_user(&config, user) == "b"));
    }

    #[test]
    fn a_user_stays_on_one_target_and_users_are_shared_by_weight() {
        let config = weighted(&[("a", 80), ("b", 20)]);
        let of_b = (0..10_000).filter(|user| of_user(&config, *user) == "b").count();
        assert!((1_900..2_100).contains(&of_b), "{of_b}");
        assert!((0..100).all(|user| of_user(&config, user) == of_user(&config, user)));
    }

    #[test]
    fn when_weights_change_only_those_users_move_who_must() {
        let (before, after) = (weighted(&[("a", 80), ("b", 20)]), weighted(&[("a", 60), ("b", 40)]));
        let moved: Vec<_> =
            (0..10_000).filter(|user| of_user(&before, *user) != of_user(&after, *user)).collect();
        assert!(
            moved.iter().all(|user| of_user(&after, *user) == "b"),
            "nobody moves away from the one that grew"
        );
        assert!((1_800..2_200).contains(&moved.len()), "{}", moved.len());
    }

    #[test]
    fn a_model_without_targets_goes_as_asked_and_an_unknown_one_nowhere() {
        let models = r#"{"modelName":"m","criticality":"Sheddable","poolRef":{"name":"q"}},
            {"modelName":"same","poolRef":{"name":"p"},"targetModels":[{"name":"same"}]}"#;
        let config = config(&format!(r#""models":[{models}]"#));
        let mut selector = TargetSelector::new(&config);
        let found = Resolution { target: None, priority: SHEDDABLE_PRIORITY, pool: 1 };
        assert_eq!(selector.resolve(&config, "m", 0, None), Some(found));
        assert_eq!(selector.resolve(&config, "same", 0, None).unwrap().target, None);
        assert_eq!(selector.resolve(&config, "nope", 0, None), None);
    }

    /// A model in the pools `p` and `q` with other targets in each, and a third pool `r` that does not have it.
    fn in_two_pools() -> Config {
        let document = r#"{"pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"]},
            {"name":"q","cluster":"d","endpoints":["1.1.1.1:2"]},{"name":"r","cluster":"e","endpoints":["1.1.1.1:3"]}],
            "models":[{"modelName":"other","poolRef":{"name":"r"}},
            {"modelName":"m","criticality":"Critical","poolRef":{"name":"q"},"targetModels":[{"name":"new"}]},
            {"modelName":"m","poolRef":{"name":"p"},
                "targetModels":[{"name":"a","weight":3},{"name":"b","weight":1}]}]}"#;
        Config::parse(document.as_bytes()).unwrap()
    }

    #[test]
    fn the_routes_pool_has_a_model_of_its_own_and_else_the_first_pool_that_has_one_serves_it() {
        let config = in_two_pools();
        let mut selector = TargetSelector::new(&config);
        let mut resolve = |route_pool| {
            let found = selector.resolve(&config, "m", route_pool, None).unwrap();
            (found.pool, found.priority, found.target.unwrap())
        };
        assert_eq!(resolve(0), (0, STANDARD_PRIORITY, "a"));
        assert_eq!(resolve(1), (1, CRITICAL_PRIORITY, "new"));
        assert_eq!(resolve(2), (1, CRITICAL_PRIORITY, "new"));
        assert_eq!(resolve(usize::MAX), (1, CRITICAL_PRIORITY, "new"));
    }

    #[test]
    fn a_pools_default_targets_are_for_every_model_that_it_does_not_name() {
        let document = r#"{"pools":[{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"],
            "defaultTargets":[{"name":"a","weight":3},{"name":"b","weight":1}]},
            {"name":"q","cluster":"d","endpoints":["1.1.1.1:2"]}],
            "models":[{"modelName":"m","poolRef":{"name":"p"},"targetModels":[{"name":"own"}]},
            {"modelName":"n","criticality":"Critical","poolRef":{"name":"q"}}]}"#;
        let config = Config::parse(document.as_bytes()).unwrap();
        let mut selector = TargetSelector::new(&config);
        let mut resolve = |asked, route_pool| selector.resolve(&config, asked, route_pool, None);
        assert_eq!(resolve("m", 0).unwrap().target, Some("own"), "exact before generic");
        let picks: Vec<_> = (0..40).map(|_| resolve("anything", 0).unwrap().target.unwrap()).collect();
        assert!(picks.windows(4).all(|window| window.iter().filter(|pick| **pick == "b").count() == 1));
        let of_other_pool = resolve("n", 0).unwrap();
        assert_eq!(
            (of_other_pool.pool, of_other_pool.priority),
            (0, STANDARD_PRIORITY),
            "the pool is the route's"
        );
        assert_eq!(resolve("anything", 1), None, "another pool's defaults are not for this one");
        let served: Vec<_> = (0..4).map(|_| resolve("a", 0).unwrap().target).collect();
        assert_eq!(
            served.iter().filter(|target| target.is_none()).count(),
            3,
            "what is called so already stays"
        );
    }

    #[test]
    fn each_pools_targets_take_turns_and_keep_users_by_themselves() {
        let config = in_two_pools();
        let mut selector = TargetSelector::new(&config);
        // Requests on the other pool's route come in between, and take no turn.
        let picks: Vec<_> = (0..40)
            .map(|_| {
                assert_eq!(selector.resolve(&config, "m", 1, None).unwrap().target, Some("new"));
                selector.resolve(&config, "m", 0, None).unwrap().target.unwrap()
            })
            .collect();
        assert!(picks.windows(4).all(|window| window.iter().filter(|pick| **pick == "b").count() == 1));
        for user in 0..100_u32 {
            let user = user.to_le_bytes();
            let mut of_user =
                |route_pool| selector.resolve(&config, "m", route_pool, Some(&user)).unwrap().target;
            assert_eq!((of_user(0), of_user(1)), (of_user(0), Some("new")));
        }
    }

    #[test]
    fn unknown_models_may_be_let_through() {
        for models in [
            r#""models":[]"#,
            r#""models":[{"modelName":"m","poolRef":{"name":"p"}}],"unknownModels":"passthrough""#,
        ] {
            let config = config(models);
            for route_pool in [0, 1] {
                let found = TargetSelector::new(&config).resolve(&config, "anything", route_pool, None);
                assert_eq!(found, Some(unpublished(route_pool)));
            }
        }
    }
}
