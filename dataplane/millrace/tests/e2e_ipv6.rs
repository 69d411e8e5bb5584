//! IPv6 with real peers on either side, and between the families.

mod support;

use std::process::Stdio;
use std::time::Duration;

use support::gateway::{Config, Gateway};
use support::sandbox::{Ns, Sandbox};
use support::wait_for;

const PORTS: &str = r#"    - name: north
      device: "net_af_packet0,iface=mr-north"
      addresses: ["10.9.1.1/24", "fd00:9:1::1/64"]
    - name: south
      device: "net_af_packet1,iface=mr-south"
      addresses: ["10.9.2.1/24", "fd00:9:2::1/64"]
"#;

/// Both families on both sides. `/four` goes to an IPv4 backend, `/six` to one of IPv6, `/files` and the rest to both.
fn config() -> Config {
    Config::listening(&["10.9.1.1", "fd00:9:1::1"])
        .ports(PORTS)
        .backend("four", &["10.9.2.2:8080"])
        .backend("six", &["[fd00:9:2::3]:8080"])
        .backend("both", &["10.9.2.2:8080", "[fd00:9:2::3]:8080"])
        .route("four", &[], ("PathPrefix", "/four"), &["four"])
        .route("six", &[], ("PathPrefix", "/six"), &["six"])
        .route("all", &[], ("PathPrefix", "/"), &["both"])
}

fn curl(sandbox: &Sandbox, ns: Ns, url: &str) -> String {
    sandbox.output(ns, "curl", &["-sS", "-g", "--max-time", "20", url])
}

fn peers(sandbox: &Sandbox) {
    sandbox.start_nginx();
    sandbox.start_ipv6();
}

#[test]
fn each_family_reaches_each_family() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    let gateway = Gateway::start(&sandbox, &config());
    for (url, expected) in [
        ("http://[fd00:9:1::1]/six", "b2-v6 GET /six host=[fd00:9:1::1] from=fd00:9:1::2 proto=http\n"),
        ("http://[fd00:9:1::1]/four", "b1 GET /four host=[fd00:9:1::1] from=fd00:9:1::2 proto=http\n"),
        ("http://10.9.1.1/six", "b2-v6 GET /six host=10.9.1.1 from=10.9.1.2 proto=http\n"),
        ("http://10.9.1.1/four", "b1 GET /four host=10.9.1.1 from=10.9.1.2 proto=http\n"),
    ] {
        assert_eq!(curl(&sandbox, Ns::Client, url), expected, "{url}");
    }
    // Bodies that take many segments, both ways.
    let body = support::pattern(3 << 20);
    std::fs::write(sandbox.dir().join("body"), &body).unwrap();
    let path = sandbox.dir().join("body").display().to_string();
    for (url, family) in [("http://[fd00:9:1::1]/", "IPv6"), ("http://10.9.1.1/", "IPv4")] {
        for _ in 0..2 {
            let upload = format!("{url}upload");
            let said = sandbox.output(Ns::Client, "curl", &["-sS", "-g", "--max-time", "20", "-T", &path, &upload]);
            assert!(said.contains(&format!("took {} bytes", body.len())), "{family}: {said}");
            assert_eq!(curl(&sandbox, Ns::Client, &format!("{url}1m")).len(), 1 << 20, "{family}");
        }
    }
    assert_eq!(gateway.metric("millrace_port_addresses_duplicate", &[]), 0);
    assert_eq!(gateway.drops("ipv6"), 0);
}

#[test]
fn ipv6_carries_a_load() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    let gateway = Gateway::start(&sandbox, &config());
    let said = sandbox.output(Ns::Client, "wrk", &["-t1", "-c32", "-d3s", "http://[fd00:9:1::1]/1k"]);
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let mut answers = gateway.answers();
    assert!(answers.remove("200").unwrap_or(0) > 1000, "{said}");
    // wrk leaves while it waits for an answer on each of its connections.
    assert!(answers.remove("499").unwrap_or(0) <= 32, "{said}");
    assert!(answers.is_empty(), "{answers:?} {said}");
    assert_eq!(gateway.metric("millrace_tcp_resets_sent_total", &[]), 0);
}

#[test]
fn two_cores_carry_it_and_both_ask_for_neighbors() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    let set = rustix::thread::sched_getaffinity(None).expect("the affinity can be read");
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).take(2).collect();
    if cpus.len() < 2 {
        eprintln!("\n*** NOT RUN: two cores need two CPUs ***\n");
        return;
    }
    let config = config().cores(&cpus, "").appliance("  idle: adaptive\n");
    let gateway = Gateway::start(&sandbox, &config);
    let said = sandbox.output(Ns::Client, "wrk", &["-t1", "-c32", "-d3s", "http://[fd00:9:1::1]/1k"]);
    assert!(!said.contains("Socket errors") && !said.contains("Non-2xx"), "{said}");
    let body = support::pattern(1 << 20);
    std::fs::write(sandbox.dir().join("body"), &body).unwrap();
    let path = sandbox.dir().join("body").display().to_string();
    for _ in 0..8 {
        let upload = ["-sS", "-g", "--max-time", "20", "-T", &path, "http://[fd00:9:1::1]/upload"];
        assert!(sandbox.output(Ns::Client, "curl", &upload).contains(&format!("took {} bytes", body.len())));
    }
    for core in ["0", "1"] {
        let on = |name| gateway.metric(name, &[("core", core)]);
        assert!(on("millrace_requests_started_total") > 100, "core {core}");
        assert!(on("millrace_nd_solicitations_total") > 0, "core {core} asks for itself");
    }
    assert!(gateway.metric("millrace_port_handed_in_packets_total", &[("core", "1")]) > 100);
    assert_eq!(
        gateway.metric("millrace_port_addresses_duplicate", &[]),
        0,
        "what one core asks is not the other's answer"
    );
    assert_eq!(gateway.drops("ipv6"), 0);
}

#[test]
fn hosts_find_it_ping_it_and_are_told_about_closed_ports() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    let gateway = Gateway::start(&sandbox, &config());
    sandbox.output(Ns::Client, "ping", &["-6", "-c3", "-i0.2", "-W2", "fd00:9:1::1"]);
    sandbox.output(Ns::Client, "ping", &["-6", "-c1", "-W2", "-s1452", "fd00:9:1::1"]);
    assert_eq!(gateway.metric("millrace_icmp_echo_replies_total", &[]), 4);
    let neighbors = sandbox.output(Ns::Client, "ip", &["-6", "neighbour", "show", "fd00:9:1::1"]);
    assert!(neighbors.contains("REACHABLE") && !neighbors.contains("router"), "{neighbors}");
    // Over a minute would be needed to see the kernel ask again by itself.
    sandbox.output(Ns::Client, "ip", &["-6", "neighbour", "flush", "dev", "eth0"]);
    sandbox.output(Ns::Client, "ping", &["-6", "-c1", "-W2", "fd00:9:1::1"]);
    // By its link-local address, made from its Ethernet address.
    let mac = sandbox.output(Ns::Millrace, "cat", &["/sys/class/net/mr-north/address"]);
    let bytes: Vec<u8> = mac.trim().split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let local = format!(
        "fe80::{:x}:{:x}:{:x}:{:x}%eth0",
        u16::from_be_bytes([bytes[0] ^ 2, bytes[1]]),
        u16::from_be_bytes([bytes[2], 0xff]),
        u16::from_be_bytes([0xfe, bytes[3]]),
        u16::from_be_bytes([bytes[4], bytes[5]])
    );
    sandbox.output(Ns::Client, "ping", &["-6", "-c1", "-W2", &local]);
    let refused = sandbox.inside(Ns::Client, || std::net::TcpStream::connect("[fd00:9:1::1]:81").map_err(|e| e.kind()));
    assert_eq!(refused.unwrap_err(), std::io::ErrorKind::ConnectionRefused);
    let unreachable = sandbox.inside(Ns::Client, || {
        let socket = std::net::UdpSocket::bind("[::]:0")?;
        socket.connect("[fd00:9:1::1]:53")?;
        socket.set_read_timeout(Some(Duration::from_secs(3)))?;
        socket.send(b"?")?;
        socket.recv(&mut [0; 9])
    });
    assert_eq!(unreachable.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn an_address_that_a_host_has_already_is_left_to_it() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    sandbox.output(Ns::Client, "ip", &["-6", "address", "add", "fd00:9:1::1/64", "dev", "eth0", "nodad"]);
    let gateway = Gateway::start(&sandbox, &config());
    assert_eq!(gateway.metric("millrace_port_addresses_duplicate", &[("port", "north")]), 1);
    assert_eq!(gateway.metric("millrace_port_addresses_duplicate", &[("port", "south")]), 0);
    assert_eq!(curl(&sandbox, Ns::Client, "http://10.9.1.1/four").split(' ').next(), Some("b1"));
}

#[test]
fn a_backend_that_goes_away_is_noticed() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    let gateway = Gateway::start(&sandbox, &config());
    sandbox.output(Ns::B2, "ip", &["link", "set", "eth0", "down"]);
    let status = |path: &str| {
        let url = format!("http://[fd00:9:1::1]{path}");
        let arguments = ["-sS", "-g", "--max-time", "20", "-o", "/dev/null", "-w", "%{http_code}", &url];
        sandbox.output(Ns::Client, "curl", &arguments)
    };
    assert!(matches!(status("/six").as_str(), "502" | "503" | "504"));
    assert_eq!(status("/four"), "200");
    sandbox.output(Ns::B2, "ip", &["link", "set", "eth0", "up"]);
    sandbox.output(Ns::B2, "ip", &["-6", "address", "replace", "fd00:9:2::3/64", "dev", "eth0", "nodad"]);
    wait_for("the backend is back", Duration::from_secs(20), || status("/six") == "200");
    drop(gateway);
}

#[test]
fn routes_lead_on_dead_next_hops_are_left_out_and_paths_may_be_narrow() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    sandbox.run_script("sandbox_far 1400");
    // By way of the client, and of somebody who is not there.
    let gateway = Gateway::start_example(&sandbox, "routes.yaml");
    // Three questions, a second apart.
    std::thread::sleep(Duration::from_secs(5));
    for host in ["10.9.1.1", "[fd00:9:1::1]"] {
        for n in 0..16 {
            let said = curl(&sandbox, Ns::Far, &format!("http://{host}/four"));
            assert!(said.starts_with("b1 "), "{host}, {n}: {said}");
        }
        let start = std::time::Instant::now();
        for n in 0..3 {
            assert_eq!(curl(&sandbox, Ns::Far, &format!("http://{host}/1m")).len(), 1 << 20, "{host}, {n}");
        }
        assert!(start.elapsed() < Duration::from_secs(10), "{host}: {:?}", start.elapsed());
    }
    assert!(gateway.metric("millrace_tcp_retransmissions_total", &[]) > 0, "what was too large was sent again");
}

#[test]
fn routers_are_learned_where_that_is_wanted() {
    let sandbox = sandbox_or_skip!();
    peers(&sandbox);
    sandbox.run_script("sandbox_far 1500");
    let gateway = Gateway::start_example(&sandbox, "ipv6.yaml");
    let advertise = format!("{}/dataplane/millrace/tests/support/router.py", support::sandbox::REPOSITORY);
    let mut router =
        sandbox.command(Ns::Client, "python3").args([&advertise, "eth0"]).stdout(Stdio::null()).spawn().unwrap();
    sandbox.adopt(router.id());
    wait_for("a way back", Duration::from_secs(10), || {
        let arguments = ["-s", "-g", "--max-time", "2", "http://[fd00:9:1::1]/"];
        let output = sandbox.command(Ns::Far, "curl").args(arguments).output().unwrap();
        output.stdout.starts_with(b"b")
    });
    router.kill().unwrap();
    router.wait().unwrap();
    drop(gateway);
}
