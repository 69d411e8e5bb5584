//! The exception path: the host's kernel on the same port as Millrace.

mod support;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::backend::Backend;
use support::gateway::{Config, Gateway};
use support::packets::Ip;
use support::sandbox::{Ns, Sandbox};
use support::wire::{GATEWAY, HOST, Wire};
use support::{pattern, wait_for};

const RAW: &str = "10.9.2.2:9000";

/// A Millrace whose port to clients shares its address with the kernel, which has another one of its own.
fn gateway<'a>(sandbox: &'a Sandbox, more: &str) -> Gateway<'a> {
    let exception =
        format!("      exception: {{ interface: mr0, tcp: [22, 179], udp: [5300], addresses: [10.9.1.10]{more} }}\n");
    let gateway = Gateway::start(sandbox, &Config::everything_to(&[RAW]).north(&exception));
    sandbox.output(Ns::Millrace, "ip", &["address", "add", "10.9.1.1/24", "dev", "mr0"]);
    sandbox.output(Ns::Millrace, "ip", &["address", "add", "10.9.1.10/32", "dev", "mr0"]);
    // The sandbox forbids the kernel in there to answer ARP at all; on the TAP it has to for what is its own.
    sandbox.output(Ns::Millrace, "sh", &["-c", "echo 0 >/proc/sys/net/ipv4/conf/all/arp_ignore"]);
    gateway
}

fn to_host(gateway: &Gateway<'_>) -> u64 {
    gateway.metric("millrace_port_exception_to_host_total", &[("port", "north")])
}

/// RSTs that the kernel beside Millrace has sent.
fn kernels_resets(sandbox: &Sandbox) -> u64 {
    let snmp = sandbox.output(Ns::Millrace, "cat", &["/proc/net/snmp"]);
    let mut tcp = snmp.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (tcp.next().unwrap(), tcp.next().unwrap());
    let at = names.split(' ').position(|name| name == "OutRsts").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

/// Says back all that comes, until the other side closes.
fn echo(listener: &TcpListener) {
    let (mut stream, _) = listener.accept().unwrap();
    let mut buffer = [0; 16384];
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return,
            n => stream.write_all(&buffer[..n]).unwrap(),
        }
    }
}

fn exchange(mut stream: TcpStream) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let bytes = pattern(200_000);
    let sent = bytes.clone();
    let mut writer = stream.try_clone().unwrap();
    let thread = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).unwrap();
    thread.join().unwrap();
    assert!(back == bytes, "what came back is not what was sent");
}

#[test]
fn the_kernel_has_its_ports_and_millrace_the_others() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox, "");
    let listen = |address: &str| sandbox.inside(Ns::Millrace, || TcpListener::bind(address).unwrap());
    let connect = |ns: Ns, address: &str| sandbox.inside(ns, || TcpStream::connect(address).unwrap());
    std::thread::scope(|scope| {
        // An SSH of sorts, at the address that both have.
        let ssh = listen("10.9.1.1:22");
        scope.spawn(move || echo(&ssh));
        exchange(connect(Ns::Client, "10.9.1.1:22"));
        // At an address of the kernel's own, any port is its.
        let own = listen("10.9.1.10:80");
        scope.spawn(move || echo(&own));
        exchange(connect(Ns::Client, "10.9.1.10:80"));
        // The kernel connects to a listed port of somebody else's.
        let peer = sandbox.inside(Ns::Client, || TcpListener::bind("10.9.1.2:179").unwrap());
        scope.spawn(move || echo(&peer));
        exchange(connect(Ns::Millrace, "10.9.1.2:179"));
    });
    let udp = sandbox.inside(Ns::Millrace, || UdpSocket::bind("10.9.1.1:5300").unwrap());
    let client = sandbox.inside(Ns::Client, || UdpSocket::bind("10.9.1.2:5301").unwrap());
    for socket in [&udp, &client] {
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    }
    let mut buffer = [0; 16];
    client.send_to(b"question", "10.9.1.1:5300").unwrap();
    let (n, from) = udp.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"question");
    udp.send_to(b"answer", from).unwrap();
    assert_eq!(client.recv(&mut buffer).unwrap(), 6);
    // Ping from the kernel, and of either; the one at the shared address is Millrace's.
    sandbox.output(Ns::Millrace, "ping", &["-c", "1", "-W", "5", "10.9.1.2"]);
    sandbox.output(Ns::Client, "ping", &["-c", "1", "-W", "5", "10.9.1.10"]);
    let answered = gateway.metric("millrace_icmp_echo_replies_total", &[]);
    sandbox.output(Ns::Client, "ping", &["-c", "1", "-W", "5", "10.9.1.1"]);
    assert_eq!(gateway.metric("millrace_icmp_echo_replies_total", &[]), answered + 1);
    // Millrace serves as ever, and the kernel neither sees its segments nor resets them.
    let (resets, seen) = (kernels_resets(&sandbox), to_host(&gateway));
    for _ in 0..50 {
        assert_eq!(gateway.get("/").status, 200);
    }
    assert_eq!(kernels_resets(&sandbox), resets);
    assert!(to_host(&gateway) <= seen + 5, "but for neighbors' answers");
    // What nobody has is refused by Millrace.
    let refused = sandbox.inside(Ns::Client, || TcpStream::connect("10.9.1.1:23").unwrap_err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(kernels_resets(&sandbox), resets);
    // What is the kernel's and not listened on, by the kernel.
    let refused = sandbox.inside(Ns::Client, || TcpStream::connect("10.9.1.1:22").unwrap_err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    assert_eq!(kernels_resets(&sandbox), resets + 1);
}

/// Each core has a queue of the TAP's; the devices have one queue, so that one core receives and the other is handed its frames.
#[test]
fn several_cores_have_exception_paths_side_by_side() {
    let sandbox = sandbox_or_skip!();
    let set = rustix::thread::sched_getaffinity(None).unwrap();
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).take(2).collect();
    if cpus.len() < 2 {
        eprintln!("\n*** NOT RUN: two cores need two CPUs ***\n");
        return;
    }
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let config = Config::everything_to(&[RAW])
        .appliance("  idle: adaptive\n")
        .cores(&cpus, "")
        .north("      exception: { interface: mr0, tcp: [22] }\n");
    let gateway = Gateway::start(&sandbox, &config);
    sandbox.output(Ns::Millrace, "ip", &["address", "add", "10.9.1.1/24", "dev", "mr0"]);
    let ssh = sandbox.inside(Ns::Millrace, || TcpListener::bind("10.9.1.1:22").unwrap());
    for _ in 0..8 {
        std::thread::scope(|scope| {
            scope.spawn(|| echo(&ssh));
            exchange(sandbox.inside(Ns::Client, || TcpStream::connect("10.9.1.1:22").unwrap()));
        });
        assert_eq!(gateway.get("/").status, 200);
    }
    assert!(to_host(&gateway) > 100);
    assert_eq!(gateway.drops("exception_rate"), 0);
}

/// An interface that was there before is used, and stays with all that it has.
#[test]
fn the_example_runs_on_an_interface_that_outlives_it() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let ip = |words: &str| sandbox.output(Ns::Millrace, "ip", &words.split(' ').collect::<Vec<_>>());
    ip("tuntap add dev mr0 mode tap multi_queue");
    ip("address add 10.9.1.1/24 dev mr0");
    let ssh = sandbox.inside(Ns::Millrace, || TcpListener::bind("10.9.1.1:22").unwrap());
    for _ in 0..2 {
        let gateway = Gateway::start_example(&sandbox, "exception.yaml");
        std::thread::scope(|scope| {
            scope.spawn(|| echo(&ssh));
            exchange(sandbox.inside(Ns::Client, || TcpStream::connect("10.9.1.1:22").unwrap()));
        });
        assert_eq!(gateway.get("/").status, 200);
        drop(gateway);
        assert!(ip("address show dev mr0").contains("10.9.1.1/24"));
    }
}

#[test]
fn what_is_for_the_kernel_is_limited_and_does_not_hold_up_the_rest() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox, ", packetsPerSecond: 100");
    let wire = Wire::plug(&sandbox);
    let before = to_host(&gateway);
    let start = Instant::now();
    let datagram = [&5301u16.to_be_bytes()[..], &5300u16.to_be_bytes(), &[0, 12, 0, 0], b"0123"].concat();
    for portion in 1..=20 {
        for _ in 0..100 {
            wire.send_packet(&Ip::new(HOST, GATEWAY, 17).packet(&datagram));
        }
        wait_for("they have arrived", Duration::from_secs(5), || {
            to_host(&gateway) - before + gateway.drops("exception_rate") >= portion * 100
        });
    }
    let took = start.elapsed().as_secs_f64();
    let passed = (to_host(&gateway) - before) as f64;
    assert!(passed <= 25.0 + 100.0 * (took + 1.0), "{passed} in {took} s");
    assert!(gateway.drops("exception_rate") > 500, "{}", gateway.drops("exception_rate"));
    assert_eq!(gateway.get("/").status, 200);
}

/// A BIRD that runs until it is dropped.
struct Bird<'a> {
    sandbox: &'a Sandbox,
    ns: Ns,
    socket: String,
    child: Child,
}

impl<'a> Bird<'a> {
    /// One that speaks BGP with `peer` and has one network of its own. It does not touch the kernel's routes.
    fn start(
        sandbox: &'a Sandbox,
        ns: Ns,
        (own, own_as): (&str, u32),
        (peer, peer_as): (&str, u32),
        net: &str,
    ) -> Self {
        let config = sandbox.dir().join(format!("bird-{own_as}.conf"));
        let socket = sandbox.dir().join(format!("bird-{own_as}.ctl")).to_str().unwrap().to_owned();
        let text = format!(
            "router id {own};
             protocol device {{ }}
             protocol static {{ ipv4; route {net} blackhole; }}
             protocol bgp peer {{
                 local {own} as {own_as};
                 neighbor {peer} as {peer_as};
                 hold time 6; keepalive time 1; connect retry time 1; error wait time 1, 2;
                 ipv4 {{ import all; export all; }};
             }}
            "
        );
        std::fs::write(&config, text).unwrap();
        let mut command: Command = sandbox.command(ns, "bird");
        command.arg("-f").arg("-c").arg(&config).args(["-s", &socket]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bird2 is installed");
        sandbox.adopt(child.id());
        Self { sandbox, ns, socket, child }
    }

    fn says(&self, words: &[&str]) -> String {
        let output = self.sandbox.command(self.ns, "birdc").args(["-s", &self.socket]).args(words).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn is_established(&self) -> bool {
        self.says(&["show", "protocols", "peer"]).contains("Established")
    }
}

impl Drop for Bird<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// BGP sessions live through Millrace's port while it serves HTTP on it.
#[test]
fn bird_holds_a_session_through_the_exception_path() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = gateway(&sandbox, "");
    let ours = Bird::start(&sandbox, Ns::Millrace, ("10.9.1.1", 65000), ("10.9.1.2", 65001), "192.0.2.0/24");
    let theirs = Bird::start(&sandbox, Ns::Client, ("10.9.1.2", 65001), ("10.9.1.1", 65000), "198.51.100.0/24");
    wait_for("the session is established", Duration::from_secs(20), || {
        ours.is_established() && theirs.is_established()
    });
    wait_for("each has the other's network", Duration::from_secs(10), || {
        ours.says(&["show", "route"]).contains("198.51.100.0/24")
            && theirs.says(&["show", "route"]).contains("192.0.2.0/24")
    });
    let since = |bird: &Bird<'_>| bird.says(&["show", "protocols", "peer"]);
    let (ours_since, theirs_since) = (since(&ours), since(&theirs));
    // Longer than the hold time, with traffic.
    let start = Instant::now();
    let mut served = 0;
    while start.elapsed() < Duration::from_secs(8) {
        assert_eq!(gateway.get("/").status, 200);
        served += 1;
    }
    assert!(served > 100, "{served}");
    assert_eq!((since(&ours), since(&theirs)), (ours_since, theirs_since), "it is the same session");
    assert!(ours.is_established());
    assert_eq!(gateway.drops("exception_rate"), 0);
    assert_eq!(gateway.metric("millrace_port_exception_lost_total", &[]), 0);
    drop(theirs);
    wait_for("BIRD notices that its peer is gone", Duration::from_secs(10), || !ours.is_established());
}

/// IPv6 as IPv4: ports at an address that both have, and an address of the kernel's own, for which it answers solicitations itself.
#[test]
fn the_kernel_has_its_ports_over_ipv6_too() {
    const PORTS: &str = r#"    - name: north
      device: "net_af_packet0,iface=mr-north"
      addresses: ["10.9.1.1/24", "fd00:9:1::1/64"]
      exception: { interface: mr0, tcp: [22, 179], addresses: ["fd00:9:1::10"] }
    - name: south
      device: "net_af_packet1,iface=mr-south"
      addresses: ["10.9.2.1/24", "fd00:9:2::1/64"]
"#;
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    sandbox.start_ipv6();
    let config = Config::listening(&["10.9.1.1", "fd00:9:1::1"])
        .ports(PORTS)
        .backend("all", &["[fd00:9:2::3]:8080"])
        .route("all", &[], ("PathPrefix", "/"), &["all"]);
    let gateway = Gateway::start(&sandbox, &config);
    sandbox.output(Ns::Millrace, "sh", &["-c", "echo 0 >/proc/sys/net/ipv6/conf/mr0/disable_ipv6"]);
    // Millrace has checked the address that both have; the kernel need not.
    sandbox.output(Ns::Millrace, "ip", &["-6", "address", "add", "fd00:9:1::1/64", "dev", "mr0", "nodad"]);
    sandbox.output(Ns::Millrace, "ip", &["-6", "address", "add", "fd00:9:1::10/128", "dev", "mr0", "nodad"]);
    let listen = |address: &str| sandbox.inside(Ns::Millrace, || TcpListener::bind(address).unwrap());
    let connect = |ns: Ns, address: &str| sandbox.inside(ns, || TcpStream::connect(address).unwrap());
    std::thread::scope(|scope| {
        for (listening, connecting) in
            [("[fd00:9:1::1]:22", "[fd00:9:1::1]:22"), ("[fd00:9:1::10]:80", "[fd00:9:1::10]:80")]
        {
            let listener = listen(listening);
            scope.spawn(move || echo(&listener));
            exchange(connect(Ns::Client, connecting));
        }
        let peer = sandbox.inside(Ns::Client, || TcpListener::bind("[fd00:9:1::2]:179").unwrap());
        scope.spawn(move || echo(&peer));
        exchange(connect(Ns::Millrace, "[fd00:9:1::2]:179"));
    });
    let served = sandbox.output(Ns::Client, "curl", &["-sS", "-g", "--max-time", "20", "http://[fd00:9:1::1]/six"]);
    assert!(served.starts_with("b2-v6 GET /six"), "{served}");
    assert!(to_host(&gateway) > 100, "{}", to_host(&gateway));
    assert_eq!(gateway.metric("millrace_port_addresses_duplicate", &[]), 0);
}
