//! Active health checks: endpoints are asked over the data network whether they serve, each by one core.
//!
//! A check is a connection of its own, opened every interval, give or take a tenth. The core tells control how it went and draws no
//! conclusion from it: control does, for all cores alike.

use core::time::Duration;

use pmd::Lane;
use proto::grpc_health;
use proto::http1::{BodyDecoder, Decoded, Limits, Method, parse_response};
use tables::endpoints::Reports;
use tables::{Check, CheckFailure, CheckId, EndpointTable, Probe, Report};

use super::{Context, Proxy, Role};
use crate::clock::Instant;
use crate::random::Random;
use crate::stack::{ConnectError, ConnectionId, Ended, Status};
use crate::timer::Wheel;

/// Checks begun or given up in one turn at most. With a hundred thousand turns a second, that is more than a core ever has to do.
const CHECKS_A_TURN: usize = 16;

/// Pieces of an answer's body that are looked at, at most.
const PIECES: usize = 1024;

/// How long an endpoint may take to close a connection that has served its check.
const LINGER: Duration = Duration::from_secs(1);

/// The checks of one core.
pub(super) struct Checks {
    core: u16,
    cores: u16,
    /// In order of the ids.
    slots: Vec<Slot>,
    /// By slot: when the next check begins, or the one under way is given up.
    wheel: Wheel,
    due: Vec<u32>,
    random: Random,
    reports: Reports,
    /// The table has other checks than the slots.
    stale: bool,
}

/// One check.
#[derive(Debug, Clone, Copy)]
struct Slot {
    id: CheckId,
    /// Its place in the table.
    at: u32,
    /// When the next one begins.
    next: Instant,
    under_way: Option<UnderWay>,
}

#[derive(Debug, Clone, Copy)]
struct UnderWay {
    connection: ConnectionId,
    asked: bool,
    acknowledged: bool,
}

impl Checks {
    pub(super) fn new(core: u16, cores: u16, reports: Reports, random: Random) -> Self {
        Self {
            core,
            cores: cores.max(1),
            slots: Vec::new(),
            wheel: Wheel::with_capacity(0),
            due: Vec::new(),
            random,
            reports,
            stale: true,
        }
    }

    /// The core has another table.
    pub(super) fn renew(&mut self) {
        self.stale = true;
    }

    pub(super) fn next_due(&self) -> Option<Instant> {
        if self.stale { Some(Instant::default()) } else { self.wheel.next_due() }
    }

    /// Notes down the checks of this core. Those that it had keep their time. Called where the configuration of checks changed, and so
    /// seldom: it is the one walk over them all.
    fn fill(&mut self, table: &EndpointTable, now: Instant) {
        let old = core::mem::take(&mut self.slots);
        let ours = |check: &&Check| check.id.0 % u32::from(self.cores) == u32::from(self.core);
        for (at, check) in (0u32..).zip(table.checks().iter()).filter(|(_, check)| ours(check)) {
            let kept = old.binary_search_by_key(&check.id, |slot| slot.id).ok().and_then(|at| old.get(at));
            // The first ones are spread over an interval, so that they do not come together.
            let next = kept.map_or_else(
                || {
                    let span = u64::try_from(check.way.interval.as_nanos()).unwrap_or(u64::MAX);
                    Instant(now.0.saturating_add(self.random.next_u64() % span.max(1)))
                },
                |kept| kept.next,
            );
            self.slots.push(Slot { id: check.id, at, next, under_way: None });
        }
        self.wheel = Wheel::with_capacity(self.slots.len());
        for (slot, check) in (0u32..).zip(&self.slots) {
            self.wheel.schedule(slot, check.next);
        }
    }
}

impl Proxy {
    /// Begins the checks that are due, and gives up those that take too long. Returns whether there were any.
    pub(super) fn run_checks<L: Lane>(&mut self, cx: &mut Context<'_, L>) -> bool {
        if self.checks.stale {
            self.abandon_checks(cx);
            self.checks.fill(cx.endpoints, cx.net.now);
            self.checks.stale = false;
        }
        if self.checks.wheel.is_empty() {
            return false;
        }
        let mut due = core::mem::take(&mut self.checks.due);
        self.checks.wheel.advance(cx.net.now, CHECKS_A_TURN, |slot| due.push(slot));
        let any = !due.is_empty();
        for slot in due.drain(..) {
            match self.checks.slots.get(slot as usize).map(|check| check.under_way) {
                Some(Some(under_way)) => {
                    let connected = cx.stack.status(under_way.connection) != Status::Opening;
                    let failure = if connected { CheckFailure::Timeout } else { CheckFailure::ConnectTimeout };
                    self.end_check(cx, slot, Some(failure));
                }
                Some(None) => self.begin_check(cx, slot),
                None => {}
            }
        }
        self.checks.due = due;
        any
    }

    /// Something happened to the connection of a check.
    pub(super) fn drive_check<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, slot: u32) {
        let Some(check) = self.checks.slots.get(slot as usize).copied() else { return };
        let (Some(under_way), Some(wanted)) = (check.under_way, cx.endpoints.checks().get(check.at as usize)) else {
            return;
        };
        let status = cx.stack.status(id);
        match status {
            Status::Opening => return,
            Status::Ended(ended) if !under_way.asked => {
                let failure = match ended {
                    Some(Ended::Reset) => CheckFailure::Refused,
                    Some(Ended::TimedOut) | None => CheckFailure::ConnectTimeout,
                };
                return self.end_check(cx, slot, Some(failure));
            }
            Status::Unknown => return self.end_check(cx, slot, Some(CheckFailure::Reset)),
            _ => {}
        }
        if wanted.way.probe == Probe::Tcp {
            return self.end_check(cx, slot, None);
        }
        if !under_way.asked {
            match &wanted.way.probe {
                Probe::Tcp => {}
                Probe::Http(ask, _) => cx.stack.send(id, ask),
                Probe::Grpc { authority, service } => {
                    self.out.clear();
                    grpc_health::encode_request(authority, service, &mut self.out);
                    cx.stack.send(id, &self.out);
                }
            }
            self.note(slot, |under_way| under_way.asked = true);
        }
        let over = status != Status::Open;
        let full = cx.stack.is_full(id);
        let mut input = core::mem::take(&mut self.input);
        input.clear();
        cx.stack.copy_front(id, &mut input);
        let end = if !over { End::Open { full } } else { End::Over { clean: cx.stack.peer_finished(id) } };
        let (answer, acknowledge) = read(&wanted.way.probe, &input, end);
        self.input = input;
        if acknowledge && !under_way.acknowledged {
            cx.stack.send(id, grpc_health::SETTINGS_ACK);
            self.note(slot, |under_way| under_way.acknowledged = true);
        }
        match answer {
            Some(failure) => self.end_check(cx, slot, failure),
            None if full => self.end_check(cx, slot, Some(CheckFailure::Invalid)),
            None if status == Status::Ended(Some(Ended::Reset)) => {
                self.end_check(cx, slot, Some(CheckFailure::Reset));
            }
            None if over => self.end_check(cx, slot, Some(CheckFailure::Closed)),
            None => {}
        }
    }

    /// The core stops: no check is worth waiting for.
    pub(super) fn stop_check<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, slot: u32) {
        if let Some(check) = self.checks.slots.get_mut(slot as usize) {
            check.under_way = None;
        }
        self.checks.wheel.cancel(slot);
        self.set_role(id, Role::None);
        cx.stack.abort(id);
    }

    fn begin_check<L: Lane>(&mut self, cx: &mut Context<'_, L>, slot: u32) {
        if cx.draining {
            return;
        }
        let now = cx.net.now;
        let Some(check) = self.checks.slots.get_mut(slot as usize) else { return };
        let Some(wanted) = cx.endpoints.checks().get(check.at as usize) else { return };
        // Between nine and eleven tenths of the interval, so that cores and appliances do not fall into step.
        let (interval, drawn) = (wanted.way.interval, (self.checks.random.next_u64() % 201) as u32);
        check.next = now + interval * (900 + drawn) / 1000;
        match cx.stack.connect(&mut cx.net, wanted.address) {
            Ok(connection) => {
                check.under_way = Some(UnderWay { connection, asked: false, acknowledged: false });
                let until = (now + wanted.way.timeout).min(check.next);
                self.checks.wheel.schedule(slot, until);
                self.set_role(connection, Role::Check(slot));
            }
            Err(error) => {
                let (next, id) = (check.next, check.id);
                self.checks.wheel.schedule(slot, next);
                // What we have too little of says nothing about the endpoint.
                if error == ConnectError::NoRoute {
                    self.tell(id, Some(CheckFailure::NoRoute));
                }
            }
        }
    }

    fn end_check<L: Lane>(&mut self, cx: &mut Context<'_, L>, slot: u32, failure: Option<CheckFailure>) {
        let Some(check) = self.checks.slots.get_mut(slot as usize) else { return };
        let Some(under_way) = check.under_way.take() else { return };
        let (id, next) = (check.id, check.next);
        self.checks.wheel.schedule(slot, next);
        self.set_role(under_way.connection, Role::None);
        if failure.is_some() {
            cx.stack.abort(under_way.connection);
        } else {
            cx.stack.close(under_way.connection, cx.net.now, LINGER);
        }
        self.tell(id, failure);
    }

    /// Ends what is under way without a word about it.
    fn abandon_checks<L: Lane>(&mut self, cx: &mut Context<'_, L>) {
        for slot in 0..self.checks.slots.len() {
            let under_way = self.checks.slots.get_mut(slot).and_then(|check| check.under_way.take());
            if let Some(under_way) = under_way {
                self.set_role(under_way.connection, Role::None);
                cx.stack.abort(under_way.connection);
            }
        }
    }

    fn note(&mut self, slot: u32, change: impl FnOnce(&mut UnderWay)) {
        if let Some(under_way) = self.checks.slots.get_mut(slot as usize).and_then(|check| check.under_way.as_mut()) {
            change(under_way);
        }
    }

    fn tell(&self, check: CheckId, failure: Option<CheckFailure>) {
        // Where control does not read, the next report says the same.
        let _ = self.checks.reports.push(Report { check, failure });
    }
}

/// Whether more of an answer may come.
#[derive(Debug, Clone, Copy)]
enum End {
    /// As long as there is room for it.
    Open { full: bool },
    /// No more: the endpoint closed, or did something else to the connection.
    Over { clean: bool },
}

/// What an answer says, once it is there: nothing where the check passed. And whether SETTINGS are to be acknowledged.
fn read(probe: &Probe, bytes: &[u8], end: End) -> (Option<Option<CheckFailure>>, bool) {
    match probe {
        Probe::Tcp => (Some(None), false),
        Probe::Http(ask, expected) => {
            let method = if ask.starts_with(b"HEAD ") { Method::Head } else { Method::Get };
            let answer = match parse_response(bytes, method, &Limits::default()) {
                Ok(None) => None,
                // A server that breaks off in the middle of what it says does so to others, too.
                Ok(Some(head)) if expected.iter().any(|&(from, to)| (from..=to).contains(&head.status)) => {
                    whole(BodyDecoder::new(head.framing), bytes.get(head.len..).unwrap_or_default(), end)
                }
                Ok(Some(head)) => Some(Some(CheckFailure::Status(head.status))),
                Err(_) => Some(Some(CheckFailure::Invalid)),
            };
            (answer, false)
        }
        Probe::Grpc { .. } => {
            let answer = grpc_health::read(bytes);
            let verdict = answer.verdict.map(|verdict| match verdict {
                grpc_health::Verdict::Status(1) => None,
                grpc_health::Verdict::Status(status) => Some(CheckFailure::NotServing(status)),
                grpc_health::Verdict::NoStatus => Some(CheckFailure::NotServing(0)),
                grpc_health::Verdict::Invalid => Some(CheckFailure::Invalid),
            });
            (verdict, answer.settings)
        }
    }
}

/// Whether a body came whole, or as much of it as there is room for, which is enough.
fn whole(mut body: BodyDecoder, mut bytes: &[u8], end: End) -> Option<Option<CheckFailure>> {
    for _ in 0..PIECES {
        if body.is_complete() {
            return Some(None);
        }
        let skip = match body.decode(bytes) {
            Err(_) => return Some(Some(CheckFailure::Invalid)),
            Ok(Decoded::Data { skip, len }) => {
                body.advance(len);
                skip + len
            }
            Ok(Decoded::End { .. }) => return Some(None),
            Ok(Decoded::More { .. }) => {
                return match end {
                    End::Open { full } => full.then_some(None),
                    End::Over { clean: true } if body.end_of_input().is_ok() => Some(None),
                    // The connection says how it ended.
                    End::Over { .. } => None,
                };
            }
        };
        bytes = bytes.get(skip..).unwrap_or_default();
    }
    // So many small pieces: it means it.
    Some(None)
}
