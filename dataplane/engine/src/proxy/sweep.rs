//! After a swap: what waits for something that is gone is closed. Idle connections to endpoints that no cluster has any more, and idle clients of
//! listeners that are no more. A few a turn, so that a swap costs the same however many there are.

use arrayvec::ArrayVec;
use pmd::Lane;
use tables::{Epoch, Snapshot};

use super::client::Phase;
use super::{Context, Proxy, Role};
use crate::stack::ConnectionId;

/// Endpoints looked at in one turn at most.
const POOLS_A_TURN: usize = 64;

/// Idle connections looked at in one turn at most, but for one endpoint's.
const CONNECTIONS_A_TURN: usize = 256;

/// Connections closed in one turn at most.
const CLOSED_A_TURN: usize = 32;

/// Slots looked at for clients in one turn at most.
const SLOTS_A_TURN: u32 = 64;

/// How far a sweep is.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// There is something to do.
    active: bool,
    /// The next endpoint to look at.
    pool: usize,
    /// The next slot to look at for a client, where a listener is gone.
    client: Option<u32>,
    /// Where the last snapshot listened.
    binds: Vec<std::net::SocketAddr>,
}

impl Sweep {
    pub(super) fn new(snapshot: &Snapshot) -> Self {
        Self { binds: addresses(snapshot), ..Self::default() }
    }

    /// Starts over, for another snapshot.
    pub(super) fn begin(&mut self, snapshot: &Snapshot) {
        let unfinished = self.active && self.client.is_some();
        let gone = self.binds.iter().any(|&address| snapshot.bind(address).is_none());
        self.client = (gone || unfinished).then_some(0);
        self.binds = addresses(snapshot);
        (self.active, self.pool) = (true, 0);
    }

    #[inline]
    pub(super) fn is_active(&self) -> bool {
        self.active
    }
}

/// As many as there are listeners, which are few.
fn addresses(snapshot: &Snapshot) -> Vec<std::net::SocketAddr> {
    snapshot.binds().iter().map(|bind| bind.address).collect()
}

impl Proxy {
    /// Whether [`Proxy::sweep`] has something to do.
    #[inline]
    #[must_use]
    pub fn is_sweeping(&self) -> bool {
        self.sweep.is_active()
    }

    /// Closes a few of the connections that wait for what is gone. Returns the epoch that it is done with, once it is.
    pub fn sweep<L: Lane>(&mut self, cx: &mut Context<'_, L>) -> Option<Epoch> {
        if self.sweep.pool < self.pools.endpoints() {
            self.sweep_pools(cx);
            return None;
        }
        if let Some(from) = self.sweep.client {
            let slots = u32::try_from(self.roles.len()).unwrap_or(u32::MAX);
            let to = slots.min(from.saturating_add(SLOTS_A_TURN));
            for slot in from..to {
                if let Some(Role::Client(client)) = self.roles.get(slot as usize)
                    && client.phase == Phase::Head
                {
                    self.drive_client(cx, ConnectionId(slot));
                }
            }
            self.sweep.client = (to < slots).then_some(to);
            return None;
        }
        self.sweep.active = false;
        Some(cx.snapshot.epoch)
    }

    fn sweep_pools<L: Lane>(&mut self, cx: &mut Context<'_, L>) {
        let mut stale: ArrayVec<ConnectionId, CLOSED_A_TURN> = ArrayVec::new();
        let mut looked = 0;
        for _ in 0..POOLS_A_TURN {
            let Some((endpoint, idle)) = self.pools.idle(self.sweep.pool) else { break };
            looked += idle.len();
            let address = cx.snapshot.endpoint(endpoint);
            for &id in idle {
                // The rest of them in the next turn.
                if stale.is_full() {
                    break;
                }
                if cx.stack.addresses(id).map(|(_, _, remote)| remote) != address {
                    stale.push(id);
                }
            }
            if stale.is_full() {
                break;
            }
            self.sweep.pool += 1;
            if looked >= CONNECTIONS_A_TURN {
                break;
            }
        }
        for id in stale {
            if let Some(&Role::Upstream(upstream)) = self.roles.get(id.0 as usize) {
                self.close_idle(cx, id, upstream);
            }
        }
    }
}

/// Says in a response's head under which epoch its request was served, where that is switched on. `head` begins with the status line.
pub(super) fn show_epoch(head: &mut Vec<u8>, epoch: Epoch) {
    if let Some(line) = head.windows(2).position(|pair| pair == b"\r\n") {
        let field = format!("x-millrace-epoch: {epoch}\r\n");
        head.splice(line + 2..line + 2, field.into_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_epoch_is_the_first_field() {
        let mut head = b"HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody".to_vec();
        show_epoch(&mut head, 42);
        assert_eq!(head, b"HTTP/1.1 200 OK\r\nx-millrace-epoch: 42\r\nA: b\r\n\r\nbody");
    }
}
