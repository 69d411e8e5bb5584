//! Receiving: what a segment does to its connection (RFC 9293 §3.10.7, without what no gateway sends).

use pmd::{Frame, Lane};

use super::app::{App, Gone};
use super::connection::{Marks, State, ticks};
use super::{AHEAD, DUPLICATES, Endpoint};
use crate::segment::{Packet, Segment, flags, parse, syn_options};

impl<L: Lane, A: App> Endpoint<L, A> {
    pub(super) fn input(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        if segment.flags & flags::RST != 0 {
            let valid = match c.state {
                State::SynSent => segment.flags & flags::ACK != 0 && segment.ack == c.snd_max,
                _ => segment.seq == c.rcv_nxt,
            };
            if valid {
                let how = if c.state == State::SynSent { Gone::Refused } else { Gone::Reset };
                self.counters.reset += 1;
                self.forget(now, id, how);
            }
            return;
        }
        match c.state {
            State::Free => return,
            State::SynSent => return self.syn_sent(now, id, segment),
            State::SynReceived if segment.flags & flags::SYN != 0 => return self.send_syn(now, id),
            State::SynReceived if segment.flags & flags::ACK == 0 || segment.ack != c.snd_max => return,
            State::SynReceived => {
                c.state = State::Open;
                c.snd_una = segment.ack;
                c.retries = 0;
                self.counters.opened += 1;
                let wanted = self.app.opened(now, id, &mut self.states[id as usize]);
                self.perform(now, id, wanted);
            }
            State::Open if segment.flags & flags::SYN != 0 => c.marks.set(Marks::ACK),
            State::Open => {}
        }
        if segment.flags & flags::ACK != 0 {
            self.acknowledged(now, id, segment);
        }
        self.data(now, id, segment);
        let c = &mut self.connections[id as usize];
        if c.state != State::Open {
            return;
        }
        self.output(now, id);
        let c = &mut self.connections[id as usize];
        if c.marks.has(Marks::CLOSING) && c.marks.has(Marks::ENDED) && c.snd_una == c.last() {
            // The FIN's acknowledgment cannot wait for the end of the turn.
            if c.told != c.rcv_nxt || c.marks.has(Marks::ACK) {
                self.send_ack(id);
            }
            self.counters.closed += 1;
            self.forget(now, id, Gone::Closed);
        } else if c.told != c.rcv_nxt || c.marks.has(Marks::ACK) {
            let waits = c.rcv_nxt.wrapping_sub(c.told) < 2 * u32::from(c.mss) && !c.marks.has(Marks::ACK);
            if waits {
                self.look_at(id, now + self.options.delayed_ack);
            } else if !c.marks.has(Marks::LISTED) {
                c.marks.set(Marks::LISTED);
                self.unacknowledged.push(id);
            }
        }
    }

    pub(super) fn syn_sent(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        if segment.flags & (flags::SYN | flags::ACK) != flags::SYN | flags::ACK || segment.ack != c.snd_max {
            return self.reject(segment);
        }
        let (mss, scale) = syn_options(segment.options);
        c.mss = mss.unwrap_or(536).min(self.mss);
        c.scale = scale.unwrap_or(0);
        c.snd_una = segment.ack;
        c.rcv_nxt = segment.seq.wrapping_add(1);
        c.snd_wnd = u32::from(segment.window);
        c.state = State::Open;
        c.retries = 0;
        c.marks.set(Marks::ACK);
        self.counters.opened += 1;
        let wanted = self.app.opened(now, id, &mut self.states[id as usize]);
        self.perform(now, id, wanted);
        self.output(now, id);
        let c = &self.connections[id as usize];
        if c.state == State::Open && c.marks.has(Marks::ACK) {
            self.send_ack(id);
        }
    }

    pub(super) fn acknowledged(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        let acked = segment.ack.wrapping_sub(c.snd_una);
        let window = u32::from(segment.window) << c.scale;
        if acked > 0 && acked <= c.outstanding() {
            let under_way = c.under_way();
            self.in_flight = self.in_flight.saturating_sub(u64::from(acked.min(under_way)));
            if acked > under_way {
                c.snd_nxt = segment.ack;
            }
            c.snd_una = segment.ack;
            c.retries = 0;
            c.duplicates = 0;
            c.retransmit_at = ticks(now + self.options.retransmission);
            if c.marks.has(Marks::RECOVERING) {
                if (c.recover.wrapping_sub(segment.ack) as i32) <= 0 {
                    c.marks.clear(Marks::RECOVERING);
                } else {
                    self.resend_first(now, id);
                }
            }
        } else if acked == 0
            && c.outstanding() > 0
            && segment.payload.is_empty()
            && segment.flags & flags::FIN == 0
            && window == c.snd_wnd
        {
            c.duplicates = c.duplicates.saturating_add(1);
            if c.duplicates == DUPLICATES && !c.marks.has(Marks::RECOVERING) {
                c.marks.set(Marks::RECOVERING);
                c.recover = c.snd_max;
                self.resend_first(now, id);
            }
        }
        let c = &mut self.connections[id as usize];
        // An older segment's window does not count.
        if acked <= i32::MAX as u32 {
            c.snd_wnd = window;
        }
    }

    /// Sends again from the oldest byte that is not acknowledged.
    pub(super) fn go_back(&mut self, id: u32) {
        let c = &mut self.connections[id as usize];
        self.in_flight = self.in_flight.saturating_sub(u64::from(c.under_way()));
        c.snd_nxt = c.snd_una;
    }

    /// Sends the oldest segment again, and goes on where it was.
    fn resend_first(&mut self, now: u64, id: u32) {
        let c = &mut self.connections[id as usize];
        let (next, in_flight) = (c.snd_nxt, self.in_flight);
        let len = c.end.wrapping_sub(c.snd_una).min(u32::from(c.mss));
        if next == c.snd_una || len > i32::MAX as u32 {
            return;
        }
        self.counters.fast_retransmissions += 1;
        c.snd_nxt = c.snd_una;
        self.send_data(now, id, len);
        let c = &mut self.connections[id as usize];
        if (next.wrapping_sub(c.snd_nxt) as i32) > 0 {
            c.snd_nxt = next;
            self.in_flight = in_flight;
        }
    }

    /// Keeps a frame whose segment is ahead of what is wanted next, if it is one of these.
    #[cold]
    pub(super) fn keep(&mut self, frame: L::Frame) {
        let Packet::Tcp(segment) = parse(frame.bytes()) else { return };
        let id = self.noted(&segment);
        if !self.is_of(id, &segment) {
            return;
        }
        let c = &mut self.connections[id as usize];
        let ahead = segment.seq.wrapping_sub(c.rcv_nxt) as i32;
        if c.state == State::Open && ahead > 0 && self.ahead.len() < AHEAD {
            c.marks.set(Marks::AHEAD);
            let key = (id, segment.seq);
            self.ahead.insert(key, frame);
        }
    }

    /// Takes up what was kept and is wanted now.
    #[cold]
    fn take_up(&mut self, now: u64, id: u32) {
        // So that it is not called again from below.
        self.connections[id as usize].marks.clear(Marks::AHEAD);
        // Sequence numbers may wrap between two of them; then what is before the wrap is asked for again.
        while let Some(key) = self.ahead.range((id, 0)..=(id, u32::MAX)).next().map(|(key, _)| *key) {
            let c = &mut self.connections[id as usize];
            if c.state == State::Open && (key.1.wrapping_sub(c.rcv_nxt) as i32) > 0 {
                return c.marks.set(Marks::AHEAD);
            }
            let Some(frame) = self.ahead.remove(&key) else { return };
            if c.state == State::Open
                && let Packet::Tcp(segment) = parse(frame.bytes())
            {
                self.data(now, id, &segment);
            }
        }
    }

    pub(super) fn data(&mut self, now: u64, id: u32, segment: &Segment<'_>) {
        let c = &mut self.connections[id as usize];
        let fin = segment.flags & flags::FIN != 0;
        let ahead = segment.seq.wrapping_sub(c.rcv_nxt) as i32;
        if ahead == 0 && segment.payload.is_empty() && !fin {
            return;
        }
        if ahead > 0 {
            // Each has to be answered by itself: the peer counts.
            self.counters.out_of_order += 1;
            self.out_of_order = true;
            return self.send_ack(id);
        }
        let known = ahead.unsigned_abs() as usize;
        if known > 0 {
            if !segment.payload.is_empty() {
                self.counters.repeated += 1;
            }
            // A keep-alive probe, too.
            c.marks.set(Marks::ACK);
        }
        let Some(fresh) = segment.payload.get(known..) else { return };
        if !fresh.is_empty() {
            // A segment is less than 64 KiB long.
            c.rcv_nxt = c.rcv_nxt.wrapping_add(fresh.len() as u32);
            let wanted = self.app.receive(now, id, &mut self.states[id as usize], fresh);
            self.perform(now, id, wanted);
        }
        if self.connections[id as usize].marks.has(Marks::AHEAD) {
            self.take_up(now, id);
        }
        let c = &mut self.connections[id as usize];
        if fin && c.state == State::Open && !c.marks.has(Marks::ENDED) {
            c.rcv_nxt = c.rcv_nxt.wrapping_add(1);
            c.marks.set(Marks::ENDED | Marks::ACK);
            let wanted = self.app.ended(now, id, &mut self.states[id as usize]);
            self.perform(now, id, wanted);
        }
    }
}
