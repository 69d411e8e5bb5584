//! Backends whose endpoints DNS names: records that change under load, servers that fail, and servers that lie.

mod support;

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::backend::Backend;
use support::gateway::{Config, Gateway, MILLRACE};
use support::sandbox::{Ns, Sandbox, VIP};
use support::wait_for;
use support::wrk::Wrk;

const SERVER: &str = "127.0.0.1:5300";

/// dnsmasq in the gateway's namespace, on the address of the example.
struct Dnsmasq {
    child: Child,
    hosts: PathBuf,
}

impl Dnsmasq {
    /// With these lines of a hosts file, and further options.
    fn start(sandbox: &Sandbox, hosts: &str, options: &[&str]) -> Self {
        let path = sandbox.dir().join("hosts");
        fs::write(&path, hosts).expect("the sandbox can be written");
        let mut command = sandbox.command(Ns::Millrace, "dnsmasq");
        command.args([
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--user=root",
            "--pid-file=",
            "--log-facility=-",
        ]);
        command.args(["--port=5300", "--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts"]);
        command.args(["--local=/example.com/", "--local-ttl=1", "--neg-ttl=1"]).args(options);
        command.arg(format!("--addn-hosts={}", path.display()));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("dnsmasq starts");
        sandbox.adopt(child.id());
        let started = Self { child, hosts: path };
        wait_for("dnsmasq listens", Duration::from_secs(10), || {
            sandbox.inside(Ns::Millrace, || std::net::TcpStream::connect(SERVER).is_ok())
        });
        started
    }

    /// Other lines of the hosts file.
    fn set(&self, hosts: &str) {
        fs::write(&self.hosts, hosts).expect("the sandbox can be written");
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        kill_process(pid, Signal::HUP).expect("dnsmasq runs");
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Everything to what `shop.example.com` stands for, on port 8080.
fn shop(dns: &str) -> Config {
    let backend = "apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: { name: shop }\nspec:\n  \
                   endpoints: [{ fqdn: { hostname: shop.example.com, port: 8080 } }]\n";
    Config::new()
        .appliance(&format!(
            "  dns: {{ servers: [\"{SERVER}\"], timeout: 200ms, retryInterval: 200ms, maxRetryInterval: 400ms, minTtl: 1s{dns} }}\n"
        ))
        .document(backend)
        .route("shop", &[], ("PathPrefix", "/"), &["shop"])
}

/// Answers with its name.
fn named(sandbox: &Sandbox, ns: Ns, address: &str, name: &str) -> Backend {
    let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
    Backend::canned(sandbox, ns, address, reply)
}

fn listing(gateway: &Gateway<'_>, path: &str) -> Value {
    serde_json::from_slice(&gateway.admin(path).body).expect("JSON")
}

/// The addresses of all endpoints.
fn endpoints(gateway: &Gateway<'_>) -> Vec<String> {
    let all = listing(gateway, "/endpoints");
    let all = all["endpoints"].as_array().expect("a list");
    all.iter().map(|endpoint| endpoint["address"].as_str().expect("an address").to_owned()).collect()
}

fn await_endpoints(gateway: &Gateway<'_>, wanted: &[&str]) {
    wait_for(&format!("{wanted:?}"), Duration::from_secs(10), || endpoints(gateway) == wanted);
}

fn millrace(gateway: &Gateway<'_>, words: &[&str]) -> String {
    let output = gateway.sandbox.command(Ns::Millrace, MILLRACE).args(words).output().expect("millrace runs");
    assert!(output.status.success(), "{words:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn addresses_change_under_load_and_no_request_fails() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let (one, two) = ("10.9.2.2 shop.example.com\n", "10.9.2.3 shop.example.com\n");
    let dns = Dnsmasq::start(&sandbox, one, &[]);
    let gateway = Gateway::start(&sandbox, &shop(""));
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"));
    let load = Wrk::start(&sandbox, &["-c32", &format!("http://{VIP}/1k")]);
    let mut changes = 0;
    // Each takes a second, which is the least TTL.
    for _ in 0..3 {
        for (hosts, wanted) in [
            (two, &["10.9.2.3:8080"][..]),
            (&[one, two].concat(), &["10.9.2.2:8080", "10.9.2.3:8080"]),
            (one, &["10.9.2.2:8080"]),
        ] {
            dns.set(hosts);
            await_endpoints(&gateway, wanted);
            changes += 1;
        }
    }
    eprintln!("{changes} changes\n{}", load.finish());
    let mut answers = gateway.answers();
    // wrk leaves while it waits for an answer on each of its connections.
    assert!(answers.remove("499").unwrap_or(0) <= 32, "{answers:?}");
    assert!(answers.keys().eq(["200"]), "{answers:?}");
    // Each change is an epoch, and the same answer, of which there were many more, is none.
    let lookups = gateway.metric("millrace_dns_lookups_total", &[("name", "shop.example.com"), ("result", "answer")]);
    assert!(gateway.epoch() <= changes + 2 && lookups >= changes, "{} {lookups} {changes}", gateway.epoch());
}

#[test]
fn the_last_good_answer_serves_while_servers_are_gone_also_after_a_restart() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let hosts = "10.9.2.2 shop.example.com\n10.9.2.3 shop.example.com\n";
    let dns = Dnsmasq::start(&sandbox, hosts, &[]);
    let mut gateway = Gateway::start(&sandbox, &shop(""));
    await_endpoints(&gateway, &["10.9.2.2:8080", "10.9.2.3:8080"]);
    let age =
        |gateway: &Gateway<'_>| gateway.metric("millrace_dns_answer_age_seconds", &[("name", "shop.example.com")]);
    assert!(age(&gateway) <= 2);
    drop(dns);
    wait_for("the answer grows old", Duration::from_secs(20), || age(&gateway) >= 5);
    assert_eq!((gateway.get("/").status, gateway.admin("/readyz").status), (200, 200));
    let told = gateway.log().matches("the last good answer counts on").count();
    assert_eq!(told, 1, "{}", gateway.log());
    for listing in [&["get", "names"][..], &["status"]] {
        let text = millrace(&gateway, listing);
        assert!(
            text.contains("shop.example.com  Address  IPv4AndIPv6  kept") && text.contains("10.9.2.2,10.9.2.3"),
            "{text}"
        );
    }
    let text = millrace(&gateway, &["explain", "GET", &format!("http://{VIP}/")]);
    assert!(text.contains("shop.example.com (Address): 2 addresses of the last good answer, "), "{text}");
    assert!(millrace(&gateway, &["get", "backends"]).contains("shop.example.com"));
    gateway.terminate();
    assert!(gateway.ended(Duration::from_secs(20)).success());
    drop(gateway);
    let gateway = Gateway::start_as_is(&sandbox, &[]);
    assert_eq!(gateway.get("/").status, 200);
    assert!(age(&gateway) >= 5, "its age outlives the restart, too");
    let _dns = Dnsmasq::start(&sandbox, hosts, &[]);
    wait_for("a new answer", Duration::from_secs(10), || age(&gateway) <= 2);
    // A name that is gone is one whose servers say so, after a while.
    assert_eq!(gateway.get("/").status, 200);
}

#[test]
fn without_an_answer_there_is_a_503_and_a_name_that_is_gone_is_held_for_a_while() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let start = Instant::now();
    let gateway = Gateway::start(&sandbox, &shop(", startupWait: 1s, holdAbsent: 3s"));
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!((gateway.get("/").status, endpoints(&gateway).len()), (503, 0));
    let dns = Dnsmasq::start(&sandbox, "10.9.2.2 shop.example.com\n", &[]);
    await_endpoints(&gateway, &["10.9.2.2:8080"]);
    assert_eq!(gateway.get("/").status, 200);
    dns.set("");
    let gone = Instant::now();
    wait_for("NXDOMAIN", Duration::from_secs(10), || gateway.log().contains("does not exist (NXDOMAIN)"));
    assert_eq!(gateway.get("/").status, 200, "held");
    wait_for("it is believed", Duration::from_secs(10), || endpoints(&gateway).is_empty());
    assert!(gone.elapsed() > Duration::from_secs(3), "{:?}", gone.elapsed());
    assert_eq!(gateway.get("/").status, 503);
}

/// The example: weights and priorities of SRV records, in who answers.
#[test]
fn srv_records_say_who_answers_how_often() {
    let sandbox = sandbox_or_skip!();
    let one = named(&sandbox, Ns::B1, "10.9.2.2:9001", "one");
    let two = named(&sandbox, Ns::B2, "10.9.2.3:9002", "two");
    let _three = named(&sandbox, Ns::B2, "10.9.2.3:9003", "three");
    let _shop = named(&sandbox, Ns::B1, "10.9.2.2:8080", "shop");
    let srv = |rest: &str| format!("--srv-host=_api._tcp.shop.example.com,{rest}");
    let records = [srv("a.example.com,9001,10,3"), srv("b.example.com,9002,10,1"), srv("b.example.com,9003,20,1")];
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    let hosts = "10.9.2.2 a.example.com\n10.9.2.3 b.example.com\n10.9.2.2 shop.example.com\n";
    let _dns = Dnsmasq::start(&sandbox, hosts, &records);
    let gateway = Gateway::start_example(&sandbox, "dns.yaml");
    await_endpoints(&gateway, &["10.9.2.2:9001", "10.9.2.3:9002", "10.9.2.3:9003", "10.9.2.2:8080"]);
    assert_eq!(gateway.get("/").text(), "shop");
    let count = |name: &str| (0..40).filter(|_| gateway.get("/api").text() == name).count();
    assert_eq!((count("one"), count("two"), count("three")), (30, 10, 0));
    drop((one, two));
    let unwell = |gateway: &Gateway<'_>| {
        let all = listing(gateway, "/endpoints");
        all["endpoints"].as_array().expect("a list").iter().filter(|e| e["health"] == "unhealthy").count()
    };
    wait_for("the first priority is not well", Duration::from_secs(10), || unwell(&gateway) == 2);
    assert_eq!(count("three"), 40);
}

/// What a hostile server does with a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lie {
    /// Says nothing.
    Silence,
    /// One good address, which may be kept for so many seconds.
    Good(u32),
    /// More addresses than are taken, with a TTL of 0, and those of nobody among them.
    Many,
    /// Addresses that lead to this host, to nobody or to everybody.
    Unusable,
    /// An alias of itself.
    Loop,
    /// An answer to another question.
    Foreign,
    /// A length that is beyond the end.
    Cut,
    /// No DNS at all.
    Noise,
}

/// A server in the gateway's namespace that lies.
struct Liar {
    lie: Arc<Mutex<Lie>>,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Liar {
    fn start(sandbox: &Sandbox, lie: Lie) -> Self {
        let socket = sandbox.inside(Ns::Millrace, || UdpSocket::bind(SERVER)).expect("the address is free");
        socket.set_read_timeout(Some(Duration::from_millis(50))).expect("an option");
        let mut liar =
            Self { lie: Arc::new(Mutex::new(lie)), asked: Arc::default(), stop: Arc::default(), thread: None };
        let (lie, asked, stop) = (Arc::clone(&liar.lie), Arc::clone(&liar.asked), Arc::clone(&liar.stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 1500];
            while !stop.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                asked.fetch_add(1, Ordering::Relaxed);
                let lie = *lie.lock().expect("no thread panicked");
                answer(&socket, from, &buffer[..len], lie);
            }
        });
        liar.thread = Some(thread);
        liar
    }

    /// Lies otherwise, and waits until that was heard often enough.
    fn tell(&self, lie: Lie) {
        *self.lie.lock().expect("no thread panicked") = lie;
        let before = self.asked.load(Ordering::Relaxed);
        wait_for(&format!("{lie:?} is heard"), Duration::from_secs(30), || {
            self.asked.load(Ordering::Relaxed) >= before + 6
        });
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn answer(socket: &UdpSocket, from: SocketAddr, question: &[u8], lie: Lie) {
    // One question: its name ends with a 0, then come type and class (RFC 1035, 4.1.2).
    let end = 12 + question[12..].iter().position(|&byte| byte == 0).expect("a name") + 5;
    let is_a = question[end - 3] == 1;
    let record = |kind: u8, ttl: u32, data: &[u8]| {
        let head = [&[0xc0, 12, 0, kind, 0, 1][..], &ttl.to_be_bytes(), &(data.len() as u16).to_be_bytes()].concat();
        [&head, data].concat()
    };
    let unusable = [
        [0, 0, 0, 0],
        [127, 0, 0, 1],
        [224, 0, 0, 1],
        [255, 255, 255, 255],
        [10, 9, 1, 1],
        [10, 9, 2, 1],
        [192, 0, 2, 1],
    ];
    let unusable = || unusable.iter().map(|address| record(1, 0, address)).collect::<Vec<_>>();
    let mut records = match lie {
        Lie::Silence => return,
        Lie::Noise => {
            let _ = socket.send_to(&support::pattern(400), from);
            return;
        }
        Lie::Good(ttl) => vec![record(1, ttl, &[10, 9, 2, 2])],
        Lie::Foreign | Lie::Cut => vec![record(1, 60, &[10, 9, 2, 3])],
        Lie::Many => [unusable(), (2..60).map(|n| record(1, 0, &[10, 9, 2, n])).collect()].concat(),
        Lie::Unusable => unusable(),
        Lie::Loop => vec![record(5, 60, &[0xc0, 12])],
    };
    if !is_a && lie != Lie::Loop {
        records.clear();
    }
    let mut reply = question[..end].to_vec();
    // An answer, recursion desired and available, no error; one question, no more than these records.
    reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, records.len() as u8, 0, 0, 0, 0]);
    if lie == Lie::Foreign {
        // Of another name, for another question: nobody asked.
        reply[0] ^= 0x55;
        reply[13] ^= 1;
    }
    reply.extend(records.concat());
    if lie == Lie::Cut {
        reply.truncate(reply.len().saturating_sub(3));
    }
    let _ = socket.send_to(&reply, from);
}

#[test]
fn what_a_server_makes_up_does_no_harm() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let liar = Liar::start(&sandbox, Lie::Silence);
    let mut gateway = Gateway::start(&sandbox, &shop(", maxAddresses: 5, startupWait: 500ms"));
    assert_eq!(gateway.get("/").status, 503);
    liar.tell(Lie::Good(0));
    await_endpoints(&gateway, &["10.9.2.2:8080"]);
    let memory = gateway.resident_kib();
    for lie in [Lie::Unusable, Lie::Loop, Lie::Foreign, Lie::Cut, Lie::Noise, Lie::Silence] {
        liar.tell(lie);
        assert_eq!(endpoints(&gateway), ["10.9.2.2:8080"], "{lie:?}");
        assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"), "{lie:?}");
        eprintln!("{lie:?}: {}", listing(&gateway, "/names")["names"][0]["lastFailure"]);
    }
    liar.tell(Lie::Many);
    wait_for("five addresses", Duration::from_secs(10), || endpoints(&gateway).len() == 5);
    assert!(endpoints(&gateway).contains(&"10.9.2.2:8080".to_owned()), "the one that was there stays");
    let name = listing(&gateway, "/names")["names"][0].clone();
    assert_eq!((&name["refusedCount"], &name["surplus"]), (&Value::from(7), &Value::from(53)), "{name}");
    assert_eq!(name["ttlSeconds"], 1, "a TTL of 0 is no reason to ask all the time");
    let before = liar.asked.load(Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(3));
    assert!(liar.asked.load(Ordering::Relaxed) - before <= 12, "{}", liar.asked.load(Ordering::Relaxed) - before);
    assert!(gateway.resident_kib() < memory + 16 * 1024);
    gateway.assert_alive();
}
