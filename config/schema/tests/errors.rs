//! What a broken configuration gets to hear. Each case changes `hello.yaml` and states every error that
//! the change brings, so that a cascade of further ones would be seen too.
#![forbid(unsafe_code)]

use std::fmt::Write;

use schema::{Errors, load, load_sources, load_str};

const HELLO: &str = include_str!("../../examples/hello.yaml");

/// Line by line, `line:column field: problem (hint)`.
fn brief(errors: &Errors) -> String {
    let mut out = String::new();
    for e in errors {
        let _ = write!(out, "{}:{} {}: {}", e.line, e.column, e.field, e.problem);
        if let Some(hint) = &e.hint {
            let _ = write!(out, " ({hint})");
        }
        out.push('\n');
    }
    out
}

/// `hello.yaml` with `from` replaced by `to` fails with `expected`.
fn case(from: &str, to: &str, expected: &str) {
    assert_eq!(HELLO.matches(from).count(), 1, "{from:?} is in hello.yaml once");
    let errors = load_str("hello.yaml", &HELLO.replace(from, to)).expect_err(to);
    assert_eq!(brief(&errors).trim_end(), expected, "after {from:?} became {to:?}");
}

#[test]
fn an_error_is_shown_with_its_line_and_a_caret() {
    let text = HELLO.replace("type: PathPrefix", "type: Pathprefx");
    let errors = load_str("routes.yaml", &text).unwrap_err();
    assert_eq!(
        errors.to_string(),
        r#"routes.yaml:33:32: spec.rules[0].matches[0].path.type: unknown value "Pathprefx"; one of Exact, PathPrefix
 33 |     - matches: [{ path: { type: Pathprefx, value: / } }]
    |                                 ^
    = hint: did you mean PathPrefix?
1 error"#
    );
    let json = serde_json::to_value(&errors).unwrap();
    assert_eq!(json[0]["file"], "routes.yaml");
    assert_eq!(json[0]["line"], 33);
    assert_eq!(json[0]["field"], "spec.rules[0].matches[0].path.type");
    assert_eq!(json[0]["hint"], "did you mean PathPrefix?");
}

#[test]
fn the_source_line_is_cut_around_the_caret_and_harmless() {
    let text = HELLO.replace("cores: [1]", &format!("{}\"co\\eres\": [1]", " ".repeat(2)));
    let shown = load_str("x.yaml", &text).unwrap_err().to_string();
    assert!(!shown.contains('\u{1b}'), "{shown}");
    let text = HELLO.replace("name: edge", &format!("labels: {{ a: \"{}\" }}, nam: edge", "x".repeat(10_000)));
    let shown = load_str("x.yaml", &text).unwrap_err().to_string();
    assert!(shown.lines().all(|line| line.chars().count() < 120), "{shown}");
    assert!(shown.contains("did you mean `name`?"), "{shown}");
}

#[test]
fn every_error_of_every_file_is_named_at_once() {
    let appliance = "\
apiVersion: millrace.dev/v1alpha1
kind: Appliance
metadata: { name: Edge }
spec:
  cores: [1, 2]
  memory: { hugepages: of }
  ports:
    - name: north
      device: net_null0
      adresses: [10.9.1.1/24]
    - name: north
      device: net_null0
      addresses: [10.9.2.0/24, \"fd00::1/64\", 10.9.2.9]
      mtu: 90000
      vlan: 4
  http: { timeouts: { head: 10, idle: 0s }, limits: { target: 128KiB, body: x } }
";
    let route = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: hello }
spec:
  parentRefs: [{ name: web }]
  hostnames: [Shop.example.com]
  rules:
    - matches: [{ path: { type: Regex, value: foo } }]
      backendRefs: [{ name: hello, port: 80 }]
      filters: []
---
kind: [HTTPRoute
---
kind: GRPCRoute
apiVersion: gateway.networking.k8s.io/v1
";
    let errors = load_sources(&[("b.yaml", route.as_bytes()), ("a.yaml", appliance.as_bytes())]).unwrap_err();
    let listed: Vec<String> = errors.iter().map(|e| format!("{}:{} {}", e.file, e.line, e.field)).collect();
    assert_eq!(
        listed,
        [
            "a.yaml:3 metadata.name",
            "a.yaml:5 spec.cores[1]",
            "a.yaml:6 spec.memory.hugepages",
            "a.yaml:8 spec.ports[0].addresses",
            "a.yaml:10 spec.ports[0].adresses",
            "a.yaml:11 spec.ports[1].name",
            "a.yaml:12 spec.ports[1].device",
            "a.yaml:13 spec.ports[1].addresses[0]",
            "a.yaml:13 spec.ports[1].addresses[1]",
            "a.yaml:13 spec.ports[1].addresses[2]",
            "a.yaml:14 spec.ports[1].mtu",
            "a.yaml:15 spec.ports[1].vlan",
            "a.yaml:16 spec.http.timeouts.head",
            "a.yaml:16 spec.http.timeouts.idle",
            "a.yaml:16 spec.http.limits.target",
            "a.yaml:16 spec.http.limits.body",
            "b.yaml:6 spec.hostnames[0]",
            "b.yaml:8 spec.rules[0].matches[0].path.type",
            "b.yaml:8 spec.rules[0].matches[0].path.value",
            "b.yaml:9 spec.rules[0].backendRefs[0]",
            "b.yaml:10 spec.rules[0].filters",
            "b.yaml:12 ",
            "b.yaml:14 kind",
        ],
        "{errors}"
    );
}

#[test]
fn the_appliance() {
    case("cores: [1] ", "cores: []", "6:10 spec.cores: is empty (at least one item is needed)");
    case(
        "cores: [1] ",
        "cores: 1",
        "6:10 spec.cores: must be a list, is the integer 1 (put the item into a list: [ … ], or a line with a dash in front)",
    );
    case("cores: [1] ", "", "");
}
