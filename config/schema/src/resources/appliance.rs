//! `Appliance`: the host, its cores and ports, and every limit (millrace.dev/v1alpha1).
//!
//! The defaults are those of BEHAVIOUR.md's tables; each limit named there is a field here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use crate::located::Located;
use crate::quantity::{ByteSize, Timeout, serialize_duration};
use crate::resources::{Dns, Metadata, Port};

/// One machine that runs Millrace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Appliance {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: ApplianceSpec,
}

/// `Appliance.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ApplianceSpec {
    /// CPUs that get a polling thread each; 1..=64, no CPU twice.
    pub cores: Vec<Located<Cpu>>,
    /// What a core does while there is nothing to do; default `polling`.
    pub idle: Idle,
    /// Memory of the packet engine.
    pub memory: Memory,
    /// The network ports; at least one. Names, devices and addresses are unique, subnets do not overlap.
    pub ports: Vec<Located<Port>>,
    /// The admin endpoint, on the kernel's network.
    pub admin: Located<Admin>,
    /// The access log.
    pub access_log: AccessLog,
    /// HTTP towards clients and backends.
    pub http: Http,
    /// TCP.
    pub tcp: Tcp,
    /// IP, ICMP and ARP.
    pub ip: Ip,
    /// Connections to backends.
    pub upstream: Upstream,
    /// How names of backends are resolved.
    pub dns: Dns,
    /// What becomes of routes with references to backends that are invalid; default `refuse`.
    pub invalid_references: InvalidReferences,
}

/// `Appliance.spec.invalidReferences`: about references of routes to backends that do not exist, are of another kind, or are of another
/// namespace and not granted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum InvalidReferences {
    /// The configuration is refused: in a file they are mistakes, which can be mended before anything is served.
    #[default]
    Refuse,
    /// Their share of requests is answered 500 and the route's conditions tell why, as the Gateway API has it: for
    /// configurations whose objects come and go one by one.
    Serve500,
}

/// The number of a CPU as the operating system counts them, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Cpu(pub u16);

/// `Appliance.spec.idle`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Idle {
    /// It looks again at once: the least latency, and all of the CPU.
    #[default]
    Polling,
    /// It sleeps: until a device wakes it, where all of a core's devices can; else for some microseconds at a time.
    Adaptive,
}

/// `Appliance.spec.memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Whether DPDK's memory lies in hugepages; default `auto`.
    pub hugepages: Hugepages,
    /// MiB that DPDK gets, 64..=1,048,576; default 512.
    pub mebibytes: u32,
}

impl Default for Memory {
    fn default() -> Self {
        Memory { hugepages: Hugepages::Auto, mebibytes: 512 }
    }
}

/// `Appliance.spec.memory.hugepages`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Hugepages {
    /// Where the host has enough of them free.
    #[default]
    Auto,
    /// Not without them.
    Required,
    /// Never.
    Off,
}

/// `Appliance.spec.admin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Admin {
    /// Where it listens; default 127.0.0.1:9901. Port 0 lets the kernel choose.
    pub address: SocketAddr,
}

impl Default for Admin {
    fn default() -> Self {
        Admin { address: SocketAddr::from((Ipv4Addr::LOCALHOST, 9901)) }
    }
}

/// `Appliance.spec.accessLog`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessLog {
    /// File to append to; default `/dev/stderr`.
    pub path: PathBuf,
    /// Which requests are logged; default `errors`.
    pub requests: AccessLogRequests,
}

impl Default for AccessLog {
    fn default() -> Self {
        AccessLog { path: PathBuf::from("/dev/stderr"), requests: AccessLogRequests::Errors }
    }
}

/// `Appliance.spec.accessLog.requests`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum AccessLogRequests {
    /// All of them.
    All,
    /// Those that Millrace itself answered, cut short, or that a backend answered with 5xx.
    #[default]
    Errors,
    /// None.
    None,
}

/// `Appliance.spec.http`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Http {
    /// The pseudonym put into `Via` (RFC 9110, 7.6.3); `None`, the default, adds no such field.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<Arc<str>>,
    /// What happens to `X-Forwarded-For` and `X-Forwarded-Proto`; default `append`.
    pub forwarded_for: ForwardedFor,
    /// Responses say in `x-millrace-epoch` which epoch of the configuration decided about their requests; default false. For
    /// tests, and to find faults.
    pub epoch_header: bool,
    /// Timeouts.
    pub timeouts: HttpTimeouts,
    /// Limits.
    pub limits: HttpLimits,
}

/// `Appliance.spec.http.forwardedFor`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ForwardedFor {
    /// The client's address is added to what came.
    #[default]
    Append,
    /// What came is replaced by the client's address.
    Replace,
    /// What came passes as it is, and nothing is added.
    None,
}

/// `Appliance.spec.http.timeouts`. Not zero, except where the type is [`Timeout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HttpTimeouts {
    /// For a request head to be complete, then 408; default 10 s.
    #[serde(serialize_with = "serialize_duration")]
    pub head: Duration,
    /// Without progress in a body, then 408 or an abort; default 30 s.
    #[serde(serialize_with = "serialize_duration")]
    pub body: Duration,
    /// For a client's connection between requests; default 60 s.
    #[serde(serialize_with = "serialize_duration")]
    pub idle: Duration,
    /// For a client's connection as a whole: the first response after it, give or take a tenth, says `Connection: close`. So that
    /// connections that live long come to lie evenly on the cores; default never.
    pub max_age: Timeout,
    /// For a connection to a backend to be established, then 504; default 5 s.
    #[serde(serialize_with = "serialize_duration")]
    pub connect: Duration,
    /// From the end of the request to the head of the backend's reply, then 504; default 60 s.
    #[serde(serialize_with = "serialize_duration")]
    pub response: Duration,
    /// For a whole request and reply; default never. A route's `timeouts.request` goes before it.
    pub request: Timeout,
    /// For requests still running at shut-down; default 30 s.
    #[serde(serialize_with = "serialize_duration")]
    pub drain: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        HttpTimeouts {
            head: Duration::from_secs(10),
            body: Duration::from_secs(30),
            idle: Duration::from_secs(60),
            max_age: Timeout::Never,
            connect: Duration::from_secs(5),
            response: Duration::from_secs(60),
            request: Timeout::Never,
            drain: Duration::from_secs(30),
        }
    }
}

/// `Appliance.spec.http.limits`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpLimits {
    /// Request target, above which 414; 64 B..=64 KiB, not above `head`, default 8 KiB.
    pub target: ByteSize,
    /// Request or reply head, above which 431 or 502; 1 KiB..=1 MiB, default 64 KiB.
    pub head: ByteSize,
    /// Fields in a head or trailer, above which 431 or 502; 1..=1,000, default 100.
    pub fields: u16,
    /// Request body, above which 413; `None`, the default, is unlimited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<ByteSize>,
    /// Interim (1xx) replies to one request, above which 502; 0..=100, default 8.
    pub interim_replies: u16,
}

impl Default for HttpLimits {
    fn default() -> Self {
        HttpLimits { target: ByteSize::kib(8), head: ByteSize::kib(64), fields: 100, body: None, interim_replies: 8 }
    }
}

/// `Appliance.spec.tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tcp {
    /// Connections of both legs together; 1..=16,777,216, default 262,144.
    pub max_connections: u32,
    /// Handshakes begun by clients and not yet complete that have a socket; 1..=`max_connections`, default 4,096.
    pub half_open: u32,
    /// What a SYN beyond `half_open` gets; default `overload`.
    pub syn_cookies: SynCookies,
    /// New connections of each client network; none, the default, is no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_limit: Option<SourceLimit>,
    /// Received and not yet consumed, for a connection; 4 KiB..=1 GiB, default 64 KiB.
    pub receive_buffer: ByteSize,
    /// Sent and not yet acknowledged, for a connection; 4 KiB..=1 GiB, default 64 KiB.
    pub send_buffer: ByteSize,
    /// Both buffers of all connections in sum, above which new connections are shed; default 4 GiB.
    pub buffer_memory: ByteSize,
    /// Silence after which the peer is probed; default 30 s.
    #[serde(serialize_with = "serialize_duration")]
    pub keepalive: Duration,
    /// Without an acknowledgement of data or probe, then RST; default 60 s.
    #[serde(serialize_with = "serialize_duration")]
    pub timeout: Duration,
    /// For a peer that keeps its window at zero, then RST; default 60 s.
    #[serde(serialize_with = "serialize_duration")]
    pub zero_window_timeout: Duration,
    /// How much faster than real time the stack's clock runs towards clients; 1..=50, default 5.
    pub client_time_scale: u16,
    /// The same towards backends; 1..=50, default 10.
    pub backend_time_scale: u16,
    /// Smallest MSS taken from a peer, to which less is raised; 64..=536, default 64.
    pub min_mss: u16,
    /// Challenge ACKs (RFC 5961) a second for a connection; 1..=1,000, default 10.
    pub challenges_per_second: u32,
    /// RSTs to segments of no connection, a second for a core; default 1,000.
    pub resets_per_second: u32,
}

impl Default for Tcp {
    fn default() -> Self {
        Tcp {
            max_connections: 262_144,
            half_open: 4_096,
            syn_cookies: SynCookies::Overload,
            source_limit: None,
            receive_buffer: ByteSize::kib(64),
            send_buffer: ByteSize::kib(64),
            buffer_memory: ByteSize::kib(4 << 20),
            keepalive: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
            zero_window_timeout: Duration::from_secs(60),
            client_time_scale: 5,
            backend_time_scale: 10,
            min_mss: 64,
            challenges_per_second: 10,
            resets_per_second: 1_000,
        }
    }
}

/// `Appliance.spec.tcp.synCookies` (RFC 4987).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum SynCookies {
    /// A cookie for each SYN beyond `halfOpen`.
    #[default]
    Overload,
    /// A cookie for each SYN.
    Always,
    /// SYNs beyond `halfOpen` are dropped.
    Never,
}

/// `Appliance.spec.tcp.sourceLimit`: how fast one client network may open connections, on all cores together. What comes faster is
/// dropped at the SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceLimit {
    /// In the long run; 1..=1,000,000.
    pub connections_per_second: u32,
    /// At once; 1..=1,000,000, default `connections_per_second`.
    pub burst: u32,
    /// Bits of an IPv4 address that make a network; 8..=32, default 32.
    pub ipv4_prefix: u8,
    /// Bits of an IPv6 address that make a network; 16..=128, default 64.
    pub ipv6_prefix: u8,
    /// Networks remembered, rounded up to a power of two; 64..=16,777,216, default 65,536, which take 1 MiB.
    pub sources: u32,
}

/// `Appliance.spec.ip`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ip {
    /// Neighbours remembered on a port, in each of its VLANs, next hops of routes not among them; 16..=65,536, default 1,024.
    pub neighbors: u32,
    /// Packets held for a neighbour whose address is being asked for; 1..=64, default 4.
    pub neighbor_queue: u16,
    /// ICMP messages sent a second for a core; default 1,000.
    pub icmp_per_second: u32,
    /// ARP and Neighbor Discovery messages that were not asked for, taken a second by a port on each core; 1..=1,000,000, default 1,000.
    pub arp_per_second: u32,
    /// Smallest path MTU that an ICMP message can bring about; 68..=1,280, default 552.
    pub mtu_floor: u16,
}

impl Default for Ip {
    fn default() -> Self {
        Ip { neighbors: 1_024, neighbor_queue: 4, icmp_per_second: 1_000, arp_per_second: 1_000, mtu_floor: 552 }
    }
}

/// `Appliance.spec.upstream`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// Idle connections kept to one endpoint, by all cores together; 0..=65,535, default 256.
    pub idle_per_endpoint: u32,
    /// How long an idle connection is kept; default 55 s, below the 60 s of most servers.
    #[serde(serialize_with = "serialize_duration")]
    pub idle_timeout: Duration,
    /// Connections to one endpoint, of all cores together, above which 503; 1..=60,000 (there are only so many source ports),
    /// default 16,384.
    pub max_per_endpoint: u32,
}

impl Default for Upstream {
    fn default() -> Self {
        Upstream { idle_per_endpoint: 256, idle_timeout: Duration::from_secs(55), max_per_endpoint: 16_384 }
    }
}
