//! `BackendPolicy.spec`, and `sessionPersistence` wherever it stands.

use std::time::Duration;

use super::object::{Object, wrong_type};
use super::policy::token;
use super::scalar::{boolean, choice, duration, integer, name, text};
use super::{At, Decoder, quote};
use crate::MILLRACE_GROUP;
use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::{
    ActiveHealthCheck, BackendKind, BackendPolicySpec, BackendTarget, HashTable, HashedOn, HealthCheck, HealthProbe,
    LoadBalancer, LoadBalancerType, SessionPersistence, SlowStart,
};
use crate::yaml::Value;

/// Places that a ring may be asked to have.
const MOST_ASKED: u32 = 65_536;
/// Places that it has at most where nothing is said, 20 MiB; and at most, as Envoy's.
const DEFAULT_RING: u32 = 1 << 20;
/// See [`DEFAULT_RING`].
const MAX_RING: u32 = 1 << 23;

/// `namespace` is the policy's.
pub(super) fn spec(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<BackendPolicySpec> {
    let mut object = Object::open(decoder, at)?;
    let target_refs = object.required_list(decoder, "targetRefs", |d, at| target(d, at, namespace));
    let load_balancer = object.or(decoder, "loadBalancer", LoadBalancer::default(), load_balancer);
    let health_check = object.or(decoder, "healthCheck", HealthCheck::default(), health_check);
    let session_persistence = object.optional(decoder, "sessionPersistence", session_persistence);
    object.close(decoder);
    Some(BackendPolicySpec { target_refs, load_balancer, health_check, session_persistence })
}

fn target(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<BackendTarget> {
    let mut object = Object::open(decoder, at)?;
    let service = object.required(decoder, "kind", |d, at| choice(d, at, &[("Backend", false), ("Service", true)]));
    let group = if service == Some(true) { "" } else { MILLRACE_GROUP };
    object.required(decoder, "group", |d, at| choice(d, at, &[(group, ())]));
    let target = object.required(decoder, "name", name);
    object.close(decoder);
    let kind = if service? { BackendKind::Service } else { BackendKind::Backend };
    Some(BackendTarget { kind, object: ObjectName { namespace: namespace.clone(), name: target? } })
}

fn load_balancer(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<LoadBalancer> {
    #[derive(Clone, Copy, PartialEq)]
    enum Type {
        RoundRobin,
        Random,
        LeastRequest,
        PeakEwma,
        SourceIpHash,
        ConsistentHash,
    }
    const TYPES: [(&str, Type); 6] = [
        ("RoundRobin", Type::RoundRobin),
        ("Random", Type::Random),
        ("LeastRequest", Type::LeastRequest),
        ("PeakEWMA", Type::PeakEwma),
        ("SourceIPHash", Type::SourceIpHash),
        ("ConsistentHash", Type::ConsistentHash),
    ];
    let mut object = Object::open(decoder, at)?;
    let kind = object.or(decoder, "type", Type::RoundRobin, |d, at| choice(d, at, &TYPES));
    let method = match kind {
        Type::RoundRobin => LoadBalancerType::RoundRobin,
        Type::Random => LoadBalancerType::Random,
        Type::LeastRequest => LoadBalancerType::LeastRequest,
        Type::PeakEwma => LoadBalancerType::PeakEwma,
        Type::SourceIpHash => LoadBalancerType::SourceIpHash,
        Type::ConsistentHash => {
            object.required(decoder, "consistentHash", consistent_hash).unwrap_or(LoadBalancerType::RoundRobin)
        }
    };
    let slow_start = object.optional(decoder, "slowStart", |decoder, at| {
        if !matches!(kind, Type::RoundRobin | Type::Random | Type::LeastRequest) {
            decoder.error(at, "does not go with this type", "it is for RoundRobin, Random and LeastRequest");
        }
        slow_start(decoder, at)
    });
    let prefer_local = object.or(decoder, "zoneAware", false, |decoder, at| {
        let mut object = Object::open(decoder, at)?;
        let prefer = object.required(decoder, "preferLocal", boolean);
        object.close(decoder);
        prefer
    });
    object.close(decoder);
    Some(LoadBalancer { method, slow_start, prefer_local })
}

fn consistent_hash(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<LoadBalancerType> {
    #[derive(Clone, Copy)]
    enum Type {
        SourceIp,
        Header,
        Cookie,
        QueryParam,
    }
    const TYPES: [(&str, Type); 4] = [
        ("SourceIP", Type::SourceIp),
        ("Header", Type::Header),
        ("Cookie", Type::Cookie),
        ("QueryParam", Type::QueryParam),
    ];
    let mut object = Object::open(decoder, at)?;
    let kind = object.required(decoder, "type", |d, at| choice(d, at, &TYPES));
    let mut named = |field: &'static str| object.required(decoder, field, named);
    let on = match kind? {
        Type::SourceIp => Some(HashedOn::SourceIp),
        Type::Header => named("header").map(|name| HashedOn::Header(name.to_ascii_lowercase().into())),
        Type::Cookie => named("cookie").map(HashedOn::Cookie),
        Type::QueryParam => named("queryParam").map(HashedOn::QueryParam),
    };
    let maglev = object.optional(decoder, "maglev", |decoder, at| {
        let mut object = Object::open(decoder, at)?;
        object.optional(decoder, "tableSize", |decoder, at| integer(65_537..=65_537)(decoder, at).map(|_: u32| ()));
        object.close(decoder);
        Some(())
    });
    let maglev = maglev.is_some();
    let ring = object.optional(decoder, "ringHash", |decoder, at| {
        if maglev {
            decoder.error(at, "goes with maglev not", "leave one of them out");
        }
        let mut object = Object::open(decoder, at)?;
        let minimum_ring_size = object.or(decoder, "minimumRingSize", 1024, integer(1..=MOST_ASKED));
        let maximum_ring_size =
            object.or(decoder, "maximumRingSize", DEFAULT_RING, integer(minimum_ring_size..=MAX_RING));
        object.close(decoder);
        Some(HashTable::RingHash { minimum_ring_size, maximum_ring_size })
    });
    let seed = object.or(decoder, "seed", 0, integer(0..=u64::MAX >> 1));
    object.close(decoder);
    Some(LoadBalancerType::ConsistentHash { on: on?, table: ring.unwrap_or(HashTable::Maglev), seed })
}

/// `{ name: … }`.
fn named(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    let mut object = Object::open(decoder, at)?;
    let name = object.required(decoder, "name", token);
    object.close(decoder);
    name
}

fn slow_start(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<SlowStart> {
    let mut object = Object::open(decoder, at)?;
    let window = object.required(decoder, "window", duration);
    let min_weight_percent = object.or(decoder, "minWeightPercent", 10, integer(1..=100));
    object.close(decoder);
    Some(SlowStart { window: window?, min_weight_percent })
}

fn health_check(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HealthCheck> {
    let mut object = Object::open(decoder, at)?;
    let panic_threshold = object.or(decoder, "panicThreshold", 50, integer(0..=100));
    let active = object.optional(decoder, "active", active);
    object.later(decoder, "passive");
    object.close(decoder);
    Some(HealthCheck { panic_threshold, active })
}

fn active(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<ActiveHealthCheck> {
    #[derive(Clone, Copy)]
    enum Type {
        Tcp,
        Http,
        Grpc,
    }
    let mut object = Object::open(decoder, at)?;
    let kind = object.required(decoder, "type", |decoder, at| {
        choice(decoder, at, &[("TCP", Type::Tcp), ("HTTP", Type::Http), ("GRPC", Type::Grpc)])
    });
    let interval = object.or(decoder, "interval", Duration::from_secs(5), duration);
    let timeout = object.or(decoder, "timeout", Duration::from_secs(2).min(interval), |decoder, at| {
        let timeout = duration(decoder, at)?;
        if timeout > interval {
            decoder.error(at, "is longer than the interval", "a check ends before the next one begins");
        }
        Some(timeout)
    });
    let unhealthy_threshold = object.or(decoder, "unhealthyThreshold", 3, integer(1..=100));
    let healthy_threshold = object.or(decoder, "healthyThreshold", 2, integer(1..=100));
    let probe = match kind {
        None => {
            for field in ["http", "grpc"] {
                object.ignored(field);
            }
            None
        }
        Some(Type::Tcp) => Some(HealthProbe::Tcp),
        Some(Type::Http) => {
            let http = object.optional(decoder, "http", |d, at| Some(http(d, at)));
            http.unwrap_or_else(|| Some(default_http()))
        }
        Some(Type::Grpc) => Some(HealthProbe::Grpc {
            service: object.or(decoder, "grpc", "".into(), |decoder, at| {
                let mut object = Object::open(decoder, at)?;
                let service = object.or(decoder, "service", "".into(), service);
                object.close(decoder);
                Some(service)
            }),
        }),
    };
    object.close(decoder);
    Some(ActiveHealthCheck { interval, timeout, unhealthy_threshold, healthy_threshold, probe: probe? })
}

fn default_http() -> HealthProbe {
    HealthProbe::Http { path: "/".into(), method: "GET".into(), hostname: None, expected_statuses: vec![(200, 399)] }
}

fn http(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HealthProbe> {
    let mut object = Object::open(decoder, at)?;
    let path = object.or(decoder, "path", "/".into(), path);
    let methods = [("GET", "GET"), ("HEAD", "HEAD"), ("OPTIONS", "OPTIONS")];
    let method = object.or(decoder, "method", "GET", |d, at| choice(d, at, &methods));
    let hostname = object.optional(decoder, "hostname", super::scalar::hostname);
    let expected: Vec<Located<(u16, u16)>> = object.list(decoder, "expectedStatuses", statuses);
    object.close(decoder);
    let expected_statuses =
        if expected.is_empty() { vec![(200, 399)] } else { expected.into_iter().map(|range| range.value).collect() };
    let hostname = hostname.map(|hostname| hostname.to_string().into());
    Some(HealthProbe::Http { path, method: method.into(), hostname, expected_statuses })
}

/// A path that can stand in a request line as it is.
fn path(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    let given = text(decoder, at)?;
    if !given.starts_with('/')
        || given.len() > 1024
        || !given.bytes().all(|b| b.is_ascii_graphic())
        || given.contains('#')
    {
        let problem = format!("{} is not a path", quote(&given));
        decoder.error(at, problem, "such as /healthz, of at most 1024 printable ASCII characters");
        return None;
    }
    Some((*given).into())
}

fn service(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Box<str>> {
    let given = text(decoder, at)?;
    if given.len() > 100 {
        decoder.error(at, "is longer than 100 bytes", "the name of a gRPC service, such as shop.v1.Cart");
        return None;
    }
    Some((*given).into())
}

/// A status, or `{ start, end }` with both ends included.
fn statuses(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<(u16, u16)> {
    match &at.node.value {
        Value::Integer(..) => integer(100..=599)(decoder, at).map(|status| (status, status)),
        Value::Mapping(_) => {
            let mut object = Object::open(decoder, at)?;
            let start = object.required(decoder, "start", integer(100..=599));
            let end = object.required(decoder, "end", integer(start.unwrap_or(100)..=599));
            object.close(decoder);
            Some((start?, end?))
        }
        other => {
            wrong_type(decoder, at, other, "an integer");
            None
        }
    }
}

/// `sessionPersistence` of a rule or a policy.
pub(super) fn session_persistence(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<SessionPersistence> {
    let mut object = Object::open(decoder, at)?;
    let session_name = object.or(decoder, "sessionName", "millrace-session".into(), token);
    object.optional(decoder, "type", |decoder, at| match text(decoder, at).as_deref() {
        Some("Header") => {
            decoder.unsupported(at, "sessions by header");
            Some(())
        }
        Some(_) => choice(decoder, at, &[("Cookie", ())]),
        None => None,
    });
    let absolute_timeout = object.optional(decoder, "absoluteTimeout", duration);
    object.later(decoder, "idleTimeout");
    let permanent = object.or(decoder, "cookieConfig", false, |decoder, at| {
        let mut object = Object::open(decoder, at)?;
        let types = [("Session", false), ("Permanent", true)];
        let permanent = object.or(decoder, "lifetimeType", false, |d, at| choice(d, at, &types));
        object.close(decoder);
        if permanent && absolute_timeout.is_none() {
            decoder.error(
                at,
                "Permanent needs an absoluteTimeout",
                "say how long the cookie is kept: absoluteTimeout: 24h",
            );
        }
        Some(permanent)
    });
    object.close(decoder);
    Some(SessionPersistence { session_name, permanent: absolute_timeout.filter(|_| permanent) })
}
