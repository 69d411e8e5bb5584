//! The last good configuration on disk: what a restart uses where the files are bad.
//!
//! One file for each list of `-f` paths, so that appliances that share a host do not find each other's. It is replaced by a rename, so that
//! it is always whole.

use core::hash::Hasher;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use schema::Source;
use serde::{Deserialize, Serialize};

/// Where a configuration is kept.
#[derive(Debug, Clone)]
pub struct Keeper {
    path: PathBuf,
}

/// A configuration that was accepted once.
#[derive(Debug, Clone)]
pub struct Kept {
    /// When, in seconds since 1970-01-01T00:00:00Z.
    pub accepted: u64,
    /// Its texts.
    pub sources: Vec<Source>,
}

#[derive(Serialize, Deserialize)]
struct Stored {
    millrace: String,
    accepted: u64,
    sources: Vec<StoredSource>,
}

#[derive(Serialize, Deserialize)]
struct StoredSource {
    name: String,
    text: String,
}

impl Keeper {
    /// What is kept in `directory` of the configuration at `paths`. `None` where that is standard input, which is another one each time.
    #[must_use]
    pub fn new(directory: &Path, paths: &[PathBuf]) -> Option<Self> {
        let mut hash = Fnv::default();
        for path in paths {
            if path.as_os_str() == "-" {
                return None;
            }
            // As it is called, and not where it leads: links change.
            let absolute = std::path::absolute(path).unwrap_or_else(|_| path.clone());
            hash.write(absolute.as_os_str().as_encoded_bytes());
            hash.write(&[0]);
        }
        Some(Self { path: directory.join(format!("last-good-{:016x}.json", hash.finish())) })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What was kept.
    ///
    /// # Errors
    /// It is not there, cannot be read, or is not what `Keeper::keep` wrote.
    pub fn last_good(&self) -> io::Result<Kept> {
        let stored: Stored = serde_json::from_slice(&fs::read(&self.path)?)?;
        let source = |stored: StoredSource| Source::new(&stored.name, stored.text.into_bytes());
        Ok(Kept { accepted: stored.accepted, sources: stored.sources.into_iter().map(source).collect() })
    }

    /// Keeps `sources` in the place of what was kept before.
    ///
    /// # Errors
    /// It cannot be written. What was kept before is still there.
    pub(super) fn keep(&self, sources: &[Source], accepted: u64) -> io::Result<()> {
        let text = |source: &Source| StoredSource {
            name: source.name.to_string(),
            text: String::from_utf8_lossy(source.bytes().unwrap_or_default()).into_owned(),
        };
        let stored = Stored {
            millrace: env!("CARGO_PKG_VERSION").to_owned(),
            accepted,
            sources: sources.iter().map(text).collect(),
        };
        replace(&self.path, &serde_json::to_vec(&stored)?)
    }

    /// Where something else is kept that belongs to the same configuration.
    #[must_use]
    pub(crate) fn beside(&self, what: &str) -> PathBuf {
        let name = self.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        self.path.with_file_name(name.replacen("last-good", what, 1))
    }
}

/// Puts `text` in the place of what is at `path`, for the owner's eyes alone: whole or not at all. The directory is made where there is none.
pub(crate) fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    // Appliances that share a directory may write the same file at the same time.
    let partial = path.with_extension(format!("partial-{}", std::process::id()));
    let written =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&partial).and_then(|mut file| {
            file.write_all(text)?;
            // A rename may reach the disk before what it renames does.
            file.sync_all()
        });
    written.and_then(|()| fs::rename(&partial, path)).inspect_err(|_| {
        // A disk that is full needs the room. There may be no such file.
        let _ = fs::remove_file(&partial);
    })?;
    path.parent().map_or(Ok(()), |directory| File::open(directory)?.sync_all())
}

/// FNV-1a: file names have to be the same from version to version, which the standard library's hash does not promise.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.iter().fold(self.0, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_comes_back_and_is_each_path_lists_own() {
        let directory = std::env::temp_dir().join(format!("millrace-keep-{}", std::process::id()));
        let keeper = Keeper::new(&directory, &["/etc/a.yaml".into()]).unwrap();
        assert!(keeper.last_good().is_err());
        let sources = vec![Source::new("/etc/a.yaml", b"a: 1\n# \xc3\xa4\n".to_vec()), Source::new("b", vec![])];
        keeper.keep(&sources, 7).unwrap();
        keeper.keep(&sources, 8).unwrap();
        let kept = keeper.last_good().unwrap();
        assert_eq!((kept.accepted, kept.sources), (8, sources));
        for other in [vec!["/etc/b.yaml".into()], vec!["/etc/a.yaml".into(), "/etc/b.yaml".into()]] {
            assert!(Keeper::new(&directory, &other).unwrap().last_good().is_err());
        }
        assert!(Keeper::new(&directory, &["-".into()]).is_none());
        fs::write(keeper.path(), "{").unwrap();
        assert!(keeper.last_good().is_err());
        // Nothing can take the place of a directory: what was written for that goes.
        let taken = directory.join("taken");
        fs::create_dir_all(taken.join("by")).unwrap();
        assert!(replace(&taken, b"text").is_err());
        let mut left: Vec<_> = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.sort();
        assert_eq!(left, [keeper.path(), &taken]);
        fs::remove_dir_all(directory).unwrap();
    }
}
