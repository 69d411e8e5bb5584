//! Which backend a request reaches: hosts, paths, weights, and what it is told about the client.

mod support;

use support::backend::Backend;
use support::gateway::{Config, Gateway};
use support::sandbox::{Ns, Sandbox};

/// A backend per name, each on a port of its own, that says which it is.
fn backends(sandbox: &Sandbox, names: &[&str]) -> Vec<Backend> {
    let serve = |(n, name): (usize, &&str)| {
        let reply = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
        Backend::canned(sandbox, Ns::B1, &format!("10.9.2.2:{}", 9000 + n), reply)
    };
    names.iter().enumerate().map(serve).collect()
}

fn config(names: &[&str]) -> Config {
    names
        .iter()
        .enumerate()
        .fold(Config::new(), |config, (n, name)| config.backend(name, &[&format!("10.9.2.2:{}", 9000 + n)]))
}

fn answer(gateway: &Gateway<'_>, host: &str, path: &str) -> String {
    let reply = gateway.request(&format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close"));
    if reply.status == 200 { reply.text() } else { reply.status.to_string() }
}

#[test]
fn hosts_and_wildcards_choose_the_route() {
    let sandbox = sandbox_or_skip!();
    let names = ["shop", "tenants", "deep", "rest"];
    let _backends = backends(&sandbox, &names);
    let config = config(&names)
        .route("shop", &["shop.example.com"], ("PathPrefix", "/"), &["shop"])
        .route("tenants", &["*.example.com"], ("PathPrefix", "/"), &["tenants"])
        .route("deep", &["*.eu.example.com"], ("PathPrefix", "/"), &["deep"])
        .route("rest", &[], ("PathPrefix", "/rest"), &["rest"]);
    let gateway = Gateway::start(&sandbox, &config);
    for (host, expected) in [
        ("shop.example.com", "shop"),
        ("SHOP.example.COM", "shop"),
        ("shop.example.com:80", "shop"),
        ("a.example.com", "tenants"),
        ("a.b.example.com", "tenants"),
        ("a.eu.example.com", "deep"),
        // A wildcard stands for at least one label.
        ("example.com", "404"),
        ("shop.example.org", "404"),
        ("10.9.1.1", "404"),
    ] {
        assert_eq!(answer(&gateway, host, "/"), expected, "{host}");
    }
    assert_eq!(answer(&gateway, "anything", "/rest"), "rest");
}

#[test]
fn the_most_specific_path_wins() {
    let sandbox = sandbox_or_skip!();
    let names = ["root", "shop", "cart", "exact"];
    let _backends = backends(&sandbox, &names);
    let config = config(&names)
        .route("root", &[], ("PathPrefix", "/"), &["root"])
        .route("shop", &[], ("PathPrefix", "/shop"), &["shop"])
        .route("cart", &[], ("PathPrefix", "/shop/cart/"), &["cart"])
        .route("exact", &[], ("Exact", "/shop/exact"), &["exact"]);
    let gateway = Gateway::start(&sandbox, &config);
    for (path, expected) in [
        ("/", "root"),
        ("/shopping", "root"),
        ("/shop", "shop"),
        ("/shop/", "shop"),
        ("/shop?cart=/shop/cart", "shop"),
        ("/shop/cart", "cart"),
        ("/shop/cart/1", "cart"),
        ("/shop/cartoon", "shop"),
        ("/shop/exact", "exact"),
        ("/shop/exact?q", "exact"),
        ("/shop/exact/", "shop"),
        ("/Shop/exact", "root"),
    ] {
        assert_eq!(answer(&gateway, "any", path), expected, "{path}");
    }
    // The absolute form carries its own host.
    assert_eq!(answer(&gateway, "any", "http://other/shop/cart"), "cart");
    // `*` is no path: it is the server that is asked, and that is Millrace (RFC 9110 §9.3.7). Without a path, the absolute form means the same.
    let mut connection = gateway.connect();
    for target in ["*", "http://any"] {
        connection.send(format!("OPTIONS {target} HTTP/1.1\r\nHost: any\r\n\r\n"));
        let reply = connection.response();
        assert_eq!((reply.status, reply.field("Content-Length"), reply.body.len()), (200, Some("0"), 0), "{target}");
        assert_eq!(reply.field("Allow"), Some("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    }
    connection.send("OPTIONS /shop HTTP/1.1\r\nHost: any\r\n\r\n");
    assert_eq!(connection.response().text(), "shop", "a resource's own are the backend's to say");
}

#[test]
fn backends_of_a_rule_share_by_weight() {
    let sandbox = sandbox_or_skip!();
    let names = ["stable", "canary", "none"];
    let backends = backends(&sandbox, &names);
    let config = config(&names).route("all", &[], ("PathPrefix", "/"), &["stable*9", "canary*1", "none*0"]);
    let gateway = Gateway::start(&sandbox, &config);
    let mut connection = gateway.connect();
    for _ in 0..200 {
        connection.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n");
        assert_eq!(connection.response().status, 200);
    }
    let counts = backends.iter().map(|backend| backend.text().matches("GET / ").count()).collect::<Vec<_>>();
    assert_eq!(counts.iter().sum::<usize>(), 200);
    assert!((15..=25).contains(&counts[1]) && counts[2] == 0, "{counts:?}");
}

#[test]
fn several_listeners_keep_their_routes_apart() {
    let sandbox = sandbox_or_skip!();
    let names = ["public", "status"];
    let _backends = backends(&sandbox, &names);
    let gateway = r#"apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: { name: other }
spec:
  gatewayClassName: millrace
  addresses: [{ type: IPAddress, value: 10.9.1.1 }]
  listeners:
    - { name: status, protocol: HTTP, port: 8081 }
"#;
    let route = r#"apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: { name: status }
spec:
  parentRefs: [{ name: other, sectionName: status }]
  rules:
    - backendRefs: [{ group: millrace.dev, kind: Backend, name: status, port: 8080 }]
"#;
    let config =
        config(&names).route("public", &[], ("PathPrefix", "/public"), &["public"]).document(gateway).document(route);
    let gateway = Gateway::start(&sandbox, &config);
    assert_eq!(answer(&gateway, "any", "/public"), "public");
    assert_eq!(answer(&gateway, "any", "/"), "404");
    let reply = sandbox.output(Ns::Client, "curl", &["-sS", "--max-time", "5", "http://10.9.1.1:8081/public"]);
    assert_eq!(reply, "status");
}

#[test]
fn the_backend_is_told_who_asked() {
    let sandbox = sandbox_or_skip!();
    let backend = Backend::echo(&sandbox, Ns::B1, "10.9.2.2:9000");
    let gateway = Gateway::start(&sandbox, &Config::everything_to(&["10.9.2.2:9000"]));
    let first = gateway.get("/").text().to_ascii_lowercase();
    assert!(first.contains("\r\nx-forwarded-for: 10.9.1.2\r\n"), "{first}");
    assert!(first.contains("\r\nx-forwarded-proto: http\r\n"), "{first}");
    assert!(!first.contains("\r\nvia:"), "{first}");
    // What came is appended to, and a protocol that the client claims is not believed.
    let second = gateway.request(
        "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nConnection: close",
    );
    let second = second.text().to_ascii_lowercase();
    assert!(second.contains("192.0.2.7, 10.9.1.2\r\n"), "{second}");
    assert!(second.contains("\r\nx-forwarded-proto: http\r\n") && !second.contains("https"), "{second}");
    drop(backend);
}

#[test]
fn the_client_may_be_replaced_or_kept_and_via_is_by_choice() {
    let sandbox = sandbox_or_skip!();
    let _backend = Backend::echo(&sandbox, Ns::B1, "10.9.2.2:9000");
    let request = "GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.7\r\nConnection: close";
    {
        let config =
            Config::everything_to(&["10.9.2.2:9000"]).appliance("  http: { via: edge, forwardedFor: replace }\n");
        let gateway = Gateway::start(&sandbox, &config);
        let reply = gateway.request(request);
        let seen = reply.text().to_ascii_lowercase();
        assert!(seen.contains("\r\nx-forwarded-for: 10.9.1.2\r\n") && !seen.contains("192.0.2.7"), "{seen}");
        assert!(seen.contains("\r\nvia: 1.1 edge\r\n"), "{seen}");
        assert_eq!(reply.field("via"), Some("1.1 edge"));
    }
    let config = Config::everything_to(&["10.9.2.2:9000"]).appliance("  http: { forwardedFor: none }\n");
    let gateway = Gateway::start(&sandbox, &config);
    let seen = gateway.request(request).text().to_ascii_lowercase();
    assert!(seen.contains("\r\nx-forwarded-for: 192.0.2.7\r\n") && !seen.contains("10.9.1.2"), "{seen}");
}
