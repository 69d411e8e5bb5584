//! `RoutePolicy.spec` and `SecurityPolicy.spec`.

use std::collections::HashSet;
use std::net::IpAddr;
use std::num::{NonZeroU8, NonZeroU32};

use ipnet::IpNet;

use super::object::Object;
use super::scalar::{choice, integer, name, text};
use super::{At, Decoder, quote};
use crate::GATEWAY_GROUP;
use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::{
    RateLimit, RateLimitKey, RateLimitRule, RateLimitUnit, RateLimitValue, RoutePolicySpec, RouteTarget,
    RouteTargetKind, SecurityPolicySpec, SourceLists,
};

/// Keys of one limit: 16 MiB each at most.
const MAX_KEYS: u32 = 1 << 20;

/// Keys where nothing is said.
const DEFAULT_KEYS: NonZeroU32 = NonZeroU32::new(1 << 16).unwrap();

/// More in a unit is no limit.
const MAX_REQUESTS: u32 = 1_000_000_000;

/// Networks of one policy.
const MAX_NETWORKS: usize = 100_000;

/// `namespace` is the policy's.
pub(super) fn route_policy(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<RoutePolicySpec> {
    const KINDS: [(&str, RouteTargetKind); 2] =
        [("HTTPRoute", RouteTargetKind::HttpRoute), ("Gateway", RouteTargetKind::Gateway)];
    let mut object = Object::open(decoder, at)?;
    let target_refs = object.required_list(decoder, "targetRefs", |decoder, at| {
        let (kind, object, section_name) = target(decoder, at, namespace, &KINDS, true)?;
        Some(RouteTarget { kind, object, section_name })
    });
    let rate_limit = object.required(decoder, "rateLimit", rate_limit);
    object.close(decoder);
    Some(RoutePolicySpec { target_refs, rate_limit: rate_limit? })
}

/// `namespace` is the policy's.
pub(super) fn security_policy(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<SecurityPolicySpec> {
    let mut object = Object::open(decoder, at)?;
    let target_refs = object.required_list(decoder, "targetRefs", |decoder, at| {
        target(decoder, at, namespace, &[("Gateway", ())], false).map(|((), object, _)| object)
    });
    let sources = object.required(decoder, "sources", sources);
    object.close(decoder);
    Some(SecurityPolicySpec { target_refs, sources: sources? })
}

/// `targetRefs[]` (the Gateway API's LocalPolicyTargetReferenceWithSectionName): one of `kinds`, in the policy's namespace.
pub(super) fn target<K: Copy>(
    decoder: &mut Decoder<'_>,
    at: At<'_>,
    namespace: &Name,
    kinds: &[(&str, K)],
    sections: bool,
) -> Option<(K, ObjectName, Option<Name>)> {
    let mut object = Object::open(decoder, at)?;
    object.required(decoder, "group", |d, at| choice(d, at, &[(GATEWAY_GROUP, ())]));
    let kind = object.required(decoder, "kind", |d, at| choice(d, at, kinds));
    let target = object.required(decoder, "name", name);
    let section = if sections { object.optional(decoder, "sectionName", |d, at| Some(name(d, at))) } else { None };
    object.close(decoder);
    // Without its section a reference would mean more.
    let section = match section {
        Some(wrong_or_not) => Some(wrong_or_not?),
        None => None,
    };
    Some((kind?, ObjectName { namespace: namespace.clone(), name: target? }, section))
}

fn rate_limit(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<RateLimit> {
    let mut object = Object::open(decoder, at)?;
    let rules = object.required_list(decoder, "rules", rate_limit_rule);
    object.close(decoder);
    let mut names = HashSet::new();
    for rule in &rules {
        if !names.insert(&rule.name) {
            let problem = format!("a second rule named {}", rule.name);
            decoder.found.hinted(&rule.at, problem, "replies and metrics tell rules apart by their names");
        }
    }
    Some(RateLimit { rules })
}

fn rate_limit_rule(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<RateLimitRule> {
    let mut object = Object::open(decoder, at)?;
    let name = object.required(decoder, "name", name);
    let limit = object.required(decoder, "limit", limit);
    let by = object.or(decoder, "by", Some(RateLimitKey::All), |d, at| Some(key(d, at)));
    let max_keys =
        object.or(decoder, "maxKeys", DEFAULT_KEYS, |d, at| integer(1..=MAX_KEYS)(d, at).and_then(NonZeroU32::new));
    object.close(decoder);
    Some(RateLimitRule { name: name?, limit: limit?, by: by?, max_keys })
}

fn limit(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<RateLimitValue> {
    const UNITS: [(&str, RateLimitUnit); 3] =
        [("Second", RateLimitUnit::Second), ("Minute", RateLimitUnit::Minute), ("Hour", RateLimitUnit::Hour)];
    let count = |d: &mut Decoder<'_>, at: At<'_>| integer(1..=MAX_REQUESTS)(d, at).and_then(NonZeroU32::new);
    let mut object = Object::open(decoder, at)?;
    let requests = object.required(decoder, "requests", count);
    let unit = object.required(decoder, "unit", |d, at| choice(d, at, &UNITS));
    let burst = object.optional(decoder, "burst", count);
    object.close(decoder);
    let requests = requests?;
    Some(RateLimitValue { requests, unit: unit?, burst: burst.unwrap_or(requests) })
}

fn key(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<RateLimitKey> {
    #[derive(Clone, Copy)]
    enum Type {
        All,
        SourceIp,
        Header,
        Cookie,
    }
    const TYPES: [(&str, Type); 4] =
        [("All", Type::All), ("SourceIP", Type::SourceIp), ("Header", Type::Header), ("Cookie", Type::Cookie)];
    let mut object = Object::open(decoder, at)?;
    let kind = object.required(decoder, "type", |d, at| choice(d, at, &TYPES));
    let key = match kind {
        None => {
            // What may stand here is not known.
            for field in ["name", "ipv4Prefix", "ipv6Prefix"] {
                object.ignored(field);
            }
            None
        }
        Some(Type::All) => Some(RateLimitKey::All),
        Some(Type::SourceIp) => {
            let mut bits = |field, most: u8, default: u8| {
                let default = NonZeroU8::new(default).unwrap_or(NonZeroU8::MIN);
                object.or(decoder, field, default, |d, at| integer(1..=most)(d, at).and_then(NonZeroU8::new))
            };
            let ipv4_prefix = bits("ipv4Prefix", 32, 32);
            Some(RateLimitKey::SourceIp { ipv4_prefix, ipv6_prefix: bits("ipv6Prefix", 128, 64) })
        }
        Some(Type::Header) => object
            .required(decoder, "name", token)
            .map(|name| RateLimitKey::Header { name: name.to_ascii_lowercase().into() }),
        Some(Type::Cookie) => object.required(decoder, "name", token).map(|name| RateLimitKey::Cookie { name }),
    };
    object.close(decoder);
    key
}

/// The name of a header field or a cookie: a token (RFC 9110 §5.6.2, RFC 6265 §4.1.1).
pub(super) fn token(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    const MOST: usize = 256;
    let given = text(decoder, at)?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if given.is_empty() || given.len() > MOST || !given.bytes().all(allowed) {
        let problem = format!("{} is not a name of a header field or cookie", quote(&given));
        decoder.error(at, problem, format!("letters, digits and any of !#$%&'*+-.^_`|~, at most {MOST}"));
        return None;
    }
    Some((*given).into())
}

fn sources(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<SourceLists> {
    let mut object = Object::open(decoder, at)?;
    let allow = object.list(decoder, "allow", network);
    let deny = object.list(decoder, "deny", network);
    object.close(decoder);
    if allow.is_empty() && deny.is_empty() {
        decoder.error(at, "names no network", "give allow or deny");
    }
    if allow.len() + deny.len() > MAX_NETWORKS {
        decoder.error(at, format!("has more than {MAX_NETWORKS} networks"), "join neighboring ones to larger ones");
    }
    let mut first: std::collections::HashMap<IpNet, &Located<IpNet>> = std::collections::HashMap::new();
    for net in allow.iter().chain(&deny) {
        if let Some(first) = first.insert(net.value, net) {
            let hint = format!("the first is at {}", first.at);
            decoder.found.hinted(&net.at, format!("a second {}", net.value), hint);
        }
    }
    Some(SourceLists { allow, deny })
}

/// A network; an address alone is one of a single host.
fn network(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<IpNet> {
    let given = text(decoder, at)?;
    if let Ok(address) = given.parse::<IpAddr>() {
        return Some(address.into());
    }
    let Ok(network) = given.parse::<IpNet>() else {
        decoder.error(at, format!("{} is not a network", quote(&given)), "such as 192.0.2.0/24 or 2001:db8::/32");
        return None;
    };
    let whole = network.trunc();
    if whole != network {
        decoder.error(at, format!("{network} has bits behind its prefix"), format!("did you mean {whole}?"));
        return None;
    }
    Some(network)
}
