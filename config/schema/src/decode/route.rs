//! `HTTPRoute.spec`.

use super::filter::{check_filters, filters};
use super::matching::{everything, route_match};
use super::object::{Object, list};
use super::scalar::{hostname, name, namespace, port, text, timeout, weight};
use super::{At, Decoder, quote};
use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::{HttpBackendRef, HttpRouteRule, HttpRouteSpec, HttpRouteTimeouts, ParentRef};
use crate::{GATEWAY_GROUP, MILLRACE_GROUP};

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
            filters: Vec::new(),
            backend_refs: Vec::new(),
            timeouts: HttpRouteTimeouts::default(),
        };
        vec![Located::new(rule, decoder.location(at))]
    });
    Some(HttpRouteSpec { parent_refs, hostnames, rules })
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
    let filters = filters(decoder, &mut object);
    for field in ["retry", "sessionPersistence"] {
        object.later(decoder, field);
    }
    object.close(decoder);
    check_filters(decoder, &matches, &filters, &backend_refs);
    Some(HttpRouteRule { name, matches, filters, backend_refs, timeouts })
}

fn backend_ref(decoder: &mut Decoder<'_>, at: At<'_>, route: &Name) -> Option<HttpBackendRef> {
    let mut object = Object::open(decoder, at)?;
    let backend = reference(decoder, &mut object, at, ("", "Service"), (MILLRACE_GROUP, "Backend"), route);
    let port = object.optional(decoder, "port", |d, at| Some(port(d, at)));
    let weight = object.or(decoder, "weight", 1, weight);
    let filters = filters(decoder, &mut object);
    object.close(decoder);
    Some(HttpBackendRef { backend: backend?, port: required_if_given(port)?, weight, filters })
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
