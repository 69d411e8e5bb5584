//! The contract between the slow path and the polling cores.
//!
//! Control compiles configuration into a [`Snapshot`], which is immutable, and publishes it through
//! [`publish`], and what is known of endpoints into an [`EndpointTable`]; cores only ever read them. In the other direction cores write [`counters`] and
//! [`access`] records, and control only ever reads those. Nothing here knows how configuration looks to a user, nor how
//! a packet looks on the wire.

#![forbid(unsafe_code)]

pub mod access;
pub mod affinity;
mod chain;
pub mod cluster;
pub mod consistent;
pub mod counters;
pub mod endpoints;
pub mod filter;
pub mod inspect;
pub mod lease;
pub mod lifecycle;
pub mod limit;
pub mod matching;
mod paths;
pub mod publish;
pub mod quota;
pub mod route;
pub mod schedule;
pub mod selection;
pub mod settings;
pub mod snapshot;
pub mod source_rate;
pub mod sources;
pub mod swap;
mod sync;
pub mod verdict;
pub mod weighted;

pub use cluster::{Affinity, Cluster, ClusterId, Endpoint, EndpointId, HashOn, SessionCookie};
pub use counters::{CoreCounters, Counter, Finished, Series, SeriesId, SeriesLines};
pub use endpoints::{Check, CheckFailure, CheckId, CheckWay, EndpointSeat, EndpointTable, Probe, Report};
pub use limit::{KeyTable, Limit, LimitId, LimitKey, LimitLeases, LimitRate};
pub use matching::{Conditions, Expression, Request, ValueMatch};
pub use route::{HostPattern, PathPattern, RouteTable, RouteTableBuilder};
pub use schedule::Schedule;
pub use selection::{Chooser, Method, Selection};
pub use settings::{
    CoreSettings, ExceptionSettings, ForwardedFor, HttpSettings, InterfaceSettings, PortSettings, RouteSettings,
    SourceLimit, SynCookies, TcpSettings,
};
pub use snapshot::{BY_POSITION, Bind, BindId, Epoch, Listener, Routed, Rule, Snapshot, Target, Targets};
pub use sources::SourceTable;
pub use verdict::Verdict;
