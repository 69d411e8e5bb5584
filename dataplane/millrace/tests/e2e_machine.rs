//! A virtual machine with four CPUs: PCI devices by VFIO behind an IOMMU, hugepages, devices that spread flows by RSS, and ones that take rules.

mod support;

use support::gateway::{Config, Gateway, MILLRACE};
use support::machine::{Hardware, Machine};
use support::sandbox::{Ns, Sandbox, VIP};

/// CPU 0 is the kernel's and control's.
const CORES: [usize; 3] = [1, 2, 3];

/// Requests over connections that stay and over ones that do not, all of which succeed. Emulated processors answer about a thousand a second.
fn load(sandbox: &Sandbox, gateway: &Gateway<'_>, host: &str) {
    let url = format!("http://{host}/1k");
    for more in [&[][..], &["-H", "Connection: close"]] {
        // wrk waits for its first connection as long as the kernel does.
        let wrk = ["30", "wrk", "-t1", "-c24", "-d2s", &url];
        let output = sandbox.output(Ns::Client, "timeout", &[&wrk, more].concat());
        assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
        eprintln!("{}", output.lines().find(|line| line.contains("requests in")).expect("a sum"));
    }
    for core in ["0", "1", "2"] {
        let requests = gateway.metric("millrace_requests_started_total", &[("core", core)]);
        assert!(requests > 30, "core {core} served {requests} requests");
        let opened = gateway.metric("millrace_upstream_connections_opened_total", &[("core", core)]);
        assert!(opened > 0, "core {core} opened no connection to a backend");
    }
    assert_eq!(gateway.answers().into_keys().collect::<Vec<_>>(), ["200"]);
}

#[test]
fn three_cores_on_pci_devices_with_rss_hand_nothing_over() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    sandbox.start_ipv6();
    let config = Config::listening(&[VIP, "fd00:9:1::1"])
        .backend("all", &["10.9.2.2:8080", "[fd00:9:2::3]:8080"])
        .route("all", &[], ("PathPrefix", "/"), &["all"])
        .cores(&CORES, "")
        .memory("{ hugepages: required, mebibytes: 256 }")
        .appliance("  idle: adaptive\n")
        .ports(
            r#"    - { name: north, device: "01:00.0", addresses: ["10.9.1.1/24", "fd00:9:1::1/64"] }
    - { name: south, device: "02:00.0", addresses: ["10.9.2.1/24", "fd00:9:2::1/64"] }
"#,
        );
    let hardware = Hardware { queues: 3, pages: 160, after: "", boot: "" };
    let Some(machine) = Machine::boot(&sandbox, hardware, &config) else { return };
    let gateway = &machine.gateway;
    for host in [VIP, "[fd00:9:1::1]"] {
        load(&sandbox, gateway, host);
    }
    let table = sandbox.output(Ns::Millrace, MILLRACE, &["get", "cores"]);
    eprintln!("{table}");
    // Three cores, two ports; the self-test has compared some hundred segments of each with the hash by now.
    assert_eq!((table.matches(" rss ").count(), table.matches(" interrupts ").count()), (6, 3), "{table}");
    for port in ["north", "south"] {
        for core in ["0", "1", "2"] {
            let received = gateway.metric("millrace_port_rx_packets_total", &[("core", core), ("port", port)]);
            assert!(received > 100, "core {core} received {received} packets from {port}");
        }
    }
    // Not a single reply arrived at a core that does not own its connection.
    assert_eq!(gateway.metric("millrace_port_handed_out_packets_total", &[]), 0, "{table}");
    let log = machine.end();
    assert!(log.contains("0000:01:00.0 is with vfio-pci") && log.contains("256 MiB in hugepages"), "{log}");
    assert!(log.contains("drained, bye"), "{log}");
}

#[test]
fn rules_of_the_device_bring_replies_to_the_core_that_asked() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let config = Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"])
        .cores(&CORES, "")
        .memory("{ hugepages: required, mebibytes: 256 }")
        .appliance("  idle: adaptive\n")
        .ports(
            r#"    - { name: north, device: "net_tap0,iface=north", addresses: ["10.9.1.1/24"] }
    - name: south
      device: "net_tap1,iface=south"
      addresses: ["10.9.2.1/24", "10.9.2.11/24", "10.9.2.12/24"]
"#,
        );
    let hardware = Hardware {
        queues: 3,
        pages: 160,
        after: "/tools/tc -s filter show dev south | tr -d '\\n'; echo",
        boot: "machine.devices=kernel",
    };
    let Some(machine) = Machine::boot(&sandbox, hardware, &config) else { return };
    let gateway = &machine.gateway;
    load(&sandbox, gateway, VIP);
    let table = sandbox.output(Ns::Millrace, MILLRACE, &["get", "cores"]);
    eprintln!("{table}");
    // The port towards clients has but one address.
    assert_eq!((table.matches(" rte_flow ").count(), table.matches(" queues ").count()), (3, 3), "{table}");
    assert_eq!(gateway.metric("millrace_port_handed_out_packets_total", &[("port", "south")]), 0, "{table}");
    let log = machine.end();
    let filters = log.lines().find(|line| line.contains("flower")).expect("the kernel's rules");
    for (queue, address) in ["10.9.2.1", "10.9.2.11", "10.9.2.12"].iter().enumerate() {
        let rule = filters.split("flower").find(|rule| rule.contains(&format!("dst_ip {address} "))).expect(address);
        assert!(rule.contains(&format!("queue_mapping {queue} ")), "{rule}");
        let packets = rule.split(" bytes ").nth(1).and_then(|rest| rest.split(' ').next()).expect("a count");
        assert!(packets.parse::<u64>().expect("a count") > 100, "{rule}");
    }
}
