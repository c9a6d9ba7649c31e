//! Several fronts under several kinds of traffic, one cell after the other.

use anyhow::{Context, Result, bail};

use super::cell::Cell;
use super::front::Front;
use super::play::Outcome;
use super::traffic::Traffic;

/// What all cells of a comparison have in common.
#[derive(Debug, Clone)]
pub struct Comparison {
    pub fronts: Vec<Front>,
    /// In which requests arrive, for each cell.
    pub seconds: f64,
    pub seed: u64,
    /// As in [`Cell::late_ms_max`].
    pub late_ms_max: f64,
}

/// What came of the cells.
#[derive(Debug, Default)]
pub struct Played {
    pub outcomes: Vec<Outcome>,
    /// The names of those that could not be measured.
    refused: Vec<String>,
}

impl Comparison {
    /// Plays every kind of traffic for everybody, says what came of each, and adds it to `played`.
    ///
    /// # Errors
    /// As [`Cell::run`].
    pub fn play(&self, traffics: &[Traffic], played: &mut Played) -> Result<()> {
        for &traffic in traffics {
            for front in &self.fronts {
                let name = format!("{}, {}", traffic.name(), front.name());
                let &Comparison { seconds, seed, late_ms_max, .. } = self;
                let cell = Cell { traffic, front: front.clone(), seconds, seed, late_ms_max };
                match cell.run().with_context(|| name.clone())? {
                    Some(outcome) => {
                        outcome.print();
                        played.outcomes.push(outcome);
                    }
                    None => played.refused.push(name),
                }
            }
        }
        Ok(())
    }
}

impl Played {
    /// # Errors
    /// Some could not be measured.
    pub fn check_all_measured(&self, again: &Played) -> Result<()> {
        let refused: Vec<&str> = self.refused.iter().chain(&again.refused).map(String::as_str).collect();
        if !refused.is_empty() {
            bail!("the machine was too busy to measure: {}", refused.join("; "));
        }
        Ok(())
    }
}
