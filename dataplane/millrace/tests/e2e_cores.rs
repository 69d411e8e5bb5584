//! Two cores over af_packet: with a queue each, and with one for both.

mod support;

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::gateway::{Config, Gateway, MILLRACE};
use support::sandbox::{Ns, REPOSITORY, Sandbox, VIP};
use support::wait_for;

/// The CPUs that this process may use, two of them.
fn cpus() -> Option<[usize; 2]> {
    let set = rustix::thread::sched_getaffinity(None).expect("the affinity can be read");
    let all: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    all.first_chunk().copied()
}

/// Two cores that leave the clients and servers room; `device` is what the ports' devices have beside their interfaces.
fn start<'a>(sandbox: &'a Sandbox, device: &str, more: &str) -> Option<Gateway<'a>> {
    let Some(cpus) = cpus() else {
        eprintln!("\n*** NOT RUN: two cores need two CPUs ***\n");
        return None;
    };
    sandbox.start_nginx();
    let config = Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"])
        .cores(&cpus, device)
        .appliance("  idle: adaptive\n  upstream: { idleTimeout: 1s }\n")
        .appliance(more);
    Some(Gateway::start(sandbox, &config))
}

fn get_cores(sandbox: &Sandbox) -> String {
    sandbox.output(Ns::Millrace, MILLRACE, &["get", "cores"])
}

/// The two CPUs, and what is asked of them for the time that they take to wake.
fn resume_latencies() -> Vec<(usize, String)> {
    let path = |cpu| format!("/sys/devices/system/cpu/cpu{cpu}/power/pm_qos_resume_latency_us");
    let read = |cpu| std::fs::read_to_string(path(cpu)).expect("this kernel has PM QoS");
    cpus().into_iter().flatten().map(|cpu| (cpu, read(cpu).trim().to_owned())).collect()
}

/// Load of keep-alive and short connections, all of which succeeds; and curl for what is large.
fn load(sandbox: &Sandbox, gateway: &Gateway<'_>) {
    let url = format!("http://{VIP}/1k");
    for arguments in [&["-t1", "-c32", "-d2s", &url][..], &["-t1", "-c16", "-d2s", "-H", "Connection: close", &url]] {
        let output = sandbox.output(Ns::Client, "wrk", arguments);
        assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
        let rate = output.lines().find(|line| line.contains("Requests/sec")).expect("a rate");
        eprintln!("{} {rate}", arguments.len());
    }
    let file = sandbox.dir().join("body");
    std::fs::write(&file, support::pattern(3_000_000)).unwrap();
    let upload = format!("@{}", file.display());
    let curl = ["-sS", "--fail", "--max-time", "20", "--data-binary", &upload, &format!("http://{VIP}/upload")];
    for _ in 0..8 {
        assert!(sandbox.output(Ns::Client, "curl", &curl).contains("took 3000000 bytes"));
    }
    for core in ["0", "1"] {
        let requests = gateway.metric("millrace_requests_started_total", &[("core", core)]);
        assert!(requests > 100, "core {core} served {requests} requests");
        assert!(gateway.metric("millrace_upstream_connections_opened_total", &[("core", core)]) > 0);
    }
    assert_eq!(gateway.metric("millrace_requests_total", &[("code", "503")]), 0);
    wait_for("everything is closed", Duration::from_secs(20), || {
        ["millrace_connections_open", "millrace_upstream_connections_open", "millrace_sockets", "millrace_flows"]
            .iter()
            .all(|name| gateway.metric(name, &[]) == 0)
    });
}

#[test]
fn two_cores_share_one_queue() {
    let sandbox = sandbox_or_skip!();
    let Some(mut gateway) = start(&sandbox, "", "") else { return };
    for (cpu, asked) in resume_latencies() {
        assert_ne!(asked, "0", "CPU {cpu}: {}", gateway.log());
    }
    load(&sandbox, &gateway);
    let table = get_cores(&sandbox);
    eprintln!("{table}");
    assert_eq!(table.matches(" hash ").count(), 4, "{table}");
    // The one without a queue needs no device to wake it: the other one does.
    assert_eq!((table.matches(" naps ").count(), table.matches(" interrupts ").count()), (1, 1), "{table}");
    assert!(gateway.metric("millrace_core_sleeps_total", &[("core", "1"), ("woken_by", "call")]) > 100);
    assert!(gateway.metric("millrace_port_handed_in_packets_total", &[("core", "1")]) > 100);
    assert_eq!(gateway.metric("millrace_port_rx_packets_total", &[("core", "1")]), 0, "it has no queue");
    gateway.terminate();
    assert!(gateway.ended(Duration::from_secs(10)).success(), "{}", gateway.log());
    for (cpu, asked) in resume_latencies() {
        // Unless this host's owner had chosen.
        assert!(asked == "0" || gateway.log().contains("somebody else wrote"), "CPU {cpu}: {asked}");
        assert!(!std::path::Path::new(&format!("/run/millrace-resume-cpu{cpu}")).exists(), "it is ours no more");
    }
}

#[test]
fn two_cores_have_a_queue_each() {
    let sandbox = sandbox_or_skip!();
    let Some(mut gateway) = start(&sandbox, ",qpairs=2", "") else { return };
    load(&sandbox, &gateway);
    let table = get_cores(&sandbox);
    eprintln!("{table}");
    assert_eq!(table.matches(" queues ").count(), 4, "{table}");
    for core in ["0", "1"] {
        assert!(gateway.metric("millrace_port_rx_packets_total", &[("core", core), ("port", "north")]) > 100);
    }
    let json = sandbox.output(Ns::Millrace, MILLRACE, &["get", "cores", "-o", "json"]);
    assert!(json.contains("\"way\": \"queues\"") && json.contains("\"handedOut\""), "{json}");
    gateway.terminate();
    assert!(gateway.ended(Duration::from_secs(10)).success(), "{}", gateway.log());
}

/// testpmd between the veth wires and two sockets, with two queues each: what comes on one side goes to the other, queue by queue. `device` makes
/// the socket's device of its number and path.
fn testpmd(sandbox: &Sandbox, device: impl Fn(usize, &str) -> String) -> Option<Child> {
    if std::process::Command::new("dpdk-testpmd").arg("--version").output().is_err() {
        eprintln!("\n*** NOT RUN: there is no dpdk-testpmd ***\n");
        return None;
    }
    let folder = sandbox.dir().display().to_string();
    let mut command = sandbox.command(Ns::Millrace, "dpdk-testpmd");
    command.args(["-l", "0,1", "--no-huge", "-m", "256", "--no-pci", "--no-telemetry"]);
    command.arg("--file-prefix").arg(format!("testpmd-{}", std::process::id()));
    for (number, side) in ["north", "south"].iter().enumerate() {
        command.arg("--vdev").arg(format!("net_af_packet{number},iface=mr-{side},qpairs=2"));
        command.arg("--vdev").arg(device(number, &format!("{folder}/{side}.sock")));
    }
    command.args(["--", "-i", "--rxq=2", "--txq=2", "--nb-cores=1", "--port-topology=paired", "--auto-start"]);
    command.arg("--total-num-mbufs=8192");
    // It ends with its standard input.
    let log = sandbox.dir().join("testpmd.log");
    let output = std::fs::File::create(&log).unwrap();
    command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::null());
    let child = command.spawn().expect("testpmd starts");
    sandbox.adopt(child.id());
    let sockets = ["north", "south"].map(|side| sandbox.dir().join(format!("{side}.sock")));
    wait_for("testpmd's sockets", Duration::from_secs(20), || sockets.iter().all(|socket| socket.exists()));
    // A memif's client tries once, and its server must have been started by then.
    wait_for("testpmd's prompt", Duration::from_secs(20), || {
        std::fs::read_to_string(&log).is_ok_and(|log| log.contains("testpmd>"))
    });
    Some(child)
}

fn vhost(number: usize, path: &str) -> String {
    format!("net_vhost{number},iface={path},queues=2")
}

fn virtio_user(number: usize, path: &str) -> String {
    format!("net_virtio_user{number},path={path},queues=2,queue_size=256")
}

#[test]
fn two_cores_use_the_queues_of_virtio_user() {
    over_sockets(vhost, virtio_user);
}

#[test]
fn two_cores_use_the_queues_of_memif() {
    over_sockets(|number, path| memif(number, path, "server"), |number, path| memif(number, path, "client"));
}

fn memif(number: usize, path: &str, role: &str) -> String {
    format!("net_memif{number},role={role},socket={path},socket-abstract=no")
}

/// What is killed acknowledges nothing: neither the clients behind it nor the backends are waited for until the drain's time is up, which would be 30 s.
#[test]
fn a_drain_does_not_wait_for_a_memif_that_is_gone() {
    let sandbox = sandbox_or_skip!();
    let (far, near) = (|n, path: &str| memif(n, path, "server"), |n, path: &str| memif(n, path, "client"));
    let timeouts = "  http: { timeouts: { connect: 1s, response: 2s } }\n";
    let Some((mut gateway, mut testpmd)) = behind_testpmd(&sandbox, far, near, timeouts) else { return };
    let load = ["-t1", "-c16", "-d20s", &format!("http://{VIP}/1k")];
    let mut wrk = sandbox.command(Ns::Client, "wrk").args(load).stdout(Stdio::null()).spawn().unwrap();
    sandbox.adopt(wrk.id());
    wait_for("requests", Duration::from_secs(10), || gateway.metric("millrace_requests_finished_total", &[]) > 20);
    testpmd.kill().unwrap();
    testpmd.wait().unwrap();
    let began = Instant::now();
    gateway.terminate();
    assert!(gateway.ended(Duration::from_secs(29)).success(), "{}", gateway.log());
    let took = began.elapsed();
    eprintln!("drained after {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}: {}", gateway.log());
    assert!(gateway.log().contains("drained, bye"), "{}", gateway.log());
    wrk.kill().unwrap();
    wrk.wait().unwrap();
}

/// Two cores with `idle: adaptive` behind a testpmd, by devices with two queues.
fn behind_testpmd<'a>(
    sandbox: &'a Sandbox,
    far: impl Fn(usize, &str) -> String,
    near: impl Fn(usize, &str) -> String,
    more: &str,
) -> Option<(Gateway<'a>, Child)> {
    let cpus = cpus()?;
    let testpmd = testpmd(sandbox, far)?;
    sandbox.start_nginx();
    let folder = sandbox.dir().display().to_string();
    let config = Config::everything_to(&["10.9.2.2:8080", "10.9.2.3:8080"])
        .cores(&cpus, "")
        .appliance("  idle: adaptive\n  upstream: { idleTimeout: 1s }\n")
        .appliance(more);
    let mut text = config.text();
    for (number, side) in ["north", "south"].iter().enumerate() {
        let device = near(number, &format!("{folder}/{side}.sock"));
        text = text.replace(&format!("net_af_packet{number},iface=mr-{side}"), &device);
    }
    Some((Gateway::start_text(sandbox, &text), testpmd))
}

fn end(mut gateway: Gateway<'_>, mut testpmd: Child) {
    gateway.terminate();
    assert!(gateway.ended(Duration::from_secs(10)).success(), "{}", gateway.log());
    drop(testpmd.stdin.take());
    let _ = testpmd.wait();
}

fn over_sockets(far: impl Fn(usize, &str) -> String, near: impl Fn(usize, &str) -> String) {
    let sandbox = sandbox_or_skip!();
    let Some((gateway, testpmd)) = behind_testpmd(&sandbox, far, near, "") else { return };
    for _ in 0..10 {
        assert_eq!(gateway.get("/1k").status, 200);
    }
    // Three polling threads on two CPUs: slow, and nothing is lost for it.
    let output = sandbox.output(Ns::Client, "wrk", &["-t1", "-c16", "-d3s", &format!("http://{VIP}/1k")]);
    assert!(!output.contains("Non-2xx") && !output.contains("Socket errors"), "{output}");
    let table = get_cores(&sandbox);
    eprintln!("{table}{output}");
    assert_eq!(table.matches(" queues ").count(), 4, "{table}");
    for core in ["0", "1"] {
        assert!(gateway.metric("millrace_requests_started_total", &[("core", core)]) > 5, "{table}");
    }
    end(gateway, testpmd);
}

#[test]
fn idle_cores_sleep_until_a_device_wakes_them() {
    let sandbox = sandbox_or_skip!();
    let Some((gateway, testpmd)) = behind_testpmd(&sandbox, vhost, virtio_user, "") else { return };
    for _ in 0..10 {
        assert_eq!(gateway.get("/1k").status, 200);
    }
    let table = get_cores(&sandbox);
    assert_eq!(table.matches(" interrupts ").count(), 2, "{table}");
    assert_eq!(gateway.log().matches("sleeps when idle").count(), 2, "{}", gateway.log());
    let slept = |by: &str| gateway.metric("millrace_core_sleeps_total", &[("woken_by", by)]);
    // With nothing to do, they are hardly there.
    let before = (ticks(&gateway, 0) + ticks(&gateway, 1), slept("time"));
    std::thread::sleep(Duration::from_secs(4));
    let (used, woken) = (ticks(&gateway, 0) + ticks(&gateway, 1) - before.0, slept("time") - before.1);
    eprintln!(
        "two idle cores had a CPU for {used} of 800 hundredths of a second, and were woken by time {woken} times"
    );
    assert!(used < 80, "{used} of 800 hundredths of a second");
    assert!(woken > 100, "{woken} sleeps");
    // What comes after a pause finds them asleep.
    let before = slept("device");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(30));
        assert_eq!(gateway.get("/1k").status, 200);
    }
    assert!(slept("device") >= before + 20, "{} and {before}", slept("device"));
    // And so does what control publishes.
    let before = slept("call");
    for state in ["drain", "ready", "drain", "ready", "drain"] {
        sandbox.output(Ns::Millrace, MILLRACE, &["set", "endpoint", "all", "10.9.2.3", state]);
    }
    assert!(slept("call") >= before + 5, "{} and {before}", slept("call"));
    end(gateway, testpmd);
}

/// What a core's thread had of a CPU so far, in hundredths of a second (proc(5), fields 14 and 15).
fn ticks(gateway: &Gateway<'_>, core: usize) -> u64 {
    let stat = std::fs::read_to_string(task(gateway, core).join("stat")).expect("it runs");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// The thread of a core, under /proc.
fn task(gateway: &Gateway<'_>, core: usize) -> PathBuf {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).expect("it runs").flatten();
    let named = |path: &PathBuf| std::fs::read_to_string(path.join("comm")).unwrap_or_default();
    tasks.map(|task| task.path()).find(|task| named(task).trim() == format!("core-{core}")).expect("a core's thread")
}

#[test]
fn idle_cores_leave_their_cpus_to_others() {
    let sandbox = sandbox_or_skip!();
    let Some(gateway) = start(&sandbox, ",qpairs=2", "") else { return };
    // How often a thread of a core's gave its CPU away by itself (proc(5)): a polling one never does.
    let given_up = |core: usize| -> u64 {
        let status = std::fs::read_to_string(task(&gateway, core).join("status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
        line.trim().parse().unwrap()
    };
    let naps = |core: usize, le: &str| {
        gateway.metric("millrace_core_nap_seconds_bucket", &[("core", &core.to_string()), ("le", le)])
    };
    let before: Vec<u64> = (0..2).map(&given_up).collect();
    std::thread::sleep(Duration::from_secs(3));
    for (core, before) in before.into_iter().enumerate() {
        let (slept, all, within) = (given_up(core) - before, naps(core, "+Inf"), naps(core, "0.00005"));
        eprintln!("core {core}: slept {slept} times in 3 s; {within} of {all} naps ended within 50 µs");
        // Undisturbed, it is a hundred thousand times. Ten busy others on the same CPU leave some thousands.
        assert!(slept > 300 && all > 300, "core {core} slept {slept} times, and counted {all}");
        // Most of them do on a machine of one's own; where the CPU is shared, what it comes to is the others' business.
        assert!(within > all / 100, "core {core}: {within} of {all} naps ended within 50 µs");
    }
    // It is still there at once.
    assert_eq!(gateway.get("/1k").status, 200);
}

#[test]
fn the_example_serves() {
    let sandbox = sandbox_or_skip!();
    let Some(cpus) = cpus() else { return };
    sandbox.start_nginx();
    let text = std::fs::read_to_string(format!("{REPOSITORY}/config/examples/cores.yaml")).unwrap();
    assert!(text.contains("cores: [0, 1]"));
    let text = text.replace("cores: [0, 1]", &format!("cores: {cpus:?}\n  memory: {{ hugepages: off }}"));
    let gateway = Gateway::start_text(&sandbox, &text);
    for _ in 0..20 {
        assert_eq!(gateway.get("/1k").status, 200);
    }
    let table = get_cores(&sandbox);
    assert_eq!((table.matches(" queues ").count(), table.matches(" hash ").count()), (2, 2), "{table}");
}

#[test]
fn a_connection_that_is_old_enough_is_closed_with_its_next_response() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let config = Config::everything_to(&["10.9.2.2:8080"]).appliance("  http: { timeouts: { maxAge: 1s } }\n");
    let gateway = Gateway::start(&sandbox, &config);
    let mut connection = gateway.connect();
    let mut ask = || {
        connection.send("GET /1k HTTP/1.1\r\nHost: test\r\n\r\n");
        connection.response().field("connection").map(str::to_ascii_lowercase)
    };
    assert_eq!(ask(), None);
    assert_eq!(ask(), None);
    std::thread::sleep(Duration::from_millis(1150));
    assert_eq!(ask().as_deref(), Some("close"));
}
