//! `Appliance.spec.dns`, and `fqdn` of a Backend's endpoints.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::object::{Object, at_most};
use super::scalar::{choice, duration_within, integer, port, socket_address, text};
use super::{At, Decoder, quote};
use crate::hostname::Hostname;
use crate::name::is_label;
use crate::resources::{Dns, DnsName, DnsType, Fqdn, LookupFamily};

/// Servers at most: more than resolvers anywhere ask.
const MAX_SERVERS: usize = 8;

/// Characters of a service's name at most (RFC 6335, 5.1), without the underscore.
const MAX_SERVICE: usize = 15;

const HOUR: Duration = Duration::from_secs(3_600);

pub(super) fn dns(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Dns> {
    let default = Dns::default();
    let (milliseconds, seconds) = (Duration::from_millis, Duration::from_secs);
    let mut object = Object::open(decoder, at)?;
    let mut servers = object.list(decoder, "servers", server);
    at_most(decoder, MAX_SERVERS, &mut servers);
    let mut span =
        |decoder: &mut Decoder<'_>, name: &'static str, default: Duration, least: Duration, most: Duration| {
            object.or(decoder, name, default, duration_within(least..=most))
        };
    let timeout = span(decoder, "timeout", default.timeout, milliseconds(100), seconds(30));
    let retry_interval = span(decoder, "retryInterval", default.retry_interval, milliseconds(100), seconds(60));
    let max_retry = default.max_retry_interval.max(retry_interval);
    let max_retry_interval = span(decoder, "maxRetryInterval", max_retry, retry_interval, HOUR);
    let min_ttl = span(decoder, "minTtl", default.min_ttl, seconds(1), HOUR);
    let max_ttl = span(decoder, "maxTtl", default.max_ttl, min_ttl, 24 * HOUR);
    let negative_ttl = span(decoder, "negativeTtl", default.negative_ttl, seconds(1), HOUR);
    let hold_absent = span(decoder, "holdAbsent", default.hold_absent, Duration::ZERO, 24 * HOUR);
    let startup_wait = span(decoder, "startupWait", default.startup_wait, Duration::ZERO, seconds(300));
    let dns = Dns {
        servers,
        timeout,
        attempts: object.or(decoder, "attempts", default.attempts, integer(1..=10)),
        retry_interval,
        max_retry_interval,
        min_ttl,
        max_ttl,
        negative_ttl,
        hold_absent,
        startup_wait,
        max_names: object.or(decoder, "maxNames", default.max_names, integer(1..=4_096)),
        max_addresses: object.or(decoder, "maxAddresses", default.max_addresses, integer(1..=1_024)),
    };
    object.close(decoder);
    Some(dns)
}

/// An address with a port, or without one for 53.
fn server(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<SocketAddr> {
    let given = text(decoder, at)?;
    if let Ok(address) = given.parse() {
        return Some(SocketAddr::new(address, 53));
    }
    let server = socket_address(decoder, at)?;
    if server.port() == 0 {
        decoder.error(at, format!("{server} has no port"), "DNS servers listen on port 53, mostly");
        return None;
    }
    Some(server)
}

pub(super) fn fqdn(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Fqdn> {
    let families = [
        ("IPv4", LookupFamily::Ipv4),
        ("IPv6", LookupFamily::Ipv6),
        ("IPv4Preferred", LookupFamily::Ipv4Preferred),
        ("IPv6Preferred", LookupFamily::Ipv6Preferred),
        ("IPv4AndIPv6", LookupFamily::Ipv4AndIpv6),
    ];
    let mut object = Object::open(decoder, at)?;
    let kind = object.or(decoder, "type", DnsType::Address, |d, at| {
        choice(d, at, &[("Address", DnsType::Address), ("SRV", DnsType::Srv)])
    });
    let hostname = object.required(decoder, "hostname", |decoder, at| hostname(decoder, at, kind));
    let lookup_family = object.or(decoder, "lookupFamily", LookupFamily::default(), |d, at| choice(d, at, &families));
    let port = object.optional(decoder, "port", |decoder, at| {
        if kind == DnsType::Srv {
            decoder.error(at, "goes with SRV not", "SRV records have the ports of their targets");
        }
        port(decoder, at)
    });
    object.close(decoder);
    Some(Fqdn { name: DnsName { hostname: hostname?, kind, lookup_family }, port })
}

fn hostname(decoder: &mut Decoder<'_>, at: At<'_>, kind: DnsType) -> Option<Arc<str>> {
    let given = text(decoder, at)?;
    let name = match kind {
        DnsType::Address => Some(&*given),
        DnsType::Srv => after_service(&given),
    };
    let problem = match name.map(Hostname::parse) {
        Some(Ok(Hostname::Exact(_))) if given.len() <= 253 => return Some(given),
        Some(Ok(Hostname::Exact(_))) => "is longer than 253 characters",
        Some(Ok(Hostname::Wildcard(_))) => "is a wildcard",
        Some(Err(wrong)) => wrong,
        None => "is not the name of a service",
    };
    let hint = match kind {
        DnsType::Address if given.starts_with('_') => "with type: SRV, that could be a service".to_owned(),
        DnsType::Address if given.parse::<std::net::IpAddr>().is_ok() => format!("address: {given}"),
        DnsType::Address => "a whole DNS name in lower case, such as shop.example.com".to_owned(),
        DnsType::Srv => "_service._protocol.name in lower case, such as _http._tcp.shop.example.com".to_owned(),
    };
    decoder.error(at, format!("{} {problem}", quote(&given)), hint);
    None
}

/// What follows `_service._protocol.` (RFC 2782).
fn after_service(text: &str) -> Option<&str> {
    let (service, rest) = text.split_once('.')?;
    let (protocol, rest) = rest.split_once('.')?;
    let is_underscored =
        |label: &str| label.strip_prefix('_').is_some_and(|label| is_label(label) && label.len() <= MAX_SERVICE);
    (is_underscored(service) && is_underscored(protocol)).then_some(rest)
}
