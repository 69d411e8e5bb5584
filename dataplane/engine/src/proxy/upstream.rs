//! Backend connections of one core, and those that wait for a request.

use tables::EndpointId;

use crate::clock::Instant;
use crate::stack::ConnectionId;

/// One backend connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Upstream {
    pub(super) endpoint: EndpointId,
    /// The client that it serves; `None` while it is idle.
    pub(super) client: Option<ConnectionId>,
    /// It was established, and is counted as open.
    pub(super) established: bool,
    /// Requests it has served.
    pub(super) served: u32,
    /// When it became idle.
    pub(super) idle_since: Instant,
    /// Its idle timer is armed.
    pub(super) armed: bool,
}

/// Idle backend connections by endpoint, the one that was used last on top: it is the likeliest to live still.
#[derive(Debug, Default)]
pub(super) struct Pools {
    idle: Vec<Vec<ConnectionId>>,
    total: usize,
}

impl Pools {
    /// Takes an idle connection to `endpoint`.
    #[inline]
    pub(super) fn take(&mut self, endpoint: EndpointId) -> Option<ConnectionId> {
        let id = self.idle.get_mut(endpoint.0 as usize)?.pop()?;
        self.total -= 1;
        Some(id)
    }

    /// Puts a connection to `endpoint` away. `false` where `limit` of them are idle already.
    #[inline]
    pub(super) fn put(&mut self, endpoint: EndpointId, id: ConnectionId, limit: usize) -> bool {
        let at = endpoint.0 as usize;
        if at >= self.idle.len() {
            self.idle.resize_with(at + 1, Vec::new);
        }
        match self.idle.get_mut(at) {
            Some(idle) if idle.len() < limit => {
                idle.push(id);
                self.total += 1;
                true
            }
            _ => false,
        }
    }

    /// Removes one that ended by itself.
    pub(super) fn remove(&mut self, endpoint: EndpointId, id: ConnectionId) {
        if let Some(idle) = self.idle.get_mut(endpoint.0 as usize)
            && let Some(at) = idle.iter().position(|&other| other == id)
        {
            idle.remove(at);
            self.total -= 1;
        }
    }

    /// Idle connections now.
    pub(super) fn len(&self) -> usize {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_one_in_is_the_first_one_out_and_the_limit_holds() {
        let mut pools = Pools::default();
        let (a, b) = (EndpointId(3), EndpointId(0));
        assert!(pools.take(a).is_none());
        assert!(pools.put(a, ConnectionId(1), 2));
        assert!(pools.put(a, ConnectionId(2), 2));
        assert!(!pools.put(a, ConnectionId(3), 2));
        assert!(pools.put(b, ConnectionId(9), 2));
        pools.remove(a, ConnectionId(7));
        assert_eq!(pools.len(), 3);
        assert_eq!(pools.take(a), Some(ConnectionId(2)));
        pools.remove(a, ConnectionId(1));
        assert!(pools.take(a).is_none());
        assert_eq!(pools.take(b), Some(ConnectionId(9)));
        assert_eq!(pools.len(), 0);
    }
}
