//! What a configuration says about the endpoints of a cluster, before anything is known of how they are.

use core::time::Duration;
use std::sync::Arc;

use tables::{CheckId, CheckWay, Endpoint, Method};

/// One cluster: what its selection is worked out from.
#[derive(Debug, Clone)]
pub struct ClusterPlan {
    /// `namespace/name` of its backend.
    pub backend: Arc<str>,
    /// `namespace/name:port`.
    pub name: Arc<str>,
    /// By what endpoints are chosen.
    pub method: Method,
    /// Its endpoints. As long as nothing about them changes, plans share them.
    pub endpoints: Arc<[PlannedEndpoint]>,
    /// Cookies name endpoints.
    pub sessions: bool,
    /// How endpoints come to their full share.
    pub slow_start: Option<SlowStart>,
    /// In percent.
    pub panic_threshold: u8,
    /// How they are checked.
    pub check: Option<HealthRule>,
}

/// One endpoint of a cluster.
#[derive(Debug, Clone)]
pub struct PlannedEndpoint {
    /// Its identity, address and weight.
    pub endpoint: Endpoint,
    /// Those of a higher level take requests as those of the lower ones are not well: priorities, and zones within them.
    pub level: u32,
    /// What its own source says of it.
    pub readiness: Readiness,
    /// Its zone; empty where nobody said.
    pub zone: Arc<str>,
    /// The DNS name that it comes from; empty where it comes from none.
    pub name: Arc<str>,
    /// Its check, once it has one.
    pub check: Option<CheckId>,
}

/// What the source of an endpoint says of it (EndpointSlice's conditions).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readiness {
    /// It takes requests.
    Ready,
    /// It is about to end and still serves: it keeps its sessions, and takes requests where nobody else is left.
    Terminating,
}

/// How an endpoint comes to its full share.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long that takes.
    pub window: Duration,
    /// What it begins with, in percent of its weight.
    pub min_weight_percent: u8,
}

/// How endpoints are checked, and what follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HealthRule {
    /// What cores do.
    pub way: Arc<CheckWay>,
    /// Failures in a row that make an endpoint unhealthy.
    pub unhealthy_threshold: u32,
    /// Passes in a row that make it healthy again.
    pub healthy_threshold: u32,
}
