//! Sets of endpoints that can serve the same request.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::selection::Selection;
use crate::snapshot::BY_POSITION;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    /// All of its endpoints, whether or not they take requests.
    pub endpoints: Arc<[Endpoint]>,
    /// Who takes requests, as long as no [`EndpointTable`](crate::EndpointTable) says otherwise.
    pub selection: Arc<Selection>,
    /// What of a request its endpoint follows from; `None` where nothing does.
    pub affinity: Option<Box<Affinity>>,
    /// Which of a core's cursors says whose turn it is: the same in every snapshot that has this cluster.
    pub cursor: u32,
}

impl Cluster {
    /// A cluster whose endpoints take turns by their weights.
    #[must_use]
    pub fn new(name: Arc<str>, endpoints: Vec<Endpoint>) -> Self {
        Self {
            name,
            endpoints: endpoints.clone().into(),
            selection: Arc::new(Selection::round_robin(endpoints)),
            affinity: None,
            cursor: BY_POSITION,
        }
    }
}

/// What of a request its endpoint follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Affinity {
    /// What is hashed; `None` where the chooser needs no hash.
    pub hash_on: Option<HashOn>,
    /// The key of the hash: equal ones give equal hashes on every host.
    pub seed: u64,
    /// The cookie that names an endpoint (Gateway API `sessionPersistence`).
    pub session: Option<SessionCookie>,
}

/// What of a request is hashed. Names of fields are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashOn {
    /// The client's address, without its port.
    SourceIp,
    /// The value of this field.
    Header(Box<[u8]>),
    /// The value of this cookie.
    Cookie(Box<[u8]>),
    /// The value of this query parameter, as it is written.
    QueryParam(Box<[u8]>),
}

/// A cookie that keeps a client at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionCookie {
    /// Its name.
    pub name: Box<[u8]>,
    /// What follows its value in Set-Cookie, from the first `;`.
    pub attributes: Box<[u8]>,
}
