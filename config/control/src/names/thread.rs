//! The thread that asks.

use core::future::pending;

use core::panic::AssertUnwindSafe;
use core::time::Duration;
use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::{Instant, SystemTime};

use tokio::task::JoinSet;
use tokio::time::sleep_until;

use super::answer::{Failure, Outcome};
use super::lookup::{Asker, Before};
use super::{Names, Round};
use crate::reload::Command;
use crate::supervisor::Supervisor;

/// Names that are asked for at a time.
const LOOKUPS: usize = 32;

/// After an address changed, for others to change with it.
const GATHER: Duration = Duration::from_millis(20);

/// From one publication of changed addresses to the next, at least: after each one all cores look through what they have.
const SPACING: Duration = Duration::from_millis(200);

/// From one writing of answers to the next, at least.
const SAVE: Duration = Duration::from_secs(5);

/// After a panic, before the thread goes on.
const PAUSE: Duration = Duration::from_millis(100);

const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Runs until `names` are stopped. `commands` leads to the reload thread.
pub(crate) fn run(names: &Arc<Names>, supervisor: &Arc<Supervisor>, commands: &Sender<Command>) {
    loop {
        match std::panic::catch_unwind(AssertUnwindSafe(|| serve(names, commands, |_| {}))) {
            Ok(Ok(())) => break,
            Ok(Err(error)) => tracing::error!(%error, "the DNS thread failed; starting over"),
            Err(_) => tracing::error!("the DNS thread panicked; starting over with the answers that it had"),
        }
        supervisor.restarted("dns");
        names.abandon();
        std::thread::sleep(PAUSE);
    }
    names.save();
}

/// Asks until `names` are stopped. `before` is called with each name that is asked for.
pub(super) fn serve(names: &Arc<Names>, commands: &Sender<Command>, before: Before) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(ask_on(names, commands, before));
    Ok(())
}

async fn ask_on(names: &Arc<Names>, commands: &Sender<Command>, before: Before) {
    let mut servers = Servers::default();
    let mut chance = Chance::new();
    let mut asking = JoinSet::new();
    let mut told = Told::default();
    let mut saved = Instant::now();
    while !names.is_stopped() {
        let now = Instant::now();
        let round = names.round(now, LOOKUPS - asking.len().min(LOOKUPS));
        let next = round.next.filter(|_| asking.len() < LOOKUPS);
        if !round.questions.is_empty() {
            servers.refresh(&round, before);
        }
        for (name, held) in round.questions {
            let (asker, names, chance) = (servers.asker.clone(), Arc::clone(names), chance.next());
            asking.spawn(async move {
                let outcome = match asker {
                    // On a task of its own, so that an answer on which the resolver panics is a failure like others: the name waits its turn.
                    Ok(asker) => {
                        let asked = name.clone();
                        let asking = tokio::spawn(async move { asker.ask(&asked, &held).await });
                        asking.await.unwrap_or_else(|_| {
                            Outcome::Failed(Failure::Other("the resolver panicked: see the log".to_owned()))
                        })
                    }
                    Err(failure) => Outcome::Failed(failure),
                };
                names.take(&name, outcome, Instant::now(), chance);
            });
        }
        let mut wake = next;
        if let Some(at) = told.due(names.news(), now) {
            if at <= now {
                // Where nobody receives, the process is about to end.
                let _ = commands.send(Command::Resolved);
            } else {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        }
        if names.is_unsaved() {
            let at = saved + SAVE;
            if at <= now {
                saved = now;
                names.save();
            } else {
                wake = Some(wake.map_or(at, |wake| wake.min(at)));
            }
        }
        let alarm = async {
            match wake {
                Some(at) => sleep_until(at.into()).await,
                None => pending().await,
            }
        };
        tokio::select! {
            () = names.wake.notified() => {}
            () = alarm => {}
            Some(done) = asking.join_next() => {
                if done.is_err() {
                    // It panicked, which has been reported.
                    names.abandon();
                }
            }
        }
    }
}

/// What the reload thread was told.
#[derive(Default)]
struct Told {
    generation: u64,
    at: Option<Instant>,
    /// Since when there is something that it was not told of.
    since: Option<Instant>,
}

impl Told {
    /// When to tell it of `news`: the generation of addresses that is not compiled yet.
    fn due(&mut self, news: Option<u64>, now: Instant) -> Option<Instant> {
        let Some(news) = news.filter(|&news| news != self.generation) else {
            self.since = None;
            return None;
        };
        let gathered = *self.since.get_or_insert(now) + GATHER;
        let at = self.at.map_or(gathered, |last| gathered.max(last + SPACING));
        if at <= now {
            *self = Self { generation: news, at: Some(now), since: None };
        }
        Some(at)
    }
}

/// Who is asked.
struct Servers {
    asker: Result<Asker, Failure>,
    /// The settings that it is made for, and the state of the system's file where that counts.
    made_for: Option<(u64, Option<SystemTime>)>,
}

impl Default for Servers {
    fn default() -> Self {
        Self { asker: Err(Failure::Other("no servers are known yet".to_owned())), made_for: None }
    }
}

impl Servers {
    /// Takes others where the settings or the system's file have changed.
    fn refresh(&mut self, round: &Round, before: Before) {
        let changed =
            round.settings.servers.is_empty().then(|| fs::metadata(RESOLV_CONF).and_then(|m| m.modified()).ok());
        let wanted = Some((round.settings_version, changed.flatten()));
        if self.asker.is_ok() && self.made_for == wanted {
            return;
        }
        self.asker = Asker::new(&round.settings, before);
        self.made_for = wanted;
    }
}

/// Numbers from 0 to 1, to spread what would otherwise come together (Marsaglia's xorshift).
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        // Each process has other keys.
        Self(RandomState::new().hash_one(0) | 1)
    }

    fn next(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}
