//! Rate limits and source lists, as `config/examples/limits.yaml` has them, with curl.

mod support;

use support::gateway::{Config, Gateway};
use support::sandbox::{Ns, Sandbox};

/// The codes of so many requests, one after the other on one connection.
fn codes(sandbox: &Sandbox, arguments: &[&str], path: &str, requests: usize) -> Vec<String> {
    let url = format!("http://10.9.1.1{path}?[1-{requests}]");
    let mut all = vec!["-sS", "-o", "/dev/null", "-w", "%{http_code}\n", "--max-time", "20"];
    all.extend(arguments);
    all.push(&url);
    sandbox.output(Ns::Client, "curl", &all).lines().map(str::to_owned).collect()
}

fn count(codes: &[String], code: &str) -> usize {
    codes.iter().filter(|c| *c == code).count()
}

#[test]
fn each_key_has_its_limit_and_the_refused_are_told_when_to_come_back() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    sandbox.run_script("ip -n $NS_CLIENT address add 10.9.1.66/24 dev eth0");
    let mut gateway = Gateway::start_example(&sandbox, "limits.yaml");

    // By key, whoever sends it: 5 at once, and one a second, of which a few may pass while curl is at it.
    let one = codes(&sandbox, &["-H", "X-Api-Key: one"], "/", 12);
    assert!((5..=8).contains(&count(&one, "200")), "{one:?}");
    assert_eq!(count(&one, "200") + count(&one, "429"), 12, "{one:?}");
    let other = codes(&sandbox, &["-H", "X-Api-Key: other", "--interface", "10.9.1.3"], "/", 5);
    assert_eq!(count(&other, "200"), 5, "{other:?}");

    // By cookie, on one rule only: 3 a minute.
    let logins = codes(&sandbox, &["-b", "session=7", "--interface", "10.9.1.3"], "/login", 6);
    assert_eq!((count(&logins, "200"), count(&logins, "429")), (3, 3), "{logins:?}");
    let elsewhere = codes(&sandbox, &["-b", "session=7", "--interface", "10.9.1.3"], "/", 6);
    assert_eq!(count(&elsewhere, "200"), 6, "{elsewhere:?}");

    // By client: 40 at once and ten a second; the other client still has its own.
    let client = codes(&sandbox, &[], "/", 120);
    assert!(count(&client, "429") >= 50, "{client:?}");
    assert_eq!(codes(&sandbox, &["--interface", "10.9.1.3"], "/", 2), ["200", "200"]);

    let refused = sandbox.output(
        Ns::Client,
        "curl",
        &["-sSi", "--interface", "10.9.1.3", "-b", "session=7", "--max-time", "20", "http://10.9.1.1/login"],
    );
    assert!(refused.starts_with("HTTP/1.1 429 Too Many Requests\r\n"), "{refused}");
    let retry = refused.lines().find_map(|line| line.strip_prefix("Retry-After: ")).expect("Retry-After").trim();
    assert!((1..=20).contains(&retry.parse::<u32>().unwrap()), "{refused}");
    assert!(refused.contains("RateLimit-Policy: \"per-session\";q=3;w=60\r\n"), "{refused}");
    assert!(refused.contains(&format!("RateLimit: \"per-session\";r=0;t={retry}\r\n")), "{refused}");

    let sessions = [("limit", "default/slow-logins/per-session"), ("target", "HTTPRoute/default/shop/login")];
    let of = |outcome| {
        let labels = [sessions[0], sessions[1], ("outcome", outcome)];
        gateway.metric("millrace_rate_limit_requests_total", &labels)
    };
    assert_eq!((of("admitted"), of("limited")), (3, 4));
    assert!(gateway.log().contains("rate_limited"), "{}", gateway.log());

    // At the packet: no answer at all.
    let mut denied = sandbox.command(Ns::Client, "curl");
    denied.args(["-sS", "--interface", "10.9.1.66", "--max-time", "2", "http://10.9.1.1/"]);
    let status = denied.output().expect("curl runs").status;
    assert_eq!(status.code(), Some(28), "curl gives up after its time");
    assert!(gateway.drops("source_denied") >= 1);
    gateway.assert_alive();
}

/// A limit of one listener leaves the other alone; IPv6 clients are told apart by their networks, and are let in or kept out by theirs.
#[test]
fn listeners_have_limits_of_their_own_and_ipv6_networks_too() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    sandbox.start_ipv6();
    sandbox.run_script(
        "for a in fd00:9:1::3 fd00:9:1::102 fd00:9:1::666; do ip -n $NS_CLIENT address add $a/64 dev eth0 nodad; done",
    );
    let ports = r#"    - name: north
      device: "net_af_packet0,iface=mr-north"
      addresses: ["10.9.1.1/24", "fd00:9:1::1/64"]
    - name: south
      device: "net_af_packet1,iface=mr-south"
      addresses: ["10.9.2.1/24"]
"#;
    let target = |more: &str| {
        format!("  targetRefs: [{{ group: gateway.networking.k8s.io, kind: Gateway, name: web{more} }}]\n")
    };
    let policies = format!(
        "apiVersion: millrace.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{ name: one }}\nspec:\n{}  rateLimit:\n    rules:\n      \
         - {{ name: all, limit: {{ requests: 5, unit: Hour }} }}\n---\n\
         apiVersion: millrace.dev/v1alpha1\nkind: RoutePolicy\nmetadata: {{ name: other }}\nspec:\n{}  rateLimit:\n    rules:\n      \
         - {{ name: networks, by: {{ type: SourceIP, ipv4Prefix: 32, ipv6Prefix: 120 }}, limit: {{ requests: 4, unit: Hour }} }}\n---\n\
         apiVersion: millrace.dev/v1alpha1\nkind: SecurityPolicy\nmetadata: {{ name: doors }}\nspec:\n{}  sources: {{ \
         allow: [\"fd00:9:1::/64\"], deny: [\"fd00:9:1::600/120\"] }}\n",
        target(", sectionName: http"),
        target(", sectionName: second"),
        target(""),
    );
    let config = Config::listening(&["10.9.1.1", "fd00:9:1::1"])
        .ports(ports)
        .backend("all", &["10.9.2.2:8080"])
        .route("all", &[], ("PathPrefix", "/"), &["all"])
        .document(&policies);
    let text = config.text().replace("port: 80 }]", "port: 80 }, { name: second, protocol: HTTP, port: 81 }]");
    let gateway = Gateway::start_text(&sandbox, &text);
    let ask = |source: &str, port: u16, requests: usize| {
        let url = format!("http://[fd00:9:1::1]:{port}/x[1-{requests}]");
        let arguments = ["-sS", "-o", "/dev/null", "-w", "%{http_code}\n", "--max-time", "20", "--interface", source];
        let mut all = arguments.to_vec();
        // The brackets of the address are none of a range.
        let url = url.replacen('[', "\\[", 1).replacen(']', "\\]", 1);
        all.push(&url);
        let codes: Vec<String> = sandbox.output(Ns::Client, "curl", &all).lines().map(str::to_owned).collect();
        (count(&codes, "200"), count(&codes, "429"))
    };
    assert_eq!(ask("fd00:9:1::2", 80, 8), (5, 3));
    assert_eq!(ask("fd00:9:1::102", 80, 3), (0, 3), "the listener's is everybody's");
    assert_eq!(ask("fd00:9:1::2", 81, 3), (3, 0), "the other listener has its own");
    assert_eq!(ask("fd00:9:1::3", 81, 3), (1, 2), "the same network of 120 bits");
    assert_eq!(ask("fd00:9:1::102", 81, 5), (4, 1), "another one");
    // At the packet, by IPv6 networks: IPv4 is not on the list, and one IPv6 network is kept out of the larger one that is.
    let curl = |arguments: &[&str]| {
        let mut denied = sandbox.command(Ns::Client, "curl");
        denied.args(["-sS", "-g", "-o", "/dev/null", "--max-time", "2"]).args(arguments);
        denied.output().expect("curl runs").status.code()
    };
    assert_eq!(curl(&["--interface", "fd00:9:1::666", "http://[fd00:9:1::1]/"]), Some(28), "no answer at all");
    assert_eq!(curl(&["http://10.9.1.1/"]), Some(28));
    assert_eq!(curl(&["--interface", "fd00:9:1::3", "http://[fd00:9:1::1]/"]), Some(0));
    assert!(gateway.drops("source_denied") >= 2);
}
