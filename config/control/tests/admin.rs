//! The admin endpoint over real sockets, with threads that behave like cores.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use control::epochs::Epochs;
use control::reload::{Answer, Outcome};
use control::runtime::{Drained, Facts};
use control::status::Status;
use control::{Configured, Control, CoreSeat, Launch, PortInfo, admin};
use tables::lifecycle::Stage;
use tables::swap::Swap;

const CONFIGURATION: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: edge }
spec:
  cores: [0]
  ports: [{ name: north, device: "net_af_packet0,iface=n", addresses: [10.9.1.1/24] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web }
spec: { gatewayClassName: millrace, listeners: [{ name: http, protocol: HTTP, port: 80 }] }
"#;

/// The same with another listener.
fn another() -> String {
    CONFIGURATION.replace("port: 80 }", "port: 80 }, { name: more, protocol: HTTP, port: 81 }")
}

struct Running {
    control: Control,
    /// While true, the core stands still.
    frozen: Arc<AtomicBool>,
    core: JoinHandle<()>,
    counters: Arc<tables::CoreCounters>,
}

fn start() -> Running {
    let started = Instant::now();
    let facts = Facts {
        name: "edge".into(),
        version: "9.9.9",
        memory: "none".into(),
        cpus: vec![0],
        ports: vec![PortInfo {
            name: "north".into(),
            device: "net_null0".into(),
            driver: "net_null".into(),
            mac: [2, 0, 0, 0, 0, 0xab],
            mtu: 1500,
            addresses: vec!["10.9.1.1/24".into()],
            offloads: vec![],
        }],
        session_key: [1, 2],
        access_log: "/dev/null".into(),
        device_statistics: Box::new(Vec::new),
        clock: Box::new(move || started.elapsed().as_nanos() as u64),
        wake: Box::new(|| ()),
    };
    let admin = admin::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let mut configured = Configured::unwatched(schema::load_str("test", CONFIGURATION).unwrap());
    let compiled = configured.compile();
    let (control, mut seats) = Control::start(Launch { facts, configured, compiled, admin }).unwrap();
    let seat = seats.pop().unwrap();
    let frozen = Arc::new(AtomicBool::new(false));
    let counters = Arc::clone(&seat.counters);
    let theirs = Arc::clone(&frozen);
    let core = std::thread::spawn(move || pretend(seat, &theirs));
    let running = Running { control, frozen, core, counters };
    running.await_status("/readyz", 200);
    running
}

/// What a core does to its seat, without packets.
fn pretend(mut seat: CoreSeat, frozen: &AtomicBool) {
    let mut turns = 0;
    let mut epoch = seat.snapshot.current().epoch;
    while seat.lifecycle.stage() < Stage::Stopped {
        if !frozen.load(Ordering::Relaxed) {
            turns += 1;
            if seat.snapshot.refresh() {
                let (from, to) = (epoch, seat.snapshot.current().epoch);
                seat.lifecycle.swaps.switched(&Swap { from, to, at: 0, requests: 7, running: 2, first_at: 0 });
                epoch = to;
            }
            seat.lifecycle.beat(turns);
            if turns == 1 {
                seat.counters.ports[0].link_up.set(1);
            }
            let stage = seat.lifecycle.stage();
            let idle = seat.counters.connections_open.read() == 0;
            if stage == Stage::Stopping || (stage == Stage::Draining && idle) {
                seat.lifecycle.advance(Stage::Stopped);
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn request(address: SocketAddr, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{request} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

impl Running {
    fn get(&self, path: &str) -> (u16, String) {
        request(self.control.admin_address(), &format!("GET {path}"))
    }

    fn post(&self, path: &str, body: &str) -> (u16, Answer) {
        let head = format!("POST {path} HTTP/1.1\r\nContent-Length: {}\r\nHost: x\r\n\r\n{body}", body.len());
        let mut stream = TcpStream::connect(self.control.admin_address()).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head.split(' ').nth(1).unwrap().parse().unwrap(),
            serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {body}")),
        )
    }

    fn await_status(&self, path: &str, status: u16) -> String {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let (now, body) = self.get(path);
            if now == status {
                return body;
            }
            assert!(Instant::now() < deadline, "{path} still says {now}: {body}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn paths_and_methods() {
    let running = start();
    let address = running.control.admin_address();
    assert_eq!(running.get("/livez"), (200, "ok\n".to_owned()));
    assert_eq!(running.get("/nope").0, 404);
    assert_eq!(request(address, "POST /livez").0, 405);
    assert_eq!(running.get("/drain").0, 405);
    let (code, turns) =
        running.get("/metrics?name[]=millrace_core_turns_total&x=y&name%5B%5D=millrace_core_nanoseconds_total");
    assert_eq!((code, turns.matches("# TYPE").count()), (200, 2), "{turns}");
    let (code, metrics) = running.get("/metrics");
    assert!(code == 200 && metrics.contains("millrace_build_info{version=\"9.9.9\"} 1\n"), "{metrics}");
    let status: Status = serde_json::from_str(&running.get("/status").1).unwrap();
    assert!(status.ready && status.ports[0].link_up, "{status:?}");
    assert_eq!((status.epoch, status.ports[0].mac.as_str()), (1, "02:00:00:00:00:ab"));
    assert_eq!(status.gateways[0].listeners[0].name, "http");
}

#[test]
fn a_core_that_hangs_is_named() {
    let running = start();
    running.frozen.store(true, Ordering::Relaxed);
    assert!(running.await_status("/livez", 503).starts_with("core 0 has not moved for "));
    assert_eq!(running.get("/readyz").0, 503);
    running.frozen.store(false, Ordering::Relaxed);
    running.await_status("/livez", 200);
    running.await_status("/readyz", 200);
}

#[test]
fn readiness_follows_epochs_and_links() {
    let running = start();
    running.frozen.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    let (_, answer) = running.post("/config", &another());
    assert!(answer.outcome == Outcome::Accepted && !answer.swap.unwrap().complete);
    assert_eq!(running.get("/readyz"), (503, "core 0 runs epoch 1, not 2\n".to_owned()));
    let status: Status = serde_json::from_str(&running.get("/status").1).unwrap();
    assert!(status.gateways[0].conditions.iter().any(|c| c.reason == "Pending"), "{status:?}");
    running.frozen.store(false, Ordering::Relaxed);
    running.await_status("/readyz", 200);
    running.counters.ports[0].link_up.set(0);
    assert_eq!(running.get("/readyz"), (503, "port north: link down\n".to_owned()));
    assert_eq!(running.get("/livez").0, 200);
}

#[test]
fn draining_waits_for_connections_until_time_is_up() {
    let running = start();
    running.counters.connections_open.set(3);
    let started = Instant::now();
    let timeout = Duration::from_millis(300);
    assert_eq!(running.control.drain(timeout, || false), Drained::TimedOut(3));
    assert!(started.elapsed() >= timeout);
    running.core.join().unwrap();

    let running = start();
    running.counters.connections_open.set(1);
    assert_eq!(running.control.drain(Duration::from_secs(60), || true), Drained::Interrupted(1));

    let running = start();
    assert_eq!(running.control.drain(Duration::from_secs(60), || false), Drained::Complete);
    assert_eq!(running.get("/readyz"), (503, "draining\n".to_owned()));
    assert_eq!(running.get("/livez").0, 200, "that the cores have stopped is no defect now");
}

#[test]
fn a_drain_by_request_keeps_browsers_out() {
    let running = start();
    running.counters.connections_open.set(1);
    let address = running.control.admin_address();
    assert_eq!(request(address, "POST /drain HTTP/1.1\r\nOrigin: http://evil.example\r\nX:").0, 403);
    assert_eq!(running.get("/readyz").0, 200);
    assert_eq!(request(address, "POST /drain").0, 200);
    assert_eq!(running.get("/readyz"), (503, "draining\n".to_owned()));
}

#[test]
fn clients_that_stall_do_not_hurt() {
    let running = start();
    let address = running.control.admin_address();
    // More than are served at a time; each says nothing, or half a head.
    let stalled: Vec<TcpStream> = (0..80)
        .map(|i| {
            let mut stream = TcpStream::connect(address).unwrap();
            if i % 2 == 0 {
                stream.write_all(b"GET /metrics HTTP/1.1\r\nHo").unwrap();
            }
            stream
        })
        .collect();
    let started = Instant::now();
    assert_eq!(running.get("/livez").0, 200);
    assert!(started.elapsed() < Duration::from_secs(15));
    drop(stalled);
    assert_eq!(running.get("/livez").0, 200);
}

#[test]
fn garbage_gets_no_answer_worth_having() {
    let running = start();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        &[0; 20_000],
        &[b'A'; 20_000],
        b"GET / HTTP/1.1\r\nHost: a b\r\n : x\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(running.control.admin_address()).unwrap();
        // The other side may have closed in the middle.
        let _ = stream.write_all(bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
    }
    assert_eq!(running.get("/livez").0, 200);
}

#[test]
fn a_core_that_starts_again_has_sums_that_hold() {
    let running = start();
    let counters = Arc::clone(&running.counters);
    counters.connections_opened.set(10);
    counters.connections_closed.set(4);
    counters.connections_open.set(6);
    counters.requests_started.set(8);
    counters.requests_active.set(8);
    running.frozen.store(true, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(running.post("/config", &another()).1.epoch, 2);
    let seat = running.control.usher().seat(0).unwrap();
    assert_eq!(seat.snapshot.current().epoch, 2, "it starts with the newest tables");
    assert_eq!((counters.connections_open.read(), counters.connections_closed.read()), (0, 10));
    assert_eq!((counters.requests_active.read(), counters.requests_finished.read()), (0, 8));
    assert!(running.control.usher().seat(1).is_none());
}

#[test]
fn a_posted_configuration_is_taken_whole_or_refused_whole() {
    let running = start();
    let (code, answer) = running.post("/config?dry-run", &another());
    assert_eq!((code, answer.outcome, answer.epoch), (200, Outcome::Valid, 1));
    assert_eq!(answer.changes.changed[0].resource, "Gateway default/web");
    assert_eq!(answer.changes.changed[0].fields, ["spec.listeners"]);
    let (code, answer) = running.post("/config", &another());
    assert_eq!((code, answer.outcome, answer.epoch), (200, Outcome::Accepted, 2));
    let core = &answer.swap.unwrap().cores[0];
    assert_eq!((core.from, core.last_request, core.running), (Some(1), Some(7), Some(2)));
    assert_eq!(running.post("/config", &another()).1.outcome, Outcome::Unchanged);

    let (code, answer) =
        running.post("/config", &another().replace("protocol: HTTP, port: 81", "protocol: HTPT, port: 81"));
    assert_eq!((code, answer.outcome, answer.epoch), (422, Outcome::Refused, 2));
    let error = &answer.errors[0];
    assert_eq!((error.file.as_str(), error.line, error.field.as_str()), ("<body>", 12, "spec.listeners[1].protocol"));
    let (code, body) = running.get("/readyz");
    assert!(code == 200 && body.starts_with("ok\nconfiguration refused, 1 error; "), "{body}");
    let metric = "millrace_config_last_reload_successful";
    assert!(running.get("/metrics").1.contains(&format!("\n{metric} 0\n")));
    let status: Status = serde_json::from_str(&running.get("/status").1).unwrap();
    assert_eq!(status.configuration.refused.unwrap().errors, answer.errors);

    // What is tried only leaves no trace, and what runs mends what was refused.
    assert_eq!(running.post("/config?dry-run", "x: 1").0, 422);
    assert_eq!(running.post("/config", &another()).1.outcome, Outcome::Unchanged);
    assert_eq!(running.get("/readyz"), (200, "ok\n".to_owned()));
    assert!(running.get("/metrics").1.contains(&format!("\n{metric} 1\n")));
    let epochs: Epochs = serde_json::from_str(&running.get("/epochs").1).unwrap();
    assert_eq!((epochs.epoch, epochs.cores[0].epoch, epochs.swaps.len()), (2, 2, 1));
}

#[test]
fn what_needs_a_restart_is_refused_with_its_field() {
    let running = start();
    let (code, answer) =
        running.post("/config", &CONFIGURATION.replace("cores: [0]", "cores: [0, 1]\n  idle: adaptive"));
    assert_eq!((code, answer.errors.len()), (422, 2), "{answer:?}");
    let fields: Vec<_> = answer.errors.iter().map(|e| (e.line, e.column, e.field.as_str())).collect();
    assert_eq!(fields, [(6, 10, "spec.cores"), (7, 9, "spec.idle")]);
    assert_eq!(
        &*answer.errors[1].problem,
        "cannot change while Millrace runs: it is \"polling\", and would be \"adaptive\""
    );
    assert!(answer.errors[1].text.contains("  idle: adaptive\n"), "{}", answer.errors[1].text);
    assert_eq!(running.post("/reload", "").1.outcome, Outcome::Refused, "there are no files");
    assert_eq!(running.get("/readyz").0, 200);
}
