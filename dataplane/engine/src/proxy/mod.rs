//! HTTP between clients and backends, on top of [`crate::stack`].
//!
//! It owns what each connection is for: a client with its request, or a backend connection that serves one or is idle. The core
//! calls [`Proxy::drive`] for each connection that something happened to, and [`Proxy::timers`] once a turn. It decides with the
//! snapshot that the core runs, and holds no more of any body than the two connections' buffers do.

mod affinity;
mod checks;
mod client;
mod dispatch;
mod filter;
mod inspect;
mod log;
mod mirror;
mod pins;
mod reply;
mod request;
mod response;
mod serve;
mod sweep;
mod tunnel;
mod upstream;

use core::time::Duration;
use std::sync::Arc;

use pmd::Lane;
use tables::access::AccessQueue;
use tables::endpoints::Reports;
use tables::publish::find;
use tables::quota::Quotas;
use tables::{CoreCounters, EndpointTable, Epoch, Snapshot};

use self::checks::Checks;
use self::client::{Changed, Client, Phase, Words};
use self::mirror::{Draw, Mirror};
use self::pins::Pins;
use self::sweep::Sweep;
use self::upstream::{Pools, Upstream};
use crate::balance::Balance;
use crate::clock::Instant;
use crate::limit::Limiter;
use crate::random::Random;
use crate::stack::{ConnectionId, Net, Side, Stack, Status};
use crate::timer::Wheel;

/// Steps of one connection in one turn at most: a client that pipelines makes the others wait no longer than this.
const STEPS_A_TURN: usize = 8;

/// Timers fired in one turn at most.
const TIMERS_A_TURN: usize = 256;

/// Client records kept for the next connections.
const SPARE_CLIENTS: usize = 4096;

/// The surroundings of one call.
pub struct Context<'a, L: Lane> {
    /// Ports, time and counters.
    pub net: Net<'a, L>,
    /// The core's connections.
    pub stack: &'a mut Stack,
    /// The tables.
    pub snapshot: &'a Snapshot,
    /// Older ones, under which requests began that may still need them.
    pub held: &'a [Arc<Snapshot>],
    /// What is known of endpoints.
    pub endpoints: &'a EndpointTable,
    /// The core accepts nothing new.
    pub draining: bool,
    /// Where finished requests are reported.
    pub access: &'a AccessQueue,
    /// Index of the core.
    pub core: u16,
}

impl<'a, L: Lane> Context<'a, L> {
    /// The tables of `epoch`, under which a request began.
    #[inline]
    pub(crate) fn tables(&self, epoch: Epoch) -> Option<&'a Snapshot> {
        if self.snapshot.epoch == epoch { Some(self.snapshot) } else { find(self.held, epoch) }
    }
}

/// What a connection is for.
enum Role {
    None,
    Client(Box<Client>),
    Upstream(Upstream),
    Mirror(Box<Mirror>),
    /// A health check, by its slot.
    Check(u32),
}

/// What a step of a client connection came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There may be more to do at once.
    Again,
    /// Nothing can be done until something happens, or until then.
    Wait(Instant),
    /// The connection was let go.
    Gone,
}

/// All HTTP connections of one core.
pub struct Proxy {
    roles: Vec<Role>,
    #[expect(clippy::vec_box, reason = "they are kept for `Role::Client`, which boxes them to stay small")]
    spare: Vec<Box<Client>>,
    #[expect(clippy::vec_box, reason = "they are kept for clients, which box them to stay small while they are idle")]
    spare_words: Vec<Box<Words>>,
    #[expect(clippy::vec_box, reason = "they are kept for clients, which box them to stay small without filters")]
    spare_changed: Vec<Box<Changed>>,
    #[expect(clippy::vec_box, reason = "they are kept for `Role::Mirror`, which boxes them to stay small")]
    spare_mirrors: Vec<Box<Mirror>>,
    draw: Draw,
    wheel: Wheel,
    due: Vec<u32>,
    pools: Pools,
    balance: Balance,
    pins: Pins,
    limiter: Limiter,
    sweep: Sweep,
    checks: Checks,
    /// A head that does not lie in one piece in its buffer.
    input: Vec<u8>,
    /// What is being encoded.
    out: Vec<u8>,
    /// What a request's mirrors get of its body.
    copy: Vec<u8>,
    active: u64,
    tunnels: u64,
    clients: u64,
    upstreams: u64,
}

impl Proxy {
    /// A proxy without connections, on the core of that index among `cores`, which share `quotas`.
    #[must_use]
    pub fn new(
        snapshot: &Snapshot,
        (core, cores): (u16, u16),
        quotas: Quotas,
        reports: Reports,
        mut random: Random,
    ) -> Self {
        let balance = Balance::new(snapshot, random.behind_a_hash());
        Self {
            roles: Vec::new(),
            spare: Vec::new(),
            spare_words: Vec::new(),
            spare_changed: Vec::new(),
            spare_mirrors: Vec::new(),
            draw: Draw::default(),
            wheel: Wheel::with_capacity(1024),
            due: Vec::with_capacity(TIMERS_A_TURN),
            pools: Pools::new(quotas, cores, &snapshot.http),
            balance,
            pins: Pins::new(snapshot.epoch),
            limiter: Limiter::new(core),
            sweep: Sweep::new(snapshot),
            checks: Checks::new(core, cores, reports, random),
            input: Vec::with_capacity(64 << 10),
            out: Vec::with_capacity(64 << 10),
            copy: Vec::new(),
            active: 0,
            tunnels: 0,
            clients: 0,
            upstreams: 0,
        }
    }

    /// The core runs another snapshot from now on.
    pub fn renew(&mut self, snapshot: &Snapshot) {
        self.balance.renew(snapshot);
        self.pools.allow(&snapshot.http);
        self.pins.swap(snapshot.epoch);
        self.sweep.begin(snapshot);
    }

    /// The epoch whose tables requests begin under.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.pins.epoch()
    }

    /// Whether a request needs the current tables beyond a swap.
    #[inline]
    #[must_use]
    pub fn needs_current(&self) -> bool {
        self.pins.is_current_needed()
    }

    /// Whether a request needs older tables, of this epoch.
    #[must_use]
    pub fn needs(&self, epoch: Epoch) -> bool {
        self.pins.needs(epoch)
    }

    /// Whether older tables became free since [`Proxy::handed_back`].
    #[inline]
    #[must_use]
    pub fn has_vacated(&self) -> bool {
        self.pins.has_vacated()
    }

    /// The tables that became free were handed back.
    pub fn handed_back(&mut self) {
        self.pins.handed_back();
    }

    /// Requests being served now.
    #[must_use]
    pub fn active(&self) -> u64 {
        self.active
    }

    /// The core has other checks to do from now on.
    pub fn renew_checks(&mut self) {
        self.checks.renew();
    }

    /// Has the CPU fetch the client whose connection `id` is, or serves.
    #[inline]
    pub fn fetch(&self, id: ConnectionId) {
        let role = |id: ConnectionId| self.roles.get(id.0 as usize);
        let client = match role(id) {
            Some(Role::Upstream(upstream)) => upstream.client.and_then(role),
            own => own,
        };
        if let Some(Role::Client(client)) = client {
            pmd::prefetch_whole(&**client);
        }
    }

    /// Deals with whatever happened to connection `id`.
    pub fn drive<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        match self.roles.get(id.0 as usize) {
            Some(Role::Client(_)) => self.drive_client(cx, id),
            Some(Role::Upstream(upstream)) => {
                let upstream = *upstream;
                self.drive_upstream(cx, id, upstream);
            }
            Some(Role::Mirror(_)) => self.drive_mirror(cx, id),
            Some(&Role::Check(slot)) => self.drive_check(cx, id, slot),
            Some(Role::None) | None => self.adopt(cx, id),
        }
    }

    /// Deals with the timers that are due. Returns whether there were any.
    pub fn timers<L: Lane>(&mut self, cx: &mut Context<'_, L>) -> bool {
        let now = cx.net.now;
        let mut due = core::mem::take(&mut self.due);
        self.wheel.advance(now, TIMERS_A_TURN, |key| due.push(key));
        let any = !due.is_empty();
        for key in due.drain(..) {
            let id = ConnectionId(key);
            match self.roles.get_mut(key as usize) {
                Some(Role::Client(client)) => {
                    client.armed = Instant::NEVER;
                    self.expire_client(cx, id);
                }
                Some(Role::Upstream(upstream)) => {
                    upstream.armed = false;
                    let upstream = *upstream;
                    self.expire_upstream(cx, id, upstream);
                }
                Some(Role::Mirror(_)) => self.expire_mirror(cx, id),
                _ => {}
            }
        }
        self.due = due;
        any | self.run_checks(cx)
    }

    /// Has connections in `slots` that are idle, closed because the core drains.
    pub fn drain<L: Lane>(&mut self, cx: &mut Context<'_, L>, slots: core::ops::Range<u32>) {
        for slot in slots {
            match self.roles.get(slot as usize) {
                Some(Role::Client(client)) if client.phase == Phase::Head => self.drive_client(cx, ConnectionId(slot)),
                Some(&Role::Upstream(upstream)) if upstream.client.is_none() => {
                    self.close_idle(cx, ConnectionId(slot), upstream);
                }
                Some(&Role::Check(check)) => self.stop_check(cx, ConnectionId(slot), check),
                _ => {}
            }
        }
    }

    /// Resets all connections in `slots`: the core stops.
    pub fn stop<L: Lane>(&mut self, cx: &mut Context<'_, L>, slots: core::ops::Range<u32>) {
        for slot in slots {
            let id = ConnectionId(slot);
            match self.roles.get(slot as usize) {
                Some(Role::Client(_)) => self.stop_client(cx, id),
                Some(Role::Mirror(_)) => self.lose(cx, id),
                Some(&Role::Upstream(upstream)) if upstream.client.is_none() => self.close_idle(cx, id, upstream),
                Some(&Role::Check(check)) => self.stop_check(cx, id, check),
                _ => {}
            }
        }
    }

    /// Client connections that live.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.clients
    }

    /// When a timer is due at the earliest; a lower bound.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        self.wheel.next_due().into_iter().chain(self.checks.next_due()).min()
    }

    /// Writes the gauges.
    pub fn report(&self, counters: &CoreCounters) {
        counters.connections_open.set(self.clients);
        counters.upstream_open.set(self.upstreams);
        counters.upstream_idle.set(self.pools.len() as u64);
        counters.requests_active.set(self.active);
        counters.tunnels_open.set(self.tunnels);
    }

    /// A connection that nobody has a use for yet: a client whose handshake is complete.
    fn adopt<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        let Some((Side::Client, local, remote)) = cx.stack.addresses(id) else { return cx.stack.abort(id) };
        if cx.stack.status(id) == Status::Opening {
            return;
        }
        let mut client = self.spare.pop().unwrap_or_else(|| Box::new(Client::new()));
        client.begin(id, local, remote, cx.net.now);
        self.set_role(id, Role::Client(client));
        self.clients += 1;
        cx.net.counters.connections_opened.add(1);
        self.drive_client(cx, id);
    }

    /// Lets a client connection take its steps.
    fn drive_client<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId) {
        // Taken out while it is worked on: it and the rest of the proxy are then borrowed apart.
        let Some(role) = self.roles.get_mut(id.0 as usize) else { return };
        let Role::Client(mut client) = core::mem::replace(role, Role::None) else { return };
        for _ in 0..STEPS_A_TURN {
            let step = match client.phase {
                Phase::Head => self.read_head(cx, &mut client),
                Phase::Exchange => self.serve(cx, &mut client),
                Phase::Tunnel => self.tunnel(cx, &mut client),
            };
            match step {
                Step::Again => {}
                Step::Wait(until) => {
                    if until < client.armed {
                        client.armed = until;
                        self.wheel.schedule(id.0, until);
                    }
                    return self.set_role(id, Role::Client(client));
                }
                Step::Gone => return self.retire(cx, client),
            }
        }
        cx.stack.wake(id);
        self.set_role(id, Role::Client(client));
    }

    /// The connection of `client` was let go.
    fn retire<L: Lane>(&mut self, cx: &mut Context<'_, L>, mut client: Box<Client>) {
        self.wheel.cancel(client.id.0);
        self.clients -= 1;
        cx.net.counters.connections_closed.add(1);
        if self.spare.len() < SPARE_CLIENTS {
            client.exchange.reset();
            self.spare.push(client);
        }
    }

    /// Something happened to a backend connection.
    fn drive_upstream<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, upstream: Upstream) {
        if !upstream.established && matches!(cx.stack.status(id), Status::Open | Status::PeerClosed) {
            cx.net.counters.upstream_opened.add(1);
            self.upstreams += 1;
            if let Some(Role::Upstream(upstream)) = self.roles.get_mut(id.0 as usize) {
                upstream.established = true;
            }
        }
        match upstream.client {
            Some(client) => self.drive_client(cx, client),
            // Idle: it closed, or it spoke without being asked, and is of no more use either way.
            None if cx.stack.status(id) != Status::Open || cx.stack.readable(id) > 0 => {
                self.close_idle(cx, id, upstream);
            }
            None => {}
        }
    }

    fn expire_upstream<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, upstream: Upstream) {
        let timeout = cx.snapshot.http.upstream_idle_timeout;
        if upstream.client.is_none() {
            let until = upstream.idle_since + timeout;
            if cx.net.now >= until {
                return self.close_idle(cx, id, upstream);
            }
            self.arm_upstream(id, until);
        }
    }

    /// Closes an idle backend connection.
    fn close_idle<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, upstream: Upstream) {
        self.pools.remove(upstream.endpoint, id);
        self.let_go(cx, id, false);
    }

    /// Lets go of a backend connection: closed, or reset.
    fn let_go<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, reset: bool) {
        if let Some(Role::Upstream(upstream)) = self.roles.get(id.0 as usize) {
            self.upstreams -= u64::from(upstream.established);
            self.pools.discharge(upstream.endpoint);
        }
        self.set_role(id, Role::None);
        self.wheel.cancel(id.0);
        if reset {
            cx.stack.abort(id);
        } else {
            cx.stack.close(id, cx.net.now, UPSTREAM_LINGER);
        }
    }

    /// Puts a backend connection that served its request, which began under `began`, away for the next one.
    fn park<L: Lane>(&mut self, cx: &mut Context<'_, L>, id: ConnectionId, began: Epoch) {
        let http = &cx.snapshot.http;
        let Some(Role::Upstream(upstream)) = self.roles.get_mut(id.0 as usize) else { return };
        upstream.client = None;
        upstream.served += 1;
        upstream.idle_since = cx.net.now;
        let (endpoint, armed) = (upstream.endpoint, upstream.armed);
        let until = cx.net.now + http.upstream_idle_timeout;
        // Its endpoint may be gone, and its number another one's.
        let known = began == cx.snapshot.epoch
            || cx.stack.addresses(id).map(|(_, _, remote)| remote) == cx.snapshot.endpoint(endpoint);
        let usable = known && !cx.draining && cx.stack.status(id) == Status::Open && cx.stack.readable(id) == 0;
        if !usable || !self.pools.put(endpoint, id) {
            return self.let_go(cx, id, false);
        }
        if !armed {
            self.arm_upstream(id, until);
        }
    }

    fn arm_upstream(&mut self, id: ConnectionId, until: Instant) {
        if let Some(Role::Upstream(upstream)) = self.roles.get_mut(id.0 as usize) {
            upstream.armed = true;
            self.wheel.schedule(id.0, until);
        }
    }

    fn set_role(&mut self, id: ConnectionId, role: Role) {
        let at = id.0 as usize;
        if at >= self.roles.len() {
            self.roles.resize_with(at + 1, || Role::None);
        }
        if let Some(place) = self.roles.get_mut(at) {
            *place = role;
        }
    }
}

/// How long a backend may take to close its side of a connection that we have closed.
const UPSTREAM_LINGER: Duration = Duration::from_secs(2);
