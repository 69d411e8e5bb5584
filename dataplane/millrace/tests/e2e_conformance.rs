//! The features that the Gateway API's conformance tests name for HTTPRoute, one file each in `conformance/`: a configuration, and
//! behind `#>` the requests that the upstream test makes with the answers that it expects. One Millrace takes them all, one after the other.
//!
//! A line is `METHOD TARGET [@port] [host=…] [body=…] [Name:value …] -> STATUS [checks]`, or `500x …` for so many requests and the shares of
//! backends in percent, or `status ROUTE Condition=Status[/Reason] …`. What has spaces is in quotes.

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use support::backend::Backend;
use support::client::{Connection, Response};
use support::gateway::{Config, Gateway};
use support::sandbox::{Ns, REPOSITORY, Sandbox, VIP};
use support::wait_for;

const BACKENDS: [&str; 5] =
    ["infra-backend-v1", "infra-backend-v2", "infra-backend-v3", "app-backend-v1", "web-backend"];

/// A share may be so many percent off.
const TOLERANCE: f64 = 2.0;

#[test]
fn every_feature_does_what_upstream_expects() {
    let sandbox = sandbox_or_skip!();
    let backends: BTreeMap<&str, Backend> =
        (9001..).zip(BACKENDS).map(|(port, name)| (name, echo(&sandbox, port, name))).collect();
    let directory = format!("{REPOSITORY}/dataplane/millrace/tests/conformance");
    let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let base = std::fs::read_to_string(format!("{directory}/base.yaml")).unwrap();
    let configuration = |documents: Vec<String>| {
        let config = Config::new().appliance("  invalidReferences: serve500\n");
        Config { documents, ..config }.text()
    };
    let gateway = Gateway::start_text(&sandbox, &configuration(vec![base.clone()]));
    let mut stage = Stage { gateway, backends, marks: 0, wrong: Vec::new() };
    let mut lines = 0;
    for file in files.iter().filter(|file| !file.ends_with("base.yaml")) {
        let text = std::fs::read_to_string(file).unwrap();
        let answer = stage.gateway.post("/config", &configuration(vec![base.clone(), text.clone()]));
        assert_eq!(answer.status, 200, "{}: {}", file.display(), answer.text());
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        for line in text.lines().filter_map(|line| line.strip_prefix("#> ")) {
            lines += 1;
            if let Err(wrong) = stage.check(line) {
                stage.wrong.push(format!("{name}: {line}\n    {wrong}"));
            }
        }
    }
    assert!(lines > 200 && files.len() > 30, "{lines} lines in {} files", files.len());
    assert!(stage.wrong.is_empty(), "{} of {lines}:\n{}", stage.wrong.len(), stage.wrong.join("\n"));
    stage.gateway.assert_alive();
}

/// A backend that says who it is and what it got, and sets the response fields that `Echo: name=value` asks for. It waits for `delay`
/// milliseconds of the query.
fn echo(sandbox: &Sandbox, port: u16, name: &'static str) -> Backend {
    Backend::start(sandbox, Ns::B1, &format!("10.9.2.2:{port}"), move |served| {
        while let Some(request) = served.request() {
            let target = request.head.split(' ').nth(1).unwrap_or_default();
            if let Some((_, delay)) = target.split_once("delay=") {
                std::thread::sleep(Duration::from_millis(delay.parse().expect("milliseconds")));
            }
            let fields: String = values(&request.head, "Echo")
                .iter()
                .filter_map(|wanted| wanted.split_once('='))
                .map(|(name, value)| format!("{name}: {value}\r\n"))
                .collect();
            let body =
                if request.head.starts_with("HEAD ") { String::new() } else { format!("{name}\n{}", request.head) };
            served.send(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: {}\r\n\r\n{body}", body.len()));
        }
    })
}

struct Stage<'a> {
    gateway: Gateway<'a>,
    backends: BTreeMap<&'static str, Backend>,
    /// Each request has a number of its own, by which its copies are found.
    marks: usize,
    wrong: Vec<String>,
}

/// A line's request.
#[derive(Default)]
struct Asked {
    times: usize,
    port: u16,
    head: String,
    body: String,
}

impl Stage<'_> {
    fn check(&mut self, line: &str) -> Result<(), String> {
        let words = words(line);
        if words[0] == "status" {
            return self.check_status(&words[1], &words[2..]);
        }
        let arrow = words.iter().position(|word| word == "->").ok_or("no arrow")?;
        let (asked, expected) = (asked(&words[..arrow]), &words[arrow + 1..]);
        if asked.times > 1 { self.check_shares(&asked, expected) } else { self.check_one(&asked, expected) }
    }

    fn check_one(&mut self, asked: &Asked, expected: &[String]) -> Result<(), String> {
        let mut connection = self.connect(asked.port);
        let mark = self.send(&mut connection, asked);
        let head = asked.head.starts_with("HEAD ");
        let response = if head { connection.response_to_head() } else { connection.response() };
        if response.status.to_string() != expected[0] {
            return Err(format!("{} {:?} {}", response.status, response.fields, response.text()));
        }
        let text = response.text();
        let (by, seen) = text.split_once('\n').unwrap_or(("", ""));
        for check in &expected[1..] {
            self.check_answer(check, &mark, by, seen, &response)?;
        }
        Ok(())
    }

    fn check_answer(&self, check: &str, mark: &str, by: &str, seen: &str, response: &Response) -> Result<(), String> {
        let (kind, rest) = check.split_once('=').unwrap_or((check, ""));
        let (name, value) = rest.split_once(':').unwrap_or((rest, ""));
        let of_response: Vec<&str> =
            response.fields.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str()).collect();
        let found = match kind {
            "by" => by.to_owned(),
            "path" => seen.split(' ').nth(1).unwrap_or_default().to_owned(),
            "location" => response.field("Location").unwrap_or_default().to_owned(),
            "sees" if values(seen, name).join(",") == value.replace("BACKEND", by) => return Ok(()),
            "sees" => values(seen, name).join(","),
            "unseen" if values(seen, name).is_empty() => return Ok(()),
            "has" if of_response.join(",") == value => return Ok(()),
            "has" | "lacks" if kind == "has" || !of_response.is_empty() => of_response.join(","),
            "lacks" => return Ok(()),
            "preflight" => return if response.body.is_empty() { Ok(()) } else { Err("it reached a backend".into()) },
            "mirrored" => {
                wait_for("the copy", Duration::from_secs(5), || self.backends[rest].text().contains(mark));
                return Ok(());
            }
            _ => format!("no such check: {kind}"),
        };
        if found == rest { Ok(()) } else { Err(format!("{check}: {found:?} in {:?} {seen}", response.fields)) }
    }

    fn check_shares(&mut self, asked: &Asked, expected: &[String]) -> Result<(), String> {
        let lost = self.gateway.metric("millrace_mirror_requests_lost_total", &[]);
        let copied = self.gateway.metric("millrace_mirror_requests_total", &[]);
        let mut connection = self.connect(asked.port);
        let mut shares: BTreeMap<String, usize> = BTreeMap::new();
        for _ in 0..asked.times {
            self.send(&mut connection, asked);
            let response = connection.response();
            let text = response.text();
            let (by, seen) = text.split_once('\n').unwrap_or(("", ""));
            let share = if response.status == 200 { by.to_owned() } else { response.status.to_string() };
            *shares.entry(share).or_default() += 1;
            for check in expected.iter().filter(|check| check.starts_with("sees=")) {
                self.check_answer(check, "", by, seen, &response)?;
            }
        }
        for (name, share) in expected.iter().filter_map(|check| check.split_once('=')) {
            let (share, count) = match name {
                "sees" => continue,
                "mirrored" => {
                    let copies = self.gateway.metric("millrace_mirror_requests_total", &[]) - copied;
                    (share.split_once(':').expect("name:percent").1, copies as usize)
                }
                _ => (share, shares.get(name).copied().unwrap_or(0)),
            };
            let percent = count as f64 * 100.0 / asked.times as f64;
            if (percent - share.parse::<f64>().expect("percent")).abs() > TOLERANCE {
                return Err(format!("{name}: {percent} % in {shares:?}"));
            }
        }
        let lost = self.gateway.metric("millrace_mirror_requests_lost_total", &[]) - lost;
        if lost == 0 { Ok(()) } else { Err(format!("{lost} copies lost")) }
    }

    fn check_status(&self, route: &str, expected: &[String]) -> Result<(), String> {
        let status: serde_json::Value = serde_json::from_str(&self.gateway.admin("/status").text()).expect("JSON");
        let name = if route.contains('/') { route.to_owned() } else { format!("gateway-conformance-infra/{route}") };
        let routes = status["routes"].as_array().expect("routes");
        let found = routes.iter().find(|route| route["name"] == name.as_str()).ok_or("no such route")?;
        let conditions = found["parents"][0]["conditions"].as_array().expect("conditions");
        for wanted in expected {
            let (kind, rest) = wanted.split_once('=').ok_or("no =")?;
            let (value, reason) = rest.split_once('/').unwrap_or((rest, kind));
            let condition = conditions.iter().find(|condition| condition["type"] == kind).ok_or("no such condition")?;
            if condition["status"] != value || condition["reason"] != reason {
                return Err(condition.to_string());
            }
        }
        Ok(())
    }

    fn connect(&self, port: u16) -> Connection {
        self.gateway.sandbox.inside(Ns::Client, || Connection::open((VIP, port)))
    }

    /// Sends the request, and returns the line by which its copies are known.
    fn send(&mut self, connection: &mut Connection, asked: &Asked) -> String {
        self.marks += 1;
        let mark = format!("X-Mark: {}\r\n", self.marks);
        let length =
            if asked.body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", asked.body.len()) };
        connection.send(format!("{}{mark}{length}\r\n{}", asked.head, asked.body));
        mark
    }
}

fn asked(words: &[String]) -> Asked {
    let mut asked = Asked { times: 1, port: 80, ..Asked::default() };
    let mut words = words.iter().peekable();
    if let Some(times) = words.next_if(|word| word.ends_with('x')) {
        asked.times = times.trim_end_matches('x').parse().expect("a number");
    }
    let (method, target) = (words.next().expect("a method"), words.next().expect("a target"));
    let (mut host, mut fields) = ("conformance.test".to_owned(), String::new());
    for word in words {
        if let Some(port) = word.strip_prefix('@') {
            asked.port = port.parse().expect("a port");
        } else if let Some(given) = word.strip_prefix("host=") {
            given.clone_into(&mut host);
        } else if let Some(body) = word.strip_prefix("body=") {
            body.clone_into(&mut asked.body);
        } else {
            let (name, value) = word.split_once(':').expect("Name:value");
            fields.push_str(&format!("{name}: {value}\r\n"));
        }
    }
    asked.head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n{fields}");
    asked
}

/// Words between spaces; what is in quotes is one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('"').enumerate();
    parts
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

/// The values of all fields of that name in a head.
fn values(head: &str, name: &str) -> Vec<String> {
    let fields = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    fields.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}
