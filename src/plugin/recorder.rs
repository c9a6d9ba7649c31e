//! Hands to the host what [`crate::stats`] wants recorded.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::host::{self, HostError, Metric};
use crate::config::Config;
use crate::limits::Limit;
use crate::stats::{Kind, Measurement, Series, Stats};

/// Time between two writings of a gauge, in milliseconds: nobody reads them more often.
pub const GAUGE_INTERVAL_MS: u64 = 1_000;

/// Series that are added up before they are written. One model has about ten.
const MAX_UNWRITTEN: usize = 64;

/// The host's statistics, by the numbers under which it knows them; as many as [`Stats`] bounds.
///
/// What is counted is added up here and written by [`Recorder::flush`], with each tick and whenever the last request of a
/// worker has ended: a call of the host for each is worth ten additions.
pub struct Recorder {
    stats: Stats,
    ids: HashMap<Series, u32, FixedState>,
    /// What was counted and is not written yet.
    unwritten: Vec<Measurement>,
}

impl Recorder {
    pub fn new(config: &Config) -> Recorder {
        Recorder { stats: Stats::new(config), ids: HashMap::default(), unwritten: Vec::new() }
    }

    /// Names and labels.
    pub fn stats(&mut self) -> &mut Stats {
        &mut self.stats
    }

    /// Records what `measure` says.
    pub fn record<M: IntoIterator<Item = Measurement>>(&mut self, measure: impl FnOnce(&mut Stats) -> M) {
        for measurement in measure(&mut self.stats) {
            self.write(&measurement);
        }
    }

    /// Counts what `measure` says; what of it is no counter is recorded at once.
    pub fn count<M: IntoIterator<Item = Measurement>>(&mut self, measure: impl FnOnce(&mut Stats) -> M) {
        for measurement in measure(&mut self.stats) {
            if measurement.series.statistic.definition().kind == Kind::Counter {
                self.add(measurement);
            } else {
                self.write(&measurement);
            }
        }
    }

    fn add(&mut self, measurement: Measurement) {
        let has_room = self.unwritten.len() < MAX_UNWRITTEN;
        match self.unwritten.iter_mut().find(|known| known.series == measurement.series) {
            Some(known) => known.value = known.value.saturating_add(measurement.value),
            None if has_room => self.unwritten.push(measurement),
            None => self.write(&measurement),
        }
    }

    /// Writes what was counted.
    pub fn flush(&mut self) {
        while let Some(measurement) = self.unwritten.pop() {
            self.write(&measurement);
        }
    }

    fn write(&mut self, measurement: &Measurement) {
        if let Err(error) = self.record_one(measurement) {
            let name = self.stats.name(&measurement.series);
            log::warn!("cannot record {name}: {error:?}");
        }
    }

    /// Records which limits were reached, and how often.
    pub fn record_limits(&mut self, reached: impl Iterator<Item = (Limit, u32)>) {
        reached.for_each(|(limit, times)| self.record(|stats| [stats.limit_reached(limit, times)]));
    }

    /// Nothing is written any more: every gauge that was is zero, unless whoever comes next writes it again.
    pub fn end_gauges(&mut self) {
        let gauges = self.ids.keys().filter(|series| series.statistic.definition().kind == Kind::Gauge);
        let ended: Vec<_> = gauges.map(|series| Measurement { series: *series, value: 0 }).collect();
        self.record(|_| ended);
    }

    fn record_one(&mut self, measurement: &Measurement) -> Result<(), HostError> {
        let Measurement { series, value } = *measurement;
        let kind = series.statistic.definition().kind;
        let id = match self.ids.get(&series) {
            Some(id) => *id,
            None => self.define(series, kind)?,
        };
        match kind {
            // The host takes no zero for a counter.
            Kind::Counter if value == 0 => Ok(()),
            Kind::Counter => host::increment_metric(id, value),
            Kind::Gauge | Kind::Histogram => host::record_metric(id, u64::try_from(value).unwrap_or(0)),
        }
    }

    fn define(&mut self, series: Series, kind: Kind) -> Result<u32, HostError> {
        let kind = match kind {
            Kind::Counter => Metric::Counter,
            Kind::Gauge => Metric::Gauge,
            Kind::Histogram => Metric::Histogram,
        };
        let id = host::define_metric(kind, &self.stats.name(&series))?;
        self.ids.insert(series, id);
        Ok(id)
    }
}
