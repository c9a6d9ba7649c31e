//! Which resource something is said of.

use std::fmt;

/// Which resource it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Which resource it is, and where it was read.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The file, for messages.
    pub source: String,
    /// Group and version.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// When the API server made it, in RFC 3339; what has no time is taken to be the youngest.
    pub created: Option<String>,
    /// The API server's own name for it.
    pub uid: Option<String>,
}

impl Identity {
    /// Distinguishes it from all others.
    pub fn key(&self) -> Key {
        Key {
            api_version: self.api_version.clone(),
            kind: self.kind.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
        }
    }

    /// The group of its API.
    pub fn group(&self) -> &str {
        self.api_version.split_once('/').map_or("", |(group, _)| group)
    }

    /// Who comes first: the older one, then by namespace and name.
    pub fn age(&self) -> (bool, Option<&str>, &str, &str, &str) {
        (self.created.is_none(), self.created.as_deref(), &self.namespace, &self.name, &self.kind)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {} {}/{}", self.source, self.kind, self.namespace, self.name)
    }
}
