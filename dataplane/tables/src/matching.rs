//! What a match of a rule asks of a request beside its host and path: method, header fields, query parameters.
//!
//! Expressions are automata that were built ahead: matching one is a load per byte, whatever the expression and the
//! text, and it takes no memory.

use core::hash::{Hash, Hasher};
use std::sync::Arc;

use regex_automata::Anchored;
use regex_automata::dfa::{Automaton, dense::DFA};
use regex_automata::util::start;

/// What routing looks at in a request, beside its host. `F` walks its header fields, names as sent and values trimmed.
#[derive(Debug, Clone)]
pub struct Request<'b, F> {
    /// The method as sent.
    pub method: &'b [u8],
    /// The path without the query.
    pub path: &'b [u8],
    /// What follows the first `?`.
    pub query: Option<&'b [u8]>,
    /// The header fields, in the order sent.
    pub fields: F,
}

/// Header fields as routing walks them.
pub trait Fields<'b>: Iterator<Item = (&'b [u8], &'b [u8])> + Clone {}

impl<'b, F: Iterator<Item = (&'b [u8], &'b [u8])> + Clone> Fields<'b> for F {}

/// All of it has to hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conditions {
    /// The method.
    pub method: Option<Box<[u8]>>,
    /// Header fields; names are in lower case, and none stands twice.
    pub headers: Box<[(Box<[u8]>, ValueMatch)]>,
    /// Query parameters, decoded; no name stands twice.
    pub query: Box<[(Box<[u8]>, ValueMatch)]>,
}

/// What a value has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueMatch {
    /// This.
    Exact(Box<[u8]>),
    /// Something that the whole of this expression matches.
    Expression(Expression),
}

/// A regular expression as an automaton, shared by all that use it. Two are equal if their texts are.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    automaton: Arc<DFA<Vec<u32>>>,
}

impl Conditions {
    /// Nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.method.is_none() && self.headers.is_empty() && self.query.is_empty()
    }

    /// Whether all of it holds.
    pub fn hold<'b, F: Fields<'b>>(&self, request: &Request<'b, F>) -> bool {
        self.method.as_ref().is_none_or(|method| **method == *request.method)
            && self.headers.iter().all(|(name, value)| value.matches_field(name, &request.fields))
            && self.query.iter().all(|(name, value)| value.matches_parameter(name, request.query))
    }

    /// The same where header fields of some names count as what is asked for, too.
    pub(crate) fn hold_where<'b, F: Fields<'b>>(
        &self,
        request: &Request<'b, F>,
        named: impl Fn(&[u8]) -> bool,
    ) -> bool {
        self.method.as_ref().is_none_or(|method| **method == *request.method)
            && self.headers.iter().all(|(name, value)| named(name) || value.matches_field(name, &request.fields))
            && self.query.iter().all(|(name, value)| value.matches_parameter(name, request.query))
    }
}

impl ValueMatch {
    /// A field that stands more than once counts as its values with commas between (RFC 9110 §5.3).
    fn matches_field<'b, F: Fields<'b>>(&self, name: &[u8], fields: &F) -> bool {
        let mut values = fields.clone().filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value);
        let Some(first) = values.next() else { return false };
        match self {
            Self::Exact(wanted) => {
                let joined = values.try_fold(wanted.strip_prefix(first), |rest, value| {
                    let rest = rest?.strip_prefix(b",")?;
                    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
                    Some(rest.strip_prefix(value))
                });
                joined.flatten().is_some_and(<[u8]>::is_empty)
            }
            Self::Expression(expression) => {
                let rest = values.flat_map(|value| b", ".iter().chain(value));
                expression.matches(first.iter().chain(rest).copied())
            }
        }
    }

    /// The first parameter of that name counts.
    fn matches_parameter(&self, name: &[u8], query: Option<&[u8]>) -> bool {
        let found =
            query.and_then(|query| parameters(query).find(|(given, _)| decoded(given).eq(name.iter().copied())));
        let Some((_, value)) = found else { return false };
        match self {
            Self::Exact(wanted) => decoded(value).eq(wanted.iter().copied()),
            Self::Expression(expression) => expression.matches(decoded(value)),
        }
    }
}

impl Expression {
    /// An expression and the automaton that was built of it, which has to match at the end of a text only, and to be one
    /// for anchored searches.
    #[must_use]
    pub fn new(text: Arc<str>, automaton: Arc<DFA<Vec<u32>>>) -> Self {
        Self { text, automaton }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the whole of `text` matches.
    pub fn matches(&self, text: impl IntoIterator<Item = u8>) -> bool {
        let start = start::Config::new().anchored(Anchored::Yes);
        let Ok(mut state) = self.automaton.start_state(&start) else { return false };
        for byte in text {
            state = self.automaton.next_state(state, byte);
            if self.automaton.is_dead_state(state) || self.automaton.is_quit_state(state) {
                return false;
            }
        }
        self.automaton.is_match_state(self.automaton.next_eoi_state(state))
    }
}

impl core::fmt::Debug for Expression {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

/// The parameters of a query, as sent.
pub(crate) fn parameters(query: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    query.split(|&b| b == b'&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = match pair.iter().position(|&b| b == b'=').and_then(|at| pair.split_at_checked(at)) {
            Some((name, value)) => (name, value.get(1..).unwrap_or_default()),
            None => (pair, Default::default()),
        };
        (name, value)
    })
}

/// What a part of a query stands for (RFC 3986 §2.1). A percent sign without two digits behind it stands for itself, and so
/// does a plus sign: that it is a space is a convention of HTML forms and not of URIs.
pub(crate) fn decoded(mut part: &[u8]) -> impl Iterator<Item = u8> {
    core::iter::from_fn(move || {
        let (&first, rest) = part.split_first()?;
        let digit = |at: usize| rest.get(at).and_then(|&b| char::from(b).to_digit(16));
        if first == b'%'
            && let (Some(high), Some(low)) = (digit(0), digit(1))
        {
            part = rest.get(2..).unwrap_or_default();
            return u8::try_from(high << 4 | low).ok();
        }
        part = rest;
        Some(first)
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// An expression as `schema` builds it.
    pub(crate) fn expression(text: &str) -> Expression {
        use regex_automata::dfa::{StartKind, dense};
        use regex_automata::util::syntax;
        let automaton = dense::Builder::new()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .thompson(regex_automata::nfa::thompson::Config::new().utf8(false))
            .configure(dense::Config::new().start_kind(StartKind::Anchored))
            .build(&format!("(?:{text})\\z"))
            .unwrap();
        Expression::new(text.into(), Arc::new(automaton))
    }

    fn exact(text: &str) -> ValueMatch {
        ValueMatch::Exact(text.as_bytes().into())
    }

    fn field(value: &ValueMatch, fields: &[(&str, &str)]) -> bool {
        value.matches_field(b"x-user", &fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())))
    }

    fn parameter(value: &ValueMatch, query: &str) -> bool {
        value.matches_parameter(b"animal", Some(query.as_bytes()))
    }

    #[test]
    fn fields_match_whatever_the_case_of_their_name_and_joined_if_repeated() {
        assert!(field(&exact("7"), &[("Accept", "7"), ("X-USER", "7")]));
        assert!(!field(&exact("7"), &[("x-user", "77")]) && !field(&exact("77"), &[("x-user", "7")]));
        assert!(!field(&exact("7"), &[("x-users", "7")]) && !field(&exact("7"), &[]));
        let twice = [("x-user", "7"), ("x-user", "8")];
        assert!(field(&exact("7,8"), &twice) && field(&exact("7, 8"), &twice));
        assert!(!field(&exact("7"), &twice) && !field(&exact("8"), &twice) && !field(&exact("78"), &twice));
        assert!(field(&ValueMatch::Expression(expression("7, [0-9]")), &twice));
    }

    #[test]
    fn parameters_match_decoded_and_the_first_counts() {
        assert!(parameter(&exact("whale"), "a=b&animal=whale&animal=cat"));
        assert!(!parameter(&exact("cat"), "animal=whale&animal=cat"));
        assert!(parameter(&exact("blue whale"), "%61nimal=blue%20whale"));
        assert!(parameter(&exact("a+b"), "animal=a+b") && parameter(&exact("100%"), "animal=100%"));
        assert!(parameter(&exact("a=b"), "animal=a=b") && !parameter(&exact("x"), "animals=x"));
        assert!(parameter(&ValueMatch::Expression(expression("")), "animal") && !parameter(&exact("x"), ""));
        assert!(!exact("x").matches_parameter(b"animal", None));
    }

    #[test]
    fn expressions_match_the_whole_text() {
        let matches = |e: &str, text: &str| expression(e).matches(text.bytes());
        assert!(matches("/v[0-9]+/.*", "/v12/users") && !matches("/v[0-9]+", "/v12/users"));
        assert!(matches("a|ab", "ab") && !matches("a|ab", "abc") && !matches("b", "ab"));
        assert!(matches("^/a$", "/a") && matches("(?i)abc", "aBC") && !matches("abc", "ABC"));
        assert!(expression(".*").matches([0xff, 0x80]));
    }
}
