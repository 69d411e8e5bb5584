//! Addresses, routes and VLANs of ports, and what is wrong with them.
#![forbid(unsafe_code)]

mod support;

use schema::load_str;
use support::{HELLO, cases};

#[test]
fn addresses_routes_and_vlans() {
    const FROM: &str = r#"addresses: ["10.9.2.1/24"] "#;
    cases(&[
        (
            FROM,
            r#"addresses: ["10.9.2.1/24", "::ffff:10.9.2.7/96", "fd00:9:2::/64", "ff02::1/64"] "#,
            r#"14:34 spec.ports[1].addresses[1]: ::ffff:10.9.2.7 is an IPv4 address in disguise (give the address of one host)
14:56 spec.ports[1].addresses[2]: fd00:9:2::/64 is the address of the network itself (give the port's own address with the length of its subnet)
14:73 spec.ports[1].addresses[3]: ff02::1 is a multicast address (give the address of one host)"#,
        ),
        (
            FROM,
            r#"addresses: ["10.9.2.1/24", "fd00:9:2::1/64"]
      mtu: 1279
      gateway: [10.9.2.9, 10.9.2.8, "fe80::1", "fd00:9:3::1"]"#,
            r#"12:7 spec.ports[1]: mtu, 1279, is too small for IPv6 (1280 at least)
16:27 spec.ports[1].gateway[1]: a second gateway (one of each family; several of one are a route: { destination: 0.0.0.0/0, via: [ … ] })
16:48 spec.ports[1].gateway[3]: a second gateway (one of each family; several of one are a route: { destination: 0.0.0.0/0, via: [ … ] })
16:48 spec.ports[1].gateway[3]: fd00:9:3::1 is not in a subnet of this port (an address in 10.9.2.0/24 or fd00:9:2::/64)"#,
        ),
        (
            FROM,
            r#"addresses: ["10.9.2.1/24"]
      gateway: 10.9.2.9
      routerDiscovery: maybe
      routes:
        - { destination: 10.0.0.1/8, via: 10.9.2.9 }
        - { destination: 10.0.0.0/8, via: [] }
        - { destination: 10.0.0.0/8, via: [10.9.3.9, 10.9.2.1] }
        - { destination: 0.0.0.0/0, via: [10.9.2.8, 10.9.2.8] }
        - { destination: "2001:db8::/32", via: 10.9.2.9 }
        - { destination: "ff00::/8", via: "fe80::1" }
        - { via: 10.9.2.9 }"#,
            r#"16:24 spec.ports[1].routerDiscovery: must be a boolean, is the string "maybe"
18:26 spec.ports[1].routes[0].destination: 10.0.0.1/8 has bits behind its prefix (perhaps 10.0.0.0/8)
19:43 spec.ports[1].routes[1].via: is empty (at least one next hop is needed)
20:11 spec.ports[1].routes[2]: a second destination 10.0.0.0/8 (the first is at hello.yaml:19:11)
20:44 spec.ports[1].routes[2].via[0]: 10.9.3.9 is not in a subnet of this port (an address in 10.9.2.0/24)
20:54 spec.ports[1].routes[2].via[1]: 10.9.2.1 is the appliance's own address (give the address of the next router)
21:11 spec.ports[1].routes[3]: a second default route (the gateway at hello.yaml:15:16 is one, too: leave out one of them)
21:53 spec.ports[1].routes[3].via[1]: a second next hop 10.9.2.8 (the first is at hello.yaml:21:43)
22:48 spec.ports[1].routes[4].via: 10.9.2.9 is not of the destination's family (2001:db8::/32 needs a router of its own kind)
23:26 spec.ports[1].routes[5].destination: ff00::/8 has no router (multicast and link-local addresses stay on their link)
24:11 spec.ports[1].routes[6].destination: is missing"#,
        ),
        (
            FROM,
            r#"addresses: ["10.9.2.1/24"]
      mtu: 1500
      vlans:
        - { id: 4095, addresses: [10.9.3.1/24] }
        - { id: 7, addresses: [10.9.2.129/25] }
        - { id: 7, addresses: [10.9.4.1/24], mtu: 9000 }
        - { id: 8, addresses: [] }
        - { addresses: [10.9.5.1/24] }"#,
            r#"17:17 spec.ports[1].vlans[0].id: 4095 is out of range (it can be 1 to 4094)
18:32 spec.ports[1].vlans[1].addresses[0]: the subnet of 10.9.2.129/25 overlaps with that of another port or VLAN (10.9.2.1/24 is at hello.yaml:14:19: give each subnets of its own)
19:11 spec.ports[1].vlans[2]: a second VLAN 7 (the first is at hello.yaml:18:11)
19:11 spec.ports[1].vlans[2]: mtu, 9000, is above the port's, 1500 (give the port the larger one)
20:31 spec.ports[1].vlans[3].addresses: is empty (at least one item is needed)
21:11 spec.ports[1].vlans[4].id: is missing"#,
        ),
        (FROM, "addresses: []", r#"14:18 spec.ports[1].addresses: is empty (at least one item is needed)"#),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: "fe80::2" }"#,
            r#"38:26 spec.endpoints[0].address: fe80::2 is a link-local address (each link has its own of those: give an address that says which link it is on)"#,
        ),
    ]);
}

#[test]
fn a_port_in_vlans_needs_no_address_of_its_own() {
    let text = HELLO.replace(
        r#"addresses: ["10.9.2.1/24"] "#,
        r#"gateway: []
      vlans:
        - { id: 7, addresses: [10.9.2.1/24, "fd00:9:2::1/64"], gateway: [10.9.2.254, "fe80::1"], mtu: 1400 }
        - id: 8
          addresses: ["fd00:9:3::1/64"]
          routerDiscovery: true
          routes: [{ destination: "2001:db8::/32", via: ["fd00:9:3::8", "fd00:9:3::9"] }]"#,
    );
    let configuration = load_str("hello.yaml", &text).unwrap_or_else(|errors| panic!("{errors}"));
    let south = &configuration.appliance.spec.ports[1];
    let vlans: Vec<_> = south.interfaces().map(|(vlan, interface)| (vlan, interface.addresses.len())).collect();
    assert_eq!(vlans, [(None, 0), (Some(7), 2), (Some(8), 1)]);
    assert_eq!(south.vlans[1].interface.routes[0].via.len(), 2);
    assert_eq!(configuration.appliance.spec.addresses().count(), 4);
}

#[test]
fn a_port_of_the_kernels_is_where_segments_go_and_not_what_a_service_calls_it() {
    let exception = "addresses: [\"10.9.1.1/24\"]\n      exception: { interface: mr-kernel, tcp: [22] }";
    let text = |slice_port: u16, mirror_port: u16| {
        let filter = format!(
            "      filters: [{{ type: RequestMirror, requestMirror: {{ backendRef: {{ group: millrace.dev, kind: Backend, name: hello, port: {mirror_port} }} }} }}]\n"
        );
        let documents = format!(
            "---\napiVersion: v1\nkind: Service\nmetadata: {{ name: cart }}\nspec: {{ ports: [{{ port: 22 }}] }}\n---\n\
             apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{ name: cart-1, labels: {{ kubernetes.io/service-name: cart }} }}\n\
             addressType: IPv4\nendpoints: [{{ addresses: [10.9.2.4] }}]\nports: [{{ port: {slice_port} }}]\n"
        );
        HELLO.replace("addresses: [\"10.9.1.1/24\"]", exception).replace(
            "name: hello, port: 8080 }]\n",
            &format!("name: hello, port: 8080 }}, {{ name: cart, port: 22 }}]\n{filter}"),
        ) + &documents
    };
    let errors = |slice_port, mirror_port| match load_str("x.yaml", &text(slice_port, mirror_port)) {
        Ok(_) => Vec::new(),
        Err(errors) => errors.iter().map(|e| format!("{}: {}", e.field, e.problem)).collect(),
    };
    let none: [&str; 0] = [];
    assert_eq!(errors(8080, 8080), none);
    let wrong = "port 22 is the kernel's by the exception at x.yaml:12:48";
    let filter = "spec.rules[0].filters[0].requestMirror.backendRef.port";
    assert_eq!(errors(22, 22), [format!("{filter}: {wrong}"), format!("ports[0].port: {wrong}")]);
}
