//! The resources as they are after loading. Every value is one that its field may hold; what
//! depends on other resources has been checked too once a [`crate::Configuration`] exists.
//!
//! All of them serialize under the names of the YAML, for listings; they are not deserialized by
//! serde, because serde stops at the first error.

mod appliance;
mod backend;
mod backend_policy;
mod dns;
mod exception;
mod filter;
mod gateway;
mod metadata;
mod policy;
mod port;
mod reference;
mod route;
mod service;

pub use appliance::{
    AccessLog, AccessLogRequests, Admin, Appliance, ApplianceSpec, Cpu, ForwardedFor, Http, HttpLimits, HttpTimeouts,
    Hugepages, Idle, InvalidReferences, Ip, Memory, SourceLimit, SynCookies, Tcp, Upstream,
};
pub use backend::{
    Backend, BackendProtocol, BackendSpec, BackendSubset, DnsName, DnsType, Endpoint, EndpointPlace, Fqdn, LookupFamily,
};
pub use backend_policy::{
    ActiveHealthCheck, BackendPolicy, BackendPolicySpec, BackendTarget, HashTable, HashedOn, HealthCheck, HealthProbe,
    LoadBalancer, LoadBalancerType, MAGLEV_ENDPOINTS, SessionPersistence, SlowStart,
};
pub use dns::Dns;
pub use exception::Exception;
pub use filter::{
    Fraction, HttpCorsFilter, HttpHeader, HttpHeaderFilter, HttpPathModifier, HttpRequestMirrorFilter,
    HttpRequestRedirectFilter, HttpRouteFilter, HttpUrlRewriteFilter,
};
pub use gateway::{Gateway, GatewaySpec, Listener, Protocol, RouteNamespaces};
pub use metadata::{Metadata, Timestamp};
pub use policy::{
    RateLimit, RateLimitKey, RateLimitRule, RateLimitUnit, RateLimitValue, RoutePolicy, RoutePolicySpec, RouteTarget,
    RouteTargetKind, SecurityPolicy, SecurityPolicySpec, SourceLists,
};
pub use port::{Interface, Port, Route, Vlan};
pub use reference::{
    BackendKind, BackendObject, GrantFrom, GrantTo, LabelExpression, LabelOperator, LabelSelector, Namespace,
    ReferenceGrant, ReferenceGrantSpec,
};
pub use route::{
    HttpBackendRef, HttpPathMatch, HttpRoute, HttpRouteMatch, HttpRouteRetry, HttpRouteRule, HttpRouteSpec,
    HttpRouteTimeouts, HttpValueMatch, ParentRef, ValueMatch,
};
pub use service::{EndpointSlice, Service, ServicePort, SliceEndpoint, SlicePort};
