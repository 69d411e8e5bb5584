//! VLANs, jumbo frames and routes, as the examples configure them.

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use support::gateway::Gateway;
use support::sandbox::{Ns, REPOSITORY, Sandbox};
use support::wait_for;

fn curl(sandbox: &Sandbox, ns: Ns, url: &str) -> String {
    sandbox.output(ns, "curl", &["-sS", "-g", "--max-time", "20", url])
}

/// VLANs 7 and 8 of the client's wire, as interfaces with addresses.
struct Trunk(Child);

impl Trunk {
    fn plug(sandbox: &Sandbox) -> Self {
        let mut command = sandbox.command(Ns::Client, "python3");
        command.arg(format!("{REPOSITORY}/dataplane/millrace/tests/support/vlan.py")).args(["eth0", "v7=7", "v8=8"]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("python3 runs");
        sandbox.adopt(child.id());
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        sandbox.run_script(
            "ip netns exec $NS_CLIENT sh -c 'echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6'
            for vlan in 7 8; do
                ip netns exec $NS_CLIENT sh -c \"echo 0 >/proc/sys/net/ipv6/conf/v$vlan/disable_ipv6\"
                ip -n $NS_CLIENT address add 10.9.$vlan.2/24 dev v$vlan
                ip -n $NS_CLIENT address add fd00:9:$vlan::2/64 dev v$vlan nodad
                ip -n $NS_CLIENT link set v$vlan mtu 1500 up
            done
            nginx_backend $NS_CLIENT v8 10.9.8.2; nginx_backend $NS_CLIENT v8-v6 '[fd00:9:8::2]'",
        );
        for address in ["10.9.8.2:8080", "[fd00:9:8::2]:8080"] {
            wait_for("nginx listens", Duration::from_secs(10), || {
                sandbox.inside(Ns::Client, || std::net::TcpStream::connect(address).is_ok())
            });
        }
        Self(child)
    }
}

impl Drop for Trunk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn vlans_lead_from_clients_to_backends_and_know_nothing_of_each_other() {
    let sandbox = sandbox_or_skip!();
    let _trunk = Trunk::plug(&sandbox);
    let gateway = Gateway::start_example(&sandbox, "vlan.yaml");
    for url in ["http://10.9.7.1/", "http://[fd00:9:7::1]/"] {
        let said: Vec<String> = (0..2).map(|_| curl(&sandbox, Ns::Client, url)).collect();
        assert!(said.iter().any(|said| said.starts_with("v8 ")), "{said:?}");
        assert!(said.iter().any(|said| said.starts_with("v8-v6 ")), "{said:?}");
        // Towards the backends packets are smaller, and files take many of them.
        for _ in 0..2 {
            assert_eq!(curl(&sandbox, Ns::Client, &format!("{url}1m")).len(), 1 << 20);
        }
    }
    for address in ["10.9.7.1", "10.9.8.1", "fd00:9:7::1", "fd00:9:8::1"] {
        sandbox.output(Ns::Client, "ping", &["-c1", "-W2", address]);
    }
    // The other VLAN's address is not to be had.
    sandbox.run_script(
        "ip -n $NS_CLIENT route add 10.9.8.1/32 dev v7; ip -n $NS_CLIENT route add fd00:9:8::1/128 dev v7
         ip -n $NS_CLIENT neighbour flush dev v7; ip -n $NS_CLIENT neighbour flush dev v8",
    );
    for address in ["10.9.8.1", "fd00:9:8::1"] {
        let ping = sandbox.command(Ns::Client, "ping").args(["-c1", "-W1", address]).output().unwrap();
        assert!(!ping.status.success(), "{address}: {ping:?}");
    }
    drop(gateway);
}

/// Bytes and packets that an interface of a backend has received and sent.
fn traffic(sandbox: &Sandbox, ns: Ns) -> [u64; 4] {
    let names = ["rx_bytes", "rx_packets", "tx_bytes", "tx_packets"];
    names.map(|name| {
        let text = sandbox.output(ns, "cat", &[&format!("/sys/class/net/eth0/statistics/{name}")]);
        text.trim().parse().unwrap()
    })
}

#[test]
fn jumbo_frames_are_sent_and_received_where_the_link_takes_them() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    sandbox.run_script(
        "for link in south b1 b2; do ip -n $NS_LAN link set $link mtu 9000; done
         ip -n $NS_LAN link set lan mtu 9000; ip -n $NS_MR link set mr-south mtu 9000
         ip -n $NS_B1 link set eth0 mtu 9000; ip -n $NS_B2 link set eth0 mtu 9000",
    );
    let gateway = Gateway::start_example(&sandbox, "jumbo.yaml");
    let body = support::pattern(2 << 20);
    let path = sandbox.dir().join("body");
    std::fs::write(&path, &body).unwrap();
    let before = [Ns::B1, Ns::B2].map(|ns| traffic(&sandbox, ns));
    for _ in 0..2 {
        let upload = ["-sS", "--max-time", "20", "-T", path.to_str().unwrap(), "http://10.9.1.1/upload"];
        let said = sandbox.output(Ns::Client, "curl", &upload);
        assert!(said.contains(&format!("took {} bytes", body.len())), "{said}");
        for _ in 0..2 {
            assert_eq!(curl(&sandbox, Ns::Client, "http://10.9.1.1/1m").len(), 1 << 20);
        }
    }
    for (ns, before) in [Ns::B1, Ns::B2].into_iter().zip(before) {
        let now = traffic(&sandbox, ns);
        let [rx_bytes, rx_packets, tx_bytes, tx_packets] = [0, 1, 2, 3].map(|at| now[at] - before[at]);
        // ACKs are among them, and what a connection begins with.
        assert!(rx_bytes > 2 << 20 && rx_bytes / rx_packets > 2500, "{rx_bytes} bytes in {rx_packets} packets");
        assert!(tx_bytes > 2 << 20 && tx_bytes / tx_packets > 2500, "{tx_bytes} bytes in {tx_packets} packets");
    }
    assert_eq!(gateway.metric("millrace_tcp_retransmissions_total", &[]), 0);
}
