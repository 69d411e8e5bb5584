//! What is wrong with a configuration: all of it, each with its place and what would be right.

use std::fmt;

use serde::Serialize;

use crate::located::Location;

/// One thing that is wrong. Displayed in plain text as the place, the field and the problem, then the
/// source line with a caret below the place, then the hint.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ConfigError {
    /// The file as the user named it; `<stdin>` for `-`; empty if the error belongs to no file.
    pub file: Box<str>,
    /// Line, from 1; 0 if the error belongs to no line.
    pub line: u32,
    /// Column in characters, from 1; 0 if `line` is.
    pub column: u32,
    /// Path of the field, such as `spec.rules[0].matches[0].path.type`; empty for a whole document.
    pub field: Box<str>,
    /// What is wrong.
    pub problem: Box<str>,
    /// What would be right.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<Box<str>>,
    /// The text of `line`, shortened if it is long; the caret stands below its `caret`th character.
    #[serde(skip)]
    pub(crate) excerpt: Option<Excerpt>,
}

impl ConfigError {
    /// `problem` at a value that has been read. Its source line is added while loading.
    pub fn new(at: &Location, problem: impl Into<String>) -> Self {
        ConfigError {
            file: (*at.file).into(),
            line: at.line,
            column: at.column,
            field: at.field.clone(),
            problem: problem.into().into(),
            hint: None,
            excerpt: None,
        }
    }

    /// The same with a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into().into());
        self
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            f.write_str(&self.file)?;
            if self.line > 0 {
                write!(f, ":{}:{}", self.line, self.column)?;
            }
            f.write_str(": ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.problem)?;
        let number = self.line.to_string();
        let margin = number.len();
        if let Some(excerpt) = &self.excerpt {
            write!(f, "\n {number} | {}", excerpt.text)?;
            write!(f, "\n {:margin$} | {:caret$}^", "", "", caret = excerpt.caret)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, "\n {:margin$} = hint: {hint}", "")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Everything that is wrong; at least one. In order of file, line and column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Errors(Vec<ConfigError>);

impl Errors {
    /// `found`, in order and not empty, of which `more` were left out.
    pub(crate) fn from_found(mut found: Vec<ConfigError>, more: usize) -> Self {
        if more > 0 {
            let at = Location::file("");
            found.push(ConfigError::new(&at, format!("{more} more errors are not shown")));
        }
        Errors(found)
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "never empty")]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// One after the other.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a Errors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in self {
            writeln!(f, "{error}")?;
        }
        match self.len() {
            1 => f.write_str("1 error"),
            n => write!(f, "{n} errors"),
        }
    }
}

impl std::error::Error for Errors {}

/// Most errors that are kept, so that a hostile file cannot turn each of its bytes into a line of ours.
const MAX_ERRORS: usize = 10_000;

/// The errors found so far.
#[derive(Debug, Default)]
pub(crate) struct Found {
    errors: Vec<ConfigError>,
    count: usize,
    /// Regular expressions read so far.
    pub(crate) expressions: usize,
}

impl Found {
    /// Something is wrong at `at`.
    pub(crate) fn error(&mut self, at: &Location, problem: impl Into<String>) {
        self.push(ConfigError::new(at, problem));
    }

    /// Something is wrong at `at`, and `hint` would be right.
    pub(crate) fn hinted(&mut self, at: &Location, problem: impl Into<String>, hint: impl Into<String>) {
        self.push(ConfigError::new(at, problem).with_hint(hint));
    }

    /// How many there were, including those that were not kept.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// The fields of the errors since there were `before`; the empty field, which is the whole
    /// document, if some were not kept.
    pub(crate) fn fields_since(&self, before: usize) -> Vec<Box<str>> {
        if self.count > self.errors.len() {
            return vec!["".into()];
        }
        let errors = self.errors.iter().skip(before);
        errors.map(|error| error.field.clone()).collect()
    }

    /// Whether further errors are only counted, so that no effort need go into their hints.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.len() >= MAX_ERRORS
    }

    /// Those that were kept, and how many were not.
    pub(crate) fn into_errors(self) -> (Vec<ConfigError>, usize) {
        let more = self.count - self.errors.len();
        (self.errors, more)
    }

    fn push(&mut self, error: ConfigError) {
        self.count += 1;
        if self.errors.len() < MAX_ERRORS {
            self.errors.push(error);
        }
    }
}

/// A line of the source to be shown with an error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Excerpt {
    pub(crate) text: Box<str>,
    pub(crate) caret: usize,
}

/// Longest excerpt in characters, so that an error about a line of a megabyte stays readable.
const EXCERPT_WIDTH: usize = 100;

impl Excerpt {
    /// The part of `line` around the character at `column` (from 1). Tabs and control characters
    /// become spaces, so that the caret stands where it should and nothing reaches the terminal raw.
    pub(crate) fn around(line: &str, column: u32) -> Self {
        let column = (column.max(1) - 1) as usize;
        let start = if column < EXCERPT_WIDTH * 3 / 4 { 0 } else { column - EXCERPT_WIDTH / 2 };
        let mut text = String::new();
        let mut characters = line.chars().skip(start);
        text.extend(characters.by_ref().take(EXCERPT_WIDTH).map(printable));
        let text = text.trim_end().to_owned();
        let lead = if start > 0 { "… " } else { "" };
        let trail = if characters.next().is_some() { " …" } else { "" };
        Excerpt { caret: column - start + lead.chars().count(), text: format!("{lead}{text}{trail}").into() }
    }
}

/// `c`, or a space in place of what a terminal would act upon.
pub(crate) fn printable(c: char) -> char {
    if c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') {
        ' '
    } else {
        c
    }
}
