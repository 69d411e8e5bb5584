//! What `get endpoints` shows.

use serde::{Deserialize, Serialize};

/// All endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Endpoints {
    /// By cluster, in the order of the configuration.
    pub endpoints: Vec<EndpointStatus>,
}

/// One endpoint of a cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointStatus {
    /// `namespace/name:port`.
    pub cluster: String,
    /// `namespace/name` of its backend.
    pub backend: String,
    /// Address and port.
    pub address: String,
    /// Its weight, as configured or as set by an operator.
    pub weight: u32,
    /// Those of higher numbers take requests as those of lower ones are not well.
    pub priority: u32,
    /// Where it is; empty where nobody said.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub zone: String,
    /// The DNS name that it comes from; empty where it comes from none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `ready`, `draining` (an operator said so) or `terminating` (its source said so).
    pub state: String,
    /// What an operator set, until it is taken back: `weight 3`, `drain`; empty where nothing was set.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub set: String,
    /// What checks found out.
    pub health: CheckedState,
    /// Its part of the cluster's requests at present, 0 to 1; where a hash decides, its part of the table.
    pub share: f64,
    /// Checks that it passed.
    pub checks_passed: u64,
    /// Checks that it failed.
    pub checks_failed: u64,
    /// The last one that it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<EndpointFailure>,
}

/// What checks found out about an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckedState {
    /// There are none.
    Unchecked,
    /// Nothing yet: it takes requests.
    Unknown,
    /// It passes them.
    Healthy,
    /// It fails them.
    Unhealthy,
}

/// A check that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointFailure {
    /// Why.
    pub reason: String,
    /// When.
    pub seconds_ago: u64,
}
