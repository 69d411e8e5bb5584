//! The running configuration as it was given.

use schema::Source;
use serde::{Deserialize, Serialize};

use crate::reload::Origin;

/// In the place of a document that nobody should see.
const HIDDEN: &str = "# a Secret, which is not shown\n";

/// What runs, as it was given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationText {
    /// The epoch that runs it now.
    pub epoch: u64,
    /// Files, a posted one, or the last good one.
    pub origin: Origin,
    /// When it was accepted, in seconds since 1970-01-01T00:00:00Z.
    pub accepted: u64,
    /// Its texts, in the order in which they were read; Secrets are left out.
    pub files: Vec<FileText>,
}

/// One text of a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileText {
    /// The file as it is called; `<body>` for what was posted.
    pub name: String,
    /// Its YAML documents.
    pub text: String,
}

impl ConfigurationText {
    pub(crate) fn new(epoch: u64, origin: Origin, accepted: u64, sources: &[Source]) -> Self {
        let file = |source: &Source| FileText {
            name: source.name.to_string(),
            text: without_secrets(&String::from_utf8_lossy(source.bytes().unwrap_or_default())),
        };
        Self { epoch, origin, accepted, files: sources.iter().map(file).collect() }
    }

    /// All of it as YAML documents, with the epoch and the files' names as comments: `POST /config` takes it as it is.
    #[must_use]
    pub fn yaml(&self) -> String {
        let origin = match self.origin {
            Origin::Files => "files",
            Origin::Posted => "posted",
            Origin::LastGood => "the last good one",
        };
        let mut yaml = format!("# epoch {}, {origin}, accepted {}\n", self.epoch, self.accepted);
        for (position, file) in self.files.iter().enumerate() {
            let text = file.text.strip_prefix("---\n").unwrap_or(&file.text);
            let end = if text.ends_with('\n') { "" } else { "\n" };
            let separator = if position == 0 { "" } else { "---\n" };
            // A name may hold anything but must not begin a line.
            let name: String = file.name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
            yaml += &format!("{separator}# {name}\n{text}{end}");
        }
        yaml
    }
}

/// The documents of `text`, but for Secrets.
fn without_secrets(text: &str) -> String {
    // As nearly always. With a backslash the word may be spelled in another way.
    if !text.contains("Secret") && !text.contains('\\') {
        return text.to_owned();
    }
    let mut shown = String::with_capacity(text.len());
    for part in schema::parts(text) {
        if part.is_secret || part.text.lines().any(was_secret) {
            shown += if part.text.starts_with("---") { "---\n" } else { "" };
            shown += HIDDEN;
        } else {
            shown += part.text;
        }
    }
    shown
}

/// Whether a line may be a comment that was a Secret's: those are left in files when one is taken out for a while.
fn was_secret(line: &str) -> bool {
    line.trim_start().strip_prefix('#').is_some_and(|comment| comment.contains("kind") && comment.contains("Secret"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_shown_but_secrets() {
        let gateway = "kind: Gateway\nspec:\n  tls: { certificateRefs: [{ kind: Secret, name: x }] }\n";
        let secrets = [
            "apiVersion: v1\nkind: Secret\ndata: { key: aGlkZGVu }\n",
            "kind:\n  Secret\ndata: { key: aGlkZGVu }\n",
            "\"kind\": \"Secret\"\ndata: { key: aGlkZGVu }\n",
            "# of old\nkind: >-\n  Secret\nstringData: { key: aGlkZGVu }\n",
            "kind: \"S\\x65cret\"\ndata: { key: aGlkZGVu }\n",
            "kind: List\nitems: [{ data: { key: aGlkZGVu }, kind: Secret }]\n",
            "{ apiVersion: v1, kind: Secret, data: { key: aGlkZGVu } }\n",
            "{ \"data\": { \"key\": \"aGlkZGVu\" },\n \"kind\": \"Secret\" }\n",
        ];
        for secret in secrets {
            let text = format!("---\n{gateway}---\n{secret}--- # and more\n{gateway}");
            let shown = without_secrets(&text);
            assert_eq!(shown, format!("---\n{gateway}---\n{HIDDEN}--- # and more\n{gateway}"), "{secret}");
            assert!(!without_secrets(secret).contains("aGlkZGVu"));
        }
        // What is no document belongs to the one before, which is not shown either then.
        let comment = format!("---\n{gateway}---\n#kind: Secret\n#data: {{ key: aGlkZGVu }}\n---\n{gateway}");
        assert_eq!(without_secrets(&comment), format!("---\n{HIDDEN}---\n{gateway}"));
        let about = format!("{{ kind: Gateway, what: Secret }}\n---\n{gateway}---\nkind: Other # for a Secret\n");
        assert_eq!(without_secrets(&about), about);
    }

    #[test]
    fn a_long_line_is_looked_at_once() {
        for text in ["# ", "a: ", "{ a: ", "a: {"].map(|start| format!("{start}{}", "kind: Secret, ".repeat(1 << 18))) {
            let begun = std::time::Instant::now();
            assert!(without_secrets(&text).len() <= text.len());
            // With a look at what stands before and behind each `kind` it is hours.
            assert!(begun.elapsed() < std::time::Duration::from_secs(10));
        }
    }

    #[test]
    fn it_can_be_given_again() {
        let sources = [Source::new("a.yaml", b"---\na: 1".to_vec()), Source::new("b\n.yaml", b"b: 2\n".to_vec())];
        let yaml = ConfigurationText::new(7, Origin::Files, 1_700_000_000, &sources).yaml();
        assert_eq!(yaml, "# epoch 7, files, accepted 1700000000\n# a.yaml\na: 1\n---\n# b?.yaml\nb: 2\n");
    }
}
