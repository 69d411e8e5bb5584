//! Rate limits and source lists, as `config/examples/limits.yaml` has them, with curl.

mod support;

use support::gateway::Gateway;
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
    sandbox.run_script(
        "ip -n $NS_CLIENT address add 10.9.1.3/24 dev eth0; ip -n $NS_CLIENT address add 10.9.1.66/24 dev eth0",
    );
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
