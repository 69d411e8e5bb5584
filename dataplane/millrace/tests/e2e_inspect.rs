//! What an operator sees of a running Millrace: `millrace get …` and `millrace explain`.

mod support;

use support::gateway::{Config, Gateway, MILLRACE};
use support::sandbox::{Ns, Sandbox};

fn millrace(sandbox: &Sandbox, arguments: &[&str]) -> String {
    sandbox.output(Ns::Millrace, MILLRACE, arguments)
}

fn json(sandbox: &Sandbox, what: &str) -> serde_json::Value {
    serde_json::from_str(&millrace(sandbox, &["get", what, "-o", "json"])).expect("JSON")
}

/// Two routes of one host, to one nginx.
fn start(sandbox: &Sandbox) -> Gateway<'_> {
    sandbox.start_nginx();
    let config = Config::new()
        .backend("pages", &["10.9.2.2:8080"])
        .backend("cart", &["10.9.2.3:8080"])
        .route("shop", &["shop.example.com"], ("PathPrefix", "/"), &["pages"])
        .route("cart", &["shop.example.com"], ("PathPrefix", "/cart"), &["cart"]);
    Gateway::start(sandbox, &config)
}

#[test]
fn listings_show_what_there_is_and_what_it_counted() {
    let sandbox = sandbox_or_skip!();
    let gateway = start(&sandbox);
    for (host, path, code) in [("shop.example.com", "/", 200), ("shop.example.com", "/cart", 200), ("x.org", "/", 404)]
    {
        let reply = gateway.request(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close"));
        assert_eq!(reply.status, code, "{host}{path}");
    }
    let mut open = gateway.connect();
    open.send("GET / HTTP/1.1\r\nHost: shop.example.com\r\n\r\n");
    assert_eq!(open.response().status, 200);

    let listeners = json(&sandbox, "listeners");
    let shop = listeners.as_array().unwrap().iter().find(|row| row["name"] == "default/web/http").unwrap();
    assert_eq!((shop["hostname"].as_str(), shop["requests"].as_u64()), (Some("*"), Some(4)));
    assert!(shop["p99Seconds"].as_f64().unwrap() > 0.0 && shop["meanSeconds"].as_f64().unwrap() > 0.0, "{shop}");
    let routes = json(&sandbox, "routes");
    let shop = routes.as_array().unwrap().iter().find(|row| row["name"] == "default/shop").unwrap();
    assert_eq!(shop["requests"], 2);
    assert_eq!(shop["listeners"], serde_json::json!(["default/web/http"]));
    let backends = json(&sandbox, "backends");
    let total: u64 = backends.as_array().unwrap().iter().map(|row| row["requests"].as_u64().unwrap()).sum();
    assert_eq!(total, 3, "{backends}");
    let connections = json(&sandbox, "connections");
    let rows = connections["connections"].as_array().unwrap();
    let client = rows.iter().find(|row| row["role"] == "client").expect("the one that is open");
    assert_eq!((client["state"].as_str(), client["doing"].as_str()), (Some("established"), Some("idle")), "{client}");
    assert!(rows.iter().any(|row| row["role"] == "upstream"), "{connections}");
    assert_eq!(connections["more"], false);
    let one = millrace(&sandbox, &["get", "connections", "--limit", "1", "-o", "json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&one).unwrap()["more"], true);
    for what in ["listeners", "routes", "backends", "limits", "connections"] {
        let table = millrace(&sandbox, &["get", what]);
        assert!(table.lines().next().is_some_and(|heads| heads.chars().any(|c| c.is_ascii_uppercase())), "{table}");
    }
}

/// `explain` asks what runs, and what it says is what happens.
#[test]
fn explain_says_where_requests_go() {
    let sandbox = sandbox_or_skip!();
    let gateway = start(&sandbox);
    let text = millrace(&sandbox, &["explain", "GET", "http://shop.example.com/", "-H", "x-user: 7"]);
    assert!(text.contains("▶ default/shop rule 0") && text.contains("10.9.2.2:8080"), "{text}");
    for (host, path) in
        [("shop.example.com", "/cart"), ("shop.example.com", "/"), ("a.example.com", "/x"), ("x.org", "/")]
    {
        let url = format!("http://{host}{path}");
        let said = millrace(&sandbox, &["explain", "GET", &url, "-o", "json"]);
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        let outcome = said["outcome"].as_str().unwrap();
        let reply = gateway.request(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close"));
        assert_eq!(reply.status == 404, outcome.starts_with("404"), "{url}: {outcome}");
    }
    let mut wrong = sandbox.command(Ns::Millrace, MILLRACE);
    let wrong = wrong.args(["explain", "GET", "shop.example.com/"]).output().expect("millrace runs");
    assert_eq!(wrong.status.code(), Some(1));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert!(said.contains("http://shop.example/cart, say"), "{said}");
}
