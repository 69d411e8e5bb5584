//! Names that stand for endpoints (`Backend.spec.endpoints[].fqdn`), resolved by their TTL.
//!
//! A thread of its own asks servers ([`thread`], [`lookup`]); what they say becomes addresses that count ([`answer`], [`entry`]). Where those change, the
//! reload thread is told, compiles the running configuration with them, and publishes it like any other: what stays keeps its state, what goes is
//! closed when its requests have ended. An answer that is the same publishes nothing, and a failure takes nothing away. Nothing here touches a core.

mod answer;
mod entry;
mod lookup;
pub(crate) mod thread;

use core::time::Duration;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use schema::{Configuration, Dns, DnsName, DnsType, LookupFamily, Reach};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::reload::replace;
use crate::status::{self, NameStatus};
pub(crate) use answer::weights;
use answer::{Outcome, take};
pub use answer::{Resolved, Service};
use entry::{Entry, Remark};

/// The addresses that count, by name.
pub type Resolutions = HashMap<DnsName, Arc<[Resolved]>>;

/// Bytes of kept answers that are read at most.
const MAX_KEPT: u64 = 64 << 20;

/// All names of the running configuration.
#[derive(Debug)]
pub(crate) struct Names {
    book: Mutex<Book>,
    /// Something was heard.
    heard: Condvar,
    /// There is something to ask.
    wake: Notify,
    stopped: AtomicBool,
    /// Where answers are kept for a restart.
    path: Option<PathBuf>,
}

#[derive(Debug)]
struct Book {
    entries: BTreeMap<DnsName, Entry>,
    settings: Dns,
    /// Counts changes of the settings.
    settings_version: u64,
    reach: Reach,
    /// Counts changes of addresses that count.
    generation: u64,
    /// The generation that was compiled last.
    compiled: u64,
    /// There are answers that are not kept on disk as they are.
    unsaved: bool,
    /// The last time they could not be kept there, which was said.
    unkept: bool,
    /// There was a configuration.
    configured: bool,
    /// Readiness waits for first answers no longer than until then; `None` once it has waited.
    patience: Option<Instant>,
    /// Answers from before the start, for the first configuration.
    kept: Vec<(DnsName, Vec<Resolved>, Duration)>,
}

/// What is to be asked.
pub(super) struct Round {
    /// Names with the addresses that they have.
    questions: Vec<(DnsName, Vec<Resolved>)>,
    /// When the next one is due.
    next: Option<Instant>,
    settings: Dns,
    settings_version: u64,
}

impl Names {
    /// No names yet. Answers are kept at `path`, and those of before come from there.
    pub(crate) fn new(path: Option<PathBuf>) -> Arc<Self> {
        let kept = path.as_deref().and_then(|path| match read(path) {
            Ok(kept) => Some(kept),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("answers of DNS from before the start cannot be read: {}: {error}", path.display());
                }
                None
            }
        });
        let book = Book {
            entries: BTreeMap::new(),
            settings: Dns::default(),
            settings_version: 0,
            reach: Reach::default(),
            generation: 0,
            compiled: 0,
            unsaved: false,
            unkept: false,
            configured: false,
            patience: None,
            kept: kept.unwrap_or_default(),
        };
        Arc::new(Self {
            book: Mutex::new(book),
            heard: Condvar::new(),
            wake: Notify::new(),
            stopped: AtomicBool::new(false),
            path,
        })
    }

    /// Takes the names of a configuration that is about to run, in the place of those of the one before.
    pub(crate) fn configure(&self, configuration: &Configuration) {
        let now = Instant::now();
        let mut guard = self.lock();
        let book = &mut *guard;
        let spec = &configuration.appliance.spec;
        book.reach = Reach::new(spec);
        if book.settings != spec.dns {
            book.settings = spec.dns.clone();
            book.settings_version += 1;
            book.entries.values_mut().for_each(|entry| entry.hurry(now));
        }
        let endpoints = configuration.backends.iter().flat_map(|backend| &backend.spec.endpoints);
        let wanted: std::collections::BTreeSet<&DnsName> = endpoints.filter_map(|endpoint| endpoint.name()).collect();
        book.entries.retain(|name, _| wanted.contains(name));
        let kept = core::mem::take(&mut book.kept).into_iter().map(|(name, addresses, age)| (name, (addresses, age)));
        let mut kept: HashMap<DnsName, (Vec<Resolved>, Duration)> = kept.collect();
        for name in wanted {
            if !book.entries.contains_key(name) {
                let entry = kept.remove(name).and_then(|(addresses, age)| {
                    // The appliance may have other ports now than when they were kept.
                    let limit = book.settings.max_addresses.into();
                    let taken = take(addresses, &[], name.lookup_family, &book.reach, limit).addresses;
                    (!taken.is_empty()).then(|| Entry::kept(taken, age, now))
                });
                book.entries.insert(name.clone(), entry.unwrap_or_else(|| Entry::new(now)));
            }
        }
        if !core::mem::replace(&mut book.configured, true) {
            book.patience = Some(now + spec.dns.startup_wait);
        }
        drop(guard);
        self.wake.notify_one();
    }

    /// The addresses that count, for a compilation.
    pub(crate) fn resolutions(&self) -> Resolutions {
        let mut book = self.lock();
        book.compiled = book.generation;
        let counting =
            book.entries.iter().filter_map(|(name, entry)| Some((name.clone(), Arc::clone(entry.addresses()?))));
        counting.collect()
    }

    /// Whether other addresses count than when a configuration was compiled last.
    pub(crate) fn has_news(&self) -> bool {
        let book = self.lock();
        book.generation != book.compiled
    }

    /// Waits until all names were asked for once, whatever came of it; no longer than readiness does at the start.
    pub(crate) fn await_first(&self) {
        let book = self.lock();
        let patience = book.settings.startup_wait;
        let waiting = |book: &mut Book| !self.is_stopped() && book.unheard() > 0;
        drop(self.heard.wait_timeout_while(book, patience, waiting));
    }

    /// How many names readiness waits for.
    pub(crate) fn awaited(&self) -> usize {
        let mut book = self.lock();
        let Some(patience) = book.patience else { return 0 };
        let unheard = book.unheard();
        // What was heard has to be compiled, too.
        if (unheard > 0 || book.generation != book.compiled) && Instant::now() < patience {
            return unheard.max(1);
        }
        book.patience = None;
        0
    }

    /// All names as they are.
    pub(crate) fn list(&self) -> status::Names {
        let now = Instant::now();
        let names = self.lock().entries.iter().map(|(name, entry)| entry.status(name, now)).collect();
        status::Names { names }
    }

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.wake.notify_one();
        // Who has looked already and does not wait yet holds it.
        drop(self.lock());
        self.heard.notify_all();
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// The names that are due, `room` of them at most.
    fn round(&self, now: Instant, room: usize) -> Round {
        let mut book = self.lock();
        let mut questions = Vec::new();
        let mut next = None;
        for (name, entry) in book.entries.iter_mut().filter(|(_, entry)| !entry.asked) {
            if entry.due() > now {
                next = Some(next.map_or(entry.due(), |next: Instant| next.min(entry.due())));
            } else if questions.len() < room {
                entry.asked = true;
                let held = entry.addresses().map(|held| held.to_vec()).unwrap_or_default();
                questions.push((name.clone(), held));
            }
        }
        Round { questions, next, settings: book.settings.clone(), settings_version: book.settings_version }
    }

    /// Takes what came of a question.
    fn take(&self, name: &DnsName, outcome: Outcome<Resolved>, now: Instant, chance: f64) {
        let mut guard = self.lock();
        let book = &mut *guard;
        // A configuration without it may run by now.
        let Some(entry) = book.entries.get_mut(name) else { return };
        entry.asked = false;
        let change = entry.take(name, outcome, &book.settings, &book.reach, now, chance);
        book.generation += u64::from(change.changed);
        book.unsaved = true;
        drop(guard);
        self.heard.notify_all();
        match change.remark {
            Some(Remark::Good(text)) => tracing::info!("{text}"),
            Some(Remark::Bad(text)) => tracing::warn!("{text}"),
            None => {}
        }
    }

    /// The generation, where it is not the one that was compiled.
    fn news(&self) -> Option<u64> {
        let book = self.lock();
        (book.generation != book.compiled).then_some(book.generation)
    }

    /// What was being asked for when the thread panicked is asked for again.
    fn abandon(&self) {
        self.lock().entries.values_mut().for_each(|entry| entry.asked = false);
    }

    fn is_unsaved(&self) -> bool {
        self.path.is_some() && self.lock().unsaved
    }

    /// Keeps the answers on disk, where there are others.
    fn save(&self) {
        let Some(path) = &self.path else { return };
        let (now, unix) = (Instant::now(), SystemTime::now());
        let mut book = self.lock();
        if !core::mem::take(&mut book.unsaved) {
            return;
        }
        let good = book.entries.iter().filter_map(|(name, entry)| {
            // What does not count any more should not count after a restart.
            let good = entry.good().filter(|_| entry.addresses().is_some())?;
            let confirmed = unix.checked_sub(good.age(now))?.duration_since(UNIX_EPOCH).ok()?;
            Some(Stored {
                hostname: name.hostname.to_string(),
                srv: name.kind == DnsType::Srv,
                family: entry::family(name.lookup_family).to_owned(),
                confirmed: confirmed.as_secs(),
                addresses: good.addresses.to_vec(),
            })
        });
        let stored: Vec<Stored> = good.collect();
        drop(book);
        let written = serde_json::to_vec(&stored).map_err(io::Error::from).and_then(|text| replace(path, &text));
        // Every few seconds it is tried again: said once is enough.
        let before = core::mem::replace(&mut self.lock().unkept, written.is_err());
        match written {
            Err(error) if !before => {
                tracing::warn!("answers of DNS cannot be kept for a restart: {}: {error}", path.display());
            }
            Ok(()) if before => tracing::info!("answers of DNS are kept for a restart again"),
            _ => {}
        }
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // Nothing here is changed in more than one step that could panic in between.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    /// Names without any answer yet, and without one from before the start.
    fn unheard(&self) -> usize {
        self.entries.values().filter(|entry| !entry.heard && entry.good().is_none()).count()
    }
}

/// An answer on disk.
#[derive(Serialize, Deserialize)]
struct Stored {
    hostname: String,
    srv: bool,
    family: String,
    /// In seconds since 1970-01-01T00:00:00Z.
    confirmed: u64,
    addresses: Vec<Resolved>,
}

fn read(path: &std::path::Path) -> io::Result<Vec<(DnsName, Vec<Resolved>, Duration)>> {
    use io::Read;
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(MAX_KEPT).read_to_end(&mut text)?;
    let stored: Vec<Stored> = serde_json::from_slice(&text)?;
    let now = SystemTime::now();
    let families = [
        LookupFamily::Ipv4AndIpv6,
        LookupFamily::Ipv4,
        LookupFamily::Ipv6,
        LookupFamily::Ipv4Preferred,
        LookupFamily::Ipv6Preferred,
    ];
    let one = |stored: Stored| {
        let lookup_family = *families.iter().find(|family| entry::family(**family) == stored.family)?;
        let kind = if stored.srv { DnsType::Srv } else { DnsType::Address };
        let name = DnsName { hostname: stored.hostname.into(), kind, lookup_family };
        let confirmed = UNIX_EPOCH.checked_add(Duration::from_secs(stored.confirmed))?;
        // A clock that was set back makes it young.
        let age = now.duration_since(confirmed).unwrap_or_default();
        Some((name, stored.addresses, age))
    };
    Ok(stored.into_iter().filter_map(one).collect())
}

/// The names that a backend's endpoints come from.
pub(crate) fn named<'c>(configuration: &'c Configuration, backend: &str) -> Vec<&'c DnsName> {
    let Some(backend) = configuration.backends.iter().find(|b| b.metadata.object.to_string() == backend) else {
        return Vec::new();
    };
    let whole = backend.spec.subset.as_ref().and_then(|subset| configuration.backend(&subset.of)).unwrap_or(backend);
    whole.spec.endpoints.iter().filter_map(|endpoint| endpoint.name()).collect()
}

/// How they stand.
pub(crate) fn of_backend<'s>(
    configuration: &Configuration,
    backend: &str,
    all: &'s [NameStatus],
) -> Vec<&'s NameStatus> {
    let is = |status: &&NameStatus, name: &DnsName| {
        *status.name == *name.hostname
            && (status.kind == "SRV") == (name.kind == DnsType::Srv)
            && status.lookup_family == entry::family(name.lookup_family)
    };
    let names = named(configuration, backend).into_iter();
    names.filter_map(|name| all.iter().find(|status| is(status, name))).collect()
}

#[cfg(test)]
mod tests;
