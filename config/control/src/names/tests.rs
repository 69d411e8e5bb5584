//! Names and their thread against a server on loopback, and what becomes of them on disk.

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::AtomicUsize;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use hickory_resolver::proto::op::{Message, Metadata, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};

use super::*;
use crate::reload::Command;
use crate::status::NameState;

/// What a server answers about a name: records with their TTL, or a code. Silence where a name is not there.
type Zone = HashMap<(&'static str, RecordType), Result<Vec<(&'static str, u32, RData)>, ResponseCode>>;

/// A DNS server whose zone a test decides.
struct Server {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    asked: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let address = socket.local_addr().unwrap();
        let (zone, asked, stop) = (Arc::new(Mutex::new(zone)), Arc::default(), Arc::default());
        let (theirs, count, ended): (_, Arc<AtomicUsize>, Arc<AtomicBool>) =
            (Arc::clone(&zone), Arc::clone(&asked), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !ended.load(Ordering::Relaxed) {
                let Ok((len, from)) = socket.recv_from(&mut buffer) else { continue };
                count.fetch_add(1, Ordering::Relaxed);
                if let Some(reply) = reply(&theirs.lock().unwrap(), &buffer[..len]) {
                    let _ = socket.send_to(&reply, from);
                }
            }
        });
        Self { address, zone, asked, stop, thread: Some(thread) }
    }

    fn set(&self, name: &'static str, kind: RecordType, answer: Result<Vec<(&'static str, u32, RData)>, ResponseCode>) {
        self.zone.lock().unwrap().insert((name, kind), answer);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn reply(zone: &Zone, question: &[u8]) -> Option<Vec<u8>> {
    let question = Message::from_vec(question).unwrap();
    let query = question.queries.first().unwrap();
    let name = query.name().to_ascii().to_ascii_lowercase();
    let found = zone.iter().find(|((n, kind), _)| *n == name.trim_end_matches('.') && *kind == query.query_type());
    let mut message = Message::error_msg(question.metadata.id, question.metadata.op_code, ResponseCode::NoError);
    message.metadata = Metadata::response_from_request(&question.metadata);
    message.add_query(query.clone());
    match found?.1 {
        Err(code) => message.metadata.response_code = *code,
        Ok(records) => {
            let records = records.iter().map(|(owner, ttl, data)| {
                Record::from_rdata(Name::from_ascii(format!("{owner}.")).unwrap(), *ttl, data.clone())
            });
            message.add_answers(records.collect::<Vec<_>>());
        }
    }
    message.to_vec().ok()
}

fn a(name: &'static str, ttl: u32, addresses: &[&str]) -> Result<Vec<(&'static str, u32, RData)>, ResponseCode> {
    let data = |address: &&str| (name, ttl, RData::A(A(address.parse::<Ipv4Addr>().unwrap())));
    Ok(addresses.iter().map(data).collect())
}

fn configuration(server: &str, dns: &str, endpoints: &str) -> Configuration {
    let text = format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: Appliance\nmetadata: {{ name: edge }}\nspec:\n  cores: [0]\n  \
         ports: [{{ name: north, device: net_null0, addresses: [10.9.1.1/24] }}]\n  \
         dns: {{ servers: [\"{server}\"], timeout: 200ms, attempts: 1, retryInterval: 100ms, minTtl: 1s{dns} }}\n---\n\
         apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: shop }}\nspec: {{ endpoints: [{endpoints}] }}\n"
    );
    schema::load_str("test", &text).unwrap_or_else(|errors| panic!("{errors}"))
}

/// Names that are asked for by a thread.
struct Running {
    names: Arc<Names>,
    told: Receiver<Command>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    fn start(configuration: &Configuration, path: Option<PathBuf>) -> Self {
        Self::start_with(configuration, path, |_| {})
    }

    /// `before` is called before each question.
    fn start_with(configuration: &Configuration, path: Option<PathBuf>, before: fn(&DnsName)) -> Self {
        let names = Names::new(path);
        names.configure(configuration);
        drop(names.resolutions());
        let (sender, told) = channel();
        let theirs = Arc::clone(&names);
        let thread = std::thread::spawn(move || thread::serve(&theirs, &sender, before).unwrap());
        Self { names, told, thread: Some(thread) }
    }

    fn addresses(&self) -> Vec<String> {
        let all = self.names.resolutions();
        all.values().flat_map(|addresses| addresses.iter().map(Resolved::text)).collect()
    }

    fn status(&self) -> NameStatus {
        self.names.list().names.remove(0)
    }

    fn wait(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let start = Instant::now();
        while !condition(self) {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}: {:?}", self.names.list());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.names.stop();
        drop(self.thread.take().map(JoinHandle::join));
        self.names.save();
    }
}

const SHOP: &str = "{ fqdn: { hostname: shop.test, port: 80, lookupFamily: IPv4 } }";

#[test]
fn addresses_follow_the_records_and_the_same_ones_are_no_news() {
    let server =
        Server::start(HashMap::from([(("shop.test", RecordType::A), a("shop.test", 1, &["10.9.1.3", "10.9.1.2"]))]));
    let running = Running::start(&configuration(&server.address.to_string(), "", SHOP), None);
    running.names.await_first();
    assert!(matches!(running.told.recv_timeout(Duration::from_secs(5)), Ok(Command::Resolved)));
    assert!(running.names.has_news());
    assert_eq!(running.addresses(), ["10.9.1.2", "10.9.1.3"]);
    let asked = server.asked.load(Ordering::Relaxed);
    running.wait("it is asked again", |_| server.asked.load(Ordering::Relaxed) > asked + 1);
    assert!(!running.names.has_news() && running.told.try_recv().is_err(), "the same answer");
    server.set("shop.test", RecordType::A, a("shop.test", 1, &["10.9.1.4", "0.0.0.0", "127.0.0.1"]));
    assert!(matches!(running.told.recv_timeout(Duration::from_secs(5)), Ok(Command::Resolved)));
    assert_eq!(running.addresses(), ["10.9.1.4"]);
    assert_eq!(running.status().refused_count, 2);
}

#[test]
fn failures_keep_the_last_good_answer_and_nothing_ends_it_after_a_while() {
    let server = Server::start(HashMap::from([(("shop.test", RecordType::A), a("shop.test", 1, &["10.9.1.2"]))]));
    let running =
        Running::start(&configuration(&server.address.to_string(), ", holdAbsent: 1s, negativeTtl: 1s", SHOP), None);
    running.wait("an answer", |running| running.addresses() == ["10.9.1.2"]);
    for code in [ResponseCode::ServFail, ResponseCode::Refused] {
        server.set("shop.test", RecordType::A, Err(code));
        let token = if code == ResponseCode::ServFail { "servfail" } else { "refused" };
        running.wait(token, |running| running.status().lookups.get(token).is_some_and(|n| *n > 1));
        assert_eq!((running.addresses(), running.status().state), (vec!["10.9.1.2".to_owned()], NameState::Kept));
    }
    server.zone.lock().unwrap().clear();
    running.wait("timeouts", |running| running.status().lookups.contains_key("timeout"));
    assert_eq!(running.addresses(), ["10.9.1.2"]);
    assert!(running.status().age_seconds.unwrap() > 0.5);
    server.set("shop.test", RecordType::A, Err(ResponseCode::NXDomain));
    running.wait("the name is gone", |running| running.addresses().is_empty());
    assert_eq!(running.status().state, NameState::Unresolved);
    assert!(running.status().lookups["nxdomain"] >= 2, "asked again when it was to be believed");
    server.set("shop.test", RecordType::A, a("shop.test", 1, &["10.9.1.2"]));
    running.wait("it is back", |running| running.addresses() == ["10.9.1.2"]);
}

#[test]
fn srv_records_lead_to_addresses_with_ports_and_aliases_are_followed() {
    let srv = |priority, weight, port, target: &str| {
        RData::SRV(SRV::new(priority, weight, port, Name::from_ascii(target).unwrap()))
    };
    let name = "_http._tcp.shop.test";
    let alias = ("b.test", 1, RData::CNAME(CNAME(Name::from_ascii("c.test.").unwrap())));
    let server = Server::start(HashMap::from([
        (
            (name, RecordType::SRV),
            Ok(vec![(name, 60, srv(10, 3, 81, "a.test.")), (name, 60, srv(20, 1, 82, "B.test."))]),
        ),
        (("a.test", RecordType::A), a("a.test", 60, &["10.9.1.2", "10.9.1.3"])),
        (("b.test", RecordType::A), Ok(vec![alias])),
        (("c.test", RecordType::A), a("c.test", 60, &["10.9.1.4"])),
    ]));
    let endpoint = "{ fqdn: { hostname: _http._tcp.shop.test, type: SRV, lookupFamily: IPv4 } }";
    let running = Running::start(&configuration(&server.address.to_string(), "", endpoint), None);
    running.wait("an answer", |running| !running.addresses().is_empty());
    assert_eq!(running.addresses(), ["10.9.1.2:81", "10.9.1.3:81", "10.9.1.4:82"]);
    assert_eq!(running.status().ttl_seconds, Some(1), "the shortest TTL of all, the alias's");
    let all = running.names.resolutions();
    let weights = weights(all.values().next().unwrap(), 1);
    assert_eq!(weights, [(0, 3), (0, 3), (1, 2)]);
    // A target that cannot be resolved now is where it was.
    server.set("c.test", RecordType::A, Err(ResponseCode::ServFail));
    running.wait("a failure of a part", |running| running.status().last_failure.is_some());
    assert_eq!(running.addresses(), ["10.9.1.2:81", "10.9.1.3:81", "10.9.1.4:82"]);
    server.set(name, RecordType::SRV, Ok(vec![(name, 1, srv(0, 0, 0, "."))]));
    running.wait("there is no such service", |running| running.status().lookups.contains_key("nodata"));
}

/// What a recursive server says of an SRV name that is an alias, and what one says that knows the alias alone.
#[test]
fn aliases_of_srv_names_are_followed() {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let alias = |owner: &'static str, ttl, of: &str| (owner, ttl, RData::CNAME(CNAME(name(of))));
    let srv = |owner: &'static str| (owner, 60, RData::SRV(SRV::new(0, 1, 81, name("a.test."))));
    let (first, second, third) = ("_http._tcp.shop.test", "_http._tcp.mid.test", "_http._tcp.real.test");
    let to_second = alias(first, 7, "_http._tcp.mid.test.");
    let to_third = alias(second, 60, "_http._tcp.Real.test.");
    let kinds = (RecordType::SRV, RecordType::CNAME);
    let of = |records: &[(&'static str, u32, RData)]| Ok(records.to_vec());
    let address = (("a.test", RecordType::A), a("a.test", 60, &["10.9.1.2"]));
    // It says nothing of SRV records of targets; that is no failure of the name.
    let nothing = |name| ((name, RecordType::SRV), Err(ResponseCode::NXDomain));
    let whole = of(&[to_second.clone(), to_third.clone(), srv(third)]);
    let recursive = [
        ((first, kinds.0), whole),
        ((second, kinds.0), of(&[to_third.clone(), srv(third)])),
        ((third, kinds.0), of(&[srv(third)])),
    ];
    let alone = [
        ((first, kinds.0), of(core::slice::from_ref(&to_second))),
        ((second, kinds.0), of(core::slice::from_ref(&to_third))),
        ((third, kinds.0), of(&[srv(third)])),
    ];
    let aliases = [((first, kinds.1), of(&[to_second])), ((second, kinds.1), of(&[to_third]))];
    let endpoint = "{ fqdn: { hostname: _http._tcp.shop.test, type: SRV, lookupFamily: IPv4 } }";
    for zone in [recursive, alone] {
        let zone = zone.into_iter().chain(aliases.clone()).chain([address.clone(), nothing("a.test")]);
        let server = Server::start(zone.collect());
        let running = Running::start(&configuration(&server.address.to_string(), "", endpoint), None);
        running.wait("an answer", |running| !running.addresses().is_empty());
        assert_eq!(running.addresses(), ["10.9.1.2:81"]);
        assert_eq!(running.status().ttl_seconds, Some(7), "the shortest TTL of all, an alias's");
    }
    // Round and round.
    let zone = [
        ((first, kinds.0), Err(ResponseCode::NXDomain)),
        ((first, kinds.1), of(&[alias(first, 1, "_http._tcp.shop.test.")])),
    ];
    let server = Server::start(zone.into_iter().collect());
    let running = Running::start(&configuration(&server.address.to_string(), "", endpoint), None);
    running.wait("a failure", |running| running.status().last_failure.is_some());
    assert!(running.addresses().is_empty() && server.asked.load(Ordering::Relaxed) < 100);
}

/// A resolver that panics is a failure of the name that was asked for, and of no other.
#[test]
fn a_resolver_that_panics_is_a_failure_like_others() {
    static PANICS: AtomicBool = AtomicBool::new(false);
    fn before(name: &DnsName) {
        assert!(!(PANICS.load(Ordering::Relaxed) && *name.hostname == *"shop.test"), "as the test wants it");
    }
    let other = "{ fqdn: { hostname: other.test, port: 80, lookupFamily: IPv4 } }";
    let server = Server::start(HashMap::from([
        (("shop.test", RecordType::A), a("shop.test", 1, &["10.9.1.2"])),
        (("other.test", RecordType::A), a("other.test", 1, &["10.9.1.3"])),
    ]));
    let configuration = configuration(&server.address.to_string(), "", &format!("{SHOP}, {other}"));
    let running = Running::start_with(&configuration, None, before);
    running.wait("both answers", |running| running.addresses().len() == 2);
    PANICS.store(true, Ordering::Relaxed);
    let of = |hostname: &str| running.names.list().names.into_iter().find(|name| name.name == hostname).unwrap();
    running.wait("a panic", |_| of("shop.test").last_failure.is_some());
    let failure = of("shop.test").last_failure.unwrap();
    assert!(failure.reason.contains("the resolver panicked"), "{failure:?}");
    server.set("other.test", RecordType::A, a("other.test", 1, &["10.9.1.4"]));
    running.wait("the other name's news", |running| running.addresses().contains(&"10.9.1.4".to_owned()));
    assert!(running.addresses().contains(&"10.9.1.2".to_owned()), "what was known of it stays");
    assert_eq!((of("shop.test").state, of("other.test").last_failure), (NameState::Kept, None));
    PANICS.store(false, Ordering::Relaxed);
    server.set("shop.test", RecordType::A, a("shop.test", 1, &["10.9.1.5"]));
    running.wait("it is asked for again", |running| running.addresses().contains(&"10.9.1.5".to_owned()));
}

#[test]
fn a_flood_of_addresses_is_cut_and_answers_outlive_a_restart() {
    let directory = std::env::temp_dir().join(format!("millrace-names-{}", std::process::id()));
    let path = directory.join("names.json");
    let many: Vec<String> = (2..30).map(|n| format!("10.9.1.{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let server = Server::start(HashMap::from([(("shop.test", RecordType::A), a("shop.test", 0, &many))]));
    let file = Some(path.clone());
    let running = Running::start(&configuration(&server.address.to_string(), ", maxAddresses: 5", SHOP), file.clone());
    assert_eq!(running.names.awaited(), 1, "readiness waits");
    running.wait("an answer", |running| !running.addresses().is_empty());
    assert_eq!((running.addresses().len(), running.status().surplus, running.names.awaited()), (5, 23, 0));
    let before = running.addresses();
    drop((running, server));
    // Nobody answers any more.
    let running = Running::start(&configuration("127.0.0.1:9", "", SHOP), file);
    assert_eq!((running.addresses(), running.names.awaited()), (before, 0));
    running.wait("a failure", |running| running.status().last_failure.is_some());
    assert_eq!((running.addresses().len(), running.status().state), (5, NameState::Kept));
    // Another name has no use for it.
    drop(running);
    let other = SHOP.replace("shop.test", "other.test");
    let running = Running::start(&configuration("127.0.0.1:9", ", startupWait: 1s", &other), Some(path));
    assert!(running.addresses().is_empty());
    running.names.await_first();
    assert_eq!(running.names.awaited(), 0, "a failure is an answer to readiness");
    drop(running);
    std::fs::remove_dir_all(directory).unwrap();
}

#[test]
fn what_was_kept_is_held_to_what_an_answer_is_and_what_is_no_answer_does_no_harm() {
    let directory = std::env::temp_dir().join(format!("millrace-names-kept-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let path = directory.join("names.json");
    let kept = |confirmed: u64, addresses: &str| {
        let of = |hostname: &str| {
            let addresses: Vec<String> = addresses.split(' ').map(|a| format!("{{\"address\":\"{a}\"}}")).collect();
            let addresses = addresses.join(",");
            format!(
                "{{\"hostname\":\"{hostname}\",\"srv\":false,\"family\":\"IPv4\",\"confirmed\":{confirmed},\"addresses\":[{addresses}]}}"
            )
        };
        std::fs::write(&path, format!("[{},{}]", of("shop.test"), of("other.test"))).unwrap();
        let names = Names::new(Some(path.clone()));
        names.configure(&configuration("127.0.0.1:9", ", maxAddresses: 2", SHOP));
        let all: Vec<String> = names.resolutions().values().flat_map(|a| a.iter().map(Resolved::text)).collect();
        all
    };
    assert_eq!(kept(1_700_000_000, "10.9.1.4 10.9.1.3"), ["10.9.1.3", "10.9.1.4"]);
    // 10.9.1.1 is the appliance's own, which it may not have been then; nothing leads to 10.8.0.2 any more.
    assert_eq!(kept(1_700_000_000, "10.9.1.1 127.0.0.1 10.8.0.2 10.9.1.4"), ["10.9.1.4"]);
    assert_eq!(kept(1_700_000_000, "10.9.1.4 10.9.1.3 10.9.1.2").len(), 2);
    let none: [&str; 0] = [];
    assert_eq!(kept(1_700_000_000, "10.9.1.1"), none);
    assert_eq!(kept(u64::MAX, "10.9.1.4"), none, "no time that there is");
    for cut in ["", "[", "[{\"hostname\":\"shop.test\"}]", "{}", "\0"] {
        std::fs::write(&path, cut).unwrap();
        let names = Names::new(Some(path.clone()));
        names.configure(&configuration("127.0.0.1:9", "", SHOP));
        assert!(names.resolutions().is_empty(), "{cut}");
    }
    std::fs::remove_dir_all(directory).unwrap();
}
