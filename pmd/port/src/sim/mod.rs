//! A wire in virtual time: the second implementation of [`crate::Lane`].
//!
//! Tests and replays run engines and scripted peers on it without DPDK. It owns the virtual [`Clock`], the
//! frames on the wire and the pools of its ends. It never reads real time, never starts a thread, and draws every
//! random decision from the seed, so that one seed gives one run.

pub mod fault;
mod nic;
mod offload;
pub mod pcap;
mod tso;
mod wire;

pub use fault::{FaultCounters, PathOptions};
pub use nic::{SimQueue, Spread, nic};
pub use wire::{EndOptions, SimFrame, SimLane, WireOptions, wire};

use crate::{Burst, Frame, Lane, TxChecksum};
use core::cell::Cell;
use core::time::Duration;
use std::rc::Rc;

/// Virtual time since the start of a simulation. Clones show the same time; any number of wires share it.
#[derive(Debug, Clone, Default)]
pub struct Clock(Rc<Cell<Duration>>);

impl Clock {
    /// A clock of its own that shows zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.0.get()
    }

    /// Moves time on by `step`.
    pub fn advance(&self, step: Duration) {
        self.0.set(self.now().saturating_add(step));
    }

    /// Moves time on to `at`. Time never runs backwards: an earlier `at` changes nothing.
    pub fn advance_to(&self, at: Duration) {
        self.0.set(self.now().max(at));
    }
}

/// Sends a copy of `bytes` at once, its checksums as they are: a scripted peer's half of a conversation.
/// `false` where the pool is empty or its buffers are too small.
#[must_use]
pub fn send<L: Lane>(lane: &mut L, bytes: &[u8]) -> bool {
    let Some(mut frame) = lane.allocate() else {
        return false;
    };
    if !frame.set_len(bytes.len()) {
        return false;
    }
    frame.bytes_mut().copy_from_slice(bytes);
    lane.transmit(frame, TxChecksum::Complete);
    lane.flush();
    true
}

/// Copies of all frames that wait to be received now, oldest first: the other half.
pub fn receive_all<L: Lane>(lane: &mut L) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let mut burst = Burst::new();
    // Bounded by the lane's receive ring: what is sent meanwhile arrives later.
    loop {
        lane.receive(&mut burst);
        if burst.is_empty() {
            return all;
        }
        all.extend(burst.drain(..).map(|frame| frame.bytes().to_vec()));
    }
}
