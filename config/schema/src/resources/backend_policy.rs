//! `BackendPolicy`: how requests are spread over a backend's endpoints, and which of them are well (millrace.dev/v1alpha1). The fields'
//! names are those of Envoy Gateway's BackendTrafficPolicy and of the Gateway API's session persistence (GEP-1619).

use std::time::Duration;

use serde::Serialize;

use crate::located::Located;
use crate::name::ObjectName;
use crate::quantity::serialize_duration;
use crate::resources::{BackendKind, Metadata};

/// Endpoints of a backend that is balanced by Maglev, at most: each of them has a place in its table.
pub const MAGLEV_ENDPOINTS: usize = 65_535;

/// A policy of backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendPolicy {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: BackendPolicySpec,
}

/// `BackendPolicy.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendPolicySpec {
    /// The backends that are meant; at least one, each with no other policy.
    pub target_refs: Vec<Located<BackendTarget>>,
    /// How requests are spread.
    pub load_balancer: LoadBalancer,
    /// Which endpoints are well.
    pub health_check: HealthCheck,
    /// Whether a client stays at its endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
}

/// `BackendPolicy.spec.targetRefs[]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct BackendTarget {
    /// A Backend or a Service.
    pub kind: BackendKind,
    /// Of the policy's namespace.
    #[serde(flatten)]
    pub object: ObjectName,
}

/// `BackendPolicy.spec.loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancer {
    /// By what an endpoint is chosen; `RoundRobin` if not given.
    #[serde(flatten)]
    pub method: LoadBalancerType,
    /// How an endpoint that is new, or well again, comes to its full share. For RoundRobin, Random and LeastRequest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slow_start: Option<SlowStart>,
    /// Endpoints of the appliance's zone come before those of others (`zoneAware.preferLocal`). Not by default.
    pub prefer_local: bool,
}

/// `BackendPolicy.spec.loadBalancer.type`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum LoadBalancerType {
    /// Endpoints take turns, by their weights.
    #[default]
    RoundRobin,
    /// By chance, by their weights.
    Random,
    /// Of two by chance the one with fewer requests under way, for its weight.
    LeastRequest,
    /// Of two by chance the one with the lower product of recent latency and requests under way.
    #[serde(rename = "PeakEWMA")]
    PeakEwma,
    /// By the remainder of a hash of the client's address.
    #[serde(rename = "SourceIPHash")]
    SourceIpHash,
    /// By a hash, so that few requests move when endpoints come and go.
    ConsistentHash {
        /// What is hashed.
        on: HashedOn,
        /// The table that says whose a hash is.
        table: HashTable,
        /// Equal ones give equal tables on every host. 0 by default.
        seed: u64,
    },
}

/// `consistentHash.type`, with the name that goes with it. What lacks it is spread by chance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum HashedOn {
    /// The client's address.
    #[serde(rename = "SourceIP")]
    SourceIp,
    /// The value of a field; the name in lower case.
    Header(Box<str>),
    /// The value of a cookie.
    Cookie(Box<str>),
    /// The value of a query parameter, as it is written.
    QueryParam(Box<str>),
}

/// `consistentHash.maglev` or `consistentHash.ringHash`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum HashTable {
    /// Maglev, with 65,537 places, for no more than [`MAGLEV_ENDPOINTS`].
    Maglev,
    /// A ring.
    RingHash {
        /// Places of two endpoints that weigh the same: the heaviest has half as many, however many there are; 1..=65,536, default 1,024.
        minimum_ring_size: u32,
        /// Places at most, where the endpoints are not more, `minimum_ring_size`..=8,388,608; default 1,048,576, for 2,048 endpoints with the default minimum. Where
        /// there would be more, each has half as many, and many requests move.
        maximum_ring_size: u32,
    },
}

/// `BackendPolicy.spec.loadBalancer.slowStart`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SlowStart {
    /// How long it takes to the full share.
    #[serde(serialize_with = "serialize_duration")]
    pub window: Duration,
    /// What an endpoint begins with, in percent of its weight; 1..=100, default 10.
    pub min_weight_percent: u8,
}

/// `BackendPolicy.spec.healthCheck`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// If less than this percentage of the endpoints is well, and any is, all take requests: rather some failures than an overload
    /// of the few. 0..=100, default 50; 0 switches it off.
    pub panic_threshold: u8,
    /// Asks endpoints whether they are well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<ActiveHealthCheck>,
}

impl Default for HealthCheck {
    fn default() -> Self {
        Self { panic_threshold: 50, active: None }
    }
}

/// `BackendPolicy.spec.healthCheck.active`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ActiveHealthCheck {
    /// From one check to the next, give or take a tenth; default 5s.
    #[serde(serialize_with = "serialize_duration")]
    pub interval: Duration,
    /// How long one may take; default 2s, not above `interval`.
    #[serde(serialize_with = "serialize_duration")]
    pub timeout: Duration,
    /// Failures in a row that make an endpoint unhealthy; default 3.
    pub unhealthy_threshold: u32,
    /// Passes in a row that make it healthy again; default 2.
    pub healthy_threshold: u32,
    /// What is asked.
    #[serde(flatten)]
    pub probe: HealthProbe,
}

/// `BackendPolicy.spec.healthCheck.active.type`, with what goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "UPPERCASE", rename_all_fields = "camelCase")]
pub enum HealthProbe {
    /// To accept a connection.
    Tcp,
    /// To answer a request.
    Http {
        /// Its path; default `/`.
        path: Box<str>,
        /// `GET` (default), `HEAD` or `OPTIONS`.
        method: Box<str>,
        /// Its Host; the name of the backend if not given.
        #[serde(skip_serializing_if = "Option::is_none")]
        hostname: Option<Box<str>>,
        /// Statuses that pass: from, to; default 200 to 399.
        expected_statuses: Vec<(u16, u16)>,
    },
    /// To answer SERVING by grpc.health.v1.
    Grpc {
        /// The service that is asked about; the server as a whole if empty.
        service: Box<str>,
    },
}

/// `sessionPersistence` (GEP-1619), by cookie.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionPersistence {
    /// The cookie's name; default `millrace-session`.
    pub session_name: Box<str>,
    /// `cookieConfig.lifetimeType`: how long the client keeps the cookie; `None` until it ends its session, as is the default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub permanent: Option<Duration>,
}
