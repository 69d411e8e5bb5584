//! Timers, and segments on their way out: connections that have something to do are visited, and freed when they are done.

use pmd::Lane;
use smoltcp::iface::PollResult;
use smoltcp::socket::tcp::State;
use smoltcp::time::Instant as StackInstant;

use super::device::{ConnectionDevice, Out};
use super::ingress::ask_again;
use super::{ConnectionId, Ended, IN_TIME_WAIT, Net, Stack};
use crate::clock::Instant;

/// Segments that one connection sends in one turn at most, so that a bulk transfer does not make the others wait.
const SEGMENTS_A_TURN: usize = 32;

/// Timers fired in one turn at most.
const TIMERS_A_TURN: usize = 256;

/// Connections visited for egress in one turn at most; the others keep their place in the queue.
const VISITS_A_TURN: usize = 1024;

/// TIME-WAIT entries ended in one turn at most.
const ENDS_A_TURN: usize = 64;

impl Stack {
    /// Wakes the connections whose timers are due. Returns whether there were any.
    pub fn timers(&mut self, now: Instant) -> bool {
        let mut any = false;
        let Self { wheel, slots, dirty, .. } = self;
        wheel.advance(now, TIMERS_A_TURN, |key| {
            any = true;
            if let Some(Some(connection)) = slots.get_mut(key as usize) {
                connection.armed = Instant::NEVER;
                if !connection.dirty {
                    connection.dirty = true;
                    dirty.push_back(key);
                }
            }
        });
        for _ in 0..ENDS_A_TURN {
            let Some((slot, entry)) = self.waiting.expire(now, false) else { break };
            self.flows.remove(entry.hash, slot | IN_TIME_WAIT);
            any = true;
        }
        any
    }

    /// Lets every connection that has something to do send. Returns whether there were any.
    pub fn egress<L: Lane>(&mut self, net: &mut Net<'_, L>) -> bool {
        let visits = self.dirty.len().min(VISITS_A_TURN);
        for _ in 0..visits {
            if let Some(id) = self.dirty.pop_front() {
                self.visit(net, ConnectionId(id));
            }
        }
        visits > 0
    }

    /// Lets connection `id` send what it may, arms its timer, and frees it when it is done.
    fn visit<L: Lane>(&mut self, net: &mut Net<'_, L>, id: ConnectionId) {
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        if !connection.dirty {
            return;
        }
        connection.dirty = false;
        connection.pour_spill();
        let time = connection.stack_time(net.now);
        let before = connection.pooled.socket().state();
        let shut = connection.shut_since(net.now) + self.settings.zero_window_timeout;
        if (connection.orphan && net.now >= connection.orphan_until) || net.now >= shut {
            connection.pooled.socket_mut().abort();
        }
        let Some(interface) = self.interfaces.get_mut(connection.interface) else { return };
        if net.now >= connection.track.recovery.due() {
            let track = &mut connection.track;
            // A peer whose window is shut is asked by smoltcp, in its own time.
            if track.recovery.probe(net.now, track.snd_nxt, track.window_shut) {
                net.counters.loss_probes.add(1);
                ask_again(interface, net, connection, &mut self.scratch);
            }
        }
        let mut sent = 0;
        let queued = connection.pooled.socket().send_queue();
        // Half of all visits have nothing to send, and finding that out is cheaper than trying.
        let next = if connection.has_news() { None } else { Some(interface.poll_at(time, &connection.pooled.sockets)) };
        let due = next.is_none_or(|next| next.is_some_and(|at| at <= time));
        while due && sent < SEGMENTS_A_TURN {
            let Some(port) = net.ports.get_mut(usize::from(connection.port)) else { break };
            let out = Out {
                port,
                now: net.now,
                mtu: connection.mtu,
                queued,
                hop: &mut connection.hop,
                track: &mut connection.track,
                counters: net.counters,
                scratch: &mut self.scratch,
            };
            let mut device = ConnectionDevice { packet: None, out };
            if interface.poll_egress(time, &mut device, &mut connection.pooled.sockets) == PollResult::None {
                break;
            }
            sent += 1;
            if connection.everything_sent() {
                break;
            }
        }
        let state = connection.pooled.socket().state();
        if state == State::Closed && before != State::Closed && connection.ended.is_none() {
            // The socket's own timeout, a window that stayed shut, or a peer that did not close in its linger time.
            connection.ended = Some(Ended::TimedOut);
            net.counters.tcp_timeouts.add(1);
            if !connection.orphan && !connection.half_open {
                self.mark_ready(id);
            }
        }
        self.settle(net.now, id, sent, next.filter(|_| !due));
    }

    /// Frees a connection that is done, or arms its timer. `next` is when the stack wants to be called, if that is known already.
    fn settle(&mut self, now: Instant, id: ConnectionId, sent: usize, next: Option<Option<StackInstant>>) {
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        let state = connection.pooled.socket().state();
        let unowned = connection.orphan || connection.half_open;
        match state {
            State::Closed if unowned => return self.release(id),
            State::TimeWait if unowned => return self.release_to_time_wait(id, now),
            // Over, and its owner's to let go of: no timer may wake it before.
            State::TimeWait | State::Closed => return self.mark_ready(id),
            _ => {}
        }
        let Some(Some(connection)) = self.slots.get_mut(id.0 as usize) else { return };
        if sent == SEGMENTS_A_TURN {
            return self.mark_dirty(id);
        }
        // What was just sent acknowledged everything too, so that the next thing due is a retransmission, whose time has a lower bound.
        if sent > 0
            && !connection.orphan
            && connection.everything_sent()
            && connection.armed <= now + connection.least_rto()
            && connection.armed <= connection.track.recovery.due()
        {
            return;
        }
        let time = connection.stack_time(now);
        let Some(interface) = self.interfaces.get_mut(connection.interface) else { return };
        let due = next.unwrap_or_else(|| interface.poll_at(time, &connection.pooled.sockets));
        let mut at = match due {
            // Something keeps it from sending now, an empty pool say: it tries again with the next tick.
            Some(at) if at <= time => now,
            Some(at) => connection.real_time(at),
            None => Instant::NEVER,
        };
        at = at.min(connection.zero_window_since + self.settings.zero_window_timeout);
        at = at.min(connection.track.recovery.due());
        if connection.orphan {
            if state == State::FinWait2 {
                connection.orphan_until = connection.orphan_until.min(now + connection.linger);
            }
            at = at.min(connection.orphan_until);
        }
        // A timer that fires early finds nothing due and is armed anew, which is cheaper than moving it at every segment.
        if at < connection.armed {
            connection.armed = at;
            self.wheel.schedule(id.0, at);
        }
    }
}
