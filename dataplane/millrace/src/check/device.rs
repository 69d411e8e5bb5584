//! One device of a configuration: is it there, and is it as its driver needs it?

use super::{Finding, Host, Level};

/// Whether the device is a PCI address rather than a virtual device.
pub(super) fn is_pci(device: &str) -> bool {
    let address = device.split(',').next().unwrap_or_default();
    !address.is_empty()
        && address.bytes().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))
        && address.contains(':')
}

/// Drivers that the virtual devices need, or af_packet's where no configuration says which.
pub(super) fn drivers(host: &Host, devices: &[(&str, &str)]) -> Vec<Finding> {
    let mut wanted: Vec<String> = devices.iter().filter(|(_, d)| !is_pci(d)).map(|(_, d)| driver(d)).collect();
    if devices.is_empty() {
        wanted.push("net_af_packet".to_owned());
    }
    wanted.sort();
    wanted.dedup();
    let libraries = libraries(host);
    wanted
        .into_iter()
        .map(|driver| {
            // virtio_user is part of the virtio driver.
            let library = if driver == "net_virtio_user" { "net_virtio" } else { &driver };
            let prefix = format!("librte_{library}.so");
            if libraries.iter().any(|name| name.starts_with(&prefix)) {
                Finding::new(Level::Pass, "PMD", format!("{driver} is installed"))
            } else {
                Finding::new(Level::Warn, "PMD", format!("{driver}: found no {prefix}"))
                    .hint("apt-get install libdpdk-dev, unless DPDK is linked statically")
            }
        })
        .collect()
}

/// What can be said about one device.
pub(super) fn findings(host: &Host, port: &str, device: &str) -> Vec<Finding> {
    let subject = format!("port {port}");
    if is_pci(device) {
        return vec![pci(host, &subject, device)];
    }
    if driver(device) == "net_tap" {
        return vec![tap(host, &subject, device)];
    }
    match device.split(',').find_map(|argument| argument.strip_prefix("iface=")) {
        Some(interface) if !host.has_interface(interface) => {
            let what = format!("there is no network interface {interface}");
            vec![Finding::new(Level::Fail, &subject, what).hint("\"ip link\" lists them; mind the network namespace")]
        }
        Some(interface) => kernel_interface(host, &subject, interface),
        None => vec![Finding::new(Level::Pass, &subject, format!("{device} needs nothing of the kernel"))],
    }
}

/// The interface that the device names is made by it.
fn tap(host: &Host, subject: &str, device: &str) -> Finding {
    if host.exists("/dev/net/tun") {
        Finding::new(Level::Pass, subject, format!("{device} makes its interface"))
    } else {
        Finding::new(Level::Fail, subject, "there is no /dev/net/tun to make an interface by").hint("modprobe tun")
    }
}

fn kernel_interface(host: &Host, subject: &str, interface: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let class = format!("/sys/class/net/{interface}");
    let flags =
        host.text(&format!("{class}/flags")).and_then(|f| u32::from_str_radix(f.trim_start_matches("0x"), 16).ok());
    // IFF_UP (linux/if.h).
    let up = flags.map(|flags| flags & 1 == 1);
    found.push(match up {
        Some(true) if host.text(&format!("{class}/carrier")).as_deref() == Some("0") => {
            Finding::new(Level::Warn, subject, format!("{interface} is up and has no carrier"))
        }
        Some(true) => Finding::new(Level::Pass, subject, format!("{interface} is up")),
        Some(false) => Finding::new(Level::Fail, subject, format!("{interface} is down"))
            .hint(format!("ip link set {interface} up")),
        None => Finding::new(Level::Warn, subject, format!("{interface}: /sys does not show whether it is up"))
            .hint("/sys belongs to another network namespace; \"ip netns exec\" mounts the right one"),
    });
    found.push(offloads(host, subject, interface));
    found
}

/// What a kernel interface must not do to frames that a packet socket is to see as they are on the wire: join
/// segments into frames above the MTU.
const JOINING: &[&str] = &["generic-receive-offload", "large-receive-offload"];

/// What lets a peer in this kernel (the other end of a veth pair) leave frames unfinished: joined, or without checksum.
const UNFINISHED: &[&str] = &["tx-checksumming", "tcp-segmentation-offload", "generic-segmentation-offload"];

fn offloads(host: &Host, subject: &str, interface: &str) -> Finding {
    let Some(features) = host.features(interface) else {
        return Finding::new(Level::Warn, subject, format!("{interface}: offloads unknown, there is no ethtool"))
            .hint("apt-get install ethtool");
    };
    let on = |name: &&&str| {
        let value = features.lines().filter_map(|l| l.trim().split_once(':')).find(|(n, _)| n == *name);
        value.is_some_and(|(_, v)| v.trim().starts_with("on"))
    };
    let joining: Vec<&str> = JOINING.iter().filter(on).copied().collect();
    let unfinished: Vec<&str> = UNFINISHED.iter().filter(on).copied().collect();
    let turn_off = format!("ethtool -K {interface} gro off lro off tso off gso off tx off");
    if !joining.is_empty() {
        Finding::new(
            Level::Warn,
            subject,
            format!("{interface}: {} on: frames above the MTU are dropped", joining.join(", ")),
        )
        .hint(turn_off)
    } else if !unfinished.is_empty() {
        Finding::new(
            Level::Warn,
            subject,
            format!("{interface}: {} on: a peer in this kernel may leave frames unfinished", unfinished.join(", ")),
        )
        .hint(format!("{turn_off}; and the same on the other end of a veth pair"))
    } else {
        Finding::new(Level::Pass, subject, format!("{interface}: no offloads that change frames"))
    }
}

fn pci(host: &Host, subject: &str, device: &str) -> Finding {
    let short = device.split(',').next().unwrap_or_default();
    let address = if short.matches(':').count() == 1 { format!("0000:{short}") } else { short.to_owned() };
    let directory = format!("/sys/bus/pci/devices/{address}");
    if !host.exists(&directory) {
        return Finding::new(Level::Fail, subject, format!("there is no PCI device {address}"))
            .hint("\"lspci -D\" lists them");
    }
    let driver = host.link_name(&format!("{directory}/driver"));
    let node = host.text(&format!("{directory}/numa_node")).unwrap_or_else(|| "-1".to_owned());
    match driver.as_deref() {
        // Drivers of the kernel that share the device with DPDK.
        Some(driver @ ("vfio-pci" | "uio_pci_generic" | "igb_uio" | "mlx4_core" | "mlx5_core" | "mana")) => {
            Finding::new(Level::Pass, subject, format!("{address} is bound to {driver}, NUMA node {node}"))
        }
        other => Finding::new(Level::Fail, subject, format!("{address} is bound to {}", other.unwrap_or("no driver")))
            .hint(format!("dpdk-devbind.py --bind=vfio-pci {address}; the kernel then loses its interface")),
    }
}

/// `net_af_packet` of `net_af_packet0,iface=eth0`.
fn driver(device: &str) -> String {
    let name = device.split(',').next().unwrap_or_default().trim_end_matches(|c: char| c.is_ascii_digit());
    match name.strip_prefix("eth_") {
        Some(rest) => format!("net_{rest}"),
        None if name == "virtio_user" => "net_virtio_user".to_owned(),
        None => name.to_owned(),
    }
}

/// File names of DPDK's libraries, where distributions and DPDK's own installation put them.
fn libraries(host: &Host) -> Vec<String> {
    let mut names = Vec::new();
    for base in ["/usr/lib", "/usr/local/lib"] {
        let architectures =
            host.names(base).into_iter().filter(|n| n.contains("-linux-")).map(|n| format!("{base}/{n}"));
        for directory in architectures.chain([base.to_owned(), format!("{base}64")]) {
            names.extend(host.names(&directory));
            for plugins in host.names(&format!("{directory}/dpdk")) {
                names.extend(host.names(&format!("{directory}/dpdk/{plugins}")));
            }
        }
    }
    names
}
