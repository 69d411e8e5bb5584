//! What a broken configuration gets to hear. Each case changes `hello.yaml` and states every error that
//! the change brings, so that a cascade of further ones would be seen too.
#![forbid(unsafe_code)]

mod support;

use schema::{load_sources, load_str};
use support::{HELLO, cases};

#[test]
fn an_error_is_shown_with_its_line_and_a_caret() {
    let text = HELLO.replace("type: PathPrefix", "type: Pathprefx");
    let errors = load_str("routes.yaml", &text).unwrap_err();
    assert_eq!(
        errors.to_string(),
        r#"routes.yaml:31:33: spec.rules[0].matches[0].path.type: unknown value "Pathprefx"; one of Exact, PathPrefix, RegularExpression
 31 |     - matches: [{ path: { type: Pathprefx, value: / } }]
    |                                 ^
    = hint: did you mean PathPrefix?
1 error"#
    );
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json[0]["file"], "routes.yaml");
    assert_eq!(json[0]["line"], 31);
    assert_eq!(json[0]["field"], "spec.rules[0].matches[0].path.type");
    assert_eq!(json[0]["hint"], "did you mean PathPrefix?");
}

#[test]
fn the_source_line_is_cut_around_the_caret_and_harmless() {
    let text = HELLO.replace("cores: [1]", &format!("{}\"co\\eres\": [1]", " ".repeat(2)));
    let shown = load_str("x.yaml", &text).unwrap_err().to_string();
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let text = HELLO.replace("name: edge", &format!("labels: {{ a: \"{}\" }}, nam: edge", "x".repeat(10_000)));
    let shown = load_str("x.yaml", &text).unwrap_err().to_string();
    assert!(shown.lines().all(|line| line.chars().count() < 120), "{shown}");
    assert!(shown.contains("did you mean `name`?"), "{shown}");
}

#[test]
fn every_error_of_every_file_is_named_at_once() {
    let appliance = "\
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: Edge }
spec:
  cores: [2, 2]
  memory: { hugepages: of }
  ports:
    - name: north
      device: net_null0
      adresses: [10.9.1.1/24]
    - name: north
      device: net_null0
      addresses: [10.9.2.0/24, \"::1/64\", 10.9.2.9]
      mtu: 90000
      vlan: 4
  http: { timeouts: { head: 10, idle: 0s }, limits: { target: 128KiB, body: x } }
";
    let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: hello }
spec:
  parentRefs: [{ name: web }]
  hostnames: [Shop.example.com]
  rules:
    - matches: [{ path: { type: Regex, value: foo } }]
      backendRefs: [{ name: hello, port: 80 }]
      filters: []
---
kind: [HTTPRoute
---
kind: GRPCRoute
apiVersion: gateway.networking.k8s.io/v1
";
    let errors = load_sources(&[("b.yaml", route.as_bytes()), ("a.yaml", appliance.as_bytes())]).unwrap_err();
    let listed: Vec<String> = errors.iter().map(|e| format!("{}:{} {}", e.file, e.line, e.field)).collect();
    assert_eq!(
        listed,
        [
            "a.yaml:3 metadata.name",
            "a.yaml:5 spec.cores[1]",
            "a.yaml:6 spec.memory.hugepages",
            "a.yaml:8 spec.ports[0].addresses",
            "a.yaml:10 spec.ports[0].adresses",
            "a.yaml:11 spec.ports[1].name",
            "a.yaml:12 spec.ports[1].device",
            "a.yaml:13 spec.ports[1].addresses[0]",
            "a.yaml:13 spec.ports[1].addresses[1]",
            "a.yaml:13 spec.ports[1].addresses[2]",
            "a.yaml:14 spec.ports[1].mtu",
            "a.yaml:15 spec.ports[1].vlan",
            "a.yaml:16 spec.http.timeouts.head",
            "a.yaml:16 spec.http.timeouts.idle",
            "a.yaml:16 spec.http.limits.target",
            "a.yaml:16 spec.http.limits.body",
            "b.yaml:6 spec.hostnames[0]",
            "b.yaml:8 spec.rules[0].matches[0].path.type",
            "b.yaml:8 spec.rules[0].matches[0].path.value",
            "b.yaml:12 ",
            "b.yaml:14 kind",
        ],
        "{errors}"
    );
}

#[test]
fn a_document_has_to_be_a_known_resource() {
    cases(&[
        (
            r#"kind: Gateway"#,
            r#"kind: Gatway"#,
            r#"18:7 kind: unknown value "Gatway"; one of Appliance, Backend, BackendPolicy, EndpointSlice, Gateway, HTTPRoute, Namespace, ReferenceGrant, RoutePolicy, SecurityPolicy, Service (did you mean Gateway?)"#,
        ),
        (
            r#"kind: Gateway"#,
            r#"kind: GRPCRoute"#,
            r#"18:7 kind: not supported yet: kind GRPCRoute (leave it out; a later release takes it)
29:24 spec.parentRefs[0].name: there is no Gateway default/web (define a Gateway)"#,
        ),
        (
            r#"kind: Gateway"#,
            r#"kind: 7"#,
            r#"18:7 kind: must be a string, is the integer 7 (in quotes it is a string: "7")"#,
        ),
        (r#"kind: Gateway"#, r#""#, r#"17:1 kind: is missing"#),
        (
            r#"kind: Gateway"#,
            r#"kind: Gateway
spce: {}"#,
            r#"19:1 spce: unknown field (did you mean `spec`?)"#,
        ),
        (
            r#"kind: HTTPRoute
"#,
            r#"kind: HTTPRoute
spec: {}
"#,
            r#"29:1 : the field "spec" a second time"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: web }
status: { conditions: [] }
typo: 1"#,
            r#"21:1 typo: unknown field (the fields here are apiVersion, kind, metadata, status, spec)"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: Web, uid: x, generation: 3 }"#,
            r#"19:19 metadata.name: "Web" has upper-case letters (lower-case letters, digits, - and ., starting and ending with a letter or digit)"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: web, namespace: a.b }"#,
            r#"19:35 metadata.namespace: "a.b" has a dot (at most 63 lower-case letters, digits and -, starting and ending with a letter or digit)"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: web, labels: { a: 1 }, creationTimestamp: yesterday }"#,
            r#"19:37 metadata.labels.a: must be a string, is the integer 1 (in quotes it is a string: "1")
19:61 metadata.creationTimestamp: "yesterday" is not a time (such as 2026-01-31T12:00:00Z)"#,
        ),
        (r#"metadata: { name: web }"#, r#"metadata: web"#, r#"19:11 metadata: must be a mapping, is the string "web""#),
        (r#"metadata: { name: web }"#, r#"metadata: {}"#, r#"19:11 metadata.name: is missing"#),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: 123 }"#,
            r#"19:19 metadata.name: must be a string, is the integer 123 (in quotes it is a string: "123")"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: web"#,
            r#"20:5 : not YAML: while parsing a flow mapping, did not find expected ',' or '}'"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: *web }"#,
            r#"19:19 : an alias (write the value out: aliases are not taken)"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: !!str web }"#,
            r#"19:25 : a tag, "!!str" (leave it out: the field says what type its value has)"#,
        ),
        (
            r#"metadata: { name: web }"#,
            r#"metadata: { name: web }
	spec:"#,
            r#"20:2 : not YAML: while parsing a block mapping, did not find expected key (indent with spaces: YAML does not take tabs for that)"#,
        ),
        (
            r#"kind: Appliance"#,
            r#"kind: Backend"#,
            r#"0:0 : there is no Appliance (a configuration has one resource of kind Appliance, with the host's cores and ports)
6:3 spec.cores: unknown field (the fields here are protocol, subset, endpoints)
6:3 spec.endpoints: is missing
7:3 spec.memory: unknown field (the fields here are protocol, subset, endpoints)
8:3 spec.ports: unknown field (the fields here are protocol, subset, endpoints)
15:3 spec.admin: unknown field (the fields here are protocol, subset, endpoints)"#,
        ),
    ]);
}

#[test]
fn the_appliance() {
    cases(&[
        (r#"cores: [1] "#, r#"cores: [] "#, r#"6:10 spec.cores: is empty (at least one item is needed)"#),
        (
            r#"cores: [1] "#,
            r#"cores: 1 "#,
            r#"6:10 spec.cores: must be a list, is the integer 1 (put the item into a list: [ … ], or a line with a dash in front)"#,
        ),
        (r#"cores: [1] "#, r#"cores: [-1] "#, r#"6:11 spec.cores[0]: -1 is out of range (it can be 0 to 65535)"#),
        (
            r#"cores: [1] "#,
            r#"cores: [1, 2, 1] "#,
            r#"6:17 spec.cores[2]: CPU 1 has a core already (each core polls on a CPU of its own)"#,
        ),
        (r#"cores: [1] "#, r#"cores: [one] "#, r#"6:11 spec.cores[0]: must be an integer, is the string "one""#),
        (r#"cores: [1] "#, r#""#, r#"7:3 spec.cores: is missing"#),
        (
            r#"hugepages: auto, mebibytes: 512 }"#,
            r#"hugepages: yes, mebibytes: 1 }"#,
            r#"7:24 spec.memory.hugepages: unknown value "yes"; one of auto, required, off
7:40 spec.memory.mebibytes: 1 is out of range (it can be 64 to 1048576)"#,
        ),
        (
            r#"hugepages: auto, mebibytes: 512 }"#,
            r#"hugepages: true, mebibytes: 512MiB }"#,
            r#"7:24 spec.memory.hugepages: must be a string, is the boolean true (in quotes it is a string: "true")
7:41 spec.memory.mebibytes: must be an integer, is the string "512MiB""#,
        ),
        (
            r#"name: south"#,
            r#"name: north"#,
            r#"12:13 spec.ports[1].name: a second port named north (the first is at hello.yaml:9:13)"#,
        ),
        (
            r#"net_af_packet1,iface=mr-south"#,
            r#"net_af_packet0,iface=mr-south"#,
            r#"13:15 spec.ports[1].device: a second port on the device "net_af_packet0" (the first is at hello.yaml:10:15)"#,
        ),
        (
            r#"net_af_packet1,iface=mr-south"#,
            r#"net_af_packet1,iface=mr-north"#,
            r#"13:15 spec.ports[1].device: a second port on the interface "mr-north" (the first is at hello.yaml:10:15)"#,
        ),
        (
            r#"net_af_packet1,iface=mr-south"#,
            r#""#,
            r#"13:15 spec.ports[1].device: "" is not a DPDK device (a vdev such as "net_af_packet0,iface=eth1", or a PCI address such as "0000:03:00.0")"#,
        ),
        (
            r#"10.9.2.1/24"#,
            r#"10.9.2.1"#,
            r#"14:19 spec.ports[1].addresses[0]: "10.9.2.1" has no prefix length (such as 10.9.2.1/24)"#,
        ),
        (
            r#"10.9.2.1/24"#,
            r#"10.9.2.255/24"#,
            r#"14:19 spec.ports[1].addresses[0]: 10.9.2.255/24 is the broadcast address of its network (give the port's own address with the length of its subnet)"#,
        ),
        (
            r#"10.9.2.1/24"#,
            r#"10.9.2.1/33"#,
            r#"14:19 spec.ports[1].addresses[0]: "10.9.2.1/33" is not an IP address with a prefix length (such as 10.9.1.1/24)"#,
        ),
        (
            r#"10.9.2.1/24"#,
            r#"127.0.0.1/8"#,
            r#"14:19 spec.ports[1].addresses[0]: 127.0.0.1 is a loopback address (give the address of one host)"#,
        ),
        (
            r#"10.9.2.1/24"#,
            r#"10.9.1.7/16"#,
            r#"11:19 spec.ports[0].addresses[0]: the subnet of 10.9.1.1/24 overlaps with that of another port or VLAN (10.9.1.7/16 is at hello.yaml:14:19: give each subnets of its own)"#,
        ),
        (
            r#"10.9.2.1/24"#,
            r#"10.9.1.1/24"#,
            r#"14:19 spec.ports[1].addresses[0]: a second 10.9.1.1 (the first is at hello.yaml:11:19)
38:26 spec.endpoints[0].address: no port reaches 10.9.2.2 (give a port of the Appliance an address in its subnet, a route or a gateway)
38:49 spec.endpoints[1].address: no port reaches 10.9.2.3 (give a port of the Appliance an address in its subnet, a route or a gateway)"#,
        ),
        (
            r#"addresses: ["10.9.2.1/24"] "#,
            r#"addresses: [] "#,
            r#"14:18 spec.ports[1].addresses: is empty (at least one item is needed)"#,
        ),
        (
            r#"addresses: ["10.9.2.1/24"] "#,
            r#"addresses: ["10.9.2.1/24"]
      gateway: 10.9.7.1"#,
            r#"15:16 spec.ports[1].gateway: 10.9.7.1 is not in a subnet of this port (an address in 10.9.2.0/24)"#,
        ),
        (
            r#"addresses: ["10.9.2.1/24"] "#,
            r#"addresses: ["10.9.2.1/24"]
      gateway: 10.9.2.1"#,
            r#"15:16 spec.ports[1].gateway: 10.9.2.1 is the appliance's own address (give the address of the next router)"#,
        ),
        (
            r#"addresses: ["10.9.2.1/24"] "#,
            r#"addresses: ["10.9.2.1/24"]
      queues: 2
      mtu: 100
      vlan: 7"#,
            r#"15:15 spec.ports[1].queues: 2 queues for 1 core (1 at most: a core polls one queue of a port)
16:12 spec.ports[1].mtu: 100 is out of range (it can be 576 to 9216)
17:7 spec.ports[1].vlan: unknown field (did you mean `vlans`?)"#,
        ),
        (
            r#""127.0.0.1:9901""#,
            r#""127.0.0.1""#,
            r#"15:21 spec.admin.address: "127.0.0.1" is not an IP address with a port (such as "127.0.0.1:9901")"#,
        ),
        (
            r#"admin: {"#,
            r#"accessLog: { path: log, requests: some }
  admin: {"#,
            r#"15:22 spec.accessLog.path: "log" is not an absolute path (such as /dev/stdout or /var/log/millrace/access.log)
15:37 spec.accessLog.requests: unknown value "some"; one of all, errors, none"#,
        ),
        (
            r#"admin: {"#,
            r#"http: { via: "a b", forwardedFor: add }
  admin: {"#,
            r#"15:16 spec.http.via: "a b" is not a pseudonym for Via (letters, digits, - and ., such as edge-1; none if left out)
15:37 spec.http.forwardedFor: unknown value "add"; one of append, replace, none"#,
        ),
        (
            r#"admin: {"#,
            r#"http: { timeouts: { head: 10, body: 1.5s, idle: 0s, request: 0s, drain: forever } }
  admin: {"#,
            r#"15:29 spec.http.timeouts.head: 10 has no unit (10s, or 10ms)
15:39 spec.http.timeouts.body: "1.5s" is not a duration (numbers with the units h, m, s, ms, such as 10s, 500ms or 1m30s)
15:51 spec.http.timeouts.idle: must be longer than 0s (this one cannot be switched off)
15:75 spec.http.timeouts.drain: "forever" is not a duration (numbers with the units h, m, s, ms, such as 10s, 500ms or 1m30s)"#,
        ),
        (
            r#"admin: {"#,
            r#"http: { limits: { target: 32KiB, head: 16KiB, fields: 0, body: big, interimReplies: 8 } }
  admin: {"#,
            r#"15:19 spec.http.limits: target, 32KiB, is larger than head, 16KiB (the target is a part of the head)
15:57 spec.http.limits.fields: 0 is out of range (it can be 1 to 1000)
15:66 spec.http.limits.body: is not a size (a number of bytes, or such as 64KiB, 1MiB, 4GiB)"#,
        ),
        (
            r#"admin: {"#,
            r#"tcp: { maxConnections: 10, halfOpen: 20, receiveBuffer: 1KiB, sendBuffer: 1.5, clientTimeScale: 51, minMss: 1 }
  admin: {"#,
            r#"15:8 spec.tcp: halfOpen, 20, is above maxConnections, 10 (a connection that is half open counts as one)
15:59 spec.tcp.receiveBuffer: 1KiB is out of range (it can be 4KiB to 1GiB)
15:77 spec.tcp.sendBuffer: is not a size (a number of bytes, or such as 64KiB, 1MiB, 4GiB)
15:99 spec.tcp.clientTimeScale: 51 is out of range (it can be 1 to 50)
15:111 spec.tcp.minMss: 1 is out of range (it can be 64 to 536)"#,
        ),
        (
            r#"addresses: ["10.9.1.1/24"]"#,
            r#"addresses: ["10.9.1.1/24"]
      exception: { interface: a/b, tcp: [0, 22], protocols: [6], addresses: [10.9.1.1], ports: [1] }"#,
            r#"12:31 spec.ports[0].exception.interface: "a/b" is not an interface's name (1 to 15 characters such as mr-north)
12:42 spec.ports[0].exception.tcp[0]: 0 is out of range (it can be 1 to 65535)
12:62 spec.ports[0].exception.protocols[0]: protocol 6 is not the kernel's as a whole (list TCP and UDP by their ports; echo replies and errors about the kernel's packets reach it anyway)
12:89 spec.ports[0].exception.ports: unknown field (the fields here are interface, tcp, udp, protocols, addresses, packetsPerSecond)"#,
        ),
        (
            r#"addresses: ["10.9.1.1/24"]"#,
            r#"addresses: ["10.9.1.1/24"]
      exception: { interface: mr-south, tcp: [80, 8080, 22], addresses: [10.9.2.1] }"#,
            r#"12:31 spec.ports[0].exception.interface: a second use of "mr-south" (the first is at hello.yaml:14:15)
12:74 spec.ports[0].exception.addresses[0]: 10.9.2.1 is Millrace's own address (the kernel may have it on its interface without it being listed; list ports instead)
24:51 spec.listeners[0].port: port 80 is the kernel's by the exception at hello.yaml:12:47 (another port here, or take it out of the exception)
33:78 spec.rules[0].backendRefs[0].port: port 8080 is the kernel's by the exception at hello.yaml:12:51 (another port here, or take it out of the exception)"#,
        ),
        (
            r#"addresses: ["10.9.1.1/24"]"#,
            r#"addresses: ["10.9.1.1/24"]
      exception: { interface: mr0 }"#,
            r#"12:18 spec.ports[0].exception: lists nothing for the kernel (at least one of tcp, udp, protocols and addresses)"#,
        ),
        (
            r#"admin: {"#,
            r#"tcp: { synCookies: sometimes, sourceLimit: { burst: 0, ipv4Prefix: 33, ipv6Prefix: 8, sources: 1 } }
  admin: {"#,
            r#"15:22 spec.tcp.synCookies: unknown value "sometimes"; one of overload, always, never
15:46 spec.tcp.sourceLimit.connectionsPerSecond: is missing
15:55 spec.tcp.sourceLimit.burst: 0 is out of range (it can be 1 to 1000000)
15:70 spec.tcp.sourceLimit.ipv4Prefix: 33 is out of range (it can be 8 to 32)
15:86 spec.tcp.sourceLimit.ipv6Prefix: 8 is out of range (it can be 16 to 128)
15:98 spec.tcp.sourceLimit.sources: 1 is out of range (it can be 64 to 16777216)"#,
        ),
        (
            r#"admin: {"#,
            r#"ip: { neighbors: 1, mtuFloor: 9000 }
  upstream: { idleTimeout: 0s, maxPerEndpoint: 65535, idle: 3 }
  admin: {"#,
            r#"15:20 spec.ip.neighbors: 1 is out of range (it can be 16 to 65536)
15:33 spec.ip.mtuFloor: 9000 is out of range (it can be 68 to 1280)
16:28 spec.upstream.idleTimeout: must be longer than 0s (this one cannot be switched off)
16:48 spec.upstream.maxPerEndpoint: 65535 is out of range (it can be 1 to 60000)
16:55 spec.upstream.idle: unknown field (the fields here are idlePerEndpoint, idleTimeout, maxPerEndpoint)"#,
        ),
    ]);
}

#[test]
fn gateways() {
    cases(&[
        (
            r#"gatewayClassName: millrace"#,
            r#"gatewayClassName: nginx"#,
            r#"21:21 spec.gatewayClassName: unknown value "nginx"; it must be millrace"#,
        ),
        (
            r#"gatewayClassName: millrace"#,
            r#"gatewayclassname: millrace"#,
            r#"21:3 spec.gatewayClassName: is missing
21:3 spec.gatewayclassname: unknown field (did you mean `gatewayClassName`?)"#,
        ),
        (
            r#"gatewayClassName: millrace"#,
            r#"gatewayClassName: millrace
  infrastructure: {}"#,
            r#"22:19 spec.infrastructure: not supported yet: infrastructure (leave it out; a later release takes it)"#,
        ),
        (
            r#"type: IPAddress"#,
            r#"type: Hostname"#,
            r#"22:23 spec.addresses[0].type: not supported yet: addresses of type Hostname (leave it out; a later release takes it)"#,
        ),
        (
            r#"type: IPAddress"#,
            r#"type: IPAdress"#,
            r#"22:23 spec.addresses[0].type: unknown value "IPAdress"; it must be IPAddress (type: IPAddress, which is also the default)"#,
        ),
        (
            r#"type: IPAddress, value: 10.9.1.1"#,
            r#"value: 10.9.1.2"#,
            r#"22:24 spec.addresses[0].value: 10.9.1.2 is on no port of the Appliance (its addresses are 10.9.1.1, 10.9.2.1)"#,
        ),
        (
            r#"type: IPAddress, value: 10.9.1.1"#,
            r#"value: 10.9.1.1/24"#,
            r#"22:24 spec.addresses[0].value: "10.9.1.1/24" is not an IP address (without a prefix length)"#,
        ),
        (
            r#"type: IPAddress, value: 10.9.1.1"#,
            r#"value: web.example.com"#,
            r#"22:24 spec.addresses[0].value: "web.example.com" is not an IP address (such as 10.9.1.1; names are not resolved here)"#,
        ),
        (
            r#"type: IPAddress, value: 10.9.1.1 }"#,
            r#"value: 10.9.1.1 }, { value: 10.9.1.1 }"#,
            r#"22:45 spec.addresses[1].value: a second 10.9.1.1 (the first is at hello.yaml:22:24)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, protocol: HTTPS, port: 443, tls: {}"#,
            r#"23:39 spec.listeners[0].protocol: not supported yet: protocol HTTPS (protocol: HTTP; the others come with a later release)
23:62 spec.listeners[0].tls: not supported yet: tls (leave it out; a later release takes it)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, protocol: http, port: 0"#,
            r#"23:39 spec.listeners[0].protocol: unknown value "http"; it must be HTTP (did you mean HTTP?)
23:51 spec.listeners[0].port: 0 is out of range (it can be 1 to 65535)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, port: "80""#,
            r#"23:15 spec.listeners[0].protocol: is missing
23:35 spec.listeners[0].port: must be an integer, is the string "80" (leave out the quotes)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, protocol: HTTP, port: 65536"#,
            r#"23:51 spec.listeners[0].port: 65536 is out of range (it can be 1 to 65535)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80 }"#,
            r#"name: http, protocol: HTTP, port: 80 }, { name: http, protocol: HTTP, port: 81 }"#,
            r#"23:65 spec.listeners[1].name: a second listener named http (the first is at hello.yaml:23:23)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80 }"#,
            r#"name: http, protocol: HTTP, port: 80 }, { name: other, protocol: HTTP, port: 80 }"#,
            r#"23:57 spec.listeners[1]: a second listener for port 80 and all hostnames on the same address (the first is at hello.yaml:23:15: each needs a port or a hostname of its own)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80 }"#,
            r#"name: a, hostname: "*.a.b", protocol: HTTP, port: 80 }, { name: b, hostname: "*.a.b", protocol: HTTP, port: 80 }"#,
            r#"23:73 spec.listeners[1]: a second listener for port 80 and *.a.b on the same address (the first is at hello.yaml:23:15: each needs a port or a hostname of its own)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, protocol: HTTP, port: 80, hostname: "a.*.b""#,
            r#"23:65 spec.listeners[0].hostname: "a.*.b" has a wildcard that is not its whole first label (a DNS name in lower case without port, such as shop.example.com or *.example.com)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, protocol: HTTP, port: 80, hostname: "a.b:80""#,
            r#"23:65 spec.listeners[0].hostname: "a.b:80" has a port (a DNS name in lower case without port, such as shop.example.com or *.example.com)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, protocol: HTTP, port: 80, allowedRoutes: { namespaces: { from: All, selector: { matchLabel: {} } } }"#,
            r#"23:107 spec.listeners[0].allowedRoutes.namespaces.selector: there is a selector, but routes are taken from All (from: Selector)
23:109 spec.listeners[0].allowedRoutes.namespaces.selector.matchLabel: unknown field (did you mean `matchLabels`?)"#,
        ),
        (
            r#"name: http, protocol: HTTP, port: 80"#,
            r#"name: http, protocol: HTTP, port: 80, allowedRoutes: { namespaces: { from: all }, kinds: [{ kind: GRPCRoute }, { kind: Foo }] }"#,
            r#"23:92 spec.listeners[0].allowedRoutes.namespaces.from: unknown value "all"; one of Same, All, Selector, None (did you mean All?)
23:115 spec.listeners[0].allowedRoutes.kinds[0].kind: not supported yet: GRPCRoute (leave it out; a later release takes it)
23:136 spec.listeners[0].allowedRoutes.kinds[1].kind: unknown value "Foo"; it must be HTTPRoute"#,
        ),
    ]);
}

#[test]
fn routes() {
    cases(&[
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ name: wep }]"#,
            r#"29:24 spec.parentRefs[0].name: there is no Gateway default/wep (did you mean web?)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ name: web, namespace: other }]"#,
            r#"29:24 spec.parentRefs[0].name: there is no Gateway other/web (there is one in another namespace: default/web)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ name: web, sectionName: https, port: 81 }]"#,
            r#"29:42 spec.parentRefs[0].sectionName: Gateway default/web has no listener https (did you mean http?)
29:55 spec.parentRefs[0].port: Gateway default/web has no listener on port 81 (its ports are 80)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ name: web }, { name: web }]"#,
            r#"29:39 spec.parentRefs[1].name: a second reference to the same part of Gateway default/web (the first is at hello.yaml:29:24)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ group: "", kind: Service, name: web }]"#,
            r#"29:16 spec.parentRefs[0]: "Service" of "the core group" cannot be referred to here (group: gateway.networking.k8s.io, kind: Gateway)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ kind: Gatway, name: web }]"#,
            r#"29:16 spec.parentRefs[0]: "Gatway" of "gateway.networking.k8s.io" cannot be referred to here (group: gateway.networking.k8s.io, kind: Gateway)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: { name: web }"#,
            r#"29:15 spec.parentRefs: must be a list, is a mapping (put the item into a list: [ … ], or a line with a dash in front)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ name: web }]
  hostnames: [10.0.0.1, Shop.example.com, "*"]"#,
            r#"30:15 spec.hostnames[0]: "10.0.0.1" is an IP address (a DNS name in lower case without port, such as shop.example.com or *.example.com)
30:25 spec.hostnames[1]: "Shop.example.com" has upper-case letters (did you mean shop.example.com?)
30:43 spec.hostnames[2]: "*" has a wildcard that is not its whole first label (a DNS name in lower case without port, such as shop.example.com or *.example.com)"#,
        ),
        (
            r#"parentRefs: [{ name: web }]"#,
            r#"parentRefs: [{ name: web }]
  hostname: a.b"#,
            r#"30:3 spec.hostname: unknown field (did you mean `hostnames`?)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { type: RegularExpression, value: "(" }"#,
            r#"31:59 spec.rules[0].matches[0].path.value: "(" is no regular expression: unclosed group (the syntax is that of RE2, in ASCII; smaller bounds of repetitions make it smaller)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { type: prefix, value: / }"#,
            r#"31:33 spec.rules[0].matches[0].path.type: unknown value "prefix"; one of Exact, PathPrefix, RegularExpression"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { value: foo }"#,
            r#"31:34 spec.rules[0].matches[0].path.value: "foo" does not start with / (did you mean "/foo"?)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { value: /a//b }"#,
            r#"31:34 spec.rules[0].matches[0].path.value: "/a//b" has an empty segment (write single slashes)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { value: /a/../b }"#,
            r#"31:34 spec.rules[0].matches[0].path.value: "/a/../b" has a . or .. segment (write the path as it is after they are resolved)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { value: /a%2Fb }"#,
            r#"31:34 spec.rules[0].matches[0].path.value: "/a%2Fb" has an encoded slash (write /)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { value: /a%2 }"#,
            r#"31:34 spec.rules[0].matches[0].path.value: "/a%2" has characters that a path cannot have (percent-encode them as RFC 3986 says)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { value: "/a?b=c" }"#,
            r#"31:34 spec.rules[0].matches[0].path.value: "/a?b=c" has a query or a fragment (did you mean "/a"?)"#,
        ),
        (
            r#"path: { type: PathPrefix, value: / }"#,
            r#"path: { value: /grün }"#,
            r#"31:34 spec.rules[0].matches[0].path.value: "/grün" has characters that a path cannot have (percent-encode them as RFC 3986 says)"#,
        ),
        (
            r#"    - matches:"#,
            r#"    - filters: []
      retry: { attempts: 11, codes: [200], backoff: 1 }
      matchs: []
      matches:"#,
            r#"32:26 spec.rules[0].retry.attempts: 11 is out of range (it can be 0 to 10)
32:38 spec.rules[0].retry.codes[0]: 200 is out of range (it can be 400 to 599)
32:53 spec.rules[0].retry.backoff: 1 has no unit (1s, or 1ms)
33:7 spec.rules[0].matchs: unknown field (did you mean `matches`?)"#,
        ),
        (
            r#"group: millrace.dev, kind: Backend, name: hello"#,
            r#"name: hello"#,
            r#"32:29 spec.rules[0].backendRefs[0].name: there is no Service default/hello (define a Service)"#,
        ),
        (
            r#"group: millrace.dev, kind: Backend, name: hello"#,
            r#"group: millrace.dev, name: hello"#,
            r#"32:21 spec.rules[0].backendRefs[0]: "Service" of "millrace.dev" cannot be referred to here (group: millrace.dev, kind: Backend)"#,
        ),
        (
            r#"group: millrace.dev, kind: Backend, name: hello"#,
            r#"group: millrace.dev, kind: Backend, name: helo"#,
            r#"32:65 spec.rules[0].backendRefs[0].name: there is no Backend default/helo (did you mean hello?)"#,
        ),
        (
            r#"group: millrace.dev, kind: Backend, name: hello"#,
            r#"group: millrace.dev, kind: Backend, name: hello, namespace: other"#,
            r#"32:83 spec.rules[0].backendRefs[0].namespace: no ReferenceGrant lets routes of the namespace default refer to Backend other/hello (define one in the namespace other, or put both into one namespace)"#,
        ),
        (
            r#"group: millrace.dev, kind: Backend, name: hello, port: 8080"#,
            r#"group: millrace.dev, kind: Backend, name: hello"#,
            r#"32:21 spec.rules[0].backendRefs[0].port: is missing: endpoint 10.9.2.2 of default/hello has no port of its own (give a port here, or to every endpoint of the Backend)"#,
        ),
        (
            r#"group: millrace.dev, kind: Backend, name: hello, port: 8080"#,
            r#"group: millrace.dev, kind: Backend, name: hello, port: 8080, weight: 1000001"#,
            r#"32:92 spec.rules[0].backendRefs[0].weight: 1000001 is out of range (it can be 0 to 1000000)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      timeouts: { request: 1s, backendRequest: 2s }
      backendRefs:"#,
            r#"32:17 spec.rules[0].timeouts: backendRequest is longer than request (request covers every try at a backend: make it the longer one)"#,
        ),
        (
            r#"      backendRefs:"#,
            r#"      timeouts: { request: 0s, backendRequest: 2 }
      backendRefs:"#,
            r#"32:48 spec.rules[0].timeouts.backendRequest: 2 has no unit (2s, or 2ms)"#,
        ),
    ]);
}

#[test]
fn backends() {
    cases(&[
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: 10.9.1.1 }"#,
            r#"38:26 spec.endpoints[0].address: 10.9.1.1 is the appliance's own address (it stands at hello.yaml:11:19; give the address of the server)"#,
        ),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: 10.9.3.2 }"#,
            r#"38:26 spec.endpoints[0].address: no port reaches 10.9.3.2 (give a port of the Appliance an address in its subnet, a route or a gateway)"#,
        ),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: 10.9.2.3 }"#,
            r#"38:49 spec.endpoints[1].address: a second endpoint with the address 10.9.2.3 and the same port (the first is at hello.yaml:38:26)"#,
        ),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: hello.local }"#,
            r#"38:26 spec.endpoints[0].address: "hello.local" is not an IP address (for a name that DNS knows: fqdn: { hostname: hello.local })"#,
        ),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: "10.9.2.2:80" }"#,
            r#"38:26 spec.endpoints[0].address: "10.9.2.2:80" is not an IP address (without a port)"#,
        ),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: "fd00::2" }"#,
            r#"38:26 spec.endpoints[0].address: no port reaches fd00::2 (give a port of the Appliance an address in its subnet, a route or a gateway)"#,
        ),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"{ address: 224.0.0.1, port: 99999, weight: -1 }"#,
            r#"38:26 spec.endpoints[0].address: 224.0.0.1 is a multicast address (give the address of one host)
38:43 spec.endpoints[0].port: 99999 is out of range (it can be 1 to 65535)
38:58 spec.endpoints[0].weight: -1 is out of range (it can be 0 to 1000000)"#,
        ),
        (
            r#"{ address: 10.9.2.2 }"#,
            r#"10.9.2.2"#,
            r#"38:15 spec.endpoints[0]: must be a mapping, is the string "10.9.2.2""#,
        ),
        (
            r#"endpoints: [{ address: 10.9.2.2 }, { address: 10.9.2.3, weight: 2 }]"#,
            r#"protocol: h2"#,
            r#"38:3 spec.endpoints: is missing
38:13 spec.protocol: unknown value "h2"; it must be http"#,
        ),
        (
            r#"endpoints: [{ address: 10.9.2.2 }, { address: 10.9.2.3, weight: 2 }]"#,
            r#"endpoints: null"#,
            r#"38:3 spec.endpoints: is missing"#,
        ),
    ]);
}
