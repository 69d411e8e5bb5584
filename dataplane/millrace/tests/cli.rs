//! The command line, as its users see it: what it prints, and how it exits. Needs no root and no network.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

const GOOD: &str = r#"
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: edge }
spec:
  cores: [0]
  memory: { hugepages: off, mebibytes: 64 }
  admin: { address: "127.0.0.1:0" }
  ports: [{ name: north, device: "net_af_packet0,iface=mr-cli-none", addresses: [10.9.1.1/24] }]
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: web }
spec: { gatewayClassName: millrace, listeners: [{ name: http, protocol: HTTP, port: 80, hostname: a.example }] }
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: hello }
spec:
  parentRefs: [{ name: web }]
  hostnames: [b.example]
  rules: [{ backendRefs: [{ group: millrace.dev, kind: Backend, name: hello, port: 8080 }] }]
---
apiVersion: millrace.dev/v1alpha1
kind: Backend
metadata: { name: hello }
spec: { endpoints: [{ address: 10.9.1.2 }] }
"#;

/// A file that is removed in the end.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("millrace-cli-{}-{name}.yaml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn millrace(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_millrace"))
        .args(arguments)
        .env_remove("MILLRACE_LOG")
        .env_remove("MILLRACE_ADMIN")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// Exit code, standard output, standard error.
fn outcome(arguments: &[&str]) -> (i32, String, String) {
    let output = millrace(arguments);
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn version_names_millrace_and_dpdk() {
    let (code, out, _) = outcome(&["version"]);
    assert_eq!(code, 0);
    assert!(out.starts_with(&format!("millrace {}\nDPDK ", env!("CARGO_PKG_VERSION"))), "{out}");
    assert_eq!(outcome(&["--version"]).0, 0);
}

#[test]
fn a_wrong_command_line_is_refused_with_2() {
    let of_another = ["get", "routes", "--limit", "5"];
    for arguments in [&[][..], &["frobnicate"], &["run"], &["validate"], &["status", "--admin", "nowhere"], &of_another]
    {
        let (code, out, err) = outcome(arguments);
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains("Usage") || err.contains("--help"), "{err}");
    }
}

#[test]
fn a_valid_configuration_shows_how_it_is_attached() {
    let file = File::new("valid", GOOD);
    let (code, out, err) = outcome(&["validate", "-f", file.path()]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("default/web/http  10.9.1.1   80    a.example  0       ok"), "{out}");
    assert!(out.contains("NoMatchingListenerHostname"), "{out}");
    assert!(out.contains("warning: route default/hello: Accepted is False"), "{out}");
    assert!(out.ends_with("\nvalid\n"), "{out}");

    let (code, out, _) = outcome(&["validate", "-f", file.path(), "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &json["valid"]), (0, &serde_json::Value::Bool(true)));
    assert_eq!(json["routes"][0]["parents"][0]["conditions"][0]["reason"], "NoMatchingListenerHostname");
}

#[test]
fn all_errors_come_at_once_each_with_its_place() {
    let bad =
        GOOD.replace("kind: Backend, name: hello", "kind: Backend, name: helo").replace("hostnames:", "hostname:");
    let file = File::new("invalid", &bad);
    for command in ["validate", "run", "check"] {
        let (code, out, err) = outcome(&[command, "-f", file.path()]);
        assert_eq!((code, out.as_str()), (2, ""), "{command}");
        assert!(err.contains(&format!("{}:21:3: spec.hostname: unknown field", file.path())), "{err}");
        assert!(err.contains("there is no Backend default/helo") && err.contains("did you mean hello?"), "{err}");
        assert!(err.ends_with("2 errors\n"), "{err}");
    }
    let (code, out, _) = outcome(&["validate", "-f", file.path(), "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, json["errors"].as_array().unwrap().len()), (2, 2));
    assert_eq!(json["errors"][0]["line"], 21);
}

#[test]
fn a_missing_file_is_named() {
    let (code, _, err) = outcome(&["validate", "-f", "/nonexistent/a.yaml"]);
    assert_eq!(code, 2);
    assert!(err.contains("/nonexistent/a.yaml: cannot be read"), "{err}");
}

#[test]
fn several_files_make_one_configuration() {
    let (first, rest) = GOOD.split_once("---").unwrap();
    let (first, rest) = (File::new("first", first), File::new("rest", rest));
    assert_eq!(outcome(&["validate", "-f", first.path(), rest.path()]).0, 0);
    assert_eq!(outcome(&["validate", "-f", first.path(), "-f", rest.path()]).0, 0);
    assert_eq!(outcome(&["validate", "-f", rest.path()]).0, 2);
}

#[test]
fn an_admin_address_that_is_taken_is_said_before_anything_else() {
    let holder = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let file = File::new("taken", &GOOD.replace("127.0.0.1:0", &address));
    let (code, _, err) = outcome(&["run", "-f", file.path()]);
    assert_eq!(code, 1);
    assert!(err.contains(&format!("error: admin address {address}: Address already in use")), "{err}");
    assert!(err.contains(&format!("  at {}:8:", file.path())) && err.contains("hint: "), "{err}");
}

#[test]
fn an_interface_that_is_not_there_is_named() {
    let file = File::new("interface", GOOD);
    let (code, _, err) = outcome(&["run", "-f", file.path()]);
    assert_eq!(code, 1);
    // Without root, that may be what is said first.
    let expected = ["there is no network interface \"mr-cli-none\"", "no permission"];
    assert!(expected.iter().any(|text| err.contains(text)), "{err}");
    assert!(err.contains("hint: "), "{err}");
}

#[test]
fn check_names_what_is_in_the_way() {
    let file = File::new("check", GOOD);
    let (code, out, err) = outcome(&["check", "-f", file.path()]);
    assert_eq!((code, err.as_str()), (1, ""));
    assert!(out.contains("FAIL port north  there is no network interface mr-cli-none"), "{out}");
    assert!(out.contains("pass DPDK"), "{out}");
    assert!(out.contains("this host is not ready: "), "{out}");
}

#[test]
fn status_says_that_nobody_answers() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let (code, out, err) = outcome(&["status", "--admin", &closed]);
    assert_eq!((code, out.as_str()), (1, ""));
    assert!(err.contains(&format!("no answer from the admin address {closed}")) && err.contains("hint: "), "{err}");
}

#[test]
fn status_takes_no_answer_from_strangers() {
    let stranger = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = stranger.local_addr().unwrap().to_string();
    let thread = std::thread::spawn(move || {
        for answer in ["SSH-2.0-x\r\n", "HTTP/1.1 404 Not Found\r\n\r\n", "HTTP/1.1 200 OK\r\n\r\n<html>"] {
            use std::io::{Read, Write};
            let (mut stream, _) = stranger.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    for _ in 0..3 {
        let (code, out, err) = outcome(&["status", "--admin", &address]);
        assert_eq!((code, out.as_str()), (1, ""));
        assert!(err.starts_with("error: "), "{err}");
    }
    thread.join().unwrap();
}

/// As the README has it, with the file in front of the request, and the other way round.
#[test]
fn a_file_is_explained_wherever_it_stands() {
    let good = File::new("explained", GOOD.replace("b.example", "a.example").as_str());
    let request = ["GET", "http://a.example/"];
    for arguments in [
        [&["explain", "-f", good.path()][..], &request].concat(),
        [&["explain"], &request[..], &["-f", good.path()]].concat(),
    ] {
        let output = millrace(&arguments);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.starts_with("GET http://a.example/: goes to default/hello:8080"),
            "{output:?}"
        );
    }
}
