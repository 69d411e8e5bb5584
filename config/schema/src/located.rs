//! Where a value stands in the user's files. Decoding attaches it; checks and the compiler in
//! `control` quote it when a value that is well-formed turns out not to fit the others.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Serialize, Serializer};

/// A place in a configuration file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Location {
    /// The file as the user named it; `<stdin>` for `-`.
    pub file: Arc<str>,
    /// Line, from 1. Zero only where an error belongs to a whole file or to no file.
    pub line: u32,
    /// Column in characters, from 1. Zero only where `line` is.
    pub column: u32,
    /// Path from the document's root, such as `spec.rules[0].backendRefs[1].name`; empty for the document.
    pub field: Box<str>,
}

impl Location {
    /// The place of a whole file, for errors such as "cannot be read".
    #[must_use]
    pub fn file(name: &str) -> Self {
        Location { file: name.into(), line: 0, column: 0, field: "".into() }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}:{}", self.line, self.column)?;
        }
        Ok(())
    }
}

/// A value with the place that it was read from. Equality and order are the value's alone, and it
/// serializes as the value.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// The value.
    pub value: T,
    /// Where it stands.
    pub at: Location,
}

impl<T> Located<T> {
    /// `value`, read at `at`.
    pub fn new(value: T, at: Location) -> Self {
        Located { value, at }
    }
}

impl<T> Deref for Located<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Located<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Located<T> {}

impl<T: Serialize> Serialize for Located<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}
