//! Sets of endpoints that can serve the same request.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::schedule::Schedule;

/// Index of a cluster in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClusterId(pub u32);

impl ClusterId {
    /// No cluster of any snapshot.
    pub const INVALID: Self = Self(u32::MAX);
}

/// Identifies an endpoint address: the same address has the same id in every snapshot that has it, so that a core's connection pools outlive
/// reloads. When it is gone for long, and no core has an idle connection to it, another one may get its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub u32);

/// One address that serves requests.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its identity across snapshots.
    pub id: EndpointId,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share of the cluster's requests, relative to the others'. 0 takes none.
    pub weight: u32,
}

/// Endpoints that can serve the same request: a backend and a port.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// `namespace/name:port`.
    pub name: Arc<str>,
    /// All of its endpoints.
    pub endpoints: Box<[Endpoint]>,
    /// Whose turn it is. `None` where no endpoint takes requests.
    pub schedule: Option<Schedule>,
}

impl Cluster {
    /// A cluster whose schedule follows the endpoints' weights.
    #[must_use]
    pub fn new(name: Arc<str>, endpoints: Vec<Endpoint>) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|e| e.weight).collect();
        Self { name, endpoints: endpoints.into(), schedule: Schedule::new(&weights) }
    }
}
