//! Endpoints by DNS name, and `Appliance.spec.dns`: what they take, and what a wrong one gets to hear.
#![forbid(unsafe_code)]

mod support;

use std::time::Duration;

use schema::{DnsType, EndpointPlace, LookupFamily, load_str};
use support::{HELLO, brief, cases};

const FIRST: &str = "{ address: 10.9.2.2 }";

#[test]
fn names_are_taken_with_their_defaults() {
    let given = "{ fqdn: { hostname: shop.example.com, port: 80 }, weight: 3 }, { fqdn: { hostname: _http._tcp.shop, type: SRV, \
                 lookupFamily: IPv6Preferred }, priority: 2 }";
    let text = HELLO
        .replace(FIRST, given)
        .replace("  cores: [1] ", "  dns: { servers: [10.0.0.1, \"[fd00::1]:5353\"] }\n  cores: [1] ");
    let configuration = load_str("x.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let [shop, http, _] = configuration.backends[0].spec.endpoints.as_slice() else { panic!() };
    let EndpointPlace::Fqdn { fqdn } = &shop.place else { panic!() };
    assert_eq!((&*fqdn.name.hostname, fqdn.name.kind), ("shop.example.com", DnsType::Address));
    assert_eq!((fqdn.name.lookup_family, fqdn.port.unwrap().get(), shop.weight), (LookupFamily::Ipv4AndIpv6, 80, 3));
    let srv = http.name().unwrap();
    assert_eq!((srv.kind, srv.lookup_family, http.priority), (DnsType::Srv, LookupFamily::Ipv6Preferred, 2));
    assert!(!http.needs_port(), "SRV records have ports");
    let dns = &configuration.appliance.spec.dns;
    let servers: Vec<String> = dns.servers.iter().map(|server| server.value.to_string()).collect();
    assert_eq!(servers, ["10.0.0.1:53", "[fd00::1]:5353"]);
    assert_eq!(
        (dns.min_ttl, dns.hold_absent, dns.max_addresses),
        (Duration::from_secs(5), Duration::from_secs(30), 64)
    );
    // As it is written, so that a change names its field.
    let json = serde_json::to_value(&configuration.backends[0].spec.endpoints).unwrap();
    assert_eq!(json[1]["fqdn"]["type"], "SRV");
    assert_eq!((&json[0]["fqdn"]["port"], &json[2]["address"]), (&80.into(), &"10.9.2.3".into()));
}

#[test]
fn wrong_names_are_named() {
    cases(&[
        (
            FIRST,
            "{ fqdn: { hostname: Shop.example } }",
            r#"38:35 spec.endpoints[0].fqdn.hostname: "Shop.example" has upper-case letters (a whole DNS name in lower case, such as shop.example.com)"#,
        ),
        (
            FIRST,
            "{ fqdn: { hostname: 10.9.2.2 } }",
            r#"38:35 spec.endpoints[0].fqdn.hostname: "10.9.2.2" is an IP address (address: 10.9.2.2)"#,
        ),
        (
            FIRST,
            "{ fqdn: { hostname: \"*.shop\" } }",
            r#"38:35 spec.endpoints[0].fqdn.hostname: "*.shop" is a wildcard (a whole DNS name in lower case, such as shop.example.com)"#,
        ),
        (
            FIRST,
            "{ fqdn: { hostname: _http._tcp.shop } }",
            r#"38:35 spec.endpoints[0].fqdn.hostname: "_http._tcp.shop" is not a hostname by RFC 1123 (with type: SRV, that could be a service)"#,
        ),
        (
            FIRST,
            "{ fqdn: { hostname: shop, type: SRV } }",
            r#"38:35 spec.endpoints[0].fqdn.hostname: "shop" is not the name of a service (_service._protocol.name in lower case, such as _http._tcp.shop.example.com)"#,
        ),
        (
            FIRST,
            "{ fqdn: { hostname: _a._tcp.shop, type: SRV, port: 80 }, weight: 2 }",
            "38:66 spec.endpoints[0].fqdn.port: goes with SRV not (SRV records have the ports of their targets)\n38:80 spec.endpoints[0].weight: goes with SRV not (SRV records have the weights of their targets)",
        ),
        (
            FIRST,
            "{ fqdn: { hostname: shop, lookupFamily: IPv5 } }",
            r#"38:55 spec.endpoints[0].fqdn.lookupFamily: unknown value "IPv5"; one of IPv4, IPv6, IPv4Preferred, IPv6Preferred, IPv4AndIPv6 (did you mean IPv4?)"#,
        ),
        (
            FIRST,
            "{ fqdn: { hostname: shop }, address: 10.9.2.2, port: 80 }",
            "38:52 spec.endpoints[0].address: goes with fqdn not (an endpoint is an address or a name; make it two)\n38:68 spec.endpoints[0].port: goes with fqdn not (give it as fqdn.port)",
        ),
        (
            FIRST,
            "{ fqdn: { hostname: shop } }, { fqdn: { hostname: shop } }",
            "38:53 spec.endpoints[1].fqdn: a second endpoint with the name shop and the same port (the first is at hello.yaml:38:23)",
        ),
    ]);
}

#[test]
fn bounds_are_bounds() {
    cases(&[
        (
            "  cores: [1] ",
            "  dns: { timeout: 10ms, attempts: 11, retryInterval: 2m, minTtl: 0s, maxTtl: 25h, negativeTtl: 500ms }\n  cores: [1] ",
            "6:19 spec.dns.timeout: 10ms is out of range (it can be 100ms to 30s)\n\
             6:35 spec.dns.attempts: 11 is out of range (it can be 1 to 10)\n\
             6:54 spec.dns.retryInterval: 2m is out of range (it can be 100ms to 1m)\n\
             6:66 spec.dns.minTtl: 0s is out of range (it can be 1s to 1h)\n\
             6:78 spec.dns.maxTtl: 25h is out of range (it can be 5s to 24h)\n\
             6:96 spec.dns.negativeTtl: 500ms is out of range (it can be 1s to 1h)",
        ),
        (
            "  cores: [1] ",
            "  dns: { holdAbsent: 2, startupWait: 6m, maxNames: 0, maxAddresses: 2000, servers: [\"10.0.0.1:0\", ns1] }\n  cores: [1] ",
            "6:22 spec.dns.holdAbsent: 2 has no unit (2s, or 2ms)\n\
             6:38 spec.dns.startupWait: 6m is out of range (it can be 0s to 5m)\n\
             6:52 spec.dns.maxNames: 0 is out of range (it can be 1 to 4096)\n\
             6:69 spec.dns.maxAddresses: 2000 is out of range (it can be 1 to 1024)\n\
             6:85 spec.dns.servers[0]: 10.0.0.1:0 has no port (DNS servers listen on port 53, mostly)\n\
             6:99 spec.dns.servers[1]: \"ns1\" is not an IP address with a port (such as \"127.0.0.1:9901\")",
        ),
    ]);
    let endpoints = "{ fqdn: { hostname: a } }, { fqdn: { hostname: b } }, { fqdn: { hostname: a, port: 81 } }, { fqdn: { hostname: c } }";
    let text = HELLO.replace("  cores: [1] ", "  dns: { maxNames: 2 }\n  cores: [1] ").replace(FIRST, endpoints);
    assert_eq!(
        brief(&load_str("x.yaml", &text).unwrap_err()),
        "39:114 spec.endpoints[3].fqdn: one name more than the 2 that the Appliance resolves (spec.dns.maxNames of the Appliance says how many they may be)\n"
    );
    let without = HELLO
        .replace(FIRST, "{ fqdn: { hostname: shop.example } }")
        .replace("name: hello, port: 8080 }", "name: hello }");
    assert_eq!(
        brief(&load_str("x.yaml", &without).unwrap_err()).lines().count(),
        1,
        "a port is needed, in the reference or with each endpoint"
    );
}
