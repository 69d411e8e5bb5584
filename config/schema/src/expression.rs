//! Regular expressions that cannot be made to run long.
//!
//! Each is built into a deterministic automaton while the configuration is read, so that matching costs a load per byte
//! whatever the expression and the text, and takes no memory. One that needs too large an automaton is an error of the
//! configuration.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use regex_automata::MatchKind;
use regex_automata::dfa::StartKind;
use regex_automata::dfa::dense::{Builder, Config, DFA};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use serde::{Serialize, Serializer};

/// Longest expression in bytes (Gateway API `HTTPPathMatch.value`).
const MAX_LENGTH: usize = 1024;

/// Largest automaton in bytes, and most memory that building it may take.
const MAX_AUTOMATON: usize = 512 << 10;
const MAX_EFFORT: usize = 4 << 20;

/// Deepest nesting of groups and repetitions.
const MAX_NESTING: u32 = 32;

/// A regular expression that the whole of a text has to match, in the syntax of Rust's `regex` crate, which is RE2's: no
/// look-around, no back-references. Letters and classes are ASCII. Compared by its text.
#[derive(Clone)]
pub struct Expression {
    text: Arc<str>,
    automaton: Arc<DFA<Vec<u32>>>,
}

impl Expression {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with `text`, to be put after the quoted value.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("is empty".to_owned());
        }
        if text.len() > MAX_LENGTH {
            return Err(format!("is longer than {MAX_LENGTH} bytes"));
        }
        // By itself first: in a group, a stray parenthesis could close that.
        let syntax = syntax::Config::new().unicode(false).utf8(false).nest_limit(MAX_NESTING);
        if let Err(error) = syntax::parse_with(text, &syntax) {
            // The last line says what is wrong; those before it show the expression and where.
            let error = error.to_string();
            let reason = error.lines().last().unwrap_or_default();
            return Err(format!("is no regular expression: {}", reason.strip_prefix("error: ").unwrap_or(reason)));
        }
        let config = Config::new()
            .start_kind(StartKind::Anchored)
            .match_kind(MatchKind::All)
            .dfa_size_limit(Some(MAX_AUTOMATON))
            .determinize_size_limit(Some(MAX_EFFORT));
        let thompson = thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_EFFORT));
        let whole = format!("(?:{text})\\z");
        if syntax::parse_with(&whole, &syntax).is_err() {
            return Err("ends in a comment".to_owned());
        }
        let built = Builder::new().syntax(syntax).thompson(thompson).configure(config).build(&whole);
        match built {
            Ok(automaton) => Ok(Self { text: text.into(), automaton: Arc::new(automaton) }),
            Err(_) => Err("needs too large an automaton".to_owned()),
        }
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &Arc<str> {
        &self.text
    }

    /// What matches it: an automaton for anchored searches, with a match at the end of a text only.
    #[must_use]
    pub fn automaton(&self) -> &Arc<DFA<Vec<u32>>> {
        &self.automaton
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl PartialOrd for Expression {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Expression {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Serialize for Expression {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use regex_automata::dfa::Automaton;
    use regex_automata::{Anchored, Input};

    use super::*;

    fn matches(expression: &str, text: &str) -> bool {
        let expression = Expression::parse(expression).unwrap();
        expression.automaton.try_search_fwd(&Input::new(text).anchored(Anchored::Yes)).unwrap().is_some()
    }

    #[test]
    fn the_whole_text_has_to_match() {
        assert!(matches("/v[0-9]+(/.*)?", "/v1") && matches("/v[0-9]+(/.*)?", "/v1/x"));
        assert!(!matches("/v[0-9]+", "/v1/x") && !matches("v1", "/v1"));
        assert!(matches("a|b", "b") && !matches("a|b", "ab") && matches("^a$", "a"));
        assert_eq!(Expression::parse("(?x) a # comment").unwrap_err(), "ends in a comment");
    }

    #[test]
    fn what_is_no_expression_or_too_large_is_refused_at_once() {
        let started = Instant::now();
        let wrong = |text: &str| Expression::parse(text).unwrap_err();
        assert_eq!(wrong(""), "is empty");
        assert_eq!(wrong("a("), "is no regular expression: unclosed group");
        assert!(wrong("a)|(b").starts_with("is no regular expression"));
        assert!(wrong(r"(a)\1").contains("backreferences are not supported"));
        assert!(wrong("(?=a)").contains("look-around"));
        for large in ["(a{100}){100}{100}", "(.*a.{30}b){9}", "[ab]*a[ab]{40}", &"(".repeat(500), &"x".repeat(1025)] {
            assert!(Expression::parse(large).is_err(), "{large}");
        }
        // A second is far more than it takes, and far less than what an unbounded construction does.
        assert!(started.elapsed().as_secs() < 5);
    }
}
