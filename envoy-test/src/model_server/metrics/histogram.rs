//! A histogram whose bounds come from the page's template.

use std::fmt::Write;

use super::number::python_number;

/// One histogram of the page.
#[derive(Debug)]
pub struct Histogram {
    name: &'static str,
    buckets: Vec<Bucket>,
    count: u64,
    sum: f64,
}

#[derive(Debug)]
struct Bucket {
    bound: &'static str,
    limit: f64,
    /// Observations up to the limit, those of smaller buckets included.
    count: u64,
}

impl Histogram {
    /// Reads what follows `@histogram` in the template: a name and bounds.
    pub fn from_template(arguments: &'static str) -> Self {
        let mut words = arguments.split(' ');
        let name = words.next().unwrap_or_default();
        let buckets =
            words.map(|bound| Bucket { bound, limit: bound.parse().unwrap_or(f64::INFINITY), count: 0 });
        Self { name, buckets: buckets.collect(), count: 0, sum: 0.0 }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    pub fn observe(&mut self, value: f64) {
        self.count += 1;
        self.sum += value;
        for bucket in self.buckets.iter_mut().filter(|bucket| value <= bucket.limit) {
            bucket.count += 1;
        }
    }

    /// Appends the series of the buckets, the count and the sum.
    pub fn print(&self, page: &mut String, model: &str) {
        let name = self.name;
        // Writing to a string cannot fail.
        for Bucket { bound, count, .. } in &self.buckets {
            let count = python_number(*count as f64);
            let _ =
                writeln!(page, r#"{name}_bucket{{engine="0",le="{bound}",model_name="{model}"}} {count}"#);
        }
        let labels = format!(r#"engine="0",model_name="{model}""#);
        let _ = writeln!(page, "{name}_count{{{labels}}} {}", python_number(self.count as f64));
        let _ = writeln!(page, "{name}_sum{{{labels}}} {}", python_number(self.sum));
    }
}
