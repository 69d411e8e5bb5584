//! Names of objects, and the reference from one object to another.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

/// A name of an object, a section or a namespace: a DNS subdomain by RFC 1123 as Kubernetes takes it.
/// Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// Reads a subdomain: lower-case letters, digits, `-` and `.`, each label starting and ending
    /// with a letter or digit, at most 253 characters.
    ///
    /// # Errors
    /// What is wrong with `text`, to be put after the quoted value.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("is empty");
        }
        if text.len() > 253 {
            return Err("is longer than 253 characters");
        }
        if text.split('.').all(is_label) {
            Ok(Name(text.into()))
        } else if text.bytes().any(|b| b.is_ascii_uppercase()) {
            Err("has upper-case letters")
        } else {
            Err("is not a name by RFC 1123")
        }
    }

    /// Reads a label, which is what names a namespace: like a subdomain without dots, at most 63
    /// characters.
    ///
    /// # Errors
    /// What is wrong with `text`, to be put after the quoted value.
    pub fn parse_label(text: &str) -> Result<Self, &'static str> {
        let name = Name::parse(text)?;
        if text.len() > 63 {
            Err("is longer than 63 characters")
        } else if text.contains('.') {
            Err("has a dot")
        } else {
            Ok(name)
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The namespace of objects that name none: `default`.
    #[must_use]
    pub fn default_namespace() -> Self {
        Name("default".into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The namespace and name that identify an object among those of its kind. Shown as `namespace/name`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ObjectName {
    /// The namespace.
    pub namespace: Name,
    /// The name within it.
    pub name: Name,
}

impl ObjectName {
    /// `namespace/name`, as it is shown: made in one step, for who needs it ten thousand times.
    #[must_use]
    pub fn joined(&self) -> String {
        [self.namespace.as_str(), "/", self.name.as_str()].concat()
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One label of a DNS name by RFC 1123 in the lower case that Kubernetes asks for. Its length is the
/// caller's to check where it is bounded.
pub(crate) fn is_label(label: &str) -> bool {
    let bytes = label.as_bytes();
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes.iter().all(|b| alphanumeric(b) || *b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_rfc_1123_subdomains() {
        for good in ["a", "web", "a-b.c1", "1", &"a".repeat(253)] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", ".a", "a.", "A", "a_b", "a b", "ä", &"a".repeat(254)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
        assert!(Name::parse_label("a.b").is_err());
        assert!(Name::parse_label(&"a".repeat(64)).is_err());
    }
}
