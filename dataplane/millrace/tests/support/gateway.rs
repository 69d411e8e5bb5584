//! A running Millrace: its configuration, its process, its admin endpoints.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::client::{Connection, Response};
use super::sandbox::{Ns, REPOSITORY, Sandbox, VIP};
use super::wait_for;

/// The binary under test.
pub const MILLRACE: &str = env!("CARGO_BIN_EXE_millrace");

const START: Duration = Duration::from_secs(20);

/// A configuration: what the tests share, and the parts in which they differ.
#[derive(Debug, Clone)]
pub struct Config {
    /// Further lines of `Appliance.spec`, indented by two spaces.
    pub appliance: String,
    /// Further lines of the port towards clients, indented by six spaces.
    pub north: String,
    /// `Appliance.spec.ports`, each line indented by four spaces.
    pub ports: String,
    /// Documents beside the appliance.
    pub documents: Vec<String>,
    /// `Appliance.spec.cores`.
    pub cores: String,
    /// `Appliance.spec.memory`.
    pub memory: &'static str,
    /// What follows `iface=…` in the ports' devices, in the place of `{device}`.
    pub device: String,
    /// DPDK's driver on the sandbox's interfaces.
    pub driver: &'static str,
}

/// The ports of most tests.
const PORTS: &str = r#"    - name: north
      device: "{driver}0,iface=mr-north{device}"
      addresses: ["10.9.1.1/24"]
{north}    - name: south
      device: "{driver}1,iface=mr-south{device}"
      addresses: ["10.9.2.1/24"]
"#;

impl Config {
    /// One listener on port 80, and nothing behind it.
    pub fn new() -> Self {
        Self::listening(&[VIP])
    }

    /// A listener on port 80 of these addresses, and nothing behind it.
    pub fn listening(addresses: &[&str]) -> Self {
        let addresses: Vec<String> =
            addresses.iter().map(|address| format!("{{ type: IPAddress, value: \"{address}\" }}")).collect();
        let gateway = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {{ name: web }}\nspec:\n  \
             gatewayClassName: millrace\n  addresses: [{}]\n  listeners: [{{ name: http, protocol: HTTP, port: 80 }}]\n",
            addresses.join(", ")
        );
        Self {
            appliance: String::new(),
            north: String::new(),
            ports: PORTS.to_owned(),
            documents: vec![gateway],
            cores: format!("[{}]", polling_cpu()),
            memory: "{ hugepages: off, mebibytes: 512 }",
            device: String::new(),
            driver: "net_af_packet",
        }
    }

    /// Other ports.
    pub fn ports(mut self, lines: &str) -> Self {
        lines.clone_into(&mut self.ports);
        self
    }

    /// Polls on these CPUs instead of one, with devices that have further arguments.
    pub fn cores(mut self, cores: &[usize], device: &str) -> Self {
        self.cores = format!("{cores:?}");
        self.device = device.to_owned();
        self
    }

    /// Other memory.
    pub fn memory(mut self, memory: &'static str) -> Self {
        self.memory = memory;
        self
    }

    /// Adds to `Appliance.spec`.
    pub fn appliance(mut self, lines: &str) -> Self {
        self.appliance.push_str(lines);
        self
    }

    /// Adds to the port towards clients.
    pub fn north(mut self, lines: &str) -> Self {
        self.north.push_str(lines);
        self
    }

    /// Adds a document.
    pub fn document(mut self, text: &str) -> Self {
        self.documents.push(text.to_owned());
        self
    }

    /// A backend with these endpoints: `address:port` or `address:port*weight`; an IPv6 address in brackets.
    pub fn backend(self, name: &str, endpoints: &[&str]) -> Self {
        let list = endpoints.iter().map(|endpoint| {
            let (address, weight) = endpoint.split_once('*').unwrap_or((endpoint, "1"));
            let (address, port) = address.rsplit_once(':').expect("address:port");
            let address = address.trim_matches(['[', ']']);
            format!("{{ address: \"{address}\", port: {port}, weight: {weight} }}")
        });
        let list = list.collect::<Vec<_>>().join(", ");
        self.document(&format!(
            "apiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: {name} }}\nspec:\n  endpoints: [{list}]\n"
        ))
    }

    /// A route from hosts (none: any) and a path prefix to weighted backends, `name` or `name*weight`.
    pub fn route(self, name: &str, hosts: &[&str], path: (&str, &str), backends: &[&str]) -> Self {
        let (kind, value) = path;
        let refs = backends.iter().map(|backend| {
            let (name, weight) = backend.split_once('*').unwrap_or((backend, "1"));
            format!("{{ group: millrace.dev, kind: Backend, name: {name}, port: 8080, weight: {weight} }}")
        });
        let refs = refs.collect::<Vec<_>>().join(", ");
        let hosts = if hosts.is_empty() { String::new() } else { format!("  hostnames: {hosts:?}\n") };
        self.document(&format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: {name} }}\nspec:\n  \
             parentRefs: [{{ name: web }}]\n{hosts}  rules:\n    - matches: [{{ path: {{ type: {kind}, value: \"{value}\" }} }}]\n      \
             backendRefs: [{refs}]\n"
        ))
    }

    /// Everything to one backend with these endpoints.
    pub fn everything_to(endpoints: &[&str]) -> Self {
        Self::new().backend("all", endpoints).route("all", &[], ("PathPrefix", "/"), &["all"])
    }

    fn filled_ports(&self) -> String {
        [("{driver}", self.driver), ("{device}", &self.device), ("{north}", &self.north)]
            .iter()
            .fold(self.ports.clone(), |ports, (place, value)| ports.replace(place, value))
    }

    /// The YAML.
    pub fn text(&self) -> String {
        let appliance = format!(
            r#"apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: {{ name: edge }}
spec:
  cores: {cores}
  memory: {memory}
  ports:
{ports}  admin: {{ address: "127.0.0.1:9901" }}
{}"#,
            self.appliance,
            ports = self.filled_ports(),
            cores = self.cores,
            memory = self.memory,
        );
        std::iter::once(&appliance).chain(&self.documents).map(String::as_str).collect::<Vec<_>>().join("---\n")
    }
}

/// A Millrace that serves. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway<'a> {
    pub sandbox: &'a Sandbox,
    child: Child,
}

impl<'a> Gateway<'a> {
    /// Starts it and waits until it is ready.
    pub fn start(sandbox: &'a Sandbox, config: &Config) -> Self {
        Self::start_text(sandbox, &config.text())
    }

    /// The same with one of config/examples, on a CPU that there is.
    pub fn start_example(sandbox: &'a Sandbox, name: &str) -> Self {
        let path = format!("{REPOSITORY}/config/examples/{name}");
        let text = std::fs::read_to_string(path).expect("the example is there");
        assert!(text.contains("cores: [1]"), "{name} polls CPU 1");
        Self::start_text(sandbox, &text.replace("cores: [1]", &format!("cores: [{}]", polling_cpu())))
    }

    /// The same with a whole configuration.
    pub fn start_text(sandbox: &'a Sandbox, text: &str) -> Self {
        std::fs::write(file(sandbox), text).expect("the sandbox can be written");
        Self::start_as_is(sandbox, &[])
    }

    /// Starts it on the file that is there, in an environment that has these variables, too.
    pub fn start_as_is(sandbox: &'a Sandbox, variables: &[(&str, &str)]) -> Self {
        Self::launch(sandbox, variables).ready_within(START)
    }

    /// One that runs in this process, whose admin endpoint is Millrace's; waits until it is ready.
    pub fn await_ready(sandbox: &'a Sandbox, child: Child, limit: Duration) -> Self {
        Self { sandbox, child }.ready_within(limit)
    }

    fn ready_within(self, limit: Duration) -> Self {
        let (mut gateway, start) = (self, Instant::now());
        let sandbox = gateway.sandbox;
        loop {
            let ready = sandbox.inside(Ns::Millrace, || {
                admin_request("GET", "/readyz", b"").is_some_and(|response| response.status == 200)
            });
            if ready {
                break;
            }
            if let Some(status) = gateway.child.try_wait().expect("a child can be waited for") {
                panic!("millrace ended: {status}\n{}", read_log(sandbox));
            }
            if start.elapsed() > limit {
                let _ = gateway.child.kill();
                panic!("millrace is not ready after {limit:?}\n{}", read_log(sandbox));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        gateway
    }

    /// Starts it with a whole configuration, and does not wait until it is ready.
    pub fn launch_text(sandbox: &'a Sandbox, text: &str) -> Self {
        std::fs::write(file(sandbox), text).expect("the sandbox can be written");
        Self::launch(sandbox, &[])
    }

    fn launch(sandbox: &'a Sandbox, variables: &[(&str, &str)]) -> Self {
        let log = File::options().create(true).append(true).open(sandbox.dir().join("millrace.log"));
        let log = log.expect("the sandbox can be written");
        let mut command = sandbox.command(Ns::Millrace, MILLRACE);
        // `ip netns exec` passes the environment on.
        command.envs(variables.iter().copied());
        command.args(["run", "-f"]).arg(file(sandbox)).arg("--state").arg(sandbox.dir().join("state"));
        command.stdout(log.try_clone().expect("a file can be cloned")).stderr(log).stdin(Stdio::null());
        let child = command.spawn().expect("millrace starts");
        sandbox.adopt(child.id());
        Self { sandbox, child }
    }

    /// A client's connection.
    pub fn connect(&self) -> Connection {
        self.sandbox.inside(Ns::Client, || Connection::open((VIP, 80)))
    }

    /// One request on a connection of its own; `head` is everything before the empty line, without the last CR LF.
    pub fn request(&self, head: &str) -> Response {
        let mut connection = self.connect();
        connection.send(format!("{head}\r\n\r\n"));
        connection.response()
    }

    /// A GET of `path`.
    pub fn get(&self, path: &str) -> Response {
        self.request(&format!("GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close"))
    }

    /// What the admin address says.
    pub fn admin(&self, path: &str) -> Response {
        self.ask("GET", path, b"")
    }

    /// What the admin address says to something posted.
    pub fn post(&self, path: &str, body: &str) -> Response {
        self.ask("POST", path, body.as_bytes())
    }

    /// The same for what may be no text.
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> Response {
        self.ask("POST", path, body)
    }

    /// What the admin address says, if it says anything.
    pub fn try_admin(&self, path: &str) -> Option<Response> {
        self.sandbox.inside(Ns::Millrace, || admin_request("GET", path, b""))
    }

    fn ask(&self, method: &str, path: &str, body: &[u8]) -> Response {
        self.sandbox
            .inside(Ns::Millrace, || admin_request(method, path, body))
            .unwrap_or_else(|| panic!("the admin address does not answer\n{}", self.log()))
    }

    /// Replaces its file, as editors do: by a rename.
    pub fn rewrite(&self, text: &str) {
        let fresh = self.sandbox.dir().join("millrace.yaml.new");
        std::fs::write(&fresh, text).expect("the sandbox can be written");
        std::fs::rename(fresh, file(self.sandbox)).expect("the sandbox can be written");
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u64 {
        self.metric("millrace_config_epoch", &[])
    }

    /// Waits until all cores run a newer epoch than `epoch`.
    pub fn await_epoch_after(&self, epoch: u64) {
        wait_for("a newer epoch", Duration::from_secs(10), || {
            self.epoch() > epoch && self.admin("/readyz").status == 200
        });
    }

    /// The sum of a metric over all series that have these labels.
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let text = self.admin("/metrics").text();
        let mut found = false;
        let mut sum = 0.0;
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let (metric, rest) = series.split_once('{').unwrap_or((series, ""));
            if metric == name && labels.iter().all(|(key, value)| rest.contains(&format!("{key}=\"{value}\""))) {
                found = true;
                sum += value.parse::<f64>().expect("a number");
            }
        }
        // A series with labels may not be there before its first event; a metric must be.
        assert!(found || text.contains(&format!("# TYPE {name} ")), "no metric {name}{labels:?} in:\n{text}");
        sum as u64
    }

    /// Requests by the code of their answer, all of one moment: requests may end while one reads. 499: its client left before the answer.
    pub fn answers(&self) -> BTreeMap<String, u64> {
        let mut answers = BTreeMap::new();
        for line in self.admin("/metrics").text().lines().filter(|line| line.starts_with("millrace_requests_total{")) {
            let (series, value) = line.rsplit_once(' ').expect("a series and its value");
            let code = series.split("code=\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a code");
            *answers.entry(code.to_owned()).or_default() += value.parse::<u64>().expect("a count");
        }
        answers
    }

    /// Packets dropped for a reason.
    pub fn drops(&self, reason: &str) -> u64 {
        self.metric("millrace_packets_dropped_total", &[("reason", reason)])
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it runs");
    }

    /// Waits until it has ended.
    pub fn ended(&mut self, limit: Duration) -> ExitStatus {
        let mut status = None;
        wait_for("millrace ends", limit, || {
            status = self.child.try_wait().expect("a child can be waited for");
            status.is_some()
        });
        status.expect("it ended")
    }

    /// Panics unless it still runs and serves.
    pub fn assert_alive(&mut self) {
        let status = self.child.try_wait().expect("a child can be waited for");
        assert!(status.is_none(), "millrace ended: {status:?}\n{}", self.log());
        assert_eq!(self.admin("/livez").status, 200);
    }

    /// What it has written.
    pub fn log(&self) -> String {
        read_log(self.sandbox)
    }
}

impl Drop for Gateway<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("── Millrace's last words\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_log(sandbox: &Sandbox) -> String {
    let text = std::fs::read(sandbox.dir().join("millrace.log")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines = text.lines().collect::<Vec<_>>();
    lines[lines.len().saturating_sub(100)..].join("\n")
}

fn file(sandbox: &Sandbox) -> PathBuf {
    sandbox.dir().join("millrace.yaml")
}

fn admin_request(method: &str, path: &str, body: &[u8]) -> Option<Response> {
    let mut stream = TcpStream::connect("127.0.0.1:9901").ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let length = body.len();
    let head =
        format!("{method} {path} HTTP/1.1\r\nHost: admin\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(&[head.as_bytes(), body].concat()).ok()?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).ok()?;
    Response::parse(&bytes)
}

/// The last CPU that this process may use.
pub fn polling_cpu() -> usize {
    let set = rustix::thread::sched_getaffinity(None).expect("the affinity can be read");
    (0..rustix::thread::CpuSet::MAX_CPU).rev().find(|&cpu| set.is_set(cpu)).expect("a CPU")
}
