//! The second, small table: what changes about endpoints while routes stay as they are.
//!
//! Control publishes one whenever an endpoint's health, weight or drain changes, through a slot of its own for each core, so that a
//! flapping endpoint rebuilds no routes. It holds a selection for each cluster that is not as its snapshot has it, and what is to
//! be checked. In the other direction cores tell by a queue how checks went.

use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::cluster::{Cluster, ClusterId};
use crate::publish::{Subscriber, Versioned, slot};
use crate::selection::Selection;
use crate::snapshot::Epoch;

/// Results of checks that wait for control, per core. Control takes them several times a second.
const REPORTS: usize = 16_384;

/// The state of endpoints, relative to one snapshot. Immutable.
#[derive(Debug, Default)]
pub struct EndpointTable {
    version: u64,
    /// The snapshot whose clusters are meant.
    snapshot: Epoch,
    /// By [`ClusterId`]; empty where all clusters are as the snapshot has them.
    selections: Box<[Option<Arc<Selection>>]>,
    checks: Arc<[Check]>,
}

impl EndpointTable {
    /// A table for the clusters of `snapshot`. Each table has a larger version than the ones before.
    #[must_use]
    pub fn new(version: u64, snapshot: Epoch, selections: Vec<Option<Arc<Selection>>>, checks: Arc<[Check]>) -> Self {
        let selections = if selections.iter().any(Option::is_some) { selections.into() } else { Box::default() };
        Self { version, snapshot, selections, checks }
    }

    /// Who of `cluster` takes requests. While this table belongs to another snapshot, which is for a moment, it is as that snapshot has it.
    #[inline]
    #[must_use]
    pub fn selection<'a>(&'a self, epoch: Epoch, id: ClusterId, cluster: &'a Cluster) -> &'a Selection {
        match self.selections.get(id.0 as usize) {
            Some(Some(selection)) if self.snapshot == epoch => selection,
            _ => &cluster.selection,
        }
    }

    /// What is to be checked, in order of the ids.
    #[must_use]
    pub fn checks(&self) -> &Arc<[Check]> {
        &self.checks
    }
}

impl Versioned for EndpointTable {
    fn epoch(&self) -> u64 {
        self.version
    }
}

/// Identifies a check for the life of the process: one address, checked in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CheckId(pub u32);

/// An active health check of one endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its identity across tables. Also says which core does it.
    pub id: CheckId,
    /// The endpoint.
    pub address: SocketAddr,
    /// How.
    pub way: Arc<CheckWay>,
}

/// How an endpoint is checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CheckWay {
    /// From one check's start to the next one's, give or take a tenth.
    pub interval: Duration,
    /// How long one may take.
    pub timeout: Duration,
    /// What is asked.
    pub probe: Probe,
}

/// What is asked of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Probe {
    /// To accept a connection.
    Tcp,
    /// To answer this HTTP/1.1 request with a status within one of these ranges, both ends included.
    Http(Box<[u8]>, Box<[(u16, u16)]>),
    /// To answer SERVING to grpc.health.v1.Health/Check, over HTTP/2 with prior knowledge.
    Grpc {
        /// What stands for Host.
        authority: Box<str>,
        /// Which service is asked about; the server as a whole where it is empty.
        service: Box<str>,
    },
}

/// How one check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Which one.
    pub check: CheckId,
    /// `None` where it passed.
    pub failure: Option<CheckFailure>,
}

/// Why a check failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CheckFailure {
    /// The endpoint refused the connection.
    Refused,
    /// No connection in time.
    ConnectTimeout,
    /// No port leads to it.
    NoRoute,
    /// No answer in time.
    Timeout,
    /// It reset the connection instead of answering.
    Reset,
    /// It closed the connection instead of answering.
    Closed,
    /// Its answer is none of the protocol.
    Invalid,
    /// It answered with this status.
    Status(u16),
    /// It is alive and says that it does not serve (`grpc.health.v1.HealthCheckResponse.ServingStatus`); 0 where it gives no status.
    NotServing(u8),
}

impl core::fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Refused => "connection refused",
            Self::ConnectTimeout => "no connection in time",
            Self::NoRoute => "no route",
            Self::Timeout => "no answer in time",
            Self::Reset => "connection reset",
            Self::Closed => "closed without an answer",
            Self::Invalid => "invalid answer",
            Self::Status(status) => return write!(f, "status {status}"),
            Self::NotServing(1..) => "not serving",
            Self::NotServing(0) => "no serving status",
        })
    }
}

/// A core's way to tell control how checks went. What does not fit is lost: the next check comes.
pub type Reports = Arc<ArrayQueue<Report>>;

/// A core's end of the endpoints' state.
#[derive(Debug)]
pub struct EndpointSeat {
    /// The table.
    pub table: Subscriber<EndpointTable>,
    /// Where it tells how checks went.
    pub reports: Reports,
    /// How many cores share the checks.
    pub cores: u16,
}

impl EndpointSeat {
    /// A queue for a core's reports.
    #[must_use]
    pub fn reports() -> Reports {
        Arc::new(ArrayQueue::new(REPORTS))
    }
}

/// A seat whose table never changes, and whose reports nobody reads: for harnesses.
impl Default for EndpointSeat {
    fn default() -> Self {
        let (_, table) = slot(Arc::default());
        Self { table, reports: Arc::new(ArrayQueue::new(1)), cores: 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{Endpoint, EndpointId};

    #[test]
    fn a_table_holds_for_its_snapshot_alone() {
        let endpoint = |id| Endpoint { id: EndpointId(id), address: SocketAddr::from(([10, 0, 0, 1], 80)), weight: 1 };
        let cluster = Cluster::new("a".into(), vec![endpoint(0), endpoint(1)]);
        let fewer = Arc::new(Selection::round_robin(vec![endpoint(1)]));
        let table = EndpointTable::new(5, 3, vec![None, Some(fewer)], Arc::default());
        let members = |epoch, id| table.selection(epoch, ClusterId(id), &cluster).members().len();
        assert_eq!([members(3, 0), members(3, 1), members(3, 2)], [2, 1, 2]);
        assert_eq!(members(4, 1), 2);
        assert!(EndpointTable::new(6, 3, vec![None; 9], Arc::default()).selections.is_empty());
    }
}
