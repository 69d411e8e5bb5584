//! `RoutePolicy` and `SecurityPolicy` (millrace.dev/v1alpha1): what the Gateway API lacks, attached to its
//! resources by `targetRefs`.

use std::num::{NonZeroU8, NonZeroU32};

use ipnet::IpNet;
use serde::Serialize;

use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::Metadata;

/// How routes treat the requests that they take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RoutePolicy {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: RoutePolicySpec,
}

/// `RoutePolicy.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RoutePolicySpec {
    /// Whose requests are meant: HTTPRoutes and Gateways of the policy's namespace, or rules and listeners of them.
    pub target_refs: Vec<Located<RouteTarget>>,
    /// `rateLimit`.
    pub rate_limit: RateLimit,
}

/// `RoutePolicy.spec.targetRefs[]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteTarget {
    /// HTTPRoute or Gateway.
    pub kind: RouteTargetKind,
    /// It exists.
    pub object: ObjectName,
    /// Only the rule of this name, or the listener; it exists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<Name>,
}

/// `RoutePolicy.spec.targetRefs[].kind`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum RouteTargetKind {
    /// The requests that an HTTPRoute, or one of its rules, takes.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    /// The requests that come in by a Gateway, or one of its listeners, and have a route.
    Gateway,
}

/// `RoutePolicy.spec.rateLimit`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RateLimit {
    /// All of them have to let a request pass. Their names are unique.
    pub rules: Vec<Located<RateLimitRule>>,
}

/// `RoutePolicy.spec.rateLimit.rules[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RateLimitRule {
    /// What replies and metrics call it.
    pub name: Name,
    /// How many.
    pub limit: RateLimitValue,
    /// Of what; of all requests together, if not given.
    pub by: RateLimitKey,
    /// Keys that are told apart at a time, of which the least busy make room for new ones. Default 65,536.
    pub max_keys: NonZeroU32,
}

/// `RoutePolicy.spec.rateLimit.rules[].limit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RateLimitValue {
    /// Requests in a `unit`, spread evenly over it. At most 1,000,000,000.
    pub requests: NonZeroU32,
    /// Of time.
    pub unit: RateLimitUnit,
    /// Requests that may come at once after a pause. Default: `requests`.
    pub burst: NonZeroU32,
}

/// `RoutePolicy.spec.rateLimit.rules[].limit.unit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum RateLimitUnit {
    /// 1 s.
    Second,
    /// 60 s.
    Minute,
    /// 3,600 s.
    Hour,
}

impl RateLimitUnit {
    /// Its length.
    #[must_use]
    pub const fn seconds(self) -> u32 {
        match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 3600,
        }
    }
}

/// `RoutePolicy.spec.rateLimit.rules[].by`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "type", rename_all_fields = "camelCase")]
pub enum RateLimitKey {
    /// All requests have one limit together.
    All,
    /// Each client network has its own.
    #[serde(rename = "SourceIP")]
    SourceIp {
        /// Bits of an IPv4 address that count, 1..=32, default 32.
        ipv4_prefix: NonZeroU8,
        /// Bits of an IPv6 address that count, 1..=128, default 64.
        ipv6_prefix: NonZeroU8,
    },
    /// Each value of this header field has its own; requests without it are not limited.
    Header {
        /// In lower case.
        name: Box<str>,
    },
    /// Each value of this cookie has its own; requests without it are not limited.
    Cookie {
        /// As it is sent.
        name: Box<str>,
    },
}

/// Who may connect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecurityPolicy {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: SecurityPolicySpec,
}

/// `SecurityPolicy.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecurityPolicySpec {
    /// Gateways of the policy's namespace, whole ones: when a connection is opened, nobody knows yet which of the listeners of an
    /// address and port it is for. They exist, and no other SecurityPolicy names them.
    pub target_refs: Vec<Located<ObjectName>>,
    /// `sources`.
    pub sources: SourceLists,
}

/// `SecurityPolicy.spec.sources`: of the networks that hold a client's address, the smallest decides; a client that is in none may connect if
/// there is no `allow`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SourceLists {
    /// Networks that may connect. At most 100,000 with `deny`.
    pub allow: Vec<Located<IpNet>>,
    /// Networks whose packets get no answer. None of them is in `allow`.
    pub deny: Vec<Located<IpNet>>,
}
