//! A text in its documents, for who shows it to people.

use crate::yaml::{self, Node, Value};

/// The part of a text that one document takes, with the line that separates it from the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part<'t> {
    /// As it was written, comments included.
    pub text: &'t str,
    /// It is a Secret, a list with one, or what nobody can tell because it is no YAML.
    pub is_secret: bool,
}

/// The documents of `text`, as they are read. All parts together are the whole text.
#[must_use]
pub fn parts(text: &str) -> Vec<Part<'_>> {
    let documents = yaml::parse(text);
    let starts = documents.iter().skip(1).map(|document| document.start).chain([text.len()]);
    let mut parts = Vec::new();
    let mut from = 0;
    for (document, to) in documents.iter().zip(starts) {
        let is_secret = !document.errors.is_empty() || document.root.as_ref().is_none_or(is_secret);
        match text.get(from..to) {
            Some(part) => parts.push(Part { text: part, is_secret }),
            // The parser's places are not what they are taken for: nothing is told apart then.
            None => return vec![Part { text, is_secret: true }],
        }
        from = to;
    }
    if parts.is_empty() {
        parts.push(Part { text, is_secret: false });
    }
    parts
}

/// A Secret of Kubernetes, or a list that has one.
fn is_secret(node: &Node) -> bool {
    let Value::Mapping(entries) = &node.value else { return false };
    entries.iter().any(|entry| match (&*entry.key, &entry.value.value) {
        ("kind", Value::String(kind)) => matches!(&**kind, "Secret" | "SecretList"),
        ("items", Value::Sequence(items)) => items.iter().any(is_secret),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_the_whole_text_and_secrets_are_told_by_what_they_say() {
        let documents = [
            ("# first\nkind: Gateway\nspec:\n  tls: { certificateRefs: [{ kind: Secret, name: x }] }\n", false),
            ("---\napiVersion: v1\nkind: Secret\ndata: { key: x }\n", true),
            ("--- # and more\nkind: HTTPRoute # Secret\n", false),
            ("--- { \"data\": { \"key\": \"x\" },\n \"kind\": \"Secret\" }\n", true),
            ("---\nkind: \"S\\x65cret\"\n", true),
            ("---\nkind: >-\n  Secret\ndata: {}\n...\n", true),
            ("---\nkind: List\nitems: [{ kind: Gateway }, { kind: List, items: [{ kind: Secret }] }]\n", true),
            ("---\nkind: List\nitems: [{ kind: Gateway, text: \"kind: Secret\" }]\n", false),
            ("---\nspec: |\n  ---\n  kind: Secret\nkind: Other\n", false),
            ("---\na: [1\n", true),
            ("---\nlast: ü\n", false),
        ];
        let text: String = documents.iter().map(|(text, _)| *text).collect();
        let found: Vec<(&str, bool)> = parts(&text).iter().map(|part| (part.text, part.is_secret)).collect();
        assert_eq!(found, documents);
        for nothing in ["", "# nothing\n", "---\n---\n"] {
            assert_eq!(parts(nothing), [Part { text: nothing, is_secret: false }]);
        }
    }
}
