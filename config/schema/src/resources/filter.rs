//! Filters of `HTTPRoute` rules and backend references.

use std::num::NonZeroU16;

use serde::Serialize;

use crate::hostname::Hostname;
use crate::located::Located;
use crate::resources::BackendObject;

/// `HTTPRoute.spec.rules[].filters[]` and `backendRefs[].filters[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpRouteFilter {
    /// Changes fields of the request.
    RequestHeaderModifier(HttpHeaderFilter),
    /// Changes fields of the response.
    ResponseHeaderModifier(HttpHeaderFilter),
    /// Answers with a redirection.
    RequestRedirect(HttpRequestRedirectFilter),
    /// Changes where the backend sees the request go.
    UrlRewrite(HttpUrlRewriteFilter),
    /// Copies requests to another backend.
    RequestMirror(HttpRequestMirrorFilter),
    /// Lets scripts of other origins read responses.
    Cors(HttpCorsFilter),
}

impl HttpRouteFilter {
    /// `type`.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::RequestHeaderModifier(_) => "RequestHeaderModifier",
            Self::ResponseHeaderModifier(_) => "ResponseHeaderModifier",
            Self::RequestRedirect(_) => "RequestRedirect",
            Self::UrlRewrite(_) => "URLRewrite",
            Self::RequestMirror(_) => "RequestMirror",
            Self::Cors(_) => "CORS",
        }
    }
}

/// `requestHeaderModifier` and `responseHeaderModifier`: a name is in one of the lists, and once. None is of a field that frames the
/// message or belongs to the connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpHeaderFilter {
    /// Fields that are there once, with this value.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<Located<HttpHeader>>,
    /// Fields that are put to those of the same name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub add: Vec<Located<HttpHeader>>,
    /// Fields that are taken out.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<Located<Box<str>>>,
}

/// A field: the name is a token, the value visible ASCII with single spaces or tabs in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpHeader {
    /// As it is written out.
    pub name: Box<str>,
    /// What it says.
    pub value: Box<str>,
}

/// `requestRedirect`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequestRedirectFilter {
    /// `http` or `https`; the request's if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheme: Option<&'static str>,
    /// Without a wildcard; the request's if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// What becomes of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPathModifier>,
    /// If not given, that of the scheme if that is, else the listener's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
    /// 301, 302 (default), 303, 307 or 308.
    pub status_code: u16,
}

/// `urlRewrite`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpUrlRewriteFilter {
    /// The Host that the backend gets; without a wildcard.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<Hostname>,
    /// What becomes of the path.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<HttpPathModifier>,
}

/// `path` of a redirect or rewrite. Values are empty or paths like those of matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum HttpPathModifier {
    /// The whole path.
    ReplaceFullPath(Box<str>),
    /// What the rule's only match, a prefix, matched.
    ReplacePrefixMatch(Box<str>),
}

/// `requestMirror`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpRequestMirrorFilter {
    /// Where copies go.
    pub backend_ref: Located<BackendObject>,
    /// How many of the requests are copied; default all. `percent: 5` is 5 of 100.
    pub fraction: Fraction,
}

/// So many of so many.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Fraction {
    /// Not above `denominator`.
    pub numerator: u32,
    /// At least 1; default 100.
    pub denominator: u32,
}

/// `cors`. Lists are in the order given; one with `*` has nothing else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCorsFilter {
    /// `*`, or origins in lower case and without their scheme's own port, whose host may be `*` or start with `*.`.
    pub allow_origins: Vec<Located<Box<str>>>,
    /// Whether requests may carry credentials; default no.
    pub allow_credentials: bool,
    /// Methods beside GET, HEAD and POST, which are always allowed; or `*`.
    pub allow_methods: Vec<Located<Box<str>>>,
    /// Request fields; or `*`.
    pub allow_headers: Vec<Located<Box<str>>>,
    /// Response fields that scripts may read; or `*`.
    pub expose_headers: Vec<Located<Box<str>>>,
    /// Seconds for which the answer to a preflight holds; default 5.
    pub max_age: u32,
}
