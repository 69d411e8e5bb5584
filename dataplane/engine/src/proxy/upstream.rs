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
    endpoints: Vec<Pool>,
    total: usize,
}

/// The connections to one endpoint.
#[derive(Debug, Default)]
struct Pool {
    idle: Vec<ConnectionId>,
    /// All of them, established or not.
    open: u32,
}

impl Pools {
    /// Takes an idle connection to `endpoint`.
    #[inline]
    pub(super) fn take(&mut self, endpoint: EndpointId) -> Option<ConnectionId> {
        let id = self.endpoints.get_mut(endpoint.0 as usize)?.idle.pop()?;
        self.total -= 1;
        Some(id)
    }

    /// Puts a connection to `endpoint` away. `false` where `limit` of them are idle already.
    #[inline]
    pub(super) fn put(&mut self, endpoint: EndpointId, id: ConnectionId, limit: usize) -> bool {
        match self.endpoints.get_mut(endpoint.0 as usize) {
            Some(pool) if pool.idle.len() < limit => {
                pool.idle.push(id);
                self.total += 1;
                true
            }
            _ => false,
        }
    }

    /// Removes one that ended by itself.
    pub(super) fn remove(&mut self, endpoint: EndpointId, id: ConnectionId) {
        if let Some(pool) = self.endpoints.get_mut(endpoint.0 as usize)
            && let Some(at) = pool.idle.iter().position(|&other| other == id)
        {
            pool.idle.remove(at);
            self.total -= 1;
        }
    }

    /// Counts a connection that is being opened. `false`, and it is not counted, where `limit` of them are open.
    pub(super) fn admit(&mut self, endpoint: EndpointId, limit: u32) -> bool {
        let at = endpoint.0 as usize;
        if at >= self.endpoints.len() {
            self.endpoints.resize_with(at + 1, Pool::default);
        }
        match self.endpoints.get_mut(at) {
            Some(pool) if pool.open < limit => {
                pool.open += 1;
                true
            }
            _ => false,
        }
    }

    /// A connection that was admitted is no more.
    pub(super) fn discharge(&mut self, endpoint: EndpointId) {
        if let Some(pool) = self.endpoints.get_mut(endpoint.0 as usize) {
            pool.open -= 1;
        }
    }

    /// Endpoints that may have connections: their numbers are smaller.
    pub(super) fn endpoints(&self) -> usize {
        self.endpoints.len()
    }

    /// The idle connections to the endpoint of number `at`.
    pub(super) fn idle(&self, at: usize) -> Option<(EndpointId, &[ConnectionId])> {
        Some((EndpointId(u32::try_from(at).ok()?), &self.endpoints.get(at)?.idle))
    }

    /// Connections to `endpoint` that serve a request, or are being opened for one.
    #[inline]
    pub(super) fn under_way(&self, endpoint: EndpointId) -> u32 {
        self.endpoints.get(endpoint.0 as usize).map_or(0, |pool| pool.open.saturating_sub(pool.idle.len() as u32))
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
        assert!(pools.admit(a, 2) && pools.admit(a, 2) && !pools.admit(a, 2));
        pools.discharge(a);
        assert!(pools.admit(a, 2) && pools.admit(b, 1));
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
