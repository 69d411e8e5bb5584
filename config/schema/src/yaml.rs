//! YAML text to a tree in which every value knows its place.
//!
//! Deserializing with serde would stop at a document's first error; walking this tree finds them all.
//! After a syntax error the parser goes on with the next document of the file. What a hostile file can
//! cost is bounded: nesting, the number of values, and no aliases, hence neither bombs nor cycles.

use std::collections::HashSet;

use crate::decode::quote;
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, Span};

/// Deepest nesting; the resources need 12.
const MAX_DEPTH: usize = 64;

/// Most values in a file. At about 100 bytes each this bounds the tree, whatever the file's size.
pub(crate) const MAX_VALUES: usize = 4_000_000;

/// A line and a column, both from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A value and where it starts.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) at: Mark,
    pub(crate) value: Value,
}

/// A value of YAML 1.2's core schema.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    /// An integer as it was written, and its value if it fits.
    Integer(Box<str>, Option<i64>),
    Float(Box<str>),
    String(Box<str>),
    Sequence(Vec<Node>),
    Mapping(Vec<Entry>),
    /// What has been complained about already.
    Invalid,
}

/// A field of a mapping; no two of one mapping have the same key.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) at: Mark,
    pub(crate) key: Box<str>,
    pub(crate) value: Node,
}

impl Node {
    /// Where the value at `field` stands, if there is one: `spec.rules[0].name`.
    pub(crate) fn find(&self, field: &str) -> Option<Mark> {
        let mut node = self;
        for step in field.split('.') {
            let (name, indexes) = step.split_once('[').unwrap_or((step, ""));
            let Value::Mapping(entries) = &node.value else {
                return None;
            };
            node = &entries.iter().find(|entry| *entry.key == *name)?.value;
            for index in indexes.split_terminator(']') {
                let Value::Sequence(items) = &node.value else {
                    return None;
                };
                node = items.get(index.trim_start_matches('[').parse::<usize>().ok()?)?;
            }
        }
        Some(node.at)
    }
}

/// An error of syntax; the field is not known here.
#[derive(Debug)]
pub(crate) struct SyntaxError {
    pub(crate) at: Mark,
    pub(crate) problem: String,
    pub(crate) hint: Option<&'static str>,
}

/// One document of a file.
#[derive(Debug)]
pub(crate) struct Document {
    /// Where it starts in the text, in bytes.
    pub(crate) start: usize,
    /// `None` if its syntax is broken.
    pub(crate) root: Option<Node>,
    pub(crate) errors: Vec<SyntaxError>,
}

/// Reads all documents of `text`. Documents that hold nothing are left out. `text` has no
/// characters that YAML forbids.
pub(crate) fn parse(text: &str) -> Vec<Document> {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    let mut parser = Parser::new_from_str_with_options(text, options);
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    let mut values = 0_usize;
    loop {
        let (event, span) = match parser.next_event() {
            None => return documents,
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                let mut broken = std::mem::take(&mut builder);
                let marker = error.marker();
                let (problem, mut hint) = describe(error.kind());
                if hint.is_none() && marker.byte_offset().is_some_and(|end| has_tab(text, end)) {
                    hint = Some(SPACES);
                }
                broken.errors.push(SyntaxError { at: mark(marker.line(), marker.col()), problem, hint });
                documents.push(Document { start: broken.start, root: None, errors: broken.errors });
                match parser.proceed_next_document() {
                    Ok(true) => continue,
                    _ => return documents,
                }
            }
        };
        values += usize::from(event.is_node());
        if values > MAX_VALUES {
            builder.complain(&span, format!("more than {MAX_VALUES} values in one file"), None);
            documents.push(Document { start: builder.start, root: None, errors: builder.errors });
            return documents;
        }
        if matches!(event, Event::DocumentEnd) {
            let done = std::mem::take(&mut builder);
            let empty = matches!(done.root, None | Some(Node { value: Value::Null, .. }));
            if !empty || !done.errors.is_empty() {
                documents.push(Document { start: done.start, root: done.root, errors: done.errors });
            }
        } else {
            builder.take(event, &span);
        }
    }
}

/// Puts the events of one document together.
#[derive(Default)]
struct Builder {
    start: usize,
    open: Vec<Open>,
    root: Option<Node>,
    errors: Vec<SyntaxError>,
}

/// A collection whose end has not come yet.
struct Open {
    at: Mark,
    items: Items,
}

enum Items {
    Sequence(Vec<Node>),
    Mapping { entries: Vec<Entry>, keys: Keys, key: Option<Key> },
}

/// Which keys a mapping has so far. Few are looked through, which nearly all mappings have; many are kept in a set, because a hostile file may have
/// millions.
#[derive(Default)]
struct Keys(HashSet<Box<str>>);

impl Keys {
    const FEW: usize = 16;

    /// Whether `text` is none of `entries`' keys.
    fn are_without(&mut self, text: &str, entries: &[Entry]) -> bool {
        if entries.len() < Self::FEW {
            return entries.iter().all(|entry| *entry.key != *text);
        }
        if self.0.is_empty() {
            self.0.extend(entries.iter().map(|entry| entry.key.clone()));
        }
        self.0.insert(text.into())
    }
}

/// The key whose value comes next.
struct Key {
    at: Mark,
    /// `None` if it has been complained about: the value is dropped.
    text: Option<Box<str>>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: &Span) {
        let at = mark(span.start.line(), span.start.col());
        if let Some(tag) = event.tag() {
            let problem = format!("a tag, {}", quote(&tag.original()));
            self.complain(span, problem, Some("leave it out: the field says what type its value has"));
        }
        match event {
            Event::Scalar(text, style, ..) => {
                let value = if style == ScalarStyle::Plain { resolve(&text) } else { Value::String(text.into()) };
                self.add(Node { at, value });
            }
            Event::SequenceStart(..) => self.open.push(Open { at, items: Items::Sequence(Vec::new()) }),
            Event::MappingStart(..) => self
                .open
                .push(Open { at, items: Items::Mapping { entries: Vec::new(), keys: Keys::default(), key: None } }),
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(open) = self.open.pop() {
                    let value = match open.items {
                        Items::Sequence(items) => Value::Sequence(items),
                        Items::Mapping { entries, .. } => Value::Mapping(entries),
                    };
                    self.add(Node { at: open.at, value });
                }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.complain(span, "an alias".to_owned(), Some("write the value out: aliases are not taken"));
                self.add(Node { at, value: Value::Invalid });
            }
            Event::DocumentStart(..) => self.start = span.start.byte_offset().unwrap_or_default(),
            _ => {}
        }
    }

    fn add(&mut self, node: Node) {
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.items {
            Items::Sequence(items) => items.push(node),
            Items::Mapping { entries, keys, key } => match key.take() {
                Some(Key { at, text: Some(text) }) => entries.push(Entry { at, key: text, value: node }),
                Some(Key { text: None, .. }) => {}
                None => {
                    let at = node.at;
                    let text = match node.value {
                        Value::String(text) | Value::Integer(text, _) | Value::Float(text) => Ok(text),
                        Value::Bool(value) => Ok(value.to_string().into()),
                        Value::Null => Err(Some("a key without a name".to_owned())),
                        Value::Sequence(_) | Value::Mapping(_) => Err(Some("a key that is not a string".to_owned())),
                        Value::Invalid => Err(None),
                    };
                    let text = text.and_then(|text| {
                        if keys.are_without(&text, entries) {
                            Ok(text)
                        } else {
                            Err(Some(format!("the field {} a second time", quote(&text))))
                        }
                    });
                    if let Err(Some(problem)) = &text {
                        self.errors.push(SyntaxError { at, problem: problem.clone(), hint: None });
                    }
                    *key = Some(Key { at, text: text.ok() });
                }
            },
        }
    }

    fn complain(&mut self, span: &Span, problem: String, hint: Option<&'static str>) {
        self.errors.push(SyntaxError { at: mark(span.start.line(), span.start.col()), problem, hint });
    }
}

/// The parser counts columns from 0.
fn mark(line: usize, column: usize) -> Mark {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Mark { line: number(line.max(1)), column: number(column.saturating_add(1)) }
}

/// What a plain scalar means (YAML 1.2.2, 10.3.2).
fn resolve(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let (negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let radix = |digits: &str, radix| {
        let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        all.then(|| i64::from_str_radix(digits, radix).ok())
    };
    let integer = if let Some(hex) = text.strip_prefix("0x") {
        radix(hex, 16)
    } else if let Some(octal) = text.strip_prefix("0o") {
        radix(octal, 8)
    } else {
        radix(unsigned, 10).map(|n| n.map(|n| if negative { -n } else { n }))
    };
    if let Some(number) = integer {
        return Value::Integer(text.into(), number);
    }
    let numeric = unsigned.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'e' | b'E' | b'+' | b'-'));
    let special = matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN");
    if special || (numeric && text.parse::<f64>().is_ok()) {
        Value::Float(text.into())
    } else {
        Value::String(text.into())
    }
}

const SPACES: &str = "indent with spaces: YAML does not take tabs for that";

/// Whether the line that `text` is in at byte `end` starts with white space that has a tab.
fn has_tab(text: &str, end: usize) -> bool {
    let before = text.get(..end).unwrap_or_default();
    let line = before.rsplit(['\n', '\r']).next().unwrap_or_default();
    let blank = line.len() - line.trim_start().len();
    line.get(..blank).is_some_and(|blank| blank.contains('\t'))
}

/// The parser's words, and for the errors that people make most a hint.
fn describe(kind: &ErrorKind) -> (String, Option<&'static str>) {
    match kind {
        ErrorKind::RecursionLimitExceeded => (format!("nested deeper than {MAX_DEPTH} levels"), None),
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar => (format!("not YAML: {kind}"), Some(SPACES)),
        ErrorKind::UnclosedFlowCollection { open } => {
            (format!("not YAML: `{open}` is not closed"), Some("is the file truncated?"))
        }
        ErrorKind::UnclosedQuotedScalar => {
            ("not YAML: the quoted text does not end".to_owned(), Some("is the file truncated?"))
        }
        ErrorKind::InvalidColonPlacement | ErrorKind::MappingValueNotAllowed => {
            (format!("not YAML: {kind}"), Some("put text that has a colon followed by a space into quotes"))
        }
        _ => (format!("not YAML: {kind}"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let documents = parse(text);
        let errors = documents.iter().flat_map(|d| &d.errors);
        errors.map(|e| format!("{}:{} {}", e.at.line, e.at.column, e.problem)).collect()
    }

    #[test]
    fn scalars_follow_the_core_schema() {
        let resolved = |text: &str| format!("{:?}", resolve(text));
        assert_eq!(resolved(""), "Null");
        assert_eq!(resolved("true"), "Bool(true)");
        assert_eq!(resolved("off"), "String(\"off\")");
        assert_eq!(resolved("80"), "Integer(\"80\", Some(80))");
        assert_eq!(resolved("-5"), "Integer(\"-5\", Some(-5))");
        assert_eq!(resolved("0x50"), "Integer(\"0x50\", Some(80))");
        assert_eq!(resolved("99999999999999999999"), "Integer(\"99999999999999999999\", None)");
        assert_eq!(resolved("1.5"), "Float(\"1.5\")");
        assert_eq!(resolved("1e3"), "Float(\"1e3\")");
        assert_eq!(resolved("10.9.1.1"), "String(\"10.9.1.1\")");
        assert_eq!(resolved("-"), "String(\"-\")");
        assert_eq!(resolved("inf"), "String(\"inf\")");
    }

    #[test]
    fn a_broken_document_does_not_hide_the_next() {
        let found = errors("a: [1\n---\nb: *x\nb: 2\n---\n? [c]\n: 1\n");
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found[1].starts_with("3:4 an alias"), "{found:?}");
        assert!(found[2].starts_with("4:1 the field \"b\" a second time"), "{found:?}");
        assert!(found[3].starts_with("6:3 a key that is not a string"), "{found:?}");
    }

    #[test]
    fn a_key_that_stands_twice_is_found_among_few_and_many() {
        for count in [1, 5, 15, 16, 17, 40] {
            for twice in [0, count / 2, count - 1] {
                let keys = (0..count).map(|key| format!("k{key}: 1\n")).collect::<String>();
                let text = format!("{keys}k{twice}: 2\nlast: 3\nk{twice}: 4\n");
                let line = count + 1;
                let problem = format!("the field \"k{twice}\" a second time");
                assert_eq!(
                    errors(&text),
                    [format!("{line}:1 {problem}"), format!("{}:1 {problem}", line + 2)],
                    "{text}"
                );
                assert!(errors(&keys).is_empty());
            }
        }
    }

    #[test]
    fn nesting_is_bounded() {
        for text in ["[".repeat(100_000), "- ".repeat(100_000), "{a: ".repeat(100_000)] {
            let found = errors(&text);
            assert_eq!(found.len(), 1);
            assert!(found[0].contains("nested deeper than 64 levels"), "{found:?}");
        }
    }
}
