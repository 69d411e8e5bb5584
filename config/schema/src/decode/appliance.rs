//! `Appliance.spec`.

use std::num::NonZeroU16;
use std::path::PathBuf;
use std::sync::Arc;

use super::interface;
use super::object::Object;
use super::scalar::{boolean, choice, duration, integer, name, size, socket_address, text, timeout};
use super::{At, Decoder, quote};
use crate::located::Located;
use crate::quantity::ByteSize;
use crate::resources::{
    AccessLog, AccessLogRequests, Admin, ApplianceSpec, Cpu, Dns, ForwardedFor, Http, HttpLimits, HttpTimeouts,
    Hugepages, Idle, InvalidReferences, Ip, Memory, Port, SourceLimit, SynCookies, Tcp, Upstream,
};

/// Cores at most: a ring leads from each to each other one.
const MAX_CORES: usize = 64;

pub(super) fn spec(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<ApplianceSpec> {
    let mut object = Object::open(decoder, at)?;
    let default_admin = Located::new(Admin::default(), decoder.location(at));
    let spec = ApplianceSpec {
        cores: object.required_list(decoder, "cores", |d, at| integer(0..=u16::MAX)(d, at).map(Cpu)),
        idle: object.or(decoder, "idle", Idle::default(), |d, at| {
            choice(d, at, &[("polling", Idle::Polling), ("adaptive", Idle::Adaptive)])
        }),
        memory: object.or(decoder, "memory", Memory::default(), memory),
        ports: object.required_list(decoder, "ports", port),
        admin: object.or(decoder, "admin", default_admin, |d, at| d.located(at, admin)),
        access_log: object.or(decoder, "accessLog", AccessLog::default(), access_log),
        http: object.or(decoder, "http", Http::default(), http),
        tcp: object.or(decoder, "tcp", Tcp::default(), tcp),
        ip: object.or(decoder, "ip", Ip::default(), ip),
        upstream: object.or(decoder, "upstream", Upstream::default(), upstream),
        dns: object.or(decoder, "dns", Dns::default(), super::dns::dns),
        invalid_references: object.or(decoder, "invalidReferences", InvalidReferences::default(), |d, at| {
            choice(d, at, &[("refuse", InvalidReferences::Refuse), ("serve500", InvalidReferences::Serve500)])
        }),
    };
    object.close(decoder);
    cores(decoder, &spec);
    Some(spec)
}

/// What the cores allow.
fn cores(decoder: &mut Decoder<'_>, spec: &ApplianceSpec) {
    let count = spec.cores.len();
    if let Some(first_too_many) = spec.cores.get(MAX_CORES) {
        let problem = format!("{count} cores are too many");
        decoder.found.hinted(&first_too_many.at, problem, format!("{MAX_CORES} at most"));
    }
    for (position, core) in spec.cores.iter().enumerate() {
        if spec.cores.iter().take(position).any(|other| other.value == core.value) {
            let problem = format!("CPU {} has a core already", core.value.0);
            decoder.found.hinted(&core.at, problem, "each core polls on a CPU of its own");
        }
    }
    let cores = u16::try_from(count.max(1)).unwrap_or(u16::MAX);
    for queues in spec.ports.iter().filter_map(|port| port.queues.as_ref()) {
        if count > 0 && queues.get() > cores {
            let problem = format!("{} queues for {cores} core{}", queues.value, if cores == 1 { "" } else { "s" });
            decoder.found.hinted(&queues.at, problem, format!("{cores} at most: a core polls one queue of a port"));
        }
    }
}

fn memory(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Memory> {
    let default = Memory::default();
    let choices = [("auto", Hugepages::Auto), ("required", Hugepages::Required), ("off", Hugepages::Off)];
    let mut object = Object::open(decoder, at)?;
    let memory = Memory {
        hugepages: object.or(decoder, "hugepages", default.hugepages, |d, at| choice(d, at, &choices)),
        mebibytes: object.or(decoder, "mebibytes", default.mebibytes, integer(64..=1_048_576)),
    };
    object.close(decoder);
    Some(memory)
}

fn port(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Port> {
    let mut object = Object::open(decoder, at)?;
    let name = object.required(decoder, "name", name);
    let device = object.required(decoder, "device", device);
    // A port that is in VLANs need not be anything outside of them.
    let interface = interface::interface(decoder, &mut object, false);
    let vlans = interface::vlans(decoder, &mut object, interface.mtu);
    if interface.addresses.is_empty() && vlans.is_empty() {
        object.needs(decoder, "addresses");
    }
    let queues = object.optional(decoder, "queues", |d, at| {
        d.located(at, |d, at| integer(1..=u16::MAX)(d, at).and_then(NonZeroU16::new))
    });
    let exception =
        object.optional(decoder, "exception", |decoder, at| decoder.located(at, super::exception::exception));
    object.close(decoder);
    Some(Port { name: name?, device: device?, interface, vlans, exception, queues })
}

fn device(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Arc<str>> {
    let device = text(decoder, at)?;
    if device.is_empty() || device.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let problem = format!("{} is not a DPDK device", quote(&device));
        let hint = "a vdev such as \"net_af_packet0,iface=eth1\", or a PCI address such as \"0000:03:00.0\"";
        decoder.error(at, problem, hint);
        return None;
    }
    Some(device)
}

fn admin(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Admin> {
    let mut object = Object::open(decoder, at)?;
    let address = object.or(decoder, "address", Admin::default().address, socket_address);
    object.close(decoder);
    Some(Admin { address })
}

fn access_log(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<AccessLog> {
    let default = AccessLog::default();
    let choices =
        [("all", AccessLogRequests::All), ("errors", AccessLogRequests::Errors), ("none", AccessLogRequests::None)];
    let mut object = Object::open(decoder, at)?;
    let access_log = AccessLog {
        path: object.or(decoder, "path", default.path, |decoder, at| {
            let path = text(decoder, at)?;
            if !path.starts_with('/') {
                let problem = format!("{} is not an absolute path", quote(&path));
                decoder.error(at, problem, "such as /dev/stdout or /var/log/millrace/access.log");
                return None;
            }
            Some(PathBuf::from(&*path))
        }),
        requests: object.or(decoder, "requests", default.requests, |d, at| choice(d, at, &choices)),
    };
    object.close(decoder);
    Some(access_log)
}

fn http(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Http> {
    let choices = [("append", ForwardedFor::Append), ("replace", ForwardedFor::Replace), ("none", ForwardedFor::None)];
    let mut object = Object::open(decoder, at)?;
    let http = Http {
        via: object.optional(decoder, "via", pseudonym),
        epoch_header: object.or(decoder, "epochHeader", false, boolean),
        forwarded_for: object.or(decoder, "forwardedFor", ForwardedFor::Append, |d, at| choice(d, at, &choices)),
        timeouts: object.or(decoder, "timeouts", HttpTimeouts::default(), http_timeouts),
        limits: object.or(decoder, "limits", HttpLimits::default(), http_limits),
    };
    object.close(decoder);
    Some(http)
}

/// A token (RFC 9110, 5.6.2).
fn pseudonym(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Arc<str>> {
    let given = text(decoder, at)?;
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if given.is_empty() || given.len() > 255 || !given.bytes().all(token) {
        let problem = format!("{} is not a pseudonym for Via", quote(&given));
        decoder.error(at, problem, "letters, digits, - and ., such as edge-1; none if left out");
        return None;
    }
    Some(given)
}

fn http_timeouts(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpTimeouts> {
    let default = HttpTimeouts::default();
    let mut object = Object::open(decoder, at)?;
    let timeouts = HttpTimeouts {
        head: object.or(decoder, "head", default.head, duration),
        body: object.or(decoder, "body", default.body, duration),
        idle: object.or(decoder, "idle", default.idle, duration),
        max_age: object.or(decoder, "maxAge", default.max_age, timeout),
        connect: object.or(decoder, "connect", default.connect, duration),
        response: object.or(decoder, "response", default.response, duration),
        request: object.or(decoder, "request", default.request, timeout),
        drain: object.or(decoder, "drain", default.drain, duration),
    };
    object.close(decoder);
    Some(timeouts)
}

fn http_limits(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<HttpLimits> {
    let default = HttpLimits::default();
    let mut object = Object::open(decoder, at)?;
    let (target, head) = (ByteSize::new(64)..=ByteSize::kib(64), ByteSize::kib(1)..=ByteSize::kib(1024));
    let limits = HttpLimits {
        target: object.or(decoder, "target", default.target, size(target)),
        head: object.or(decoder, "head", default.head, size(head)),
        fields: object.or(decoder, "fields", default.fields, integer(1..=1_000)),
        body: object.optional(decoder, "body", size(ByteSize::new(0)..=ByteSize::new(u64::MAX))),
        interim_replies: object.or(decoder, "interimReplies", default.interim_replies, integer(0..=100)),
    };
    object.close(decoder);
    if limits.target > limits.head {
        let problem = format!("target, {}, is larger than head, {}", limits.target, limits.head);
        decoder.error(at, problem, "the target is a part of the head");
    }
    Some(limits)
}

fn tcp(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Tcp> {
    let default = Tcp::default();
    let cookies = [("overload", SynCookies::Overload), ("always", SynCookies::Always), ("never", SynCookies::Never)];
    let buffer = || size(ByteSize::kib(4)..=ByteSize::kib(1 << 20));
    let memory = size(ByteSize::kib(1 << 10)..=ByteSize::new(1 << 50));
    let mut object = Object::open(decoder, at)?;
    let tcp = Tcp {
        max_connections: object.or(decoder, "maxConnections", default.max_connections, integer(1..=1 << 24)),
        half_open: object.or(decoder, "halfOpen", default.half_open, integer(1..=1 << 24)),
        syn_cookies: object.or(decoder, "synCookies", default.syn_cookies, |d, at| choice(d, at, &cookies)),
        source_limit: object.optional(decoder, "sourceLimit", source_limit),
        receive_buffer: object.or(decoder, "receiveBuffer", default.receive_buffer, buffer()),
        send_buffer: object.or(decoder, "sendBuffer", default.send_buffer, buffer()),
        buffer_memory: object.or(decoder, "bufferMemory", default.buffer_memory, memory),
        keepalive: object.or(decoder, "keepalive", default.keepalive, duration),
        timeout: object.or(decoder, "timeout", default.timeout, duration),
        zero_window_timeout: object.or(decoder, "zeroWindowTimeout", default.zero_window_timeout, duration),
        client_time_scale: object.or(decoder, "clientTimeScale", default.client_time_scale, integer(1..=50)),
        backend_time_scale: object.or(decoder, "backendTimeScale", default.backend_time_scale, integer(1..=50)),
        min_mss: object.or(decoder, "minMss", default.min_mss, integer(64..=536)),
        challenges_per_second: object.or(
            decoder,
            "challengesPerSecond",
            default.challenges_per_second,
            integer(1..=1_000),
        ),
        resets_per_second: object.or(decoder, "resetsPerSecond", default.resets_per_second, integer(0..=1_000_000)),
    };
    object.close(decoder);
    if tcp.half_open > tcp.max_connections {
        let problem = format!("halfOpen, {}, is above maxConnections, {}", tcp.half_open, tcp.max_connections);
        decoder.error(at, problem, "a connection that is half open counts as one");
    }
    Some(tcp)
}

fn source_limit(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<SourceLimit> {
    let mut object = Object::open(decoder, at)?;
    let rate = object.required(decoder, "connectionsPerSecond", integer(1..=1_000_000));
    let burst = object.optional(decoder, "burst", integer(1..=1_000_000));
    let ipv4_prefix = object.or(decoder, "ipv4Prefix", 32, integer(8..=32));
    let ipv6_prefix = object.or(decoder, "ipv6Prefix", 64, integer(16..=128));
    let sources = object.or(decoder, "sources", 65_536, integer(64..=1 << 24));
    object.close(decoder);
    let connections_per_second = rate?;
    Some(SourceLimit {
        connections_per_second,
        burst: burst.unwrap_or(connections_per_second),
        ipv4_prefix,
        ipv6_prefix,
        sources,
    })
}

fn ip(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Ip> {
    let default = Ip::default();
    let mut object = Object::open(decoder, at)?;
    let ip = Ip {
        neighbors: object.or(decoder, "neighbors", default.neighbors, integer(16..=65_536)),
        neighbor_queue: object.or(decoder, "neighborQueue", default.neighbor_queue, integer(1..=64)),
        icmp_per_second: object.or(decoder, "icmpPerSecond", default.icmp_per_second, integer(0..=1_000_000)),
        arp_per_second: object.or(decoder, "arpPerSecond", default.arp_per_second, integer(1..=1_000_000)),
        mtu_floor: object.or(decoder, "mtuFloor", default.mtu_floor, integer(68..=1_280)),
    };
    object.close(decoder);
    Some(ip)
}

fn upstream(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Upstream> {
    let default = Upstream::default();
    let mut object = Object::open(decoder, at)?;
    let upstream = Upstream {
        idle_per_endpoint: object.or(decoder, "idlePerEndpoint", default.idle_per_endpoint, integer(0..=65_535)),
        idle_timeout: object.or(decoder, "idleTimeout", default.idle_timeout, duration),
        max_per_endpoint: object.or(decoder, "maxPerEndpoint", default.max_per_endpoint, integer(1..=60_000)),
    };
    object.close(decoder);
    Some(upstream)
}
