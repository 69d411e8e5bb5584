//! `HTTPRoute` (gateway.networking.k8s.io/v1).

use std::num::NonZeroU16;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::expression::Expression;
use crate::hostname::Hostname;
use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::quantity::Timeout;
use crate::resources::{BackendKind, BackendObject, HttpRouteFilter, Metadata, SessionPersistence};

/// Which requests go to which backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpRoute {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: HttpRouteSpec,
}

/// `HTTPRoute.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteSpec {
    /// The Gateways, or listeners of them, that it attaches to; they exist.
    pub parent_refs: Vec<Located<ParentRef>>,
    /// Hosts that are meant; empty means those of the listener.
    pub hostnames: Vec<Located<Hostname>>,
    /// At least one.
    pub rules: Vec<Located<HttpRouteRule>>,
}

/// `HTTPRoute.spec.parentRefs[]`, always to a Gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentRef {
    /// The Gateway; its namespace is the route's if not given.
    pub gateway: ObjectName,
    /// Only the listener of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub section_name: Option<Name>,
    /// Only listeners on this port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

/// `HTTPRoute.spec.rules[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteRule {
    /// Unique within the route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// At least one; the rule is meant if any of them matches. Default: path prefix `/`.
    pub matches: Vec<Located<HttpRouteMatch>>,
    /// What is done beside forwarding; of each type at most one, but for mirrors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Located<HttpRouteFilter>>,
    /// Where requests go, by weight. If there is none, or all weights are 0, the reply is 500.
    pub backend_refs: Vec<Located<HttpBackendRef>>,
    /// Instead of the appliance's.
    pub timeouts: HttpRouteTimeouts,
    /// Whether a client stays at its endpoint; before what a BackendPolicy says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    /// When a request is sent once more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<HttpRouteRetry>,
}

impl HttpRouteRule {
    /// What its mirrors lead to, those of its backend references last.
    pub fn mirrors(&self) -> impl Iterator<Item = &Located<BackendObject>> {
        let of_backends = self.backend_refs.iter().flat_map(|reference| &reference.filters);
        self.filters.iter().chain(of_backends).filter_map(|filter| match &filter.value {
            HttpRouteFilter::RequestMirror(mirror) => Some(&mirror.backend_ref),
            _ => None,
        })
    }
}

/// `HTTPRoute.spec.rules[].retry`: after a connection that failed, no answer in time, or an answer with one of these codes. Only requests that
/// are idempotent and have no body are sent twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpRouteRetry {
    /// Statuses, 400 to 599; at most 16.
    pub codes: Vec<Located<u16>>,
    /// Times beyond the first, 0 to 10; default 1.
    pub attempts: u8,
    /// From a failure to the next attempt; default 25 ms.
    #[serde(serialize_with = "as_milliseconds")]
    pub backoff: Duration,
}

fn as_milliseconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{}ms", duration.as_millis()))
}

/// `HTTPRoute.spec.rules[].matches[]`: all of it has to hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// What the path must be. Default: prefix `/`.
    pub path: HttpPathMatch,
    /// What header fields must be; names are unique in any case.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Located<HttpValueMatch>>,
    /// What query parameters must be; names are unique.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub query_params: Vec<Located<HttpValueMatch>>,
    /// What the method must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<&'static str>,
}

/// `HTTPRoute.spec.rules[].matches[].headers[]` and `queryParams[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpValueMatch {
    /// Name of the field or parameter, as given.
    pub name: Box<str>,
    /// What the value must be.
    #[serde(flatten)]
    pub value: ValueMatch,
}

/// A value to match.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", content = "value")]
pub enum ValueMatch {
    /// This value. Default.
    Exact(Box<str>),
    /// Whatever matches.
    RegularExpression(Expression),
}

/// `HTTPRoute.spec.rules[].matches[].path`. What is no expression starts with `/`, has no empty, `.` or `..` segment and no
/// encoded slash, and is at most 1,024 bytes of the characters that RFC 3986 allows in a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(tag = "type", content = "value")]
pub enum HttpPathMatch {
    /// The whole path.
    Exact(Box<str>),
    /// Whole segments from the start: `/a` and `/a/` both match `/a`, `/a/` and `/a/b`, not `/ab`.
    PathPrefix(Box<str>),
    /// The whole path, as it was sent, matches the expression.
    RegularExpression(Expression),
}

/// `HTTPRoute.spec.rules[].backendRefs[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpBackendRef {
    /// What it leads to.
    pub kind: BackendKind,
    /// The object. It exists and may be referred to, unless the appliance serves invalid references.
    pub backend: ObjectName,
    /// The port of endpoints that name none themselves. Present if there are such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// Its share among the rule's; 0..=1,000,000, default 1.
    pub weight: u32,
    /// What is done beside what the rule's filters do.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Located<HttpRouteFilter>>,
}

/// `HTTPRoute.spec.rules[].timeouts`; `None` leaves it to the appliance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRouteTimeouts {
    /// From the request's first byte to the reply's last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Timeout>,
    /// One try at a backend; not above `request`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_request: Option<Timeout>,
}
