//! One run: open, warm up, measure, let what is under way come home.

use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use blast::client::{ClientCounters, Measured};
use blast::server::ServerCounters;
use blast::{Client, Endpoint, Server};
use pmd::Lane;

use crate::admin::{self, Sample};
use crate::host::{Host, Memory, Taken};

/// Nanoseconds that the gateway gets to answer ARP.
const PATIENCE: u64 = 60 * SECOND;

/// Nanoseconds that it gets to accept all idle connections, and to answer them at the end.
const PATIENCE_WITH_IDLE: u64 = 120 * SECOND;

/// Connections reset at a time when the run is over, and nanoseconds from one time to the next: a wire's ring holds a few times as
/// many, and a reset that is lost leaves a connection behind.
const RESETS: u32 = 128;
const RESETS_EVERY: u64 = 2_000_000;

/// Nanoseconds of a turn above which something else than its work is likely to have taken them: two bursts in and out take less.
const STALL: u64 = 50_000;

const PANICKED: &str = "a thread of ours panicked";

/// How long to sleep while the program between two parts runs.
const SHORT_SLEEP: Duration = Duration::from_micros(200);

const SECOND: u64 = 1_000_000_000;

/// How long, in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) warm_up: u64,
    pub(crate) duration: u64,
    pub(crate) timeout: u64,
    /// Idle connections are held: busy ones are measured alone before, and the idle ones are asked again at the end.
    pub(crate) idle: bool,
    /// How many requests are used in each part, and the program that is run before each; without parts, the run is one.
    pub(crate) parts: Vec<u32>,
    pub(crate) between: String,
    /// Whom to ask about the gateway's busy time.
    pub(crate) admin: Option<String>,
    /// The gateway's process.
    pub(crate) gateway: Option<u32>,
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
    /// Turns that took long, while measuring.
    pub(crate) stalls: Stalls,
    /// What else ran on the CPUs, while measuring.
    pub(crate) taken: Taken,
    /// Replies that were measured.
    pub(crate) measured: u64,
    /// Of a run with idle connections.
    pub(crate) alone: Option<Measured>,
    /// The gateway's memory before idle connections, with them, and at the end of the measurement.
    pub(crate) memory: [Option<Memory>; 3],
    /// Nanoseconds that it took to open the idle connections.
    pub(crate) opening: u64,
    /// Of a run in parts: each, all together, and what the program said behind the last one.
    pub(crate) parts: Vec<MeasuredPart>,
    pub(crate) whole: Option<Measured>,
    pub(crate) said: String,
}

/// One part of a run.
#[derive(Debug)]
pub(crate) struct MeasuredPart {
    pub(crate) routes: u32,
    /// What the program before it said.
    pub(crate) said: String,
    pub(crate) measured: Measured,
    pub(crate) errors: u64,
    pub(crate) stalls: Stalls,
    pub(crate) taken: Taken,
    pub(crate) busy: f64,
}

/// Turns of ours that took longer than [`STALL`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Stalls {
    /// How many.
    pub(crate) turns_over_50_microseconds: u64,
    /// The longest, in nanoseconds.
    pub(crate) longest_nanoseconds: u64,
    /// All of them, in nanoseconds.
    pub(crate) sum_nanoseconds: u64,
}

impl Stalls {
    /// Whether the turn was one of them.
    fn turn(&mut self, spent: u64) -> bool {
        if spent > STALL {
            self.turns_over_50_microseconds += 1;
            self.sum_nanoseconds += spent;
            self.longest_nanoseconds = self.longest_nanoseconds.max(spent);
        }
        spent > STALL
    }
}

enum Phase {
    /// Until the gateway answers ARP.
    Greeting,
    /// Busy connections alone, before idle ones are opened.
    Alone {
        until: u64,
    },
    /// Until idle connections are open.
    Opening {
        since: u64,
    },
    WarmingUp {
        sample_at: u64,
        until: u64,
    },
    Measuring {
        until: u64,
    },
    /// Load goes on until the last sample is there.
    Sampling,
    /// Until what was asked in a part has its replies.
    Pausing {
        until: u64,
    },
    /// Until the program between two parts has ended. `None` is before it has begun.
    Between(Option<JoinHandle<Result<String, String>>>),
    Finishing {
        until: u64,
    },
    /// Idle connections are asked once more.
    Checking {
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
    let read = || u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut host = Host::default();
    let mut phase = Phase::Greeting;
    let (mut busy, mut total, mut last, mut was_busy) = (0u64, 0u64, 0u64, false);
    let (mut before, mut after): (Option<Sampling>, Option<Sampling>) = (None, None);
    let mut taken = Taken::default();
    let mut outcome = Outcome::default();
    // Of a run in parts: the one that runs, and the one that is over but for its last replies.
    let (mut next, mut part): (Option<(u32, String)>, Option<MeasuredPart>) = (None, None);
    loop {
        let now = read();
        let mut any = north.turn(now);
        if let Some(south) = &mut south {
            any |= south.turn(now);
        }
        match &mut phase {
            Phase::Greeting => {
                let ready = north.ready() && south.as_ref().is_none_or(|south| south.ready());
                north.app_mut().begin(ready);
                if ready {
                    // Its polling threads are there now.
                    host = Host::new(plan.gateway);
                }
                if ready && plan.idle {
                    let from = now + plan.warm_up;
                    north.app_mut().measure(from, from + plan.duration);
                    phase = Phase::Alone { until: from + plan.duration };
                } else if ready && !plan.parts.is_empty() {
                    north.app_mut().stop();
                    phase = Phase::Between(None);
                } else if ready {
                    phase = warm_up(north, now, plan);
                } else if now > PATIENCE {
                    return Err(format!("the gateway did not answer ARP within {} s", PATIENCE / SECOND));
                }
            }
            Phase::Alone { until } => {
                if now >= *until {
                    outcome.alone = Some(north.app_mut().take_measured());
                    outcome.memory[0] = host.memory();
                    north.app_mut().hold();
                    phase = Phase::Opening { since: now };
                }
            }
            Phase::Opening { since } => {
                if north.app().holds() {
                    outcome.opening = now - *since;
                    outcome.memory[1] = host.memory();
                    phase = warm_up(north, now, plan);
                } else if now > *since + PATIENCE_WITH_IDLE {
                    let held = north.app().counters().idle;
                    let seconds = PATIENCE_WITH_IDLE / SECOND;
                    return Err(format!(
                        "the gateway accepted {held} idle connections within {seconds} s, and no more"
                    ));
                }
            }
            Phase::Pausing { until } => {
                if north.app().outstanding() == 0 || now >= *until {
                    let errors =
                        north.app().counters().errors() - outcome.parts.iter().map(|part| part.errors).sum::<u64>();
                    outcome.parts.extend(part.take().map(|part| MeasuredPart { errors, ..part }));
                    phase = Phase::Between(None);
                }
            }
            Phase::Between(running) => match running {
                None => {
                    let number = outcome.parts.len();
                    let words = [number.to_string(), plan.parts.get(number).copied().unwrap_or(0).to_string()];
                    let program = plan.between.clone();
                    *running = Some(std::thread::spawn(move || said(&program, &words)));
                }
                // It needs this CPU.
                Some(thread) if !thread.is_finished() => std::thread::sleep(SHORT_SLEEP),
                Some(_) => {
                    let ended = running.take().map(JoinHandle::join);
                    let said = ended
                        .map_or_else(|| Ok(String::new()), |said| said.unwrap_or_else(|_| Err(PANICKED.to_owned())))?;
                    match plan.parts.get(outcome.parts.len()) {
                        Some(&routes) => {
                            (busy, total, outcome.stalls) = (0, 0, Stalls::default());
                            next = Some((routes, said));
                            north.app_mut().requests(routes as usize);
                            north.app_mut().resume();
                            phase = warm_up(north, now, plan);
                        }
                        None => {
                            outcome.said = said;
                            phase = Phase::Finishing { until: now };
                        }
                    }
                }
            },
            Phase::WarmingUp { sample_at, until } => {
                if now >= *sample_at && before.is_none() {
                    before = plan.admin.as_deref().map(admin::sample);
                    *sample_at = u64::MAX;
                }
                if now >= *until {
                    // For whoever wants to look at the machine meanwhile.
                    eprintln!("measuring");
                    taken = host.taken();
                    phase = Phase::Measuring { until: *until + plan.duration };
                }
            }
            Phase::Measuring { until } => {
                // The clock was read when this turn began: what went by since is the last turn's.
                let spent = now - last;
                total += spent;
                busy += if was_busy { spent } else { 0 };
                if outcome.stalls.turn(spent) {
                    north.app_mut().disturbed(now);
                }
                if now >= *until {
                    outcome.taken = host.taken().since(&taken);
                    outcome.memory[2] = host.memory();
                    outcome.measured = north.app().measured().replies;
                    outcome.backlog = north.app().backlog(now);
                    outcome.live = north.live();
                    if let Some((routes, said)) = next.take() {
                        let measured = north.app_mut().take_measured();
                        outcome.whole.get_or_insert_default().add(&measured);
                        let (stalls, taken) = (outcome.stalls, outcome.taken.clone());
                        let busy = busy as f64 / total.max(1) as f64;
                        part = Some(MeasuredPart { routes, said, measured, errors: 0, stalls, taken, busy });
                        north.app_mut().stop();
                        phase = Phase::Pausing { until: now + plan.timeout + SECOND };
                        continue;
                    }
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
                    if plan.idle {
                        north.app_mut().check_idle();
                    }
                    phase = Phase::Checking { until: now + PATIENCE_WITH_IDLE };
                }
            }
            Phase::Checking { until } => {
                if north.app().idle_checked() || now >= *until {
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
        // What a change of phase took is nobody's time.
        last = if matches!(phase, Phase::Measuring { .. }) && total == 0 { read() } else { now };
        was_busy = any;
    }
    outcome.busy = busy as f64 / total.max(1) as f64;
    if let (Some(before), Some(after)) = (before, after) {
        outcome.gateway = Some(share(before, after));
    }
    Ok(outcome)
}

fn warm_up<L: Lane>(north: &mut Endpoint<L, Client>, now: u64, plan: &Plan) -> Phase {
    let until = now + plan.warm_up;
    north.app_mut().measure(until, until + plan.duration);
    Phase::WarmingUp { sample_at: now + plan.warm_up / 2, until }
}

/// What a program says on its standard output.
fn said(program: &str, words: &[String]) -> Result<String, String> {
    let command = Command::new(program).args(words).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = command.map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() { Ok(said) } else { Err(format!("{program} ended with {}: {said}", output.status)) }
}

type Sampling = JoinHandle<Result<Sample, String>>;

fn share(before: Sampling, after: Sampling) -> Result<f64, String> {
    let wait = |sampling: Sampling| sampling.join().unwrap_or_else(|_| Err(PANICKED.to_owned()));
    let (before, after) = (wait(before)?, wait(after)?);
    after.share_since(before).ok_or_else(|| "its cores did not turn".to_owned())
}
