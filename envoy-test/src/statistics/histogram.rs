//! A histogram of Prometheus's kind: how many values were not above each bound.

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Histogram {
    /// Bounds, ascending, and how many values were at or below each.
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// Adds values to the bucket of this bound.
    pub fn add(&mut self, bound: f64, count: f64) {
        match self.buckets.binary_search_by(|(known, _)| known.total_cmp(&bound)) {
            Ok(place) => self.buckets[place].1 += count,
            Err(place) => self.buckets.insert(place, (bound, count)),
        }
    }

    /// What came since an earlier state of the same histogram, which has the same bounds or none at all.
    pub fn since(&self, earlier: &Histogram) -> Histogram {
        let before = |bound: f64| earlier.buckets.iter().find(|(known, _)| *known == bound);
        let buckets = self.buckets.iter().map(|(bound, count)| {
            (*bound, (count - before(*bound).map_or(0.0, |(_, count)| *count)).max(0.0))
        });
        Histogram { buckets: buckets.collect() }
    }

    pub fn count(&self) -> f64 {
        self.buckets.last().map_or(0.0, |(_, count)| *count)
    }

    /// As Prometheus's `histogram_quantile` estimates it: values are spread evenly within their bucket, and those
    /// above the last finite bound are at it. None where there are no values.
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let rank = self.count() * share;
        let place = self.buckets.iter().position(|(_, count)| *count >= rank && *count > 0.0)?;
        let (bound, count) = self.buckets[place];
        let (bound_below, count_below) = match place {
            0 => (0.0, 0.0),
            _ => self.buckets[place - 1],
        };
        if bound.is_infinite() {
            return Some(bound_below);
        }
        Some(bound_below + (bound - bound_below) * (rank - count_below) / (count - count_below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(buckets: &[(f64, f64)]) -> Histogram {
        let mut histogram = Histogram::default();
        buckets.iter().rev().for_each(|(bound, count)| histogram.add(*bound, *count));
        histogram
    }

    #[test]
    fn quantiles_are_those_of_prometheus() {
        let check = |buckets: &[(f64, f64)], share: f64, expected: Option<f64>| {
            assert_eq!(histogram(buckets).quantile(share), expected, "{buckets:?} {share}");
        };
        check(&[], 0.5, None);
        check(&[(10.0, 0.0), (f64::INFINITY, 0.0)], 0.5, None);
        check(&[(10.0, 4.0), (20.0, 8.0), (f64::INFINITY, 8.0)], 0.5, Some(10.0));
        check(&[(10.0, 4.0), (20.0, 8.0), (f64::INFINITY, 8.0)], 0.75, Some(15.0));
        check(&[(10.0, 0.0), (20.0, 1.0), (f64::INFINITY, 1.0)], 0.5, Some(15.0));
        check(&[(10.0, 1.0), (f64::INFINITY, 9.0)], 0.9, Some(10.0));
    }

    #[test]
    fn what_was_there_before_is_taken_off() {
        let earlier = histogram(&[(10.0, 5.0), (20.0, 5.0), (f64::INFINITY, 5.0)]);
        let later = histogram(&[(10.0, 5.0), (20.0, 7.0), (f64::INFINITY, 7.0)]);
        assert_eq!(later.since(&earlier), histogram(&[(10.0, 0.0), (20.0, 2.0), (f64::INFINITY, 2.0)]));
        assert_eq!(earlier.since(&earlier).count(), 0.0);
    }
}
