//! `HTTPRoute.spec`.

use super::object::{Object, list};
use super::scalar::{hostname, name, namespace, port, text, timeout, weight};
use super::{At, Decoder, quote};
use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::{
    HttpBackendRef, HttpPathMatch, HttpRouteMatch, HttpRouteRule, HttpRouteSpec, HttpRouteTimeouts, ParentRef,
};
use crate::{GATEWAY_GROUP, MILLRACE_GROUP};

/// Longest path to match (Gateway API `HTTPPathMatch.value`).
const MAX_PATH: usize = 1024;

/// `namespace` is the route's, which references take if they name none.
pub(super) fn spec(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<HttpRouteSpec> {
    let mut object = Object::open(decoder, at)?;
    let parent_refs = object.list(decoder, "parentRefs", |d, at| parent_ref(d, at, namespace));
    let hostnames = object.list(decoder, "hostnames", hostname);
    let rules = object
        .optional(decoder, "rules", |decoder, at| list(decoder, at, |d, at| rule(d, at, namespace)))
        .filter(|rules| !rules.is_empty());
    object.later(decoder, "useDefaultGateways");
    object.close(decoder);
    let rules = rules.unwrap_or_else(|| {
        let rule = HttpRouteRule {
            name: None,
            matches: vec![Located::new(everything(), decoder.location(at))],
            backend_refs: Vec::new(),
            timeouts: HttpRouteTimeouts::default(),
        };
        vec![Located::new(rule, decoder.location(at))]
    });
    Some(HttpRouteSpec { parent_refs, hostnames, rules })
}

fn everything() -> HttpRouteMatch {
    HttpRouteMatch { path: HttpPathMatch::PathPrefix("/".into()) }
}

fn parent_ref(decoder: &mut Decoder<'_>, at: At<'_>, route: &Name) -> Option<ParentRef> {
    let mut object = Object::open(decoder, at)?;
    let gateway = reference(decoder, &mut object, at, (GATEWAY_GROUP, "Gateway"), (GATEWAY_GROUP, "Gateway"), route);
    let section_name = object.optional(decoder, "sectionName", |d, at| Some(name(d, at)));
    let port = object.optional(decoder, "port", |d, at| Some(port(d, at)));
    object.close(decoder);
    // Without its section or port a reference would mean something else.
    Some(ParentRef {
        gateway: gateway?,
        section_name: required_if_given(section_name)?,
        port: required_if_given(port)?,
    })
}

fn required_if_given<T>(given: Option<Option<T>>) -> Option<Option<T>> {
    match given {
        None => Some(None),
        Some(None) => None,
        Some(value) => Some(value),
    }
}

/// The fields `group`, `kind`, `namespace` and `name` of a reference, which must lead to an object of
/// `wanted`; `default` is what the Gateway API says for a group and kind that are not given.
fn reference(
    decoder: &mut Decoder<'_>,
    object: &mut Object<'_>,
    at: At<'_>,
    default: (&str, &str),
    wanted: (&str, &str),
    own_namespace: &Name,
) -> Option<ObjectName> {
    let group = object.or(decoder, "group", Some(default.0.into()), |d, at| Some(text(d, at)));
    let kind = object.or(decoder, "kind", Some(default.1.into()), |d, at| Some(text(d, at)));
    let namespace = object.or(decoder, "namespace", Some(own_namespace.clone()), |d, at| Some(namespace(d, at)));
    let name = object.required(decoder, "name", name);
    let (group, kind) = (group?, kind?);
    if (&*group, &*kind) != wanted {
        let group_text = if group.is_empty() { "the core group" } else { &group };
        let known = matches!((&*group, &*kind), ("", "Service") | ("multicluster.x-k8s.io", "ServiceImport"));
        let problem = if known {
            format!("not supported yet: references to a {kind}")
        } else {
            format!("{} of {} cannot be referred to here", quote(&kind), quote(group_text))
        };
        decoder.error(at, problem, format!("group: {}, kind: {}", wanted.0, wanted.1));
        return None;
    }
    Some(ObjectName { namespace: namespace?, name: name? })
}

fn rule(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<HttpRouteRule> {
    let mut object = Object::open(decoder, at)?;
    let name = object.optional(decoder, "name", name);
    let mut matches = object.list(decoder, "matches", route_match);
    if matches.is_empty() {
        matches.push(Located::new(everything(), decoder.location(at)));
    }
    let backend_refs = object.list(decoder, "backendRefs", |d, at| backend_ref(d, at, namespace));
    let timeouts = object.or(decoder, "timeouts", HttpRouteTimeouts::default(), timeouts);
    for field in ["filters", "retry", "sessionPersistence"] {
        object.later(decoder, field);
    }
    object.close(decoder);
    Some(HttpRouteRule { name, matches, backend_refs, timeouts })
}

fn route_match(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpRouteMatch> {
    let mut object = Object::open(decoder, at)?;
    let path = object.or(decoder, "path", Some(everything().path), |d, at| Some(path(d, at)));
    for field in ["headers", "method", "queryParams"] {
        object.later(decoder, field);
    }
    object.close(decoder);
    Some(HttpRouteMatch { path: path? })
}

fn path(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpPathMatch> {
    type Make = fn(Box<str>) -> HttpPathMatch;
    const TYPES: [(&str, Make); 2] = [("Exact", HttpPathMatch::Exact), ("PathPrefix", HttpPathMatch::PathPrefix)];
    let mut object = Object::open(decoder, at)?;
    let mut expression = false;
    let make = object.or(decoder, "type", Some(HttpPathMatch::PathPrefix as Make), |decoder, at| {
        if matches!(&at.node.value, crate::yaml::Value::String(t) if **t == *"RegularExpression") {
            decoder.unsupported(at, "paths of type RegularExpression");
            expression = true;
            return Some(None);
        }
        Some(super::scalar::choice(decoder, at, &TYPES))
    });
    let value = if expression {
        object.ignored("value");
        None
    } else {
        object.or(decoder, "value", Some("/".into()), |d, at| Some(path_value(d, at)))
    };
    object.close(decoder);
    Some(make?(value?))
}

/// What the Gateway API's validation asks of `HTTPPathMatch.value`.
fn path_value(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    let path = text(decoder, at)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/%".contains(&b);
    let mut escapes = path.split('%').skip(1);
    let escaped = |escape: &str| escape.get(..2).is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
    let lower = path.to_ascii_lowercase();
    let (wrong, hint) = if !path.starts_with('/') {
        ("does not start with /", format!("did you mean {}?", quote(&format!("/{path}"))))
    } else if path.len() > MAX_PATH {
        ("is longer than 1024 bytes", "match a shorter prefix".into())
    } else if let Some(at) = path.find(['?', '#']) {
        let hint = format!("did you mean {}?", quote(path.get(..at).unwrap_or("/")));
        ("has a query or a fragment", hint)
    } else if path.contains("//") {
        ("has an empty segment", "write single slashes".into())
    } else if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        ("has a . or .. segment", "write the path as it is after they are resolved".into())
    } else if lower.contains("%2f") {
        ("has an encoded slash", "write /".into())
    } else if !path.bytes().all(allowed) || !escapes.all(escaped) {
        ("has characters that a path cannot have", "percent-encode them as RFC 3986 says".into())
    } else {
        return Some((*path).into());
    };
    decoder.error(at, format!("{} {wrong}", quote(&path)), hint);
    None
}

fn backend_ref(decoder: &mut Decoder<'_>, at: At<'_>, route: &Name) -> Option<HttpBackendRef> {
    let mut object = Object::open(decoder, at)?;
    let backend = reference(decoder, &mut object, at, ("", "Service"), (MILLRACE_GROUP, "Backend"), route);
    let port = object.optional(decoder, "port", |d, at| Some(port(d, at)));
    let weight = object.or(decoder, "weight", 1, weight);
    object.later(decoder, "filters");
    object.close(decoder);
    Some(HttpBackendRef { backend: backend?, port: required_if_given(port)?, weight })
}

fn timeouts(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpRouteTimeouts> {
    let mut object = Object::open(decoder, at)?;
    let timeouts = HttpRouteTimeouts {
        request: object.optional(decoder, "request", timeout),
        backend_request: object.optional(decoder, "backendRequest", timeout),
    };
    object.close(decoder);
    let limit = |timeout: Option<crate::Timeout>| timeout.and_then(crate::Timeout::limit);
    if let (Some(request), Some(backend)) = (limit(timeouts.request), limit(timeouts.backend_request))
        && backend > request
    {
        decoder.error(
            at,
            "backendRequest is longer than request",
            "request covers every try at a backend: make it the longer one",
        );
    }
    Some(timeouts)
}
