//! `Backend`: endpoints that no cluster knows (millrace.dev/v1alpha1).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Serialize;

use crate::located::Located;
use crate::resources::Metadata;

/// A set of endpoints that serve the same thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Backend {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: BackendSpec,
}

/// `Backend.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendSpec {
    /// What is spoken to the endpoints; `http` if not given.
    pub protocol: BackendProtocol,
    /// At least one; no two with the same address and port.
    pub endpoints: Vec<Located<Endpoint>>,
}

/// `Backend.spec.protocol`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum BackendProtocol {
    /// HTTP/1.1 in clear.
    #[default]
    Http,
}

/// One server of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Endpoint {
    /// A unicast address that is not the appliance's own and that some port can reach.
    pub address: IpAddr,
    /// Its port; where it is absent every `backendRef` to this backend names one. If both do, this counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// Its share among the backend's endpoints; 0 gets no new requests. 0..=1,000,000, default 1.
    pub weight: u32,
    /// Those of a higher number take requests as those of the lower ones are not well; 0..=127, default 0.
    pub priority: u8,
    /// Where it is, see `BackendPolicy.spec.loadBalancer.zoneAware`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Box<str>>,
    /// What tells it from others, for subsets.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}
