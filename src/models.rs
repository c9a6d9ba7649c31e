//! From the model a client asks for to the model the servers know.
//!
//! A model's targets take turns by smooth weighted round robin: at each request every target's credit grows by its
//! weight, the one with the most credit is taken and pays the sum of all weights. Over any `sum` requests each
//! target gets exactly its weight, and in between it is never more than one request away from its share.

use crate::config::{Config, Model, Target};

/// Where each model's targets stand in their turn.
#[derive(Debug)]
pub struct Turns {
    credits: Vec<Vec<i64>>,
}

/// What becomes of the model asked for.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolution<'a> {
    /// It goes to the servers under the name asked for.
    AsAsked,
    /// It goes to the servers under this name.
    Target(&'a str),
    /// Models are configured for the pool, and this is none of them.
    Unknown,
}

impl Turns {
    /// Nobody has had a turn.
    pub fn new(config: &Config) -> Turns {
        Turns { credits: config.models.iter().map(|model| vec![0; model.targets.len()]).collect() }
    }

    /// The model to send for the model asked for; takes a turn.
    pub fn resolve<'a>(&mut self, config: &'a Config, pool: &str, asked: &str) -> Resolution<'a> {
        if config.models.is_empty() {
            return Resolution::AsAsked;
        }
        let place = config.models.iter().position(|model| model.name == asked && model.pool == pool);
        let found = place.and_then(|place| Some((config.models.get(place)?, self.credits.get_mut(place)?)));
        match found {
            Some((model, credits)) => next_target(model, credits),
            None => Resolution::Unknown,
        }
    }
}

fn next_target<'a>(model: &'a Model, credits: &mut [i64]) -> Resolution<'a> {
    let sum: i64 = model.targets.iter().map(|target| i64::from(target.weight)).sum();
    let mut richest: Option<(&Target, &mut i64)> = None;
    for (target, credit) in model.targets.iter().zip(credits).filter(|(target, _)| target.weight > 0) {
        *credit += i64::from(target.weight);
        if richest.as_ref().is_none_or(|(_, most)| *credit > **most) {
            richest = Some((target, credit));
        }
    }
    let Some((target, credit)) = richest else {
        return Resolution::AsAsked;
    };
    *credit -= sum;
    if target.name == model.name { Resolution::AsAsked } else { Resolution::Target(&target.name) }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn config(models: &str) -> Config {
        let document = format!(
            r#"{{"pools":[{{"name":"p","cluster":"c","endpoints":["1.1.1.1:1"]}},
            {{"name":"q","cluster":"d","endpoints":["1.1.1.1:2"]}}],"models":{models}}}"#
        );
        Config::parse(document.as_bytes()).unwrap()
    }

    #[test]
    fn targets_get_their_share_over_every_window() {
        let config = config(
            r#"[{"modelName":"m","poolRef":{"name":"p"},"targetModels":[{"name":"a","weight":9},{"name":"b","weight":1}]}]"#,
        );
        let mut turns = Turns::new(&config);
        let picks: Vec<_> = (0..100).map(|_| turns.resolve(&config, "p", "m")).collect();
        for window in picks.windows(10) {
            let of_b = window.iter().filter(|pick| **pick == Resolution::Target("b")).count();
            assert_eq!(of_b, 1);
        }
    }

    #[test]
    fn a_model_without_targets_goes_as_asked_and_an_unknown_one_nowhere() {
        let config = config(
            r#"[{"modelName":"m","poolRef":{"name":"p"}},
            {"modelName":"same","poolRef":{"name":"p"},"targetModels":[{"name":"same"}]}]"#,
        );
        let mut turns = Turns::new(&config);
        assert_eq!(turns.resolve(&config, "p", "m"), Resolution::AsAsked);
        assert_eq!(turns.resolve(&config, "p", "same"), Resolution::AsAsked);
        assert_eq!(turns.resolve(&config, "p", "nope"), Resolution::Unknown);
        assert_eq!(turns.resolve(&config, "q", "m"), Resolution::Unknown, "another pool's model");
    }

    #[test]
    fn where_no_model_is_configured_every_model_is_served() {
        let config = config("[]");
        assert_eq!(Turns::new(&config).resolve(&config, "p", "anything"), Resolution::AsAsked);
    }
}
