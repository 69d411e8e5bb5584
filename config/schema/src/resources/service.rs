//! `Service` (v1) and `EndpointSlice` (discovery.k8s.io/v1), as Kubernetes has them.

use std::net::IpAddr;
use std::num::NonZeroU16;

use serde::Serialize;

use crate::located::Located;
use crate::name::ObjectName;
use crate::resources::Metadata;

/// A Service. What kube-proxy, cloud providers and DNS do with it is not our business: its ports count, and which slices are its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Service {
    /// Who it is.
    pub metadata: Metadata,
    /// `spec.ports`, those for TCP.
    pub ports: Vec<Located<ServicePort>>,
}

/// `Service.spec.ports[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ServicePort {
    /// Which port of the slices it is; empty where there is one only.
    pub name: Box<str>,
    /// What `backendRef`s say.
    pub port: NonZeroU16,
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct EndpointSlice {
    /// Who it is.
    pub metadata: Metadata,
    /// The Service that it belongs to, by the label `kubernetes.io/service-name`.
    pub service: ObjectName,
    /// Its endpoints; none where they are names (`addressType: FQDN`).
    pub endpoints: Vec<Located<SliceEndpoint>>,
    /// Its ports, those for TCP that have a number.
    pub ports: Vec<Located<SlicePort>>,
}

/// `EndpointSlice.endpoints[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SliceEndpoint {
    /// The first of its addresses: they all lead to the same (as kube-proxy takes them).
    pub address: IpAddr,
    /// `conditions.ready`; yes if not given.
    pub ready: bool,
    /// `conditions.serving`; as `ready` if not given.
    pub serving: bool,
    /// `conditions.terminating`; no if not given.
    pub terminating: bool,
    /// Where it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub zone: Option<Box<str>>,
}

/// `EndpointSlice.ports[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SlicePort {
    /// Which port of the Service it is.
    pub name: Box<str>,
    /// Where its endpoints listen.
    pub port: NonZeroU16,
}
