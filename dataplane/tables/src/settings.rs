//! Numbers that configuration sets and cores obey.

use core::time::Duration;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use crate::access::AccessLevel;

/// What a core needs to know before its first turn. Fixed while it runs.
#[derive(Debug, Clone)]
pub struct CoreSettings {
    /// Ports, in the appliance's order.
    pub ports: Vec<PortSettings>,
    /// TCP.
    pub tcp: TcpSettings,
}

/// One port's network-layer settings.
#[derive(Debug, Clone, Default)]
pub struct PortSettings {
    /// The name that configuration and metrics use.
    pub name: Arc<str>,
    /// The largest IP packet, in bytes; the device's when it is smaller.
    pub mtu: Option<u16>,
    /// Where it has addresses: on untagged frames, and in VLANs. Each VLAN once.
    pub interfaces: Vec<InterfaceSettings>,
}

impl PortSettings {
    /// A port without VLANs and routes.
    #[must_use]
    pub fn untagged(name: &str, addresses: Vec<IpNet>) -> Self {
        let interface = InterfaceSettings { addresses, ..InterfaceSettings::default() };
        Self { name: name.into(), mtu: None, interfaces: vec![interface] }
    }
}

/// Addresses of a port, on its untagged frames or in one VLAN.
#[derive(Debug, Clone, Default)]
pub struct InterfaceSettings {
    /// The VLAN's identifier (IEEE 802.1Q), 1 to 4094; `None` for untagged frames.
    pub vlan: Option<u16>,
    /// Our addresses, with the prefixes that are on-link.
    pub addresses: Vec<IpNet>,
    /// What is on-link nowhere goes this way: the longest prefix decides. Default gateways are routes to 0.0.0.0/0 and ::/0.
    pub routes: Vec<RouteSettings>,
    /// The largest IP packet, in bytes; the port's when it is smaller.
    pub mtu: Option<u16>,
    /// Default routers, on-link prefixes and the MTU are taken from router advertisements (RFC 4861 §6.3), too.
    pub router_discovery: bool,
}

/// A route.
#[derive(Debug, Clone)]
pub struct RouteSettings {
    /// Whither.
    pub destination: IpNet,
    /// Next hops on the interface's link, of the destination's family; flows are spread over those that answer.
    pub via: Vec<IpAddr>,
}

/// What of a port's traffic is for the host's kernel. Ports are of either end, because the kernel connects, too.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExceptionSettings {
    /// TCP ports. Millrace listens on none of them.
    pub tcp: Vec<u16>,
    /// UDP ports.
    pub udp: Vec<u16>,
    /// IP protocols (RFC 5237) other than TCP, UDP and ICMP.
    pub protocols: Vec<u8>,
    /// Addresses that are the kernel's alone.
    pub addresses: Vec<IpAddr>,
    /// Packets a second at most in each direction, for a core.
    pub packets_per_second: u32,
}

/// When a SYN is answered with a cookie and nothing is kept of it (RFC 4987 §3.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SynCookies {
    /// While as many connections are half open as may be.
    Overload,
    /// Every SYN.
    Always,
    /// None: a SYN beyond the limit is dropped.
    Never,
}

/// New connections of one source, on all cores together. A source is a network of the prefix's length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceLimit {
    /// SYNs a second in the long run.
    pub connections_per_second: u32,
    /// SYNs at once.
    pub burst: u32,
    /// Bits of an IPv4 address that tell sources apart; at most 32.
    pub prefix_v4: u8,
    /// Bits of an IPv6 address that tell sources apart; at most 128.
    pub prefix_v6: u8,
    /// Sources remembered, rounded up to a power of two; the one that connected least goes first.
    pub sources: u32,
}

/// TCP limits and timers of one core.
#[derive(Debug, Clone)]
pub struct TcpSettings {
    /// Connections at most, clients' and backends' together. A new client is refused above it.
    pub max_connections: u32,
    /// Handshakes from clients that may be incomplete at a time and have a socket.
    pub half_open: u32,
    /// Whether a SYN beyond `half_open` is answered with a cookie.
    pub syn_cookies: SynCookies,
    /// How many connections each source may open; `None` for no limit.
    pub source_limit: Option<SourceLimit>,
    /// Receive buffer per connection, in bytes.
    pub receive_buffer: u32,
    /// Send buffer per connection, in bytes.
    pub send_buffer: u32,
    /// Bytes that all connections' buffers may take together. New clients are refused at seven eighths of it, so that those who are in
    /// can still be served.
    pub buffer_memory: u64,
    /// A silent peer is probed this often.
    pub keepalive: Duration,
    /// A peer that has said nothing for so long is given up.
    pub timeout: Duration,
    /// A peer that keeps its window shut for so long while there is something to send is given up.
    pub zero_window_timeout: Duration,
    /// A peer's smaller maximum segment size is taken for this one, in bytes.
    pub min_mss: u16,
    /// A smaller path MTU is taken for this one, in bytes (RFC 5927 §7.1).
    pub mtu_floor: u16,
    /// How much faster than real time the stack runs towards clients: its 1 s minimum RTO becomes 1 s / scale.
    pub client_time_scale: u32,
    /// The same towards backends.
    pub backend_time_scale: u32,
    /// TIME-WAIT, in real time.
    pub time_wait: Duration,
    /// Entries in TIME-WAIT at most; the oldest goes first.
    pub max_time_wait: u32,
    /// RSTs a second at most that a core sends to segments of no connection.
    pub resets_per_second: u32,
    /// Challenge ACKs a second at most per connection (RFC 5961 §7).
    pub challenges_per_second: u32,
    /// ICMP messages a second at most that a port sends.
    pub icmp_per_second: u32,
    /// ARP packets a second at most that a port answers or learns from.
    pub arp_per_second: u32,
    /// Neighbors remembered per port; gateways are never evicted.
    pub neighbors: u32,
    /// Packets that wait for one neighbor's address.
    pub neighbor_queue: u16,
}

impl Default for TcpSettings {
    fn default() -> Self {
        Self {
            max_connections: 262_144,
            half_open: 4096,
            syn_cookies: SynCookies::Overload,
            source_limit: None,
            receive_buffer: 64 << 10,
            send_buffer: 64 << 10,
            buffer_memory: 4 << 30,
            keepalive: Duration::from_secs(30),
            timeout: Duration::from_secs(60),
            zero_window_timeout: Duration::from_secs(60),
            min_mss: 64,
            mtu_floor: 552,
            client_time_scale: 5,
            backend_time_scale: 10,
            time_wait: Duration::from_secs(2),
            max_time_wait: 65_536,
            resets_per_second: 1000,
            challenges_per_second: 10,
            icmp_per_second: 1000,
            arp_per_second: 1000,
            neighbors: 1024,
            neighbor_queue: 4,
        }
    }
}

/// How the client's address is told to the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForwardedFor {
    /// Appended to X-Forwarded-For.
    Append,
    /// The only address in X-Forwarded-For; what the client sent is dropped.
    Replace,
    /// Not told; what the client sent passes.
    None,
}

/// HTTP limits and timers. Part of the snapshot: a reload may change them.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Pseudonym in Via (RFC 9110 §7.6.3); none is sent where it is `None`.
    pub via: Option<Arc<str>>,
    /// X-Forwarded-For; X-Forwarded-Proto is sent unless it is `None`.
    pub forwarded_for: ForwardedFor,
    /// Longest request target, in bytes.
    pub max_target: u32,
    /// Longest head, in bytes. The receive buffer bounds it too.
    pub max_head: u32,
    /// Fields in a head.
    pub max_fields: u32,
    /// Longest request body, in bytes; `None` for no limit.
    pub max_body: Option<u64>,
    /// Interim (1xx) responses before a final one.
    pub max_interim: u8,
    /// From the first byte of a head to its last.
    pub head_timeout: Duration,
    /// Between two bytes of a body, in either direction.
    pub body_timeout: Duration,
    /// A client connection without a request.
    pub idle_timeout: Duration,
    /// After which a client's connection ends with its next response, give or take a tenth; `None` for never.
    pub max_age: Option<Duration>,
    /// To establish a connection to a backend.
    pub connect_timeout: Duration,
    /// From the end of the request to the head of the response.
    pub response_timeout: Duration,
    /// The whole request; `None` for no limit. A route may say otherwise.
    pub request_timeout: Option<Duration>,
    /// A tunnel without a byte in either direction.
    pub tunnel_timeout: Duration,
    /// After the last response on a connection, to let the client's bytes in flight arrive before it is closed.
    pub linger_timeout: Duration,
    /// Connections of all cores to one endpoint at most, idle ones among them.
    pub max_per_endpoint: u32,
    /// Idle connections of all cores kept per endpoint.
    pub idle_per_endpoint: u32,
    /// How long one is kept; below what backends keep (NGINX: 75 s), so that it is we who close.
    pub upstream_idle_timeout: Duration,
    /// Endpoints tried at most until one accepts a connection.
    pub connect_attempts: u8,
    /// What goes to the access log.
    pub access: AccessLevel,
    /// Every response says in `x-millrace-epoch` which epoch decided about its request. For tests, and to find faults.
    pub epoch_header: bool,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            via: None,
            forwarded_for: ForwardedFor::Append,
            max_target: 8 << 10,
            max_head: 64 << 10,
            max_fields: 100,
            max_body: None,
            max_interim: 8,
            head_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(60),
            max_age: None,
            connect_timeout: Duration::from_secs(5),
            response_timeout: Duration::from_secs(60),
            request_timeout: None,
            tunnel_timeout: Duration::from_secs(3600),
            linger_timeout: Duration::from_secs(2),
            max_per_endpoint: 16_384,
            idle_per_endpoint: 256,
            upstream_idle_timeout: Duration::from_secs(55),
            connect_attempts: 3,
            access: AccessLevel::Errors,
            epoch_header: false,
        }
    }
}
