//! What there is to say about the resources: what is refused, what to know, what is passed over. One line each.

use std::fmt::Display;
use std::io::{self, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Severity {
    Error,
    Warning,
    PassedOver,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::PassedOver => "passed over",
        }
    }
}

/// In the order in which they were found.
#[derive(Debug, Default)]
pub struct Findings(Vec<(Severity, String)>);

impl Findings {
    /// Something because of which nothing is printed.
    pub fn refuse(&mut self, subject: &impl Display, path: &str, problem: impl Display) {
        self.0.push((Severity::Error, format!("{subject}: {path}: {problem}")));
    }

    /// Something that is done otherwise than one might think.
    pub fn warn(&mut self, subject: &impl Display, path: &str, problem: impl Display) {
        self.0.push((Severity::Warning, format!("{subject}: {path}: {problem}")));
    }

    /// A resource that says nothing here.
    pub fn pass_over(&mut self, subject: &impl Display) {
        self.0.push((Severity::PassedOver, subject.to_string()));
    }

    pub fn has_errors(&self) -> bool {
        self.0.iter().any(|(severity, _)| *severity == Severity::Error)
    }

    /// Writes them, a line each.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        self.0.iter().try_for_each(|(severity, text)| writeln!(to, "{}: {text}", severity.name()))
    }
}
