//! One run: open, warm up, measure, let what is under way come home.

use std::thread::JoinHandle;
use std::time::Instant;

use blast::client::ClientCounters;
use blast::server::ServerCounters;
use blast::{Client, Endpoint, Server};
use pmd::Lane;

use crate::admin::{self, Sample};

/// Nanoseconds that the gateway gets to answer ARP, and to accept all idle connections.
const PATIENCE: u64 = 60 * SECOND;

/// Connections reset at a time when the run is over, and nanoseconds from one time to the next: a wire's ring holds a few times as
/// many, and a reset that is lost leaves a connection behind.
const RESETS: u32 = 128;
const RESETS_EVERY: u64 = 2_000_000;

const SECOND: u64 = 1_000_000_000;

/// How long, in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) warm_up: u64,
    pub(crate) duration: u64,
    pub(crate) timeout: u64,
    /// Whom to ask about the gateway's busy time.
    pub(crate) admin: Option<String>,
}

/// What came of it, beside what the hosts counted.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Share of our core, while measuring.
    pub(crate) busy: f64,
    pub(crate) gateway: Option<Result<f64, String>>,
    pub(crate) backlog: u64,
    /// Backends' errors, before the end of all connections made more.
    pub(crate) backends: ServerCounters,
    /// What the clients counted, likewise.
    pub(crate) clients: ClientCounters,
    /// Connections of the clients that were open at the end of the measurement.
    pub(crate) live: usize,
}

enum Phase {
    /// Until idle connections are open.
    Opening,
    WarmingUp {
        sample_at: u64,
        until: u64,
    },
    Measuring {
        until: u64,
    },
    /// Load goes on until the last sample is there.
    Sampling,
    Finishing {
        until: u64,
    },
    Resetting {
        next: u32,
        at: u64,
    },
}

/// Runs it.
///
/// # Errors
/// The gateway does not answer.
pub(crate) fn run<L: Lane>(
    north: &mut Endpoint<L, Client>,
    mut south: Option<&mut Endpoint<L, Server>>,
    connections: u32,
    plan: &Plan,
) -> Result<Outcome, String> {
    let clock = Instant::now();
    let mut phase = Phase::Opening;
    let (mut busy, mut total, mut last, mut was_busy) = (0u64, 0u64, 0u64, false);
    let (mut before, mut after): (Option<Sampling>, Option<Sampling>) = (None, None);
    let mut outcome = Outcome::default();
    loop {
        let now = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut any = north.turn(now);
        if let Some(south) = &mut south {
            any |= south.turn(now);
        }
        match &mut phase {
            Phase::Opening => {
                let ready = north.ready() && south.as_ref().is_none_or(|south| south.ready());
                north.app_mut().begin(ready);
                if ready && north.app().idle_open() {
                    let until = now + plan.warm_up;
                    north.app_mut().measure(until, until + plan.duration);
                    phase = Phase::WarmingUp { sample_at: now + plan.warm_up / 2, until };
                } else if now > PATIENCE {
                    let what = if north.ready() { "accept all idle connections" } else { "answer ARP" };
                    return Err(format!("the gateway did not {what} within {} s", PATIENCE / SECOND));
                }
            }
            Phase::WarmingUp { sample_at, until } => {
                if now >= *sample_at && before.is_none() {
                    before = plan.admin.as_deref().map(admin::sample);
                    *sample_at = u64::MAX;
                }
                if now >= *until {
                    phase = Phase::Measuring { until: *until + plan.duration };
                }
            }
            Phase::Measuring { until } => {
                // The clock was read when this turn began: what went by since is the last turn's.
                let spent = now - last;
                total += spent;
                busy += if was_busy { spent } else { 0 };
                if now >= *until {
                    outcome.backlog = north.app().backlog(now);
                    outcome.live = north.live();
                    after = plan.admin.as_deref().map(admin::sample);
                    phase = Phase::Sampling;
                }
            }
            Phase::Sampling => {
                if after.as_ref().is_none_or(JoinHandle::is_finished) {
                    north.app_mut().stop();
                    phase = Phase::Finishing { until: now + plan.timeout + SECOND };
                }
            }
            Phase::Finishing { until } => {
                if north.app().outstanding() == 0 || now >= *until {
                    outcome.clients = north.app().counters();
                    outcome.backends = south.as_ref().map(|south| south.app().counters()).unwrap_or_default();
                    phase = Phase::Resetting { next: 0, at: now };
                }
            }
            Phase::Resetting { next, at } if now >= *at => {
                // The backends' too: the gateway would keep them in its pool, for the next run to stumble over.
                for id in *next..*next + RESETS {
                    north.abort(now, id);
                    if let Some(south) = &mut south {
                        south.abort(now, id);
                    }
                }
                *next += RESETS;
                *at = now + RESETS_EVERY;
                if *next >= connections {
                    north.turn(now);
                    if let Some(south) = &mut south {
                        south.turn(now);
                    }
                    break;
                }
            }
            Phase::Resetting { .. } => {}
        }
        (last, was_busy) = (now, any);
    }
    outcome.busy = busy as f64 / total.max(1) as f64;
    if let (Some(before), Some(after)) = (before, after) {
        outcome.gateway = Some(share(before, after));
    }
    Ok(outcome)
}

type Sampling = JoinHandle<Result<Sample, String>>;

fn share(before: Sampling, after: Sampling) -> Result<f64, String> {
    let wait = |sampling: Sampling| sampling.join().unwrap_or_else(|_| Err("the reading thread panicked".to_owned()));
    let (before, after) = (wait(before)?, wait(after)?);
    after.share_since(before).ok_or_else(|| "its cores did not turn".to_owned())
}
