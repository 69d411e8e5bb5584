//! Backends that are killed, stall, reset and disappear under load, with health checks on: what fails is what is said here, and no more; and who
//! comes back gets load again.
//!
//! Clients look at every reply, and wrk loads the gateway beside them.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use support::backend::{Backend, Served};
use support::gateway::{Config, Gateway};
use support::load::{Load, Outcome, failures, served_by};
use support::sandbox::{Ns, Sandbox, VIP};
use support::wait_for;
use support::wrk::Wrk;

const INTERVAL: Duration = Duration::from_millis(200);
const TIMEOUT: Duration = Duration::from_millis(150);
const FALL: u32 = 2;
const RISE: u32 = 2;

/// From a backend's fault to its last request: checks give or take a tenth, of which the first may just have passed; and what control and a
/// busy machine take to tell the cores.
const NOTICED: Duration = Duration::from_millis(3 * 220 + 150 + 600);

/// From a backend's return to its first request.
const BACK: Duration = Duration::from_millis(3 * 220 + 150 + 600);

/// Clients that look at replies, and connections of wrk.
const CLIENTS: usize = 8;
const WRK: usize = 8;

const GET: &str = "GET /1k HTTP/1.1\r\nHost: test\r\n\r\n";

/// Three endpoints with checks of a kind, and a route with or without retries.
fn config(check: &str, retry: &str) -> Config {
    let (interval, timeout) = (INTERVAL.as_millis(), TIMEOUT.as_millis());
    Config::new()
        .backend("all", &["10.9.2.2:8080", "10.9.2.3:8080", "10.9.2.4:8080"])
        .document(&format!(
            "apiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{ name: all }}\nspec:\n  \
             targetRefs: [{{ group: millrace.dev, kind: Backend, name: all }}]\n  healthCheck:\n    active: {{ {check}, \
             interval: {interval}ms, timeout: {timeout}ms, unhealthyThreshold: {FALL}, healthyThreshold: {RISE} }}\n"
        ))
        .document(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: all }}\nspec:\n  parentRefs: [{{ name: web }}]\n  \
             rules:\n    - timeouts: {{ request: 5s, backendRequest: 500ms }}\n{retry}      \
             backendRefs: [{{ group: millrace.dev, kind: Backend, name: all, port: 8080 }}]\n"
        ))
}

const TCP: &str = "type: TCP";
const HTTP: &str = "type: HTTP, http: { path: / }";
const RETRY: &str = "      retry: { attempts: 2, backoff: 10ms }\n";

/// nginx at 10.9.2.4, beside the one of 10.9.2.2.
struct Third<'a>(&'a Sandbox);

impl<'a> Third<'a> {
    fn start(sandbox: &'a Sandbox) -> Self {
        sandbox.run_script("ip -n $NS_B1 address add 10.9.2.4/24 dev eth0");
        let third = Self(sandbox);
        third.again();
        third
    }

    fn again(&self) {
        self.0.run_script("nginx_backend $NS_B1 b3 10.9.2.4; echo $SPAWNED >$SANDBOX_DIR/b3.pid");
        wait_for("nginx listens", Duration::from_secs(10), || {
            self.0.inside(Ns::B1, || std::net::TcpStream::connect(("10.9.2.4", 8080)).is_ok())
        });
    }

    /// The master and its workers.
    fn signal(&self, signal: &str) {
        self.0.run_script(&format!("kill -{signal} -- -$(cat $SANDBOX_DIR/b3.pid)"));
    }
}

fn wrk(sandbox: &Sandbox) -> Wrk {
    Wrk::start(sandbox, &[&format!("-c{WRK}"), "--timeout", "4s", &format!("http://{VIP}/1k")])
}

fn all_are_well(gateway: &Gateway<'_>) {
    wait_for("all are well", Duration::from_secs(10), || {
        let all: serde_json::Value = serde_json::from_slice(&gateway.admin("/endpoints").body).expect("JSON");
        all["endpoints"].as_array().expect("a list").iter().all(|endpoint| endpoint["health"] == "healthy")
    });
}

/// Nobody serves for `name` once it was noticed, and the others do.
#[track_caller]
fn assert_left_alone(load: &Load, fault: Duration, name: &str) {
    while load.now() < fault + NOTICED {
        std::thread::sleep(Duration::from_millis(10));
    }
    let from = load.now();
    std::thread::sleep(Duration::from_millis(400));
    let outcomes = load.since(from);
    assert!(outcomes.len() >= 4 && outcomes.iter().all(|o| o.is_good() && o.by != name), "{:?}", failures(&outcomes));
    let slowest = outcomes.iter().map(|o| o.over - o.sent).max().expect("some");
    assert!(slowest < Duration::from_millis(400), "nobody waits for {name} any more: {slowest:?}");
}

/// Who is back at `at` is given load within the time that its checks take.
#[track_caller]
fn assert_back(load: &Load, at: Duration, name: &str) {
    loop {
        let outcomes = load.since(at);
        if let Some(first) = outcomes.iter().filter(|o| o.is_good() && o.by == name).map(|o| o.sent).min() {
            eprintln!("{name} is back after {:?}", first - at);
            assert!(first - at < BACK, "{name} gets load {:?} after it is back", first - at);
            break;
        }
        assert!(load.now() < at + 2 * BACK, "{name} gets no load");
        std::thread::sleep(Duration::from_millis(10));
    }
    // Its share, and not one request.
    let from = load.now();
    std::thread::sleep(Duration::from_millis(600));
    let outcomes = load.since(from);
    let share = served_by(&outcomes, name) as f64 / outcomes.len() as f64;
    assert!((0.2..0.5).contains(&share), "{share} of {}", outcomes.len());
}

/// Killed: its port refuses from then on; connections that it had are reset. And gone: whatever is sent there gets no answer at all. With retries
/// nothing fails.
#[test]
fn a_backend_that_is_killed_and_one_that_is_gone_cost_nothing() {
    for check in [TCP, HTTP] {
        let sandbox = sandbox_or_skip!();
        sandbox.start_nginx();
        let third = Third::start(&sandbox);
        let mut gateway = Gateway::start(&sandbox, &config(check, RETRY));
        all_are_well(&gateway);
        let load = Load::start(&sandbox, CLIENTS, GET);
        let wrk = wrk(&sandbox);
        std::thread::sleep(Duration::from_millis(500));
        let killed = load.now();
        third.signal("KILL");
        assert_left_alone(&load, killed, "b3");
        third.again();
        assert_back(&load, load.now(), "b3");
        let gone = load.now();
        sandbox.run_script("ip -n $NS_LAN link set b2 down");
        assert_left_alone(&load, gone, "b2");
        sandbox.run_script("ip -n $NS_LAN link set b2 up");
        assert_back(&load, load.now(), "b2");
        let outcomes = load.finish();
        eprintln!("{check}: {} requests", outcomes.len());
        assert!(outcomes.iter().all(Outcome::is_good), "{:?}", failures(&outcomes));
        wrk.finish();
        gateway.assert_alive();
    }
}

/// Without retries, what fails of a killed backend is at most what it was working on at that moment, and of one that is gone what it was sent until
/// that was noticed: each is told so, at the latest when its time is up.
#[test]
fn without_retries_only_what_was_there_fails() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let third = Third::start(&sandbox);
    let mut gateway = Gateway::start(&sandbox, &config(TCP, ""));
    all_are_well(&gateway);
    let load = Load::start(&sandbox, CLIENTS, GET);
    std::thread::sleep(Duration::from_millis(500));
    let killed = load.now();
    third.signal("KILL");
    assert_left_alone(&load, killed, "b3");
    let outcomes = load.since(Duration::ZERO);
    let failed = failures(&outcomes);
    eprintln!("killed: {} failed", failed.len());
    assert!(failed.len() <= CLIENTS && failed.iter().all(|o| o.status == 502 || !o.complete), "{failed:?}");
    assert!(failed.iter().all(|o| o.over < killed + NOTICED), "{failed:?}");
    third.again();
    assert_back(&load, load.now(), "b3");
    let gone = load.now();
    sandbox.run_script("ip -n $NS_LAN link set b2 down");
    assert_left_alone(&load, gone, "b2");
    let outcomes = load.since(gone);
    let failed = failures(&outcomes);
    eprintln!("gone: {} failed", failed.len());
    // Each client waits 500 ms for it each time, and so meets it no oftener than that until it is noticed, and once more for what was under way.
    let most = CLIENTS * (NOTICED.as_millis() as usize / 500 + 2);
    assert!(failed.len() <= most && failed.iter().all(|o| o.status == 504), "{failed:?}");
    assert!(failed.iter().all(|o| o.over - o.sent < Duration::from_millis(800)), "{failed:?}");
    load.finish();
    gateway.assert_alive();
}

/// Stopped: its kernel takes connections and requests, and nobody answers. Retries go elsewhere when an attempt's time is up, so nothing fails.
#[test]
fn a_backend_that_stalls_is_passed_over() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let third = Third::start(&sandbox);
    let mut gateway = Gateway::start(&sandbox, &config(HTTP, RETRY));
    all_are_well(&gateway);
    let load = Load::start(&sandbox, CLIENTS, GET);
    let wrk = wrk(&sandbox);
    std::thread::sleep(Duration::from_millis(500));
    let stalled = load.now();
    third.signal("STOP");
    // Requests that were sent there wait for 500 ms before they go elsewhere: those are the last that are slow.
    assert_left_alone(&load, stalled + Duration::from_millis(500), "b3");
    third.signal("CONT");
    assert_back(&load, load.now(), "b3");
    let outcomes = load.finish();
    assert!(outcomes.iter().all(Outcome::is_good), "{:?}", failures(&outcomes));
    let slow = outcomes.iter().filter(|o| o.over - o.sent > Duration::from_millis(450)).count();
    eprintln!("{} requests, {slow} of them waited", outcomes.len());
    assert!(slow > 0, "the stall was met");
    wrk.finish();
    gateway.assert_alive();
}

/// What a backend does with its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Mood {
    Well,
    /// Accepts, and resets.
    Resets,
    /// Resets in the middle of its answer.
    Tears,
    /// Reads a part of a request's body, and no more.
    Stuffed,
}

/// A backend of 10.9.2.4 with a mood, and how often it did as that says.
struct Moody {
    mood: Arc<AtomicU8>,
    done: Arc<AtomicUsize>,
    _backend: Backend,
}

impl Moody {
    fn start(sandbox: &Sandbox) -> Self {
        sandbox.run_script("ip -n $NS_B1 address add 10.9.2.4/24 dev eth0");
        let (mood, done) = (Arc::new(AtomicU8::new(Mood::Well as u8)), Arc::new(AtomicUsize::new(0)));
        let backend = Backend::start(sandbox, Ns::B1, "10.9.2.4:8080", {
            let (mood, done) = (Arc::clone(&mood), Arc::clone(&done));
            move |served| serve(served, &mood, &done)
        });
        Self { mood, done, _backend: backend }
    }

    fn turns(&self, mood: Mood) {
        self.mood.store(mood as u8, Ordering::SeqCst);
    }
}

fn serve(served: &mut Served, mood: &AtomicU8, done: &AtomicUsize) {
    let is = |wanted: Mood| mood.load(Ordering::SeqCst) == wanted as u8;
    let count = || done.fetch_add(1, Ordering::SeqCst);
    if is(Mood::Resets) {
        count();
        return served.reset();
    }
    while let Some(head) = served.head() {
        let length = head
            .to_ascii_lowercase()
            .split_once("content-length: ")
            .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap_or_default().parse().expect("a length"));
        let is_check = head.contains("millrace-health");
        if is(Mood::Stuffed) && (length > 0 || is_check) {
            // Holds it until it is well again, or the other side has lost patience.
            if !is_check {
                count();
            }
            let start = Instant::now();
            while is(Mood::Stuffed) && start.elapsed() < Duration::from_secs(10) {
                std::thread::sleep(Duration::from_millis(5));
            }
            return served.reset();
        }
        if served.exactly(length).is_none() {
            return;
        }
        if is(Mood::Resets) {
            count();
            return served.reset();
        }
        let body = "x".repeat(2000);
        let whole = format!("HTTP/1.1 200 OK\r\nX-Backend: moody\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if is(Mood::Tears) {
            if !is_check {
                count();
            }
            served.send(&whole[..whole.len() - 1000]);
            // The part is there before the reset is.
            std::thread::sleep(Duration::from_millis(20));
            return served.reset();
        }
        if !served.send(whole) {
            return;
        }
    }
}

/// Reset before an answer: retried, and nothing fails. Reset within an answer: that one cannot be made whole, and does not look so; each such
/// answer is one failure, and nothing else fails.
#[test]
fn a_backend_that_resets_fails_only_what_it_had_begun_to_answer() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let moody = Moody::start(&sandbox);
    let mut gateway = Gateway::start(&sandbox, &config(HTTP, RETRY));
    all_are_well(&gateway);
    let load = Load::start(&sandbox, CLIENTS, GET);
    let quiet = wrk(&sandbox);
    std::thread::sleep(Duration::from_millis(500));
    let resetting = load.now();
    moody.turns(Mood::Resets);
    assert_left_alone(&load, resetting, "moody");
    assert!(moody.done.swap(0, Ordering::SeqCst) > 0, "it was met");
    moody.turns(Mood::Well);
    assert_back(&load, load.now(), "moody");
    quiet.finish();
    let outcomes = load.since(Duration::ZERO);
    assert!(outcomes.iter().all(Outcome::is_good), "{:?}", failures(&outcomes));

    let tearing = load.now();
    moody.turns(Mood::Tears);
    assert_left_alone(&load, tearing, "moody");
    moody.turns(Mood::Well);
    assert_back(&load, load.now(), "moody");
    let outcomes = load.finish();
    let (failed, torn) = (failures(&outcomes), moody.done.load(Ordering::SeqCst));
    eprintln!("{} failed of {torn} torn and {} in all", failed.len(), outcomes.len());
    assert!(torn > 0 && failed.len() == torn, "{torn} torn: {failed:?}");
    assert!(failed.iter().all(|o| o.status == 200 && !o.complete), "a torn answer is one to see: {failed:?}");
    let truncated = gateway.metric("millrace_requests_total", &[("code", "200")]);
    assert!(truncated as usize >= torn);
    gateway.assert_alive();
}

/// Stops reading in the middle of bodies: uploads to it fail when their time is up, since what was sent of them cannot be sent twice. Each is told
/// so; what others upload is taken.
#[test]
fn a_backend_that_stops_reading_fails_only_what_it_was_sent() {
    let sandbox = sandbox_or_skip!();
    sandbox.run_script("ip -n $NS_B1 address add 10.9.2.5/24 dev eth0");
    let moody = Moody::start(&sandbox);
    let taker = |ns, address: &str, name: &'static str| {
        Backend::start(&sandbox, ns, address, move |served| {
            while let Some(request) = served.request() {
                let reply = if request.body.len() == UPLOAD { name } else { "less" };
                served.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{reply}", reply.len()));
            }
        })
    };
    let _takers = [taker(Ns::B1, "10.9.2.2:8080", "b1"), taker(Ns::B2, "10.9.2.3:8080", "b2")];
    let mut gateway = Gateway::start(&sandbox, &config(HTTP.replace("path: /", "path: /health").as_str(), RETRY));
    // The checks ask with GET and get `less`, which is well enough.
    all_are_well(&gateway);
    const UPLOAD: usize = 1 << 20;
    let body = "x".repeat(UPLOAD);
    let load =
        Load::start(&sandbox, 4, format!("POST /up HTTP/1.1\r\nHost: test\r\nContent-Length: {UPLOAD}\r\n\r\n{body}"));
    std::thread::sleep(Duration::from_millis(700));
    let stuffed = load.now();
    moody.turns(Mood::Stuffed);
    // What it holds is given up after 500 ms.
    assert_left_alone(&load, stuffed + Duration::from_millis(500), "moody");
    moody.turns(Mood::Well);
    assert_back(&load, load.now(), "moody");
    let outcomes = load.finish();
    let (failed, held) = (failures(&outcomes), moody.done.load(Ordering::SeqCst));
    eprintln!("{} uploads, {held} held, {} failed", outcomes.len(), failed.len());
    assert!(held > 0 && failed.len() <= held, "{held} held: {failed:?}");
    assert!(failed.iter().all(|o| o.status == 504 && o.over - o.sent < Duration::from_millis(900)), "{failed:?}");
    assert!(outcomes.iter().all(|o| o.by != "less"), "no upload arrives in part");
    gateway.assert_alive();
}
