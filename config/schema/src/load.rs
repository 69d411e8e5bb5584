//! Files to a [`Configuration`], or to everything that is wrong with them.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Configuration;
use crate::check::check;
use crate::decode::{Decoded, Resource, document};
use crate::error::{Errors, Excerpt, Found};
use crate::located::Location;
use crate::source::{Source, read};
use crate::yaml;

/// Largest file that is read, in bytes.
pub const MAX_FILE_BYTES: u64 = 64 << 20;

/// Reads a configuration from files of YAML documents, as [`read`] does.
///
/// # Errors
/// Everything that is wrong: files that cannot be read or are larger than [`MAX_FILE_BYTES`], syntax,
/// unknown fields, values that do not fit, references that lead nowhere.
pub fn load(paths: &[PathBuf]) -> Result<Configuration, Errors> {
    load_read(&read(paths))
}

/// Reads a configuration from `text`, called `name` in errors.
///
/// # Errors
/// Everything that is wrong.
pub fn load_str(name: &str, text: &str) -> Result<Configuration, Errors> {
    load_sources(&[(name, text.as_bytes())])
}

/// Reads a configuration from several files that are in memory, with their names.
///
/// # Errors
/// Everything that is wrong.
pub fn load_sources(sources: &[(&str, &[u8])]) -> Result<Configuration, Errors> {
    let mut loader = Loader::default();
    for (name, bytes) in sources {
        loader.read(name, bytes);
    }
    loader.finish()
}

/// Reads a configuration from what [`read`] has read.
///
/// # Errors
/// Everything that is wrong, what could not be read among it.
pub fn load_read(sources: &[Source]) -> Result<Configuration, Errors> {
    let mut loader = Loader::default();
    for source in sources {
        match source.content() {
            Ok(bytes) => loader.read(&source.name, bytes),
            Err(unreadable) => loader.unreadable(&source.name, &unreadable.problem, unreadable.hint),
        }
    }
    loader.finish()
}

#[derive(Default)]
struct Loader {
    found: Found,
    /// What was read, for the source lines of errors.
    texts: HashMap<Arc<str>, String>,
    documents: Vec<Decoded>,
    /// Whether something could not be read or parsed, so that anything may be defined there.
    blind: bool,
}

impl Loader {
    fn read(&mut self, name: &str, bytes: &[u8]) {
        if self.texts.contains_key(name) {
            self.unreadable(name, "is given twice", None);
            return;
        }
        if bytes.len() as u64 > MAX_FILE_BYTES {
            let problem = format!("is larger than {} MiB", MAX_FILE_BYTES >> 20);
            self.unreadable(name, &problem, Some("spread it over several files"));
            return;
        }
        let text = match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                let text = String::from_utf8_lossy(bytes);
                self.not_text(name, &text, error.valid_up_to(), "a byte that is not UTF-8");
                return;
            }
        };
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        if text.trim().is_empty() {
            self.unreadable(name, "is empty", Some("is it truncated?"));
            return;
        }
        let usual = |byte: u8| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~');
        // Nearly all of it nearly always; a loop over bytes is one that the compiler makes sixteen steps of at a time.
        let usual = text.bytes().fold(true, |all, byte| all & usual(byte));
        if !usual && let Some((at, character)) = text.char_indices().find(|(_, c)| !is_printable(*c)) {
            let problem = format!("the character {}, which YAML forbids", character.escape_unicode());
            self.not_text(name, text, at, &problem);
            return;
        }
        let name: Arc<str> = name.into();
        for parsed in yaml::parse(text) {
            let complete = parsed.errors.is_empty();
            for error in parsed.errors {
                let at = Location {
                    file: Arc::clone(&name),
                    line: error.at.line,
                    column: error.at.column,
                    field: "".into(),
                };
                match error.hint {
                    Some(hint) => self.found.hinted(&at, error.problem, hint),
                    None => self.found.error(&at, error.problem),
                }
            }
            match parsed.root {
                Some(root) => self.documents.extend(document(&name, root, complete, &mut self.found)),
                None => self.blind = true,
            }
        }
        self.texts.insert(name, text.to_owned());
    }

    /// Reports what is wrong with a whole file.
    fn unreadable(&mut self, name: &str, problem: &str, hint: Option<&str>) {
        self.blind = true;
        let at = Location::file(name);
        match hint {
            Some(hint) => self.found.hinted(&at, problem, hint),
            None => self.found.error(&at, problem),
        }
    }

    /// Reports what makes a file no text, at byte `offset` of `text`.
    fn not_text(&mut self, name: &str, text: &str, offset: usize, problem: &str) {
        self.blind = true;
        let before = text.get(..offset).unwrap_or_default();
        let (mut line, mut last) = (0, "");
        for text in lines(before) {
            (line, last) = (line + 1, text);
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let at = Location {
            file: name.into(),
            line: count(line.max(1)),
            column: count(last.chars().count() + 1),
            field: "".into(),
        };
        self.found.error(&at, problem);
    }

    fn finish(mut self) -> Result<Configuration, Errors> {
        check(&self.documents, self.blind, &mut self.found);
        let (mut errors, more) = self.found.into_errors();
        let mut appliance = None;
        let (mut gateways, mut routes, mut backends) = (Vec::new(), Vec::new(), Vec::new());
        let (mut grants, mut namespaces) = (Vec::new(), Vec::new());
        let (mut backend_policies, mut services, mut slices) = (Vec::new(), Vec::new(), Vec::new());
        let (mut route_policies, mut security_policies) = (Vec::new(), Vec::new());
        for document in self.documents {
            match document.resource {
                Some(Resource::Appliance(found)) => appliance = Some(*found),
                Some(Resource::Gateway(found)) => gateways.push(found),
                Some(Resource::Route(found)) => routes.push(found),
                Some(Resource::Backend(found)) => backends.push(found),
                Some(Resource::ReferenceGrant(found)) => grants.push(found),
                Some(Resource::Namespace(found)) => namespaces.push(found),
                Some(Resource::BackendPolicy(found)) => backend_policies.push(found),
                Some(Resource::Service(found)) => services.push(found),
                Some(Resource::EndpointSlice(found)) => slices.push(found),
                Some(Resource::RoutePolicy(found)) => route_policies.push(found),
                Some(Resource::SecurityPolicy(found)) => security_policies.push(found),
                None => {}
            }
        }
        match appliance {
            Some(appliance) if errors.is_empty() => Ok(Configuration {
                appliance,
                gateways,
                routes,
                backends,
                grants,
                namespaces,
                backend_policies,
                services,
                slices,
                route_policies,
                security_policies,
            }),
            _ => {
                errors.sort();
                errors.dedup();
                excerpts(&mut errors, &self.texts);
                Err(Errors::from_found(errors, more))
            }
        }
    }
}

/// Gives every error its source line, in one pass over each file. `errors` are in order.
pub(crate) fn excerpts(errors: &mut [crate::ConfigError], texts: &HashMap<Arc<str>, String>) {
    for of_file in errors.chunk_by_mut(|a, b| a.file == b.file) {
        let Some(text) = of_file.first().and_then(|error| texts.get(&*error.file)) else {
            continue;
        };
        let mut numbered = (1_u32..).zip(lines(text));
        let mut current = numbered.next();
        for error in of_file {
            while current.is_some_and(|(number, _)| number < error.line) {
                current = numbered.next();
            }
            if let Some((number, line)) = current
                && number == error.line
            {
                error.excerpt = Some(Excerpt::around(line, error.column));
            }
        }
    }
}

/// The lines of `text`, which end as YAML's do: with LF, CR LF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some((line, after)) = text.find(['\n', '\r']).and_then(|end| text.split_at_checked(end)) else {
            return rest.take();
        };
        rest = after.strip_prefix("\r\n").or_else(|| after.strip_prefix(['\n', '\r']));
        Some(line)
    })
}

/// What YAML takes in a stream (1.2.2, 5.1). The parser would take NUL for the end of the file.
fn is_printable(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='~' | '\u{85}' | '\u{a0}'..='\u{fffd}' | '\u{10000}'..) && c != '\u{feff}'
}
