//! `Backend`: endpoints that no cluster knows (millrace.dev/v1alpha1).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Serialize;

use crate::located::Located;
use crate::name::ObjectName;
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
    /// At least one, unless it is a subset; no two with the same address and port.
    pub endpoints: Vec<Located<Endpoint>>,
    /// It is a part of another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subset: Option<Located<BackendSubset>>,
}

/// `Backend.spec.subset`: those endpoints of another Backend that have all these labels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendSubset {
    /// The whole, of the same namespace; no subset itself.
    pub of: ObjectName,
    /// At least one.
    pub match_labels: BTreeMap<String, String>,
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

impl Endpoint {
    /// Whether it has all the labels of a subset.
    #[must_use]
    pub fn is_in(&self, subset: &BackendSubset) -> bool {
        subset.match_labels.iter().all(|(key, value)| self.labels.get(key) == Some(value))
    }
}
