//! Changes of the configuration while the cores run.
//!
//! One thread takes them one after the other: files that changed, SIGHUP, `POST /reload` and `POST /config`. Each is read, checked whole,
//! compared, compiled and published; what is refused changes nothing, and shows until it is mended. If the thread panics it starts
//! over with what it had. It never touches a core but through the publication slots.

pub mod diff;
mod keep;
mod watch;

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use schema::{ConfigError, Configuration, Errors, Source};
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::compile::{Compiled, Compiler, Touched};
use crate::epochs::SwapReceipt;
use crate::names::Names;
use crate::status::{Problem, Refused};
use crate::supervisor::Supervisor;
pub use diff::{Changed, Changes};
pub(crate) use keep::replace;
pub use keep::{Keeper, Kept};
use watch::Watch;

/// Files are read once nothing has happened to them for so long: editors and copies write in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// Files that never rest are read this often all the same.
const RESTLESS: Duration = Duration::from_secs(1);

/// How often files are looked at, in case an event was lost or there are none.
const LOOK: Duration = Duration::from_secs(2);

/// How long cores get to take new tables before a change is answered without them. They need microseconds.
const SWAP: Duration = Duration::from_secs(1);

/// By how much the thread steps back behind others on its CPU: reading ten thousand routes may take a while longer, and health checks' verdicts, the
/// admin endpoint and whatever else runs there not.
const NICE: i32 = 5;

/// After a panic, before the thread goes on.
const PAUSE: Duration = Duration::from_millis(100);

/// The running configuration: where it comes from, and what it is compiled with.
#[derive(Debug)]
pub struct Configured {
    paths: Vec<PathBuf>,
    keeper: Option<Keeper>,
    compiler: Compiler,
    names: Arc<Names>,
    configuration: Arc<Configuration>,
    sources: Vec<Source>,
    /// What was read last, whether or not it was accepted.
    read: Vec<Source>,
    origin: Origin,
    accepted: u64,
    /// Why the files are not what runs.
    refused: Option<Errors>,
}

/// Where the running configuration comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The files.
    Files,
    /// `POST /config`.
    Posted,
    /// The last good one on disk, because the files are bad.
    LastGood,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// In one word.
    pub outcome: Outcome,
    /// The epoch that is published now.
    pub epoch: u64,
    /// What it changed, or would change.
    pub changes: Changes,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Problem>,
    /// How it reached the cores.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapReceipt>,
}

/// What became of a change, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// It runs.
    Accepted,
    /// It is what runs already.
    Unchanged,
    /// It could run; nothing was done.
    Valid,
    /// It cannot run; nothing was done.
    Refused,
}

/// What the thread is asked for.
#[derive(Debug)]
pub(crate) enum Command {
    /// Something may have happened to the files.
    Touched,
    /// Names have other addresses.
    Resolved,
    /// Read the files now. Nobody may be waiting for the answer.
    Reload(Option<oneshot::Sender<Answer>>),
    /// Take this text instead.
    Apply { text: Vec<u8>, dry_run: bool, answer: oneshot::Sender<Answer> },
    /// Panic, for tests.
    Panic,
    /// End.
    Stop,
}

impl Configured {
    /// Reads the configuration at `paths`; where that is bad, the last good one in the directory `state`.
    ///
    /// # Errors
    /// Everything that is wrong with the files, where there is no last good configuration either.
    pub fn load(paths: &[PathBuf], state: &Path) -> Result<Self, Errors> {
        let read = schema::read(paths);
        let keeper = Keeper::new(state, paths);
        let names = Names::new(keeper.as_ref().map(|keeper| keeper.beside("names")));
        let running = |configuration: Configuration, sources| Self {
            paths: paths.to_vec(),
            compiler: Compiler::new(configuration.appliance.spec.cores.len()),
            names: Arc::clone(&names),
            configuration: Arc::new(configuration),
            sources,
            read: read.clone(),
            keeper: keeper.clone(),
            origin: Origin::Files,
            accepted: unix_seconds(),
            refused: None,
        };
        let errors = match schema::load_read(&read) {
            Ok(configuration) => return Ok(running(configuration, read.clone())),
            Err(errors) => errors,
        };
        let Some(keeper) = &keeper else { return Err(errors) };
        let place = keeper.path().display();
        let kept = match keeper.last_good() {
            Ok(kept) => kept,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!("the last good configuration cannot be read: {place}: {error}");
                }
                return Err(errors);
            }
        };
        match schema::load_read(&kept.sources) {
            Ok(configuration) => Ok(Self {
                origin: Origin::LastGood,
                accepted: kept.accepted,
                refused: Some(errors),
                ..running(configuration, kept.sources)
            }),
            Err(refused) => {
                tracing::warn!(
                    "the last good configuration, {place}, is not one for this version of Millrace\n{refused}"
                );
                Err(errors)
            }
        }
    }

    /// A configuration from nowhere, that is not watched and not kept.
    #[must_use]
    pub fn unwatched(configuration: Configuration) -> Self {
        Self {
            paths: Vec::new(),
            keeper: None,
            compiler: Compiler::new(configuration.appliance.spec.cores.len()),
            names: Names::new(None),
            configuration: Arc::new(configuration),
            sources: Vec::new(),
            read: Vec::new(),
            origin: Origin::Files,
            accepted: unix_seconds(),
            refused: None,
        }
    }

    /// What is to run.
    #[must_use]
    pub fn configuration(&self) -> &Configuration {
        &self.configuration
    }

    /// Why the files are not what runs, where the last good configuration does: with the moment at which that was accepted, in seconds
    /// since 1970-01-01T00:00:00Z.
    #[must_use]
    pub fn fallback(&self) -> Option<(&Errors, u64)> {
        self.refused.as_ref().map(|errors| (errors, self.accepted))
    }

    /// What running requests get when the process is to end.
    pub(crate) fn drain_timeout(&self) -> Duration {
        self.configuration.appliance.spec.http.timeouts.drain
    }

    /// Where something else is kept that belongs to this configuration.
    pub(crate) fn beside(&self, what: &str) -> Option<PathBuf> {
        self.keeper.as_ref().map(|keeper| keeper.beside(what))
    }

    /// The names in it, with their addresses.
    pub(crate) fn names(&self) -> &Arc<Names> {
        &self.names
    }

    /// Compiles it under the next epoch, with the addresses that its names have now.
    pub fn compile(&mut self) -> Compiled {
        self.compile_from(None)
    }

    /// The same; no more than endpoints where that is all that differs from what runs.
    fn compile_from(&mut self, running: Option<(Arc<Compiled>, Touched)>) -> Compiled {
        self.names.configure(&self.configuration);
        self.compiler.resolved(self.names.resolutions());
        match running {
            Some((running, touched)) => self.compiler.compile_endpoints(&running, &self.configuration, touched),
            None => self.compiler.compile(&self.configuration),
        }
    }
}

/// The thread's own.
pub(crate) struct Reloader {
    configured: Configured,
    supervisor: Arc<Supervisor>,
}

/// Runs until it is told to stop. `commands` are also what `sender` sends.
pub(crate) fn run(
    configured: Configured,
    supervisor: &Arc<Supervisor>,
    commands: &Receiver<Command>,
    sender: &Sender<Command>,
) {
    // Of this thread alone (sched(7)). Where it is not allowed, nothing is lost.
    let _ = rustix::process::nice(NICE);
    let watched: Vec<PathBuf> =
        if configured.paths.iter().any(|path| path.as_os_str() == "-") { Vec::new() } else { configured.paths.clone() };
    let reloader = Mutex::new(Reloader { configured, supervisor: Arc::clone(supervisor) });
    reloader.lock().unwrap_or_else(PoisonError::into_inner).begin();
    loop {
        let once = AssertUnwindSafe(|| {
            // What a panic left behind is whole: the configuration is replaced in one step, and an id too many does no harm.
            let mut reloader = reloader.lock().unwrap_or_else(PoisonError::into_inner);
            reloader.serve(&watched, commands, sender);
        });
        match std::panic::catch_unwind(once) {
            Ok(()) => return,
            Err(_) => {
                supervisor.restarted("reload");
                tracing::error!("the reload thread panicked; starting over with the configuration that runs");
                std::thread::sleep(PAUSE);
            }
        }
    }
}

impl Reloader {
    /// Shows what runs, and keeps it.
    fn begin(&mut self) {
        let configured = &self.configured;
        let refused = configured.refused.as_ref().map(refusal);
        self.supervisor.configured(|status| {
            status.origin = configured.origin;
            status.accepted = configured.accepted;
            status.attempted = unix_seconds();
            status.paths = configured.paths.iter().map(|path| path.display().to_string()).collect();
            status.refused = refused;
        });
        self.supervisor.took(&configured.sources);
        self.keep();
    }

    fn serve(&mut self, paths: &[PathBuf], commands: &Receiver<Command>, sender: &Sender<Command>) {
        // What came while this thread started over.
        self.resolved();
        let hint = sender.clone();
        // Nobody receives any more once this thread ends.
        let mut watch = (!paths.is_empty()).then(|| Watch::new(paths, move || drop(hint.send(Command::Touched))));
        let mut fingerprint = watch.as_ref().map(Watch::fingerprint);
        // From the first to the last touch since files were read. What happened before they were watched may have been missed.
        let mut touched = watch.is_some().then(|| (Instant::now(), Instant::now()));
        loop {
            let wait = match touched {
                Some((first, last)) => (last + QUIET).min(first + RESTLESS).saturating_duration_since(Instant::now()),
                None => LOOK,
            };
            match commands.recv_timeout(wait) {
                Ok(Command::Touched) => {
                    let now = Instant::now();
                    touched = Some((touched.map_or(now, |(first, _)| first), now));
                }
                Ok(Command::Resolved) => self.resolved(),
                Ok(Command::Reload(answer)) => {
                    let result = self.reload(true);
                    if let Some(answer) = answer {
                        // Whoever asked may have gone.
                        let _ = answer.send(result);
                    }
                }
                Ok(Command::Apply { text, dry_run, answer }) => {
                    let result = self.apply(vec![Source::new("<body>", text)], Origin::Posted, dry_run);
                    let _ = answer.send(result);
                }
                Ok(Command::Panic) => crate::admin::panic_for_a_test(),
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) if touched.take().is_some() => {
                    self.reload(false);
                    // Links may lead elsewhere now.
                    let hint = sender.clone();
                    watch = Some(Watch::new(paths, move || drop(hint.send(Command::Touched))));
                    fingerprint = watch.as_ref().map(Watch::fingerprint);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let now = watch.as_ref().map(Watch::fingerprint);
                    if now != fingerprint {
                        fingerprint = now;
                        touched = Some((Instant::now(), Instant::now()));
                    }
                }
            }
        }
    }

    /// Reads the files. Unless `asked`, nothing is done where they are as they were.
    fn reload(&mut self, asked: bool) -> Answer {
        let paths = &self.configured.paths;
        if paths.is_empty() || paths.iter().any(|path| path.as_os_str() == "-") {
            let at = schema::Location::file("<stdin>");
            let error =
                ConfigError::new(&at, "cannot be read again").with_hint("POST /config takes a new configuration");
            return self.refuse(schema::refuse(&[], vec![error]).as_ref(), true);
        }
        let read = schema::read(paths);
        if !asked && read == self.configured.read {
            return self.answer(Outcome::Unchanged, Changes::default());
        }
        self.configured.read.clone_from(&read);
        self.apply(read, Origin::Files, false)
    }

    /// Takes the configuration in `sources`, or says why not.
    fn apply(&mut self, sources: Vec<Source>, origin: Origin, dry_run: bool) -> Answer {
        let started = Instant::now();
        let configuration = match schema::load_read(&sources) {
            Ok(configuration) => configuration,
            Err(errors) => return self.refuse(Some(&errors), dry_run),
        };
        let fixed = self.fixed(&configuration, &sources);
        if fixed.is_some() {
            return self.refuse(fixed.as_ref(), dry_run);
        }
        let changes = diff::changes(&self.configured.configuration, &configuration);
        if dry_run {
            return self.answer(Outcome::Valid, changes);
        }
        let touched = Touched::between(&self.configured.configuration, &configuration);
        let outcome = if changes.is_empty() { Outcome::Unchanged } else { Outcome::Accepted };
        self.configured.configuration = Arc::new(configuration);
        self.configured.sources = sources;
        self.supervisor.took(&self.configured.sources);
        self.configured.origin = origin;
        self.configured.accepted = unix_seconds();
        self.configured.refused = None;
        let mut swap = None;
        if outcome == Outcome::Accepted {
            let read = started.elapsed();
            // A route that gets a backend with a new name had another one until now, which need not end before the new one can serve.
            self.configured.names.configure(&self.configured.configuration);
            self.configured.names.await_first();
            let (epoch, receipt) = self.publish(read, touched);
            tracing::info!(
                "configuration of epoch {epoch}: {} added, {} changed, {} removed; read in {} ms, compiled in {} ms, {}",
                changes.added.len(),
                changes.changed.len(),
                changes.removed.len(),
                read.as_millis(),
                receipt.as_ref().map_or(0, SwapReceipt::compile_milliseconds),
                receipt.as_ref().map_or_else(String::new, SwapReceipt::summary),
            );
            swap = receipt;
        }
        let (origin, accepted) = (self.configured.origin, self.configured.accepted);
        self.supervisor.configured(|status| {
            if status.refused.take().is_some() {
                tracing::info!("the configuration is mended");
            }
            (status.origin, status.accepted, status.attempted) = (origin, accepted, accepted);
            match outcome {
                Outcome::Accepted => status.reloads.accepted += 1,
                _ => status.reloads.unchanged += 1,
            }
        });
        self.keep();
        Answer { swap, ..self.answer(outcome, changes) }
    }

    /// Has the cores run what is configured now, which took `read` to read: the epoch, and how it reached the cores. Where nothing but endpoints is
    /// other than in what runs, they come with what is `touched`.
    fn publish(&mut self, read: Duration, touched: Option<Touched>) -> (u64, Option<SwapReceipt>) {
        let started = Instant::now();
        self.configured.compiler.swept(self.supervisor.swept());
        let running = touched.map(|touched| (self.supervisor.compiled(), touched));
        let compiled = self.configured.compile_from(running);
        let epoch = compiled.snapshot.epoch;
        self.supervisor.publish(compiled, read, started);
        self.supervisor.set_drain_timeout(self.configured.drain_timeout());
        (epoch, self.supervisor.await_swap(epoch, SWAP))
    }

    /// Has the cores run the same configuration with the addresses that its names have now, where those are others.
    fn resolved(&mut self) {
        if !self.configured.names.has_news() {
            return;
        }
        let (epoch, receipt) = self.publish(Duration::ZERO, Some(Touched::default()));
        tracing::info!(
            "addresses of names, epoch {epoch}: compiled in {} ms, {}",
            receipt.as_ref().map_or(0, SwapReceipt::compile_milliseconds),
            receipt.as_ref().map_or_else(String::new, SwapReceipt::summary),
        );
    }

    /// What of `configuration` cannot be had while the cores run.
    fn fixed(&self, configuration: &Configuration, sources: &[Source]) -> Option<Errors> {
        let all = diff::fixed(&self.configured.configuration, configuration);
        if all.is_empty() {
            return None;
        }
        let fields: Vec<&str> = all.iter().map(|fixed| &*fixed.field).collect();
        let places = schema::locate(sources, &configuration.appliance.at, &fields);
        let errors = all.iter().zip(places).map(|(fixed, at)| {
            let problem =
                format!("cannot change while Millrace runs: it is {}, and would be {}", fixed.now, fixed.wanted);
            ConfigError::new(&at, problem).with_hint("restart Millrace for that, or take it back")
        });
        schema::refuse(sources, errors.collect())
    }

    fn refuse(&self, errors: Option<&Errors>, dry_run: bool) -> Answer {
        let refused = errors.map(refusal);
        let problems = refused.as_ref().map(|refused| refused.errors.clone()).unwrap_or_default();
        if !dry_run {
            if let Some(errors) = errors {
                tracing::error!("the configuration was refused; epoch {} runs on\n{errors}", self.supervisor.epoch());
            }
            self.supervisor.configured(|status| {
                status.attempted = unix_seconds();
                status.reloads.refused += 1;
                status.refused = refused;
            });
        }
        Answer { errors: problems, ..self.answer(Outcome::Refused, Changes::default()) }
    }

    fn answer(&self, outcome: Outcome, changes: Changes) -> Answer {
        Answer { outcome, epoch: self.supervisor.epoch(), changes, errors: Vec::new(), swap: None }
    }

    /// Keeps what runs, for a restart with bad files.
    fn keep(&self) {
        let Some(keeper) = &self.configured.keeper else { return };
        // What was found there need not be written there.
        let kept = match self.configured.origin {
            Origin::LastGood => Ok(()),
            Origin::Files | Origin::Posted => keeper.keep(&self.configured.sources, self.configured.accepted),
        };
        let problem = kept.err().map(|error| format!("{}: {error}", keeper.path().display()));
        if let Some(problem) = &problem {
            tracing::warn!("the running configuration cannot be kept for a restart: {problem}");
        }
        self.supervisor.configured(|status| {
            status.kept = problem.is_none().then(|| keeper.path().display().to_string());
            status.not_kept = problem;
        });
    }
}

fn refusal(errors: &Errors) -> Refused {
    Refused { at: unix_seconds(), errors: errors.iter().map(problem).collect() }
}

fn problem(error: &ConfigError) -> Problem {
    Problem {
        file: error.file.to_string(),
        line: error.line,
        column: error.column,
        field: error.field.to_string(),
        problem: error.problem.to_string(),
        hint: error.hint.as_ref().map(ToString::to_string),
        text: error.to_string(),
    }
}

/// Seconds since 1970-01-01T00:00:00Z.
pub(crate) fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
