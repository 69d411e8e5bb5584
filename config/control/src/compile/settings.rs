//! The appliance's numbers as cores take them.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use ipnet::IpNet;
use schema::{AccessLogRequests, Appliance, ByteSize, Configuration, Interface};
use tables::access::AccessLevel;
use tables::{
    CoreSettings, ExceptionSettings, ForwardedFor, HttpSettings, InterfaceSettings, PortSettings, RouteSettings,
    SourceLimit, SynCookies, TcpSettings,
};

/// What is fixed while a core runs.
#[must_use]
pub fn core_settings(configuration: &Configuration) -> CoreSettings {
    let spec = &configuration.appliance.spec;
    let tcp = &spec.tcp;
    CoreSettings {
        ports: spec
            .ports
            .iter()
            .map(|port| PortSettings {
                name: port.name.as_str().into(),
                mtu: port.interface.mtu,
                interfaces: port.interfaces().map(|(vlan, interface)| interface_settings(vlan, interface)).collect(),
            })
            .collect(),
        tcp: TcpSettings {
            max_connections: tcp.max_connections,
            half_open: tcp.half_open,
            syn_cookies: match tcp.syn_cookies {
                schema::SynCookies::Overload => SynCookies::Overload,
                schema::SynCookies::Always => SynCookies::Always,
                schema::SynCookies::Never => SynCookies::Never,
            },
            source_limit: tcp.source_limit.map(|limit| SourceLimit {
                connections_per_second: limit.connections_per_second,
                burst: limit.burst,
                prefix_v4: limit.ipv4_prefix,
                prefix_v6: limit.ipv6_prefix,
                sources: limit.sources,
            }),
            receive_buffer: bytes32(tcp.receive_buffer),
            send_buffer: bytes32(tcp.send_buffer),
            buffer_memory: tcp.buffer_memory.bytes(),
            keepalive: tcp.keepalive,
            timeout: tcp.timeout,
            zero_window_timeout: tcp.zero_window_timeout,
            min_mss: tcp.min_mss,
            mtu_floor: spec.ip.mtu_floor,
            client_time_scale: tcp.client_time_scale.into(),
            backend_time_scale: tcp.backend_time_scale.into(),
            resets_per_second: tcp.resets_per_second,
            challenges_per_second: tcp.challenges_per_second,
            icmp_per_second: spec.ip.icmp_per_second,
            arp_per_second: spec.ip.arp_per_second,
            neighbors: spec.ip.neighbors,
            neighbor_queue: spec.ip.neighbor_queue,
            ..TcpSettings::default()
        },
    }
}

fn interface_settings(vlan: Option<u16>, interface: &Interface) -> InterfaceSettings {
    let routes = interface.routes.iter().map(|route| RouteSettings {
        destination: route.destination,
        via: route.via.iter().map(|hop| hop.value).collect(),
    });
    InterfaceSettings {
        vlan,
        addresses: interface.addresses.iter().map(|net| net.value).collect(),
        routes: routes.chain(interface.gateway.iter().map(|gateway| default_route(gateway.value))).collect(),
        mtu: interface.mtu,
        router_discovery: interface.router_discovery,
    }
}

fn default_route(gateway: IpAddr) -> RouteSettings {
    let any: IpAddr = if gateway.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    RouteSettings { destination: IpNet::new_assert(any, 0), via: vec![gateway] }
}

/// What of each port's traffic is for the kernel, by port.
#[must_use]
pub fn exception_settings(configuration: &Configuration) -> Vec<Option<ExceptionSettings>> {
    let settings = |exception: &schema::Exception| ExceptionSettings {
        tcp: exception.tcp.iter().map(|port| port.value.get()).collect(),
        udp: exception.udp.iter().map(|port| port.value.get()).collect(),
        protocols: exception.protocols.iter().map(|protocol| protocol.value).collect(),
        addresses: exception.addresses.iter().map(|address| address.value).collect(),
        packets_per_second: exception.packets_per_second,
    };
    let ports = &configuration.appliance.spec.ports;
    ports.iter().map(|port| port.exception.as_ref().map(|exception| settings(&exception.value))).collect()
}

/// What a reload may change.
pub(super) fn http_settings(appliance: &Appliance) -> HttpSettings {
    let spec = &appliance.spec;
    let (http, timeouts, limits) = (&spec.http, &spec.http.timeouts, &spec.http.limits);
    HttpSettings {
        via: http.via.clone(),
        forwarded_for: match http.forwarded_for {
            schema::ForwardedFor::Append => ForwardedFor::Append,
            schema::ForwardedFor::Replace => ForwardedFor::Replace,
            schema::ForwardedFor::None => ForwardedFor::None,
        },
        max_target: bytes32(limits.target),
        max_head: bytes32(limits.head),
        max_fields: limits.fields.into(),
        max_body: limits.body.map(ByteSize::bytes),
        max_interim: u8::try_from(limits.interim_replies).unwrap_or(u8::MAX),
        head_timeout: timeouts.head,
        body_timeout: timeouts.body,
        idle_timeout: timeouts.idle,
        max_age: timeouts.max_age.limit(),
        connect_timeout: timeouts.connect,
        response_timeout: timeouts.response,
        request_timeout: timeouts.request.limit(),
        max_per_endpoint: spec.upstream.max_per_endpoint,
        idle_per_endpoint: spec.upstream.idle_per_endpoint,
        upstream_idle_timeout: spec.upstream.idle_timeout,
        access: match spec.access_log.requests {
            AccessLogRequests::All => AccessLevel::All,
            AccessLogRequests::Errors => AccessLevel::Errors,
            AccessLogRequests::None => AccessLevel::None,
        },
        epoch_header: http.epoch_header,
        ..HttpSettings::default()
    }
}

/// A route's own request timeout, where it has one. A core takes the appliance's where a rule has none, so a route that wants
/// no limit gets one that never comes.
pub(super) fn rule_timeout(own: Option<schema::Timeout>) -> Option<Duration> {
    own.map(|timeout| timeout.limit().unwrap_or(Duration::MAX))
}

fn bytes32(size: ByteSize) -> u32 {
    u32::try_from(size.bytes()).unwrap_or(u32::MAX)
}
