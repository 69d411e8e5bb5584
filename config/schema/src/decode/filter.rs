//! Filters of rules and backend references.

use super::matching::{field_name, field_value, path_value};
use super::object::{Object, at_most};
use super::scalar::{boolean, choice, hostname, integer, port, text};
use super::{At, Decoder, quote, reference};
use crate::hostname::Hostname;
use crate::located::Located;
use crate::name::Name;
use crate::resources::{
    Fraction, HttpBackendRef, HttpCorsFilter, HttpHeader, HttpHeaderFilter, HttpPathMatch, HttpPathModifier,
    HttpRequestMirrorFilter, HttpRequestRedirectFilter, HttpRouteFilter, HttpRouteMatch, HttpUrlRewriteFilter,
};

/// What the Gateway API takes.
const MAX_FILTERS: usize = 16;
const MAX_ORIGINS: usize = 64;
/// Copies of each request that there can be, so that a core's work for one is bounded.
const MAX_MIRRORS: usize = 4;
const MAX_HEADERS: usize = 16;

/// Fields that say where a message ends or belong to one connection (RFC 9110 §7.6.1, RFC 9112 §6), which Millrace writes itself.
const NOT_TO_BE_CHANGED: [&str; 15] = [
    "connection",
    "content-length",
    "expect",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "host",
];

/// The field `filters`.
pub(super) fn filters(
    decoder: &mut Decoder<'_>,
    object: &mut Object<'_>,
    namespace: &Name,
) -> Vec<Located<HttpRouteFilter>> {
    let mut filters = object.list(decoder, "filters", |d, at| filter(d, at, namespace));
    at_most(decoder, MAX_FILTERS, &mut filters);
    for (index, filter) in filters.iter().enumerate() {
        let kind = filter.kind();
        let mut before = filters.iter().take(index);
        if kind == "RequestMirror" {
            if before.filter(|other| other.kind() == kind).count() >= MAX_MIRRORS {
                decoder.found.hinted(
                    &filter.at,
                    "one mirror more than there can be",
                    format!("at most {MAX_MIRRORS} are taken"),
                );
            }
        } else if before.any(|other| other.kind() == kind) {
            decoder.found.hinted(&filter.at, format!("a second {kind}"), "put what both do into one");
        }
        let both = |kind| filters.iter().any(|filter| filter.kind() == kind);
        if kind == "RequestRedirect" && both("URLRewrite") {
            let hint = "a redirect has a path and a hostname of its own";
            decoder.found.hinted(&filter.at, "RequestRedirect and URLRewrite cannot be combined", hint);
        }
    }
    filters
}

/// What the filters of a rule ask of the rule.
pub(super) fn check_filters(
    decoder: &mut Decoder<'_>,
    matches: &[Located<HttpRouteMatch>],
    filters: &[Located<HttpRouteFilter>],
    backends: &[Located<HttpBackendRef>],
) {
    let prefix_only = matches!(matches, [only] if matches!(only.path, HttpPathMatch::PathPrefix(_)));
    for filter in filters.iter().chain(backends.iter().flat_map(|backend| &backend.filters)) {
        let path = match &filter.value {
            HttpRouteFilter::RequestRedirect(redirect) => &redirect.path,
            HttpRouteFilter::UrlRewrite(rewrite) => &rewrite.path,
            _ => continue,
        };
        if matches!(path, Some(HttpPathModifier::ReplacePrefixMatch(_))) && !prefix_only {
            let problem = "ReplacePrefixMatch in a rule without exactly one match, of type PathPrefix";
            decoder.found.hinted(&filter.at, problem, "split the rule into one for each prefix");
        }
    }
    for filter in filters {
        if matches!(filter.value, HttpRouteFilter::RequestRedirect(_)) && !backends.is_empty() {
            let hint = "a redirect is answered here: leave out the backendRefs";
            decoder.found.hinted(&filter.at, "RequestRedirect in a rule with backendRefs", hint);
        }
    }
}

type Make = fn(&mut Decoder<'_>, At<'_>, &Name) -> Option<HttpRouteFilter>;

/// Each type, the field of its settings, and what reads these.
const TYPES: [(&str, &str, Make); 6] = [
    ("RequestHeaderModifier", "requestHeaderModifier", |d, at, _| {
        modifier(d, at).map(HttpRouteFilter::RequestHeaderModifier)
    }),
    ("ResponseHeaderModifier", "responseHeaderModifier", |d, at, _| {
        modifier(d, at).map(HttpRouteFilter::ResponseHeaderModifier)
    }),
    ("RequestMirror", "requestMirror", |d, at, namespace| mirror(d, at, namespace).map(HttpRouteFilter::RequestMirror)),
    ("RequestRedirect", "requestRedirect", |d, at, _| redirect(d, at).map(HttpRouteFilter::RequestRedirect)),
    ("URLRewrite", "urlRewrite", |d, at, _| rewrite(d, at).map(HttpRouteFilter::UrlRewrite)),
    ("CORS", "cors", |d, at, _| cors(d, at).map(HttpRouteFilter::Cors)),
];

fn filter(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<HttpRouteFilter> {
    let mut object = Object::open(decoder, at)?;
    let kind = object.required(decoder, "type", |decoder, at| {
        let given = text(decoder, at)?;
        if matches!(&*given, "ExtensionRef" | "ExternalAuth") {
            decoder.unsupported(at, &format!("filters of type {given}"));
            return None;
        }
        choice(decoder, at, &TYPES.map(|(kind, field, make)| (kind, (kind, field, make))))
    });
    let mut filter = None;
    for (_, field, make) in TYPES {
        match kind {
            Some((_, own, _)) if own == field => {
                filter = object.required(decoder, field, |d, at| make(d, at, namespace));
            }
            Some((kind, own, _)) => {
                object.optional(decoder, field, |decoder, at| {
                    decoder.error(
                        at,
                        format!("is not of a filter of type {kind}"),
                        format!("its settings are in {own}"),
                    );
                    Some(())
                });
            }
            // Which settings are meant is not known.
            None => object.ignored(field),
        }
    }
    for field in ["extensionRef", "externalAuth"] {
        object.ignored(field);
    }
    object.close(decoder);
    filter
}

fn modifier(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpHeaderFilter> {
    let mut object = Object::open(decoder, at)?;
    let mut set = object.list(decoder, "set", header);
    let mut add = object.list(decoder, "add", header);
    let mut remove = object.list(decoder, "remove", changeable);
    object.close(decoder);
    at_most(decoder, MAX_HEADERS, &mut set);
    at_most(decoder, MAX_HEADERS, &mut add);
    at_most(decoder, MAX_HEADERS, &mut remove);
    let named = set.iter().chain(&add).map(|header| (&header.value.name, &header.at));
    let named: Vec<_> = named.chain(remove.iter().map(|name| (&name.value, &name.at))).collect();
    for (index, (name, at)) in named.iter().enumerate() {
        if named.iter().take(index).any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            let hint = "one action for each field: several values go into one, with commas between";
            decoder.found.hinted(at, format!("a second action for the header field {}", quote(name)), hint);
        }
    }
    Some(HttpHeaderFilter { set, add, remove })
}

fn header(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpHeader> {
    let mut object = Object::open(decoder, at)?;
    let name = object.required(decoder, "name", changeable);
    let value = object.required(decoder, "value", field_value);
    object.close(decoder);
    Some(HttpHeader { name: name?, value: value? })
}

/// The name of a field that may be changed.
fn changeable(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    let name = field_name(decoder, at)?;
    if !NOT_TO_BE_CHANGED.iter().any(|fixed| name.eq_ignore_ascii_case(fixed)) {
        return Some(name);
    }
    let hint = match &*name.to_ascii_lowercase() {
        "host" => "a filter of type URLRewrite changes the hostname",
        "x-forwarded-for" => "http.forwardedFor of the Appliance says what becomes of it",
        "via" => "http.via of the Appliance says what it is",
        _ => "it belongs to the connection or says where a message ends: Millrace writes it",
    };
    decoder.error(at, format!("the header field {} cannot be changed", quote(&name)), hint);
    None
}

fn redirect(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpRequestRedirectFilter> {
    let mut object = Object::open(decoder, at)?;
    let redirect = HttpRequestRedirectFilter {
        scheme: object.optional(decoder, "scheme", |d, at| choice(d, at, &[("http", "http"), ("https", "https")])),
        hostname: object.optional(decoder, "hostname", precise_hostname),
        path: object.optional(decoder, "path", path_modifier),
        port: object.optional(decoder, "port", port),
        status_code: object.or(decoder, "statusCode", 302, |decoder, at| {
            let status = integer(100..=599_u16)(decoder, at)?;
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                decoder.error(at, format!("{status} is not one of 301, 302, 303, 307, 308"), "302 is the default");
                return None;
            }
            Some(status)
        }),
    };
    object.close(decoder);
    Some(redirect)
}

fn rewrite(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpUrlRewriteFilter> {
    let mut object = Object::open(decoder, at)?;
    let rewrite = HttpUrlRewriteFilter {
        hostname: object.optional(decoder, "hostname", precise_hostname),
        path: object.optional(decoder, "path", path_modifier),
    };
    object.close(decoder);
    Some(rewrite)
}

fn mirror(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<HttpRequestMirrorFilter> {
    const ALL: Fraction = Fraction { numerator: 100, denominator: 100 };
    let mut object = Object::open(decoder, at)?;
    let backend_ref = object.required(decoder, "backendRef", |decoder, at| {
        decoder.located(at, |decoder, at| reference::backend_object(decoder, at, namespace))
    });
    let percent = object.optional(decoder, "percent", integer(0..=100_u32));
    let fraction = object.optional(decoder, "fraction", |decoder, at| {
        let mut object = Object::open(decoder, at)?;
        let numerator = object.required(decoder, "numerator", integer(0..=i32::MAX as u32));
        let denominator = object.or(decoder, "denominator", 100, integer(1..=i32::MAX as u32));
        object.close(decoder);
        let numerator = numerator?;
        if numerator > denominator {
            decoder.error(
                at,
                format!("{numerator} of {denominator} are more than all"),
                "the numerator is at most the denominator",
            );
            return None;
        }
        Some(Fraction { numerator, denominator })
    });
    object.close(decoder);
    if percent.is_some() && fraction.is_some() {
        decoder.error(at, "both percent and fraction are given", "leave out one of them");
    }
    let percent = percent.map(|numerator| Fraction { numerator, denominator: 100 });
    Some(HttpRequestMirrorFilter { backend_ref: backend_ref?, fraction: fraction.or(percent).unwrap_or(ALL) })
}

fn cors(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpCorsFilter> {
    const METHODS: [&str; 10] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "*"];
    let mut object = Object::open(decoder, at)?;
    let mut cors = HttpCorsFilter {
        allow_origins: object.list(decoder, "allowOrigins", origin),
        allow_credentials: object.or(decoder, "allowCredentials", false, boolean),
        allow_methods: object.list(decoder, "allowMethods", |decoder, at| {
            choice(decoder, at, &METHODS.map(|method| (method, method))).map(Into::into)
        }),
        allow_headers: object.list(decoder, "allowHeaders", field_name),
        expose_headers: object.list(decoder, "exposeHeaders", field_name),
        max_age: object.or(decoder, "maxAge", 5, integer(1..=i32::MAX as u32)),
    };
    object.close(decoder);
    for list in [&mut cors.allow_origins, &mut cors.allow_methods, &mut cors.allow_headers, &mut cors.expose_headers] {
        at_most(decoder, MAX_ORIGINS, list);
        if list.len() > 1
            && let Some(all) = list.iter().find(|item| *item.value == *"*")
        {
            decoder.found.hinted(&all.at, "* beside others", "it stands for all of them: leave the others out");
        }
    }
    Some(cors)
}

/// An origin, as browsers send it: in lower case, without the port that its scheme has anyway.
fn origin(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    let given = text(decoder, at)?;
    if &*given == "*" {
        return Some("*".into());
    }
    let lower = given.to_ascii_lowercase();
    let parsed = lower.split_once("://").and_then(|(scheme, rest)| {
        let well_known = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, Some(port.parse::<std::num::NonZeroU16>().ok()?.get())),
            None => (rest, None),
        };
        if host != "*" {
            Hostname::parse(host).ok()?;
        }
        Some(match port {
            Some(port) if port != well_known => format!("{scheme}://{host}:{port}"),
            _ => format!("{scheme}://{host}"),
        })
    });
    if parsed.is_none() {
        let hint = "*, or such as https://shop.example.com, https://*.example.com:8443";
        decoder.error(at, format!("{} is not an origin", quote(&given)), hint);
    }
    parsed.map(Into::into)
}

/// Gateway API `PreciseHostname`.
fn precise_hostname(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Hostname> {
    let name = hostname(decoder, at)?;
    if matches!(name, Hostname::Wildcard(_)) {
        decoder.error(at, format!("{} has a wildcard", quote(&name.to_string())), "give one host");
        return None;
    }
    Some(name)
}

fn path_modifier(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpPathModifier> {
    type Make = fn(Box<str>) -> HttpPathModifier;
    const TYPES: [(&str, (&str, &str, Make)); 2] = [
        ("ReplaceFullPath", ("replaceFullPath", "replacePrefixMatch", HttpPathModifier::ReplaceFullPath)),
        ("ReplacePrefixMatch", ("replacePrefixMatch", "replaceFullPath", HttpPathModifier::ReplacePrefixMatch)),
    ];
    let mut object = Object::open(decoder, at)?;
    let kind = object.required(decoder, "type", |d, at| choice(d, at, &TYPES));
    let Some((own, other, make)) = kind else {
        object.ignored("replaceFullPath");
        object.ignored("replacePrefixMatch");
        object.close(decoder);
        return None;
    };
    let value = object.required(decoder, own, |decoder, at| match &at.node.value {
        crate::yaml::Value::String(text) if text.is_empty() => Some("".into()),
        _ => path_value(decoder, at),
    });
    object.optional(decoder, other, |decoder, at| {
        decoder.error(at, "is of the other type", format!("the value is in {own}"));
        Some(())
    });
    object.close(decoder);
    value.map(make)
}
