//! What a configuration is read from: texts with their names, taken once, so that what was checked is what is kept.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{ConfigError, Errors};
use crate::load::{MAX_FILE_BYTES, excerpts};
use crate::located::Location;
use crate::yaml;

/// One file as it was read, or why it could not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The file as the user named it; `<stdin>` for `-`.
    pub name: Box<str>,
    content: Result<Vec<u8>, Unreadable>,
}

/// Why a file has no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    pub(crate) problem: Box<str>,
    pub(crate) hint: Option<&'static str>,
}

impl Source {
    /// A text that is in memory, called `name` in errors.
    #[must_use]
    pub fn new(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), content: Ok(bytes) }
    }

    /// Its bytes. `None` where it could not be read.
    #[must_use]
    pub fn bytes(&self) -> Option<&[u8]> {
        self.content.as_deref().ok()
    }

    pub(crate) fn content(&self) -> Result<&[u8], &Unreadable> {
        self.content.as_deref()
    }

    fn unreadable(name: &str, problem: String, hint: Option<&'static str>) -> Self {
        Self { name: name.into(), content: Err(Unreadable { problem: problem.into(), hint }) }
    }

    fn take(name: &str, source: impl Read) -> Self {
        let mut bytes = Vec::new();
        match source.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes) {
            Ok(_) => Self::new(name, bytes),
            Err(error) => Self::unreadable(name, format!("cannot be read: {}", reason(&error)), None),
        }
    }
}

/// Reads files of YAML documents.
///
/// Of a directory all files that end in `.yaml` or `.yml` are read, in order of their names; not those
/// that start with a dot, and not those of directories within it. `-` is the standard input. What cannot be read is
/// among the sources too, and [`crate::load_read`] says why.
#[must_use]
pub fn read(paths: &[PathBuf]) -> Vec<Source> {
    let mut sources = Vec::new();
    for path in paths {
        if path.as_os_str() == "-" {
            sources.push(Source::take("<stdin>", io::stdin().lock()));
        } else if path.is_dir() {
            directory(path, &mut sources);
        } else {
            sources.push(file(path));
        }
    }
    sources
}

fn directory(path: &Path, sources: &mut Vec<Source>) {
    let name = path.display().to_string();
    let mut files = Vec::new();
    let listed = std::fs::read_dir(path).and_then(|entries| {
        for entry in entries {
            files.push(entry?.path());
        }
        Ok(())
    });
    if let Err(error) = listed {
        sources.push(Source::unreadable(&name, format!("cannot be read: {}", reason(&error)), None));
        return;
    }
    files.retain(|file| {
        let yaml = file.extension().is_some_and(|end| end == "yaml" || end == "yml");
        let hidden = file.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        yaml && !hidden && !file.is_dir()
    });
    files.sort();
    if files.is_empty() {
        let hint = "of a directory the files *.yaml and *.yml are read, not those of directories within it";
        sources.push(Source::unreadable(&name, "has no configuration in it".to_owned(), Some(hint)));
    }
    sources.extend(files.iter().map(|path| file(path)));
}

fn file(path: &Path) -> Source {
    let name = path.display().to_string();
    match File::open(path) {
        Ok(file) => Source::take(&name, file),
        Err(error) => Source::unreadable(&name, format!("cannot be read: {}", reason(&error)), None),
    }
}

/// Where each of `fields` stands in the document at `document`, which was read from one of `sources`; what holds it, where it is not given.
#[must_use]
pub fn locate(sources: &[Source], document: &Location, fields: &[&str]) -> Vec<Location> {
    let parsed = text_of(sources, &document.file).map(yaml::parse).unwrap_or_default();
    let mut roots = parsed.into_iter().filter_map(|parsed| parsed.root);
    let root = roots.find(|root| (root.at.line, root.at.column) == (document.line, document.column));
    let place = |field: &&str| {
        let steps = std::iter::successors(Some(*field), |field| field.get(..field.rfind(['.', '['])?));
        let mark = root.as_ref().and_then(|root| steps.into_iter().find_map(|step| root.find(step)));
        let (line, column) = mark.map_or((document.line, document.column), |mark| (mark.line, mark.column));
        Location { file: Arc::clone(&document.file), line, column, field: (*field).into() }
    };
    fields.iter().map(place).collect()
}

/// `errors` that were found in `sources` after these had been loaded, in order, with their source lines. `None` where there are none.
#[must_use]
pub fn refuse(sources: &[Source], mut errors: Vec<ConfigError>) -> Option<Errors> {
    if errors.is_empty() {
        return None;
    }
    errors.sort();
    let named = |name: &Arc<str>| text_of(sources, name).map(|text| (Arc::clone(name), text.to_owned()));
    let mut names: Vec<Arc<str>> = errors.iter().map(|error| Arc::from(&*error.file)).collect();
    names.dedup();
    excerpts(&mut errors, &names.iter().filter_map(named).collect());
    Some(Errors::from_found(errors, 0))
}

fn text_of<'s>(sources: &'s [Source], name: &str) -> Option<&'s str> {
    let source = sources.iter().find(|source| *source.name == *name)?;
    let text = std::str::from_utf8(source.bytes()?).ok()?;
    Some(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// The system's words without its number.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or directory".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_in_its_document_or_what_holds_it() {
        let text = "a: 1\n---\nspec:\n  memory: { mebibytes: 7 }\n  cores: [1, 2]\n";
        let sources = [Source::new("f", text.into())];
        let document = Location { file: "f".into(), line: 3, column: 1, field: "".into() };
        let fields = ["spec.memory.mebibytes", "spec.cores[1]", "spec.cores[2]", "spec.tcp.keepalive", "status"];
        let places = locate(&sources, &document, &fields);
        assert_eq!(places.iter().map(|at| &*at.field).collect::<Vec<_>>(), fields);
        let places: Vec<_> = places.iter().map(|at| (at.line, at.column)).collect();
        assert_eq!(places, [(4, 24), (5, 14), (5, 10), (4, 3), (3, 1)]);
    }
}
