//! What there is to say about the resources: what is refused, what to know, what is passed over. One line each.

use std::fmt::Display;
use std::io::{self, Write};

use crate::resources::identity::{Identity, Key};

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Because of it nothing is printed, or the resource left out.
    Error,
    /// Something is done otherwise than one might think.
    Warning,
    /// A resource that says nothing here.
    PassedOver,
    /// A resource of a kind that should say something here, and is not known.
    Unknown,
}

impl Severity {
    fn name(self) -> &'static str {
        match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::PassedOver => "passed over",
            Severity::Unknown => "not known",
        }
    }
}

/// What a finding is about: a resource, or something else that has a name.
pub trait Subject: Display {
    /// The resource, if it is one.
    fn key(&self) -> Option<Key> {
        None
    }
}

impl Subject for Identity {
    fn key(&self) -> Option<Key> {
        Some(self.key())
    }
}

impl Subject for &str {}
impl Subject for String {}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// The resource, if it is about one.
    pub resource: Option<Key>,
    /// Field path and problem: the line without its subject.
    pub problem: String,
    line: String,
}

/// In the order in which they were found.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Something because of which nothing is printed.
    pub fn refuse(&mut self, subject: &impl Subject, path: &str, problem: impl Display) {
        self.add(Severity::Error, subject, format!("{path}: {problem}"));
    }

    /// Something that is done otherwise than one might think.
    pub fn warn(&mut self, subject: &impl Subject, path: &str, problem: impl Display) {
        self.add(Severity::Warning, subject, format!("{path}: {problem}"));
    }

    /// A resource that says nothing here, and why, if that is not its kind.
    pub fn pass_over(&mut self, subject: &impl Subject, why: impl Display) {
        let line = format!("{subject} ({why})");
        self.0.push(Finding { severity: Severity::PassedOver, resource: None, problem: String::new(), line });
    }

    /// A resource of a kind that should say something here, and is not known.
    pub fn not_known(&mut self, subject: &impl Subject, problem: impl Display) {
        self.add(Severity::Unknown, subject, format!("kind: {problem}"));
    }

    fn add(&mut self, severity: Severity, subject: &impl Subject, problem: String) {
        let line = format!("{subject}: {problem}");
        self.0.push(Finding { severity, resource: subject.key(), problem, line });
    }

    /// Whether anything is refused.
    pub fn has_errors(&self) -> bool {
        self.all().any(|finding| finding.severity == Severity::Error)
    }

    /// Refuses what is not known as well.
    pub fn be_strict(&mut self) {
        for finding in self.0.iter_mut().filter(|finding| finding.severity == Severity::Unknown) {
            finding.severity = Severity::Error;
        }
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &Finding> {
        self.0.iter()
    }

    /// Writes them, a line each.
    pub fn write(&self, mut to: impl Write) -> io::Result<()> {
        self.all().try_for_each(|finding| writeln!(to, "{}: {}", finding.severity.name(), finding.line))
    }
}
