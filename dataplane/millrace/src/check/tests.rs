use std::fs;

use super::*;

/// A directory that looks like a host, removed in the end.
struct Root(PathBuf);

impl Root {
    fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("millrace-check-{name}-{}", std::process::id()));
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Self(root)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const GOOD: &[(&str, &str)] = &[
    ("proc/self/status", "Name:\tmillrace\nCapEff:\t000001ffffffffff\n"),
    ("proc/mounts", "nodev /dev/hugepages hugetlbfs rw 0 0\n"),
    ("proc/net/dev", "Inter-|\n face |\n  n0: 1 2\n  s0: 1 2\n"),
    ("sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "256\n"),
    ("sys/devices/system/cpu/online", "0-3\n"),
    ("sys/devices/system/cpu/isolated", "2-3\n"),
    ("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc\n"),
    ("sys/class/net/n0/flags", "0x1003\n"),
    ("sys/class/net/n0/carrier", "1\n"),
    ("sys/class/net/s0/flags", "0x1002\n"),
    (
        "ethtool/n0",
        "Features for n0:\ntx-checksumming: off\n\ttx-checksum-ip-generic: off\ngeneric-receive-offload: off\n",
    ),
    ("ethtool/s0", "Features for s0:\ntx-checksumming: on\ngeneric-receive-offload: on\n"),
    ("usr/lib/x86_64-linux-gnu/dpdk/pmds-23.0/librte_net_af_packet.so.23", ""),
];

fn spec(cores: &str, memory: &str, ports: &[&str]) -> ApplianceSpec {
    let ports: String = (1..)
        .zip(ports)
        .map(|(i, device)| format!("    - {{ name: p{i}, device: \"{device}\", addresses: [10.9.{i}.1/24] }}\n"))
        .collect();
    let text = format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: Appliance\nmetadata: {{ name: t }}\nspec:\n  cores: {cores}\n  \
         memory: {memory}\n  ports:\n{ports}"
    );
    schema::load_str("t", &text).unwrap_or_else(|errors| panic!("{errors}")).appliance.value.spec
}

fn level(findings: &[Finding], subject: &str, what: &str) -> Level {
    let found = findings.iter().find(|f| f.subject == subject && f.what.contains(what));
    found.unwrap_or_else(|| panic!("{subject} {what}: {findings:#?}")).level
}

#[test]
fn a_ready_host_passes() {
    let root = Root::new("good", GOOD);
    let spec = spec("[2]", "{ hugepages: required, mebibytes: 512 }", &["net_af_packet0,iface=n0"]);
    let findings = findings(&Host::at(&root.0), Some(&spec));
    assert!(findings.iter().all(|f| f.level == Level::Pass), "{findings:#?}");
}

#[test]
fn what_is_missing_is_named() {
    let mut files = GOOD.to_vec();
    files[0].1 = "CapEff:\t0000000000000000\n";
    files[6].1 = "hpet\n";
    let root = Root::new("bad", &files);
    let devices = ["net_af_packet0,iface=nope", "net_af_packet1,iface=s0", "0000:03:00.0", "net_memif0"];
    let spec = spec("[9]", "{ hugepages: required, mebibytes: 1024 }", &devices);
    let found = findings(&Host::at(&root.0), Some(&spec));
    assert_eq!(level(&found, "privileges", "CAP_NET_RAW"), Level::Fail);
    assert_eq!(level(&found, "hugepages", "512 MiB free, 1024 MiB wanted"), Level::Fail);
    assert_eq!(level(&found, "core 9", "no CPU 9"), Level::Fail);
    assert_eq!(level(&found, "clock", "hpet"), Level::Warn);
    assert_eq!(level(&found, "port p1", "no network interface nope"), Level::Fail);
    assert_eq!(level(&found, "port p2", "s0 is down"), Level::Fail);
    assert_eq!(level(&found, "port p2", "generic-receive-offload on"), Level::Warn);
    assert_eq!(level(&found, "port p3", "no PCI device 0000:03:00.0"), Level::Fail);
    assert_eq!(level(&found, "PMD", "net_memif"), Level::Warn);
    assert_eq!(level(&found, "IOMMU", "off"), Level::Warn);
}

#[test]
fn hugepages_are_judged_by_what_the_configuration_asks() {
    let mut files = GOOD.to_vec();
    files[3].1 = "0\n";
    let root = Root::new("huge", &files);
    let level_for = |hugepages: &str| {
        let spec = spec("[2]", &format!("{{ hugepages: {hugepages} }}"), &["net_af_packet0,iface=n0"]);
        level(&findings(&Host::at(&root.0), Some(&spec)), "hugepages", "")
    };
    assert_eq!([level_for("auto"), level_for("required"), level_for("off")], [Level::Pass, Level::Fail, Level::Pass]);
}

#[test]
fn an_exception_path_needs_the_kernels_tap_driver() {
    let with_exception =
        "{ name: p, device: net_null0, addresses: [10.9.1.1/24], exception: { interface: mr0, tcp: [22] } }";
    let text = format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: Appliance\nmetadata: {{ name: t }}\nspec:\n  cores: [1]\n  ports:\n    - {with_exception}\n"
    );
    let spec = schema::load_str("t", &text).unwrap_or_else(|errors| panic!("{errors}")).appliance.value.spec;
    let without = Root::new("no-tun", GOOD);
    assert_eq!(level(&findings(&Host::at(&without.0), Some(&spec)), "TAP", "there is no /dev/net/tun"), Level::Fail);
    let with = Root::new("tun", &[GOOD, &[("dev/net/tun", "")]].concat());
    assert_eq!(level(&findings(&Host::at(&with.0), Some(&spec)), "TAP", "is there"), Level::Pass);
    let plain = self::spec("[1]", "{ hugepages: off }", &["net_null0"]);
    assert!(findings(&Host::at(&without.0), Some(&plain)).iter().all(|found| found.subject != "TAP"));
}

#[test]
fn a_tap_makes_its_interface() {
    let taps = spec("[2]", "{ hugepages: off, mebibytes: 64 }", &["net_tap0,iface=made"]);
    for (name, tun, expected) in [("tun", Some(("dev/net/tun", "")), Level::Pass), ("no-tun", None, Level::Fail)] {
        let files: Vec<_> = GOOD.iter().copied().chain(tun).collect();
        let root = Root::new(name, &files);
        let found = findings(&Host::at(&root.0), Some(&taps));
        assert_eq!(level(&found, "port p1", if tun.is_some() { "makes" } else { "/dev/net/tun" }), expected);
    }
}
