//! Backend connections of one core, and those that wait for a request.

use tables::quota::{Allowance, Borrowed, Lent, Quotas};
use tables::{EndpointId, HttpSettings};

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

/// Backend connections by endpoint: how many there are, and the idle ones, of which the one that was used last is on top: it is the likeliest to live still.
///
/// How many there may be holds for all cores together ([`tables::quota`]).
#[derive(Debug)]
pub(super) struct Pools {
    endpoints: Vec<Pool>,
    total: usize,
    quotas: Quotas,
    cores: u16,
    /// Connections that an endpoint may have.
    open: Allowance,
    /// Those of them that may be idle.
    idle: Allowance,
}

/// The connections to one endpoint.
#[derive(Debug, Default)]
struct Pool {
    idle: Vec<ConnectionId>,
    /// All of them, established or not.
    open: u32,
    open_borrowed: Borrowed,
    idle_borrowed: Borrowed,
}

impl Pools {
    /// Without connections, for one of so many cores that share `quotas`.
    pub(super) fn new(quotas: Quotas, cores: u16, http: &HttpSettings) -> Self {
        let none = Allowance::new(0, cores);
        let mut pools = Self { endpoints: Vec::new(), total: 0, quotas, cores, open: none, idle: none };
        pools.allow(http);
        pools
    }

    /// From now on, so many may be there as these settings say.
    pub(super) fn allow(&mut self, http: &HttpSettings) {
        self.open = Allowance::new(http.max_per_endpoint, self.cores);
        self.idle = Allowance::new(http.idle_per_endpoint, self.cores);
    }

    /// Takes an idle connection to `endpoint`.
    #[inline]
    pub(super) fn take(&mut self, endpoint: EndpointId) -> Option<ConnectionId> {
        let pool = self.endpoints.get_mut(endpoint.0 as usize)?;
        let id = pool.idle.pop()?;
        self.total -= 1;
        let lent = || self.quotas.of(endpoint).map(Lent::idle);
        pool.idle_borrowed.settle(pool.idle.len() as u64, &self.idle, lent);
        Some(id)
    }

    /// Puts a connection to `endpoint` away. `false` where enough of them are idle already.
    #[inline]
    pub(super) fn put(&mut self, endpoint: EndpointId, id: ConnectionId) -> bool {
        let Some(pool) = self.endpoints.get_mut(endpoint.0 as usize) else { return false };
        let lent = || self.quotas.of(endpoint).map(Lent::idle);
        let allowed = pool.idle_borrowed.allows(pool.idle.len() as u64, &self.idle, lent);
        if allowed {
            pool.idle.push(id);
            self.total += 1;
        }
        allowed
    }

    /// Removes one that ended by itself.
    pub(super) fn remove(&mut self, endpoint: EndpointId, id: ConnectionId) {
        if let Some(pool) = self.endpoints.get_mut(endpoint.0 as usize)
            && let Some(at) = pool.idle.iter().position(|&other| other == id)
        {
            pool.idle.remove(at);
            self.total -= 1;
            let lent = || self.quotas.of(endpoint).map(Lent::idle);
            pool.idle_borrowed.settle(pool.idle.len() as u64, &self.idle, lent);
        }
    }

    /// Counts a connection that is being opened. `false`, and it is not counted, where as many are open as may be.
    pub(super) fn admit(&mut self, endpoint: EndpointId) -> bool {
        let at = endpoint.0 as usize;
        if at >= self.endpoints.len() {
            self.endpoints.resize_with(at + 1, Pool::default);
        }
        let Some(pool) = self.endpoints.get_mut(at) else { return false };
        let lent = || self.quotas.of(endpoint).map(Lent::connections);
        let allowed = pool.open_borrowed.allows(pool.open.into(), &self.open, lent);
        pool.open += u32::from(allowed);
        allowed
    }

    /// A connection that was admitted is no more.
    pub(super) fn discharge(&mut self, endpoint: EndpointId) {
        if let Some(pool) = self.endpoints.get_mut(endpoint.0 as usize) {
            pool.open -= 1;
            let lent = || self.quotas.of(endpoint).map(Lent::connections);
            pool.open_borrowed.settle(pool.open.into(), &self.open, lent);
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

impl Drop for Pools {
    /// What a core borrowed goes back with it: another one may take its place.
    fn drop(&mut self) {
        for (endpoint, pool) in (0..).map(EndpointId).zip(&mut self.endpoints) {
            pool.idle_borrowed.end(|| self.quotas.of(endpoint).map(Lent::idle));
            pool.open_borrowed.end(|| self.quotas.of(endpoint).map(Lent::connections));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pools(quotas: &Quotas, cores: u16, (open, idle): (u32, u32)) -> Pools {
        let http = HttpSettings { max_per_endpoint: open, idle_per_endpoint: idle, ..HttpSettings::default() };
        Pools::new(quotas.clone(), cores, &http)
    }

    #[test]
    fn the_last_one_in_is_the_first_one_out_and_the_limits_hold() {
        let mut pools = pools(&Quotas::new(), 1, (2, 2));
        let (a, b) = (EndpointId(3), EndpointId(0));
        assert!(pools.take(a).is_none());
        assert!(pools.admit(a) && pools.admit(a) && !pools.admit(a));
        pools.discharge(a);
        assert!(pools.admit(a) && pools.admit(b));
        assert!(pools.put(a, ConnectionId(1)));
        assert!(pools.put(a, ConnectionId(2)));
        assert!(!pools.put(a, ConnectionId(3)));
        assert!(pools.put(b, ConnectionId(9)));
        pools.remove(a, ConnectionId(7));
        assert_eq!(pools.len(), 3);
        assert_eq!(pools.take(a), Some(ConnectionId(2)));
        pools.remove(a, ConnectionId(1));
        assert!(pools.take(a).is_none());
        assert_eq!(pools.take(b), Some(ConnectionId(9)));
        assert_eq!(pools.len(), 0);
    }

    #[test]
    fn a_busy_core_has_what_the_others_leave_and_they_get_it_back() {
        let (quotas, endpoint) = (Quotas::new(), EndpointId(1));
        let mut busy = pools(&quotas, 2, (10, 6));
        let mut other = pools(&quotas, 2, (10, 6));
        assert_eq!((0..20).filter(|_| busy.admit(endpoint)).count(), 9);
        assert!(other.admit(endpoint) && !other.admit(endpoint));
        assert_eq!((0..9).filter(|&id| busy.put(endpoint, ConnectionId(id))).count(), 5);
        assert!(other.put(endpoint, ConnectionId(0)) && !other.put(endpoint, ConnectionId(1)));
        drop(busy);
        assert_eq!((0..20).filter(|_| other.admit(endpoint)).count(), 8);
        assert!(other.put(endpoint, ConnectionId(1)));
        drop(other);
        let lent = quotas.of(endpoint).unwrap();
        assert_eq!((lent.connections().lent(), lent.idle().lent()), (0, 0));
    }
}
