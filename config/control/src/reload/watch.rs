//! Notices that the files of a configuration may have changed.
//!
//! Directories are watched and not files: editors write a new file and rename it over the old one, and Kubernetes' ConfigMaps are
//! links to a directory whose link is replaced. Events are hints, so files are also looked at now and then: network file systems send none.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};

/// Watches the files of a configuration.
pub(super) struct Watch {
    watcher: Option<RecommendedWatcher>,
    paths: Vec<PathBuf>,
    /// The directories that are watched.
    watched: Vec<PathBuf>,
}

/// A directory and what matters in it; all of it where that is `None`.
type Interest = (PathBuf, Option<OsString>);

impl Watch {
    /// Calls `touched` whenever something may have happened to `paths`.
    pub(super) fn new(paths: &[PathBuf], touched: impl Fn() + Send + 'static) -> Self {
        let interests = interests(paths);
        let theirs = interests.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| match event {
            Ok(event) if event.kind.is_access() => {}
            Ok(event) if !event.need_rescan() && !event.paths.iter().any(|path| concerns(&theirs, path)) => {}
            // Errors, too: what was lost may have mattered.
            Ok(_) | Err(_) => touched(),
        });
        let watcher = watcher.inspect_err(|error| tracing::warn!(%error, "files are not watched, but looked at")).ok();
        let mut watch = Self { watcher, paths: paths.to_vec(), watched: Vec::new() };
        for (directory, _) in interests {
            watch.add(directory);
        }
        watch
    }

    fn add(&mut self, directory: PathBuf) {
        let Some(watcher) = &mut self.watcher else { return };
        if self.watched.contains(&directory) {
            return;
        }
        match watcher.watch(&directory, RecursiveMode::NonRecursive) {
            Ok(()) => self.watched.push(directory),
            Err(error) => {
                tracing::warn!(%error, directory = %directory.display(), "cannot be watched, is looked at");
            }
        }
    }

    /// What the files look like from outside: differs where one of them was replaced or written.
    pub(super) fn fingerprint(&self) -> Vec<(PathBuf, u64, u64, i64, i64)> {
        let mut found = Vec::new();
        for path in &self.paths {
            let listed = fs::read_dir(path).map(|entries| entries.flatten().map(|entry| entry.path()).collect());
            let mut files: Vec<PathBuf> = listed.unwrap_or_else(|_| vec![path.clone()]);
            files.sort();
            for file in files {
                if let Ok(about) = fs::metadata(&file) {
                    found.push((file, about.ino(), about.len(), about.mtime(), about.mtime_nsec()));
                }
            }
        }
        found
    }
}

/// The directories in which something happens when `paths` change.
fn interests(paths: &[PathBuf]) -> Vec<Interest> {
    let mut found: Vec<Interest> = Vec::new();
    let mut add = |interest: Interest| {
        if !found.contains(&interest) {
            found.push(interest);
        }
    };
    for path in paths.iter().filter(|path| path.as_os_str() != "-") {
        if path.is_dir() {
            add((path.clone(), None));
        }
        // Where it is called so, and where it leads.
        for path in [Some(path.clone()), fs::canonicalize(path).ok()].into_iter().flatten() {
            if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
                let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
                add((parent.to_owned(), Some(name.to_owned())));
            }
        }
    }
    found
}

fn concerns(interests: &[Interest], path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    // `..data` is what ConfigMaps replace.
    name.as_encoded_bytes().starts_with(b"..")
        || interests.iter().any(|(directory, wanted)| match wanted {
            Some(wanted) => name == wanted,
            None => path.starts_with(directory) || path.parent().is_none_or(|parent| parent == directory),
        })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use super::*;

    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("millrace-watch-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn watch(path: &Path) -> (Watch, Receiver<()>) {
        let (sender, receiver) = channel();
        let watch = Watch::new(&[path.to_owned()], move || sender.send(()).unwrap_or_default());
        (watch, receiver)
    }

    fn was_touched(receiver: &Receiver<()>) -> bool {
        let touched = receiver.recv_timeout(Duration::from_secs(5)).is_ok();
        while receiver.recv_timeout(Duration::from_millis(50)).is_ok() {}
        touched
    }

    #[test]
    fn writes_and_renames_over_a_file_are_noticed_and_others_are_not() {
        let place = Place::new("file");
        let file = place.0.join("edge.yaml");
        fs::write(&file, "a").unwrap();
        let (watch, touched) = watch(&file);
        let before = watch.fingerprint();
        fs::write(&file, "bc").unwrap();
        assert!(was_touched(&touched));
        assert_ne!(watch.fingerprint(), before);
        let other = place.0.join("other");
        fs::write(&other, "d").unwrap();
        assert!(touched.recv_timeout(Duration::from_millis(300)).is_err(), "another file");
        fs::rename(&other, &file).unwrap();
        assert!(was_touched(&touched));
        // Reading is no change.
        fs::read(&file).unwrap();
        assert!(touched.recv_timeout(Duration::from_millis(300)).is_err());
        fs::remove_file(&file).unwrap();
        assert!(was_touched(&touched));
    }

    #[test]
    fn a_config_map_that_is_replaced_is_noticed() {
        let place = Place::new("map");
        let version = |name: &str, text: &str| {
            fs::create_dir(place.0.join(name)).unwrap();
            fs::write(place.0.join(name).join("edge.yaml"), text).unwrap();
        };
        version("..1", "a");
        std::os::unix::fs::symlink("..1", place.0.join("..data")).unwrap();
        std::os::unix::fs::symlink("..data/edge.yaml", place.0.join("edge.yaml")).unwrap();
        for path in [place.0.clone(), place.0.join("edge.yaml")] {
            let (watch, touched) = watch(&path);
            let before = watch.fingerprint();
            let next = if path == place.0 { "..2" } else { "..3" };
            version(next, next);
            std::os::unix::fs::symlink(next, place.0.join("..tmp")).unwrap();
            fs::rename(place.0.join("..tmp"), place.0.join("..data")).unwrap();
            assert!(was_touched(&touched));
            assert_ne!(watch.fingerprint(), before);
            assert_eq!(fs::read_to_string(place.0.join("edge.yaml")).unwrap(), next);
        }
    }
}
