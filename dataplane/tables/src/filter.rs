//! What a rule does with a request or a response beside passing it on (Gateway API `HTTPRouteFilter`).

use core::time::Duration;

use crate::cluster::ClusterId;

/// The filters of a rule.
#[derive(Debug, Clone, Default)]
pub struct RuleFilters {
    /// Those of the rule alone, for requests that no target is chosen for.
    pub rule: Filters,
    /// Those of the rule with those of each of its targets, in the targets' order.
    pub targets: Box<[Filters]>,
    /// `retry` of the rule.
    pub retry: Option<Box<Retry>>,
}

/// Codes of a [`Retry`] at most.
pub const MAX_RETRY_CODES: usize = 16;

/// When a request is sent once more (GEP-1731). Only such a one is that can be: it is idempotent and has no body, or no byte of it was sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Retry {
    /// Statuses of a backend that are not passed on while there are attempts left; at most [`MAX_RETRY_CODES`].
    pub codes: Box<[u16]>,
    /// Times that it is sent beyond the first.
    pub attempts: u8,
    /// From one attempt's failure to the next attempt.
    pub backoff: Duration,
}

/// What is done, all filters taken together.
#[derive(Debug, Clone, Default)]
pub struct Filters {
    /// `RequestHeaderModifier`.
    pub request: FieldChanges,
    /// `ResponseHeaderModifier`.
    pub response: FieldChanges,
    /// `URLRewrite.hostname`: the Host that the backend gets.
    pub host: Option<Box<[u8]>>,
    /// `URLRewrite.path`.
    pub path: Option<PathChange>,
    /// `RequestRedirect`: the request is answered here.
    pub redirect: Option<Box<Redirect>>,
    /// `CORS`.
    pub cors: Option<Box<Cors>>,
    /// `RequestMirror`.
    pub mirrors: Box<[Mirror]>,
}

/// Changes to header fields, all modifiers worked into one: these are taken out, then those are put in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldChanges {
    /// Names in lower case, each with a line feed behind it.
    pub strip: Box<[u8]>,
    /// Whole field lines, each with its CRLF.
    pub append: Box<[u8]>,
}

/// What becomes of a path (`HTTPPathModifier`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathChange {
    /// It is this instead.
    Full(Box<[u8]>),
    /// So many bytes of its start, which are what the rule's prefix matched, are these instead. Neither has a slash at its end.
    Prefix(usize, Box<[u8]>),
}

/// Where a request is sent back to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
    /// `http` or `https`; `None` for the request's.
    pub scheme: Option<&'static str>,
    /// Instead of the request's.
    pub host: Option<Box<[u8]>>,
    /// As it was given. What it is otherwise depends on the scheme and the listener.
    pub port: Option<u16>,
    /// What becomes of the path.
    pub path: Option<PathChange>,
}

/// Who may read responses from other origins (Fetch standard, CORS protocol).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cors {
    /// Origins in lower case, without the default port of their scheme.
    pub origins: Box<[OriginPattern]>,
    /// `Access-Control-Allow-Credentials: true`.
    pub credentials: bool,
    /// Methods, with commas between; `*` for all.
    pub methods: Box<[u8]>,
    /// Names of request fields, with commas between; `*` for all.
    pub headers: Box<[u8]>,
    /// Names of response fields, with commas between; `*` for all.
    pub expose: Box<[u8]>,
    /// Seconds for which a preflight's answer holds, in decimal.
    pub max_age: Box<[u8]>,
}

/// An origin, or many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginPattern {
    /// `*`
    Any,
    /// This one.
    Exact(Box<[u8]>),
    /// What starts with the first and ends with the second, with something between: `https://` and `.example.com`.
    Between(Box<[u8]>, Box<[u8]>),
}

/// A copy of requests, whose responses nobody waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mirror {
    /// Where copies go.
    pub cluster: ClusterId,
    /// Of `denominator` requests, so many are copied.
    pub numerator: u32,
    /// At least 1.
    pub denominator: u32,
}

impl RuleFilters {
    /// What is done with requests for the target at that position.
    #[must_use]
    pub fn of(&self, target: usize) -> &Filters {
        self.targets.get(target).unwrap_or(&self.rule)
    }
}

impl FieldChanges {
    /// Nothing is changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.strip.is_empty() && self.append.is_empty()
    }
}

impl PathChange {
    /// The two parts of the changed path.
    #[must_use]
    pub fn apply<'a>(&'a self, path: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        match self {
            Self::Full(full) => (full, b""),
            Self::Prefix(len, replacement) => match path.get(*len..).unwrap_or_default() {
                [] if replacement.is_empty() => (b"/", b""),
                rest => (replacement, rest),
            },
        }
    }
}

impl Cors {
    /// Whether scripts of `origin`, as a browser sends it, may read responses.
    #[must_use]
    pub fn allows(&self, origin: &[u8]) -> bool {
        self.origins.iter().any(|pattern| pattern.matches(origin))
    }
}

impl OriginPattern {
    fn matches(&self, origin: &[u8]) -> bool {
        let starts = |text: &[u8], start: &[u8]| text.get(..start.len()).is_some_and(|s| s.eq_ignore_ascii_case(start));
        match self {
            Self::Any => true,
            Self::Exact(exact) => origin.eq_ignore_ascii_case(exact),
            Self::Between(start, end) => {
                let rest = origin.get(start.len()..).filter(|_| starts(origin, start));
                let (between, found) = match rest.and_then(|r| r.split_at_checked(r.len().checked_sub(end.len())?)) {
                    Some(parts) => parts,
                    None => return false,
                };
                // A wildcard stands for a part of a host, and no host has these.
                found.eq_ignore_ascii_case(end) && !between.is_empty() && !between.iter().any(|b| b":/@".contains(b))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The table in the Gateway API's comment on `HTTPPathModifier.replacePrefixMatch`.
    #[test]
    fn prefixes_are_replaced_as_the_gateway_api_says() {
        let table = [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo", "/", "/xyz", "/xyz/foo"),
            ("/", "/", "/xyz", "/xyz/"),
        ];
        for (path, prefix, replacement, expected) in table {
            let trimmed = replacement.trim_end_matches('/').as_bytes().into();
            let change = PathChange::Prefix(prefix.trim_end_matches('/').len(), trimmed);
            let (start, end) = change.apply(path.as_bytes());
            assert_eq!([start, end].concat(), expected.as_bytes(), "{path} {prefix} {replacement}");
        }
        assert_eq!(PathChange::Full((*b"/one").into()).apply(b"/two/x").0, b"/one");
    }

    #[test]
    fn origins_match_whole_and_wildcards_stand_for_labels() {
        let between = |start: &str, end: &str| OriginPattern::Between(start.as_bytes().into(), end.as_bytes().into());
        let bar = between("https://", ".bar.com");
        assert!(bar.matches(b"https://www.bar.com") && bar.matches(b"HTTPS://x.www.Bar.com"));
        for stranger in [
            "https://bar.com",
            "https://.bar.com",
            "http://www.bar.com",
            "https://www.bar.com:8443",
            "https:",
            "https://evil.com/.bar.com",
            "https://user@.bar.com",
            "https://www.bar.com.evil.com",
            "",
        ] {
            assert!(!bar.matches(stranger.as_bytes()), "{stranger}");
        }
        assert!(OriginPattern::Any.matches(b"null"));
        assert!(OriginPattern::Exact((*b"https://a.com").into()).matches(b"https://a.com"));
    }
}
