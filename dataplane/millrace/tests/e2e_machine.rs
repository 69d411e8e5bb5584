//! A virtual machine with four CPUs and PCI devices: VFIO behind an IOMMU, hugepages, and devices that spread flows by RSS.

mod support;

use support::gateway::{Config, Gateway, MILLRACE};
use support::machine::{Hardware, Machine};
use support::sandbox::{Ns, Sandbox, VIP};

/// CPU 0 is the kernel's and control's.
const CORES: [usize; 3] = [1, 2, 3];

/// Requests over connections that stay and over ones that do not, all of which succeed. Emulated processors answer about a thousand a second.
fn load(sandbox: &Sandbox, gateway: &Gateway<'_>) {
    let url = format!("http://{VIP}/1k");
    for arguments in [&["-t1", "-c24", "-d2s", &url][..], &["-t1", "-c24", "-d2s", "-H", "Connection: close", &url]] {
        let output = sandbox.output(Ns::Client, "wrk", arguments);
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
    let config = Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"])
        .cores(&CORES, "")
        .memory("{ hugepages: required, mebibytes: 256 }")
        .appliance("  idle: adaptive\n")
        .ports(
            r#"    - { name: north, device: "01:00.0", addresses: ["10.9.1.1/24"] }
    - { name: south, device: "02:00.0", addresses: ["10.9.2.1/24"] }
"#,
        );
    let hardware = Hardware { queues: 3, pages: 160, before: "", boot: "" };
    let Some(machine) = Machine::boot(&sandbox, hardware, &config) else { return };
    let gateway = &machine.gateway;
    load(&sandbox, gateway);
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
