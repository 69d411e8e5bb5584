//! Sending: data, acknowledgments, and all of it again where it was lost.

use pmd::{Frame, Lane, TxChecksum};

use super::app::{App, Do, Gone};
use super::connection::{Marks, State, fields, ticks};
use super::{Endpoint, LARGE_A_STRETCH, NEVER, NONE, SEGMENTS_A_STRETCH};
use crate::segment::{Fields, HEADERS, SYN_OPTIONS, Segment, flags};

impl<L: Lane, A: App> Endpoint<L, A> {
    pub(super) fn perform(&mut self, now: u64, id: u32, what: Do) {
        let c = &mut self.connections[id as usize];
        if c.state == State::Free {
            return;
        }
        match what {
            Do::Nothing => {}
            Do::Close => c.marks.set(Marks::CLOSING),
            // A peer that asks before it has taken the last message does not speak HTTP as we do.
            Do::Send { .. } if c.snd_una != c.last() || c.marks.has(Marks::CLOSING) => {
                self.perform(now, id, Do::Abort);
            }
            Do::Send { len, close } => {
                c.start = c.end;
                c.end = c.end.wrapping_add(len);
                if close {
                    c.marks.set(Marks::CLOSING);
                }
            }
            Do::Abort => {
                let fields = fields(c, flags::RST | flags::ACK, c.snd_nxt);
                self.send(&fields, &[]);
                self.counters.aborted += 1;
                self.forget(now, id, Gone::Aborted);
            }
        }
    }

    /// Sends what may be sent.
    pub(super) fn output(&mut self, now: u64, id: u32) {
        let segments = if self.largest > 0 { LARGE_A_STRETCH } else { SEGMENTS_A_STRETCH };
        for _ in 0..segments {
            let c = &self.connections[id as usize];
            if c.state != State::Open || c.unsent() == 0 {
                return;
            }
            if self.in_flight >= self.options.in_flight && c.snd_nxt != c.start {
                break;
            }
            let room = c.snd_wnd.saturating_sub(c.under_way());
            let data = c.end.wrapping_sub(c.snd_nxt);
            // Behind the FIN, `data` would be minus one; but then nothing is unsent.
            let len = data.min(self.largest.max(u32::from(c.mss))).min(room);
            if len == 0 && data > 0 {
                // Their window is shut: the timer probes it.
                if c.outstanding() == 0 {
                    self.arm(now, id);
                }
                return;
            }
            if !self.send_data(now, id, len) {
                return;
            }
        }
        if self.largest > 0 {
            self.lane.flush();
        }
        let c = &mut self.connections[id as usize];
        if c.unsent() > 0 && !c.marks.has(Marks::WAITING) {
            c.marks.set(Marks::WAITING);
            self.waiting.push_back(id);
        }
    }

    /// Sends up to `len` bytes from `snd_nxt` on, and the FIN if it is its turn. More than a segment is left to the lane to cut.
    pub(super) fn send_data(&mut self, now: u64, id: u32, len: u32) -> bool {
        let mss = self.connections[id as usize].mss;
        let large = if len > u32::from(mss) { self.lane.allocate_large() } else { None };
        let (len, checksum) = match large {
            Some(_) => (len, TxChecksum::TcpSegments { l2_len: 14, l3_len: 20, mss }),
            None => (len.min(u32::from(mss)), TxChecksum::Tcp { l2_len: 14, l3_len: 20 }),
        };
        let Some(mut frame) = large.or_else(|| self.lane.allocate()) else {
            self.counters.no_frame += 1;
            self.arm(now, id);
            return false;
        };
        let c = &mut self.connections[id as usize];
        let idle = c.outstanding() == 0;
        if !frame.set_len(HEADERS + len as usize) {
            return false;
        }
        let last = c.snd_nxt.wrapping_add(len) == c.end;
        let mut set = flags::ACK;
        if last && len > 0 {
            set |= flags::PSH;
        }
        let fin = last && c.marks.has(Marks::CLOSING);
        if fin {
            set |= flags::FIN;
        }
        self.template.write(frame.bytes_mut(), 0, &fields(c, set, c.snd_nxt));
        if len > 0
            && let Some(payload) = frame.bytes_mut().get_mut(HEADERS..)
        {
            self.app.fill(&self.states[id as usize], c.snd_nxt.wrapping_sub(c.start), payload);
        }
        self.transmit(frame, checksum);
        let c = &mut self.connections[id as usize];
        let sent = len + u32::from(fin);
        c.snd_nxt = c.snd_nxt.wrapping_add(sent);
        if (c.snd_nxt.wrapping_sub(c.snd_max) as i32) > 0 {
            c.snd_max = c.snd_nxt;
        }
        c.told = c.rcv_nxt;
        c.marks.clear(Marks::ACK);
        self.in_flight += u64::from(sent);
        if idle {
            self.arm(now, id);
        }
        true
    }

    /// Starts the retransmission timer.
    pub(super) fn arm(&mut self, now: u64, id: u32) {
        let c = &mut self.connections[id as usize];
        let at = now + (self.options.retransmission << c.retries.min(6));
        c.retransmit_at = ticks(at);
        self.look_at(id, at);
    }

    pub(super) fn look_at(&mut self, id: u32, at: u64) {
        let deadline = &mut self.deadlines[id as usize];
        *deadline = (*deadline).min(at);
    }

    pub(super) fn send_syn(&mut self, now: u64, id: u32) {
        let c = &mut self.connections[id as usize];
        let answer = c.state == State::SynReceived;
        let set = if answer { flags::SYN | flags::ACK } else { flags::SYN };
        c.snd_nxt = c.end;
        c.snd_max = c.end;
        let fields = fields(c, set, c.end.wrapping_sub(1));
        let [high, low] = self.mss.to_be_bytes();
        self.send(&fields, &[2, 4, high, low, 1, 3, 3, self.options.window_scale]);
        self.arm(now, id);
    }

    pub(super) fn send_ack(&mut self, id: u32) {
        let c = &mut self.connections[id as usize];
        c.told = c.rcv_nxt;
        c.marks.clear(Marks::ACK);
        let fields = fields(c, flags::ACK, c.snd_nxt);
        self.counters.bare_acks += 1;
        self.send(&fields, &[]);
    }

    /// Answers a segment of no connection (RFC 9293 §3.5.2).
    pub(super) fn reject(&mut self, segment: &Segment<'_>) {
        if segment.flags & flags::RST != 0 {
            return;
        }
        let (seq, ack, set) = if segment.flags & flags::ACK != 0 {
            (segment.ack, 0, flags::RST)
        } else {
            let taken = segment.payload.len() as u32 + u32::from(segment.flags & (flags::SYN | flags::FIN) != 0);
            (0, segment.seq.wrapping_add(taken), flags::RST | flags::ACK)
        };
        let fields = Fields {
            source: segment.destination,
            destination: segment.source,
            source_port: segment.destination_port,
            destination_port: segment.source_port,
            seq,
            ack,
            flags: set,
            window: 0,
        };
        self.send(&fields, &[]);
    }

    pub(super) fn send(&mut self, fields: &Fields, options: &[u8]) {
        debug_assert!(options.len() <= SYN_OPTIONS);
        let Some(mut frame) = self.lane.allocate() else {
            self.counters.no_frame += 1;
            return;
        };
        if !frame.set_len(HEADERS + options.len()) {
            return;
        }
        self.template.write(frame.bytes_mut(), options.len(), fields);
        if let Some(rest) = frame.bytes_mut().get_mut(HEADERS..) {
            rest.copy_from_slice(options);
        }
        self.transmit(frame, TxChecksum::Tcp { l2_len: 14, l3_len: 20 });
    }

    #[inline]
    fn transmit(&mut self, frame: L::Frame, checksum: TxChecksum) {
        if self.loss.strikes() {
            self.counters.lost_out += 1;
        } else {
            self.lane.transmit(frame, checksum);
        }
    }

    pub(super) fn resend(&mut self, now: u64, id: u32) {
        if self.connections[id as usize].state != State::Open {
            return self.send_syn(now, id);
        }
        self.go_back(id);
        let c = &self.connections[id as usize];
        let data = c.end.wrapping_sub(c.snd_nxt);
        // Behind the data, only the FIN is left. A shut window is probed with one byte.
        let data = if data > i32::MAX as u32 { 0 } else { data };
        let len = data.min(u32::from(c.mss)).min(c.snd_wnd.max(1));
        if self.send_data(now, id, len) {
            self.arm(now, id);
            self.output(now, id);
        }
    }

    pub(super) fn forget(&mut self, now: u64, id: u32, how: Gone) {
        let c = &mut self.connections[id as usize];
        self.in_flight = self.in_flight.saturating_sub(u64::from(c.under_way()));
        let (local, client_port) = (c.local, if self.options.listens { c.remote_port } else { c.local_port });
        c.state = State::Free;
        let ahead = c.marks.has(Marks::AHEAD);
        // The lists that it may be in are left to themselves.
        let place = self.place(local, client_port);
        self.slots[place] = NONE;
        self.deadlines[id as usize] = NEVER;
        if ahead {
            self.ahead.retain(|key, _| key.0 != id);
        }
        if self.options.listens {
            self.free.push(id);
        }
        self.app.gone(now, id, &mut self.states[id as usize], how);
    }
}
