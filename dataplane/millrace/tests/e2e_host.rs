//! Millrace and its host: starting, saying what is wrong, telling how it is, and stopping.

mod support;

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::backend::Backend;
use support::gateway::{Config, Gateway, MILLRACE};
use support::sandbox::{Ns, Sandbox};
use support::wait_for;

const RAW: &str = "10.9.2.2:9000";

/// Runs `millrace run` on a configuration that must not start, and returns how it ended and what it said.
fn refused(sandbox: &Sandbox, text: &str, before: &[&str]) -> (i32, String) {
    let path = sandbox.dir().join("refused.yaml");
    std::fs::write(&path, text).unwrap();
    let mut words = before.to_vec();
    words.push(MILLRACE);
    let mut command = sandbox.command(Ns::Millrace, words[0]);
    command.args(&words[1..]).args(["run", "-f"]).arg(&path);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    sandbox.adopt(child.id());
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(15) {
            child.kill().unwrap();
            panic!("it runs although it should not: {:?}", said(&child.wait_with_output().unwrap()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), said(&output))
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[test]
fn liveness_readiness_metrics_and_status_are_answered() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&[RAW]));
    assert_eq!(gateway.admin("/livez").status, 200);
    assert_eq!(gateway.admin("/readyz").status, 200);
    assert_eq!(gateway.admin("/nothing").status, 404);
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status, 200);
    }
    let metrics = gateway.admin("/metrics");
    assert!(metrics.field("content-type").is_some_and(|kind| kind.starts_with("text/plain")), "{metrics:?}");
    assert_eq!(gateway.metric("millrace_requests_total", &[("route", "default/all"), ("code", "200")]), 5);
    assert_eq!(gateway.metric("millrace_request_duration_seconds_count", &[("backend", "default/all")]), 5);
    for port in ["north", "south"] {
        for name in ["millrace_port_rx_packets_total", "millrace_port_tx_packets_total"] {
            assert!(gateway.metric(name, &[("port", port)]) >= 6, "{name} of {port}");
        }
        assert_eq!(gateway.metric("millrace_port_link_up", &[("port", port)]), 1);
    }
    let status = sandbox.output(Ns::Millrace, MILLRACE, &["status"]);
    for word in ["ready", "net_af_packet", "default/web/http", "default/all", "ok"] {
        assert!(status.contains(word), "{word} is missing from:\n{status}");
    }
    let json = sandbox.output(Ns::Millrace, MILLRACE, &["status", "-o", "json"]);
    for word in ["Accepted", "Programmed", "ResolvedRefs"] {
        assert!(json.trim_start().starts_with('{') && json.contains(word), "{word} is missing from:\n{json}");
    }
}

#[test]
fn the_admin_endpoint_survives_what_the_data_plane_does() {
    let sandbox = sandbox_or_skip!();
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&[RAW]));
    sandbox.inside(Ns::Millrace, || {
        for bytes in ["\x16\x03\x01\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\r\n\r\n\r\n"] {
            let mut stream = std::net::TcpStream::connect("127.0.0.1:9901").unwrap();
            stream.write_all(bytes.as_bytes()).unwrap();
        }
    });
    assert_eq!(gateway.admin("/livez").status, 200);
}

#[test]
fn sigterm_finishes_what_runs_and_exits_with_zero() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        while served.request().is_some() {
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello");
            std::thread::sleep(Duration::from_millis(1500));
            served.send("world");
        }
    });
    let mut gateway = Gateway::start(&sandbox, &Config::everything_to(&[RAW]));
    let mut busy = (0..10).map(|_| gateway.connect()).collect::<Vec<_>>();
    for connection in &mut busy {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    }
    let mut idle = gateway.connect();
    wait_for("all are being served", Duration::from_secs(3), || gateway.metric("millrace_requests_active", &[]) == 10);
    let start = Instant::now();
    gateway.terminate();
    std::thread::sleep(Duration::from_millis(200));
    // Nobody new comes in, and readiness says so.
    let ready = sandbox.inside(Ns::Millrace, || {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9901").ok()?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").ok()?;
        let mut reply = String::new();
        std::io::Read::read_to_string(&mut stream, &mut reply).ok()?;
        Some(reply)
    });
    assert!(ready.is_none_or(|reply| reply.contains(" 503 ")), "ready while it drains");
    let refused = sandbox.inside(Ns::Client, || {
        let address = "10.9.1.1:80".parse().unwrap();
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_err()
    });
    assert!(refused, "a new connection is accepted while it drains");
    for connection in &mut busy {
        let reply = connection.response();
        assert!(reply.complete && reply.text() == "helloworld", "{reply:?}");
        assert!(connection.closed());
    }
    assert!(idle.closed());
    let status = gateway.ended(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

#[test]
fn what_does_not_finish_is_cut_off_when_the_drain_time_is_over() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::start(&sandbox, Ns::B1, RAW, |served| {
        if served.head().is_some() {
            while served.some().is_some() {}
        }
    });
    let config = Config::everything_to(&[RAW]).appliance("  http: { timeouts: { drain: 1s } }\n");
    let mut gateway = Gateway::start(&sandbox, &config);
    let mut stuck = gateway.connect();
    stuck.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    wait_for("it is being served", Duration::from_secs(3), || gateway.metric("millrace_requests_active", &[]) == 1);
    let start = Instant::now();
    gateway.terminate();
    let status = gateway.ended(Duration::from_secs(10));
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
    let took = start.elapsed();
    assert!((Duration::from_millis(800)..Duration::from_secs(5)).contains(&took), "{took:?}");
    assert!(stuck.try_response(false).is_none_or(|reply| reply.status >= 500));
}

/// DPDK waits for the other side of such a device, for ever.
#[test]
fn sigterm_ends_a_start_that_waits_for_a_virtio_user_peer() {
    let sandbox = sandbox_or_skip!();
    let socket = sandbox.dir().join("north.sock");
    let device = format!("net_virtio_user0,path={},server=1,queues=1", socket.display());
    let text = Config::everything_to(&[RAW]).text().replace("net_af_packet0,iface=mr-north", &device);
    let mut gateway = Gateway::launch_text(&sandbox, &text);
    wait_for("its socket", Duration::from_secs(15), || socket.exists());
    assert!(
        gateway.log().contains("port north: net_virtio_user0") && gateway.log().contains("other side"),
        "{}",
        gateway.log()
    );
    gateway.terminate();
    let status = gateway.ended(Duration::from_secs(2));
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()), "{}", gateway.log());
}

#[test]
fn a_missing_interface_is_named() {
    let sandbox = sandbox_or_skip!();
    let text = Config::everything_to(&[RAW]).text().replace("iface=mr-south", "iface=nowhere");
    let (code, said) = refused(&sandbox, &text, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("nowhere") && said.contains("interface"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn a_driver_that_is_not_there_is_named() {
    let sandbox = sandbox_or_skip!();
    let text = Config::everything_to(&[RAW]).text().replace("net_af_packet1,", "net_nonsense1,");
    let (code, said) = refused(&sandbox, &text, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("net_nonsense1") && !said.contains("panicked"), "{said}");
}

#[test]
fn an_admin_port_that_is_taken_is_named() {
    let sandbox = sandbox_or_skip!();
    let _taken = sandbox.inside(Ns::Millrace, || std::net::TcpListener::bind("127.0.0.1:9901").unwrap());
    let (code, said) = refused(&sandbox, &Config::everything_to(&[RAW]).text(), &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("127.0.0.1:9901") && said.contains("in use"), "{said}");
}

#[test]
fn without_root_it_says_what_is_missing() {
    let sandbox = sandbox_or_skip!();
    // The binary may lie where only root can read.
    let binary = sandbox.dir().join("millrace");
    std::fs::copy(MILLRACE, &binary).unwrap();
    let path = sandbox.dir().join("unprivileged.yaml");
    std::fs::write(&path, Config::everything_to(&[RAW]).text()).unwrap();
    let mut command = sandbox.command(Ns::Millrace, "setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
    let output = command.arg(&binary).args(["run", "-f"]).arg(&path).output().unwrap();
    let said = said(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("root") && !said.contains("panicked"), "{said}");
}

#[test]
fn hugepages_that_are_required_and_missing_are_named() {
    let sandbox = sandbox_or_skip!();
    let free = std::fs::read_to_string("/proc/meminfo").unwrap();
    let free = free.lines().find_map(|line| line.strip_prefix("HugePages_Free:")).unwrap_or("0").trim().to_owned();
    if free != "0" {
        eprintln!("*** NOT RUN: this host has hugepages ***");
        return;
    }
    let text = Config::everything_to(&[RAW]).text().replace("hugepages: off", "hugepages: required");
    let (code, said) = refused(&sandbox, &text, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("not enough hugepages") && said.contains("hint:"), "{said}");
}

#[test]
fn a_bad_configuration_is_refused_whole_with_every_error() {
    let sandbox = sandbox_or_skip!();
    let text = Config::everything_to(&[RAW])
        .text()
        .replace("mebibytes: 512", "mebibites: 512")
        .replace("name: all, port: 8080", "name: nobody, port: 99999");
    let (code, said) = refused(&sandbox, &text, &[]);
    assert_eq!(code, 2, "{said}");
    for word in ["refused.yaml:6", "mebibites", "mebibytes", "99999"] {
        assert!(said.contains(word), "{word} is missing from:\n{said}");
    }
    let text = Config::everything_to(&[RAW]).text().replace("name: all, port: 8080", "name: nobody, port: 8080");
    let (code, said) = refused(&sandbox, &text, &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("nobody"), "{said}");
    let (code, said) = refused(&sandbox, "", &[]);
    assert_eq!(code, 2, "{said}");
}

#[test]
fn a_lost_link_is_survived() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, RAW);
    let mut gateway = Gateway::start(&sandbox, &Config::everything_to(&[RAW]));
    let mut connection = gateway.connect();
    connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.response().status, 200);
    let client = sandbox.namespace(Ns::Client);
    sandbox.run_script(&format!("ip -n {client} link set eth0 down"));
    std::thread::sleep(Duration::from_millis(500));
    sandbox.run_script(&format!("ip -n {client} link set eth0 up"));
    // The connection that was there before still is.
    connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
    assert_eq!(connection.response().status, 200);
    gateway.assert_alive();
}

#[test]
fn its_memory_stays_where_it_is() {
    let sandbox = sandbox_or_skip!();
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&[RAW]));
    let status = std::fs::read_to_string(format!("/proc/{}/status", gateway.id())).unwrap();
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("proc(5) has it");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    };
    // All that is mapped, but for what cannot be locked, such as a device's own rings.
    let (locked, resident) = (kib("VmLck:"), kib("VmRSS:"));
    assert!(locked >= resident, "{locked} KiB locked, {resident} KiB resident");
    assert!(!gateway.log().contains("memory is not locked"), "{}", gateway.log());
}

#[test]
fn the_core_stays_on_its_cpu() {
    let sandbox = sandbox_or_skip!();
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&[RAW]));
    let cpu = support::gateway::polling_cpu().to_string();
    let threads = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
    let pinned = threads.filter(|thread| {
        let status = std::fs::read_to_string(thread.as_ref().unwrap().path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("Cpus_allowed_list:").is_some_and(|list| list.trim() == cpu))
    });
    assert_eq!(pinned.count(), 1, "one thread polls on CPU {cpu}");
}

#[test]
fn af_xdp_serves_as_af_packet_does() {
    let sandbox = sandbox_or_skip!();
    let body = support::pattern(300_000);
    let reply = [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), &body].concat();
    let _backend = Backend::canned(&sandbox, Ns::B1, RAW, reply);
    let config = Config { driver: "net_af_xdp", ..Config::everything_to(&[RAW]) };
    let mut gateway = Gateway::start(&sandbox, &config);
    for _ in 0..3 {
        let response = gateway.get("/");
        assert_eq!((response.status, response.complete, response.body == body), (200, true, true));
    }
    for port in ["north", "south"] {
        // 300,000 bytes are two hundred frames, three times, with an acknowledgment for at least every tenth. Counters come late.
        let received = || gateway.metric("millrace_port_rx_packets_total", &[("port", port)]);
        wait_for("frames have come in", Duration::from_secs(3), || received() >= 60);
    }
    gateway.assert_alive();
}
