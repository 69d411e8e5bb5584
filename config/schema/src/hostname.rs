//! Hostnames of listeners and routes (Gateway API `Hostname`), and how two of them meet.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use crate::name::is_label;

/// A hostname to match, in lower case: exact, or with `*.` as its first label, which then stands for
/// one or more labels.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hostname {
    /// `shop.example.com`.
    Exact(Arc<str>),
    /// `*.example.com`, kept as `example.com`. Does not match `example.com` itself.
    Wildcard(Arc<str>),
}

impl Hostname {
    /// Reads a hostname by RFC 1123, at most 253 characters in labels of at most 63, optionally
    /// starting with `*.`.
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
        let (name, wildcard) = match text.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        if name.parse::<IpAddr>().is_ok() || text.starts_with('[') {
            return Err("is an IP address");
        }
        if !name.split('.').all(|label| is_label(label) && label.len() <= 63) {
            return Err(if name.contains('*') {
                "has a wildcard that is not its whole first label"
            } else if name.contains(':') {
                "has a port"
            } else if name.bytes().any(|b| b.is_ascii_uppercase()) {
                "has upper-case letters"
            } else {
                "is not a hostname by RFC 1123"
            });
        }
        Ok(if wildcard { Hostname::Wildcard(name.into()) } else { Hostname::Exact(name.into()) })
    }

    /// Whether a request for `host` (lower case, no port) is meant by this hostname.
    #[must_use]
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Hostname::Exact(name) => **name == *host,
            Hostname::Wildcard(suffix) => is_below(host, suffix),
        }
    }

    /// Whether some host is meant by both. A route attaches to a listener only where theirs meet.
    #[must_use]
    pub fn intersects(&self, other: &Hostname) -> bool {
        match (self, other) {
            (any, Hostname::Exact(name)) | (Hostname::Exact(name), any) => any.matches(name),
            (Hostname::Wildcard(a), Hostname::Wildcard(b)) => a == b || is_below(a, b) || is_below(b, a),
        }
    }

    /// The narrower of the two: what a listener's and a route's hostname mean together.
    #[must_use]
    pub fn intersection(&self, other: &Hostname) -> Option<Hostname> {
        if !self.intersects(other) {
            return None;
        }
        let narrower = match (self, other) {
            (Hostname::Exact(_), _) => self,
            (_, Hostname::Exact(_)) => other,
            (Hostname::Wildcard(a), Hostname::Wildcard(b)) if a.len() >= b.len() => self,
            _ => other,
        };
        Some(narrower.clone())
    }
}

impl fmt::Display for Hostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Hostname::Exact(name) => f.write_str(name),
            Hostname::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}

impl Serialize for Hostname {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Whether `name` has at least one label in front of `suffix`.
fn is_below(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).and_then(|front| front.strip_suffix('.')).is_some_and(|front| !front.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(text: &str) -> Hostname {
        Hostname::parse(text).unwrap()
    }

    #[test]
    fn only_rfc_1123_names_pass() {
        for good in ["a", "a.example.com", "*.example.com", "*.com", "xn--bcher-kva.example"] {
            assert_eq!(host(good).to_string(), good);
        }
        for bad in [
            "",
            "*",
            "*.",
            "a.*.b",
            "*a.b",
            "a..b",
            "A.b",
            "a.b:80",
            "10.9.1.1",
            "[::1]",
            "::1",
            "a_b",
            "a.",
            "*.10.9.1.1",
            &format!("{}.b", "a".repeat(64)),
        ] {
            assert!(Hostname::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_wildcard_stands_for_one_or_more_labels() {
        let wildcard = host("*.example.com");
        assert!(wildcard.matches("a.example.com"));
        assert!(wildcard.matches("a.b.example.com"));
        assert!(!wildcard.matches("example.com"));
        assert!(!wildcard.matches(".example.com"));
        assert!(!wildcard.matches("notexample.com"));
    }

    #[test]
    fn the_intersection_is_the_narrower() {
        let meet = |a: &str, b: &str| host(a).intersection(&host(b)).map(|h| h.to_string());
        assert_eq!(meet("*.example.com", "a.example.com").as_deref(), Some("a.example.com"));
        assert_eq!(meet("*.b.example.com", "*.example.com").as_deref(), Some("*.b.example.com"));
        assert_eq!(meet("*.example.com", "*.b.example.com").as_deref(), Some("*.b.example.com"));
        assert_eq!(meet("a.com", "b.com"), None);
        assert_eq!(meet("*.a.com", "*.b.com"), None);
        assert_eq!(meet("*.example.com", "example.com"), None);
    }
}
