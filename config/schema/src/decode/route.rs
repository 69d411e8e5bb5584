//! `HTTPRoute.spec`.

use std::time::Duration;

use super::filter::{check_filters, filters};
use super::matching::{everything, route_match};
use super::object::{Object, at_most, list};
use super::scalar::{duration, hostname, integer, name, port, timeout, weight};
use super::{At, Decoder, reference};
use crate::located::Located;
use crate::name::Name;
use crate::resources::{HttpBackendRef, HttpRouteRetry, HttpRouteRule, HttpRouteSpec, HttpRouteTimeouts, ParentRef};

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
            retry: None,
            session_persistence: None,
        };
        vec![Located::new(rule, decoder.location(at))]
    });
    Some(HttpRouteSpec { parent_refs, hostnames, rules })
}

fn parent_ref(decoder: &mut Decoder<'_>, at: At<'_>, route: &Name) -> Option<ParentRef> {
    let mut object = Object::open(decoder, at)?;
    let gateway = reference::gateway(decoder, &mut object, at, route);
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

fn rule(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<HttpRouteRule> {
    let mut object = Object::open(decoder, at)?;
    let name = object.optional(decoder, "name", name);
    let mut matches = object.list(decoder, "matches", route_match);
    if matches.is_empty() {
        matches.push(Located::new(everything(), decoder.location(at)));
    }
    let backend_refs = object.list(decoder, "backendRefs", |d, at| backend_ref(d, at, namespace));
    let timeouts = object.or(decoder, "timeouts", HttpRouteTimeouts::default(), timeouts);
    let filters = filters(decoder, &mut object, namespace);
    let retry = object.optional(decoder, "retry", retry);
    let session_persistence =
        object.optional(decoder, "sessionPersistence", super::backend_policy::session_persistence);
    object.close(decoder);
    check_filters(decoder, &matches, &filters, &backend_refs);
    Some(HttpRouteRule { name, matches, filters, backend_refs, timeouts, retry, session_persistence })
}

fn backend_ref(decoder: &mut Decoder<'_>, at: At<'_>, route: &Name) -> Option<HttpBackendRef> {
    let mut object = Object::open(decoder, at)?;
    let target = reference::backend(decoder, &mut object, route);
    let port = object.optional(decoder, "port", |d, at| Some(port(d, at)));
    let weight = object.or(decoder, "weight", 1, weight);
    let filters = filters(decoder, &mut object, route);
    object.close(decoder);
    let (kind, backend) = target?;
    Some(HttpBackendRef { kind, backend, port: required_if_given(port)?, weight, filters })
}

fn retry(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpRouteRetry> {
    const MAX_CODES: usize = 16;
    const MAX_ATTEMPTS: u8 = 10;
    let mut object = Object::open(decoder, at)?;
    let mut retry = HttpRouteRetry {
        codes: object.list(decoder, "codes", |d, at| integer(400..=599)(d, at)),
        attempts: object.or(decoder, "attempts", 1, integer(0..=MAX_ATTEMPTS)),
        backoff: object.or(decoder, "backoff", Duration::from_millis(25), duration),
    };
    object.close(decoder);
    at_most(decoder, MAX_CODES, &mut retry.codes);
    Some(retry)
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
