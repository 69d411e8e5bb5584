//! Starting DPDK: whose threads run where, what is shared between processes, and who may.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use common::{exchange, in_own_process, is_root, not_run, open, options, run, veth, with_roles};
use pmd::{Eal, EalError, EalOptions, Hugepages, MemoryMode, PortOptions};

/// The cores that a task of this process may run on, as the kernel lists them.
fn cores_of(task: &str) -> String {
    let status = fs::read_to_string(format!("/proc/self/task/{task}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    line.trim().to_owned()
}

fn tasks() -> BTreeSet<String> {
    fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_caller_is_not_pinned_and_polling_cores_are_left_alone() {
    in_own_process("the_caller_is_not_pinned_and_polling_cores_are_left_alone", || {
        let own = fs::read_link("/proc/thread-self").unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let (before, cores) = (tasks(), cores_of(&own));
        if !cores.contains(['-', ',']) {
            return not_run("the_caller_is_not_pinned_and_polling_cores_are_left_alone", "needs two cores");
        }
        let last: u16 = cores.rsplit(['-', ',']).next().unwrap().parse().unwrap();
        let eal = Eal::start(&EalOptions { cores: vec![last], ..options(&["net_ring0"]) }).unwrap();
        assert_eq!(cores_of(&own), cores);
        let added: Vec<String> = tasks().difference(&before).cloned().collect();
        assert!(!added.is_empty(), "DPDK has its interrupt thread");
        for task in added {
            let allowed = cores_of(&task);
            assert!(!allowed.split(['-', ',']).any(|core| core == last.to_string()), "{task} runs on {allowed}");
        }
        let registered = eal.register_thread().unwrap();
        assert_eq!(cores_of(&own), cores);
        drop(registered);
        drop(eal.register_thread().unwrap());
    });
}

#[test]
fn a_prefix_has_one_owner() {
    with_roles("a_prefix_has_one_owner", 0, &["first", "second"], |role, folder| {
        let prefix = format!("mrp-{}", folder.to_str().unwrap().split('-').nth(1).unwrap());
        let shared = EalOptions { file_prefix: Some(prefix.clone()), ..options(&["net_ring0"]) };
        let (ready, done) = (folder.join("ready"), folder.join("done"));
        let wait = |file: &std::path::Path| {
            let deadline = Instant::now() + Duration::from_secs(60);
            while !file.exists() {
                assert!(Instant::now() < deadline);
                thread::sleep(Duration::from_millis(5));
            }
        };
        if role == "first" {
            let eal = Eal::start(&shared).unwrap();
            fs::write(&ready, "").unwrap();
            wait(&done);
            drop(eal);
            fs::remove_dir_all(format!("/var/run/dpdk/{prefix}")).unwrap();
        } else {
            wait(&ready);
            let error = Eal::start(&shared);
            fs::write(&done, "").unwrap();
            assert_eq!(error.unwrap_err(), EalError::PrefixInUse { prefix });
        }
    });
}

#[test]
fn shared_hugepages_are_files_on_hugetlbfs() {
    with_roles("shared_hugepages_are_files_on_hugetlbfs", 128, &["alone"], |_, folder| {
        let prefix = format!("mrp-huge-{}", std::process::id());
        let devices = ["net_af_packet0,iface=mrp-a", "net_af_packet1,iface=mrp-b"];
        let mut wanted = EalOptions {
            file_prefix: Some(prefix.clone()),
            hugepages: Hugepages::Required,
            single_file_segments: true,
            ..options(&devices)
        };
        veth("mrp-a", "mrp-b");
        // This process has the mounts to itself.
        run("umount -a -t hugetlbfs");
        assert_eq!(Eal::start(&wanted).unwrap_err(), EalError::NoHugetlbfs);
        let mount = folder.join("huge");
        run(&format!("mkdir {0} && mount -t hugetlbfs nodev {0}", mount.display()));
        wanted.mebibytes = 1 << 20;
        assert!(matches!(Eal::start(&wanted), Err(EalError::NotEnoughHugepages { wanted_mib: 1_048_576, .. })));
        wanted.mebibytes = 128;
        let eal = Eal::start(&wanted).unwrap();
        assert_eq!(eal.memory_mode(), MemoryMode::Hugepages);
        let files = fs::read_dir(&mount).unwrap().count();
        assert!(files > 0, "memory is files with this prefix");
        let (_a_port, mut a) = open(&eal, "net_af_packet0", &PortOptions::default());
        let (_b_port, mut b) = open(&eal, "net_af_packet1", &PortOptions::default());
        exchange(&mut a, &mut b, 500);
        drop((_a_port, a, _b_port, b, eal));
        fs::remove_dir_all(format!("/var/run/dpdk/{prefix}")).unwrap();
        run(&format!("rm -f {0}/* && umount {0}", mount.display()));
    });
}

#[test]
fn without_privileges_the_reason_is_said() {
    const ASKED: &str = "MILLRACE_TEST_UNPRIVILEGED";
    let started = || Eal::start(&options(&["net_af_packet0,iface=lo"]));
    if std::env::var(ASKED).is_ok() || !is_root() {
        let error = started().unwrap_err();
        assert!(matches!(error, EalError::NoPermission { .. }), "{error}");
        assert!(error.to_string().contains("lo needs root or CAP_NET_RAW"), "{error}");
        // What needs no privilege works without.
        let home = std::env::temp_dir().join(format!("mrp-home-{}", std::process::id()));
        fs::create_dir_all(&home).unwrap();
        // SAFETY: no other thread of this process reads the environment: the harness waits for this test.
        unsafe { std::env::set_var("XDG_RUNTIME_DIR", &home) };
        let eal = Eal::start(&options(&["net_ring0"])).unwrap();
        drop(open(&eal, "net_ring0", &PortOptions { mbufs: 512, ..PortOptions::default() }));
        drop(eal);
        fs::remove_dir_all(home).unwrap();
        return;
    }
    // The binary may lie where only root can read: it is opened before the privileges go.
    let copy = std::env::temp_dir().join(format!("mrp-unprivileged-{}", std::process::id()));
    fs::copy(std::env::current_exe().unwrap(), &copy).unwrap();
    let status = Command::new(&copy)
        .args(["without_privileges_the_reason_is_said", "--exact", "--nocapture", "--test-threads=1"])
        .env(ASKED, "1")
        .current_dir("/")
        .gid(65534)
        .uid(65534)
        .status();
    fs::remove_file(copy).unwrap();
    assert!(status.unwrap().success());
}
