//! Health checks of a real gRPC server: grpcio with its own health service.

mod support;

use std::process::Command;
use std::time::Duration;

use support::gateway::{Config, Gateway};
use support::sandbox::{Ns, REPOSITORY, Sandbox};
use support::wait_for;

/// A Python with grpcio and grpcio-health-checking, fetched once by scripts/lib/grpc.sh.
fn python() -> Option<String> {
    let output = Command::new("bash")
        .args(["-c", "set -u; source scripts/lib/grpc.sh; find_grpc; printf %s \"$GRPC_PYTHON\""])
        .current_dir(REPOSITORY)
        .output()
        .expect("bash runs");
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    if found.is_empty() {
        let why = String::from_utf8_lossy(&output.stderr);
        eprintln!(
            "\n*** NOT RUN: no grpcio: it is looked for on PyPI; or say GRPC_PYTHON=a Python that has it ***\n{why}"
        );
    }
    Some(found).filter(|found| !found.is_empty())
}

/// Starts servers in the first backend's namespace, by a process whose id goes to `name`.pid in the sandbox.
fn start(sandbox: &Sandbox, python: &str, name: &str, ports: &str) {
    let server = format!("{REPOSITORY}/dataplane/millrace/tests/support/grpc_server.py");
    sandbox.run_script(&format!(
        "sandbox_spawn $NS_B1 {name}.log {python} {server} $SANDBOX_DIR/statuses 10.9.2.2 {ports}; \
         echo $SPAWNED >$SANDBOX_DIR/{name}.pid"
    ));
    for port in ports.split(' ').map(|port| port.parse::<u16>().expect("a port")) {
        wait_for("the server listens", Duration::from_secs(20), || {
            sandbox.inside(Ns::B1, || std::net::TcpStream::connect(("10.9.2.2", port)).is_ok())
        });
    }
}

fn says(sandbox: &Sandbox, statuses: &[(u16, &str, &str)]) {
    let text: String = statuses.iter().map(|(port, service, status)| format!("{port} {service} {status}\n")).collect();
    let fresh = sandbox.dir().join("statuses.new");
    std::fs::write(&fresh, text).expect("the sandbox can be written");
    std::fs::rename(fresh, sandbox.dir().join("statuses")).expect("the sandbox can be written");
}

/// Waits until the endpoint of that port is as it should be: well, or not and why.
#[track_caller]
fn expect(gateway: &Gateway<'_>, port: u16, failure: Option<&str>) {
    let mut seen = serde_json::Value::Null;
    let deadline = std::time::Instant::now() + Duration::from_secs(5);
    loop {
        let all: serde_json::Value = serde_json::from_slice(&gateway.admin("/endpoints").body).expect("JSON");
        let endpoints = all["endpoints"].as_array().expect("a list").clone();
        if let Some(found) = endpoints.into_iter().find(|e| e["address"] == format!("10.9.2.2:{port}").as_str()) {
            let reason = &found["lastFailure"]["reason"];
            let is = match failure {
                None => found["health"] == "healthy",
                Some(failure) => found["health"] == "unhealthy" && *reason == failure,
            };
            if is {
                return;
            }
            seen = found;
        }
        assert!(std::time::Instant::now() < deadline, "{port} is not {failure:?}: {seen}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_grpc_server_is_as_its_health_service_says() {
    let sandbox = sandbox_or_skip!();
    let Some(python) = python() else { return };
    let policy = |name: &str, grpc: &str| {
        format!(
            "apiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: {{ name: {name} }}\nspec:\n  \
             targetRefs: [{{ group: millrace.dev, kind: Backend, name: {name} }}]\n  healthCheck:\n    active: {{ type: GRPC, \
             interval: 100ms, timeout: 90ms, unhealthyThreshold: 2, healthyThreshold: 2{grpc} }}\n"
        )
    };
    let config = Config::new()
        .backend("whole", &["10.9.2.2:9001"])
        .backend("shop", &["10.9.2.2:9002", "10.9.2.2:9003", "10.9.2.2:9004"])
        .route("whole", &[], ("PathPrefix", "/whole"), &["whole"])
        .route("shop", &[], ("PathPrefix", "/shop"), &["shop"])
        .document(&policy("whole", ""))
        .document(&policy("shop", ", grpc: { service: shop.v1.Shop }"));
    let shop = "shop.v1.Shop";
    says(
        &sandbox,
        &[
            (9001, "-", "SERVING"),
            (9002, shop, "SERVING"),
            // As a whole it serves, but nobody ever said so of the shop.
            (9003, "-", "SERVING"),
            (9004, shop, "SERVING"),
        ],
    );
    start(&sandbox, &python, "first", "9001 9002 9003");
    start(&sandbox, &python, "second", "9004");
    let mut gateway = Gateway::start(&sandbox, &config);
    expect(&gateway, 9001, None);
    expect(&gateway, 9002, None);
    expect(&gateway, 9003, Some("no serving status"));
    expect(&gateway, 9004, None);

    says(&sandbox, &[(9001, "-", "NOT_SERVING"), (9002, shop, "NOT_SERVING"), (9003, shop, "SERVING")]);
    expect(&gateway, 9001, Some("not serving"));
    expect(&gateway, 9002, Some("not serving"));
    expect(&gateway, 9003, None);
    expect(&gateway, 9004, None);
    says(&sandbox, &[(9001, "-", "SERVING"), (9002, shop, "SERVICE_UNKNOWN"), (9003, shop, "UNKNOWN")]);
    expect(&gateway, 9001, None);
    expect(&gateway, 9002, Some("not serving"));
    expect(&gateway, 9003, Some("no serving status"));

    // It hangs, and then it is killed.
    sandbox.run_script("kill -STOP $(cat $SANDBOX_DIR/second.pid)");
    expect(&gateway, 9004, Some("no answer in time"));
    sandbox.run_script("kill -CONT $(cat $SANDBOX_DIR/second.pid)");
    expect(&gateway, 9004, None);
    sandbox.run_script("kill -KILL $(cat $SANDBOX_DIR/second.pid)");
    expect(&gateway, 9004, Some("connection refused"));
    says(
        &sandbox,
        &[(9001, "-", "SERVING"), (9002, shop, "SERVING"), (9003, shop, "SERVING"), (9004, shop, "SERVING")],
    );
    start(&sandbox, &python, "second", "9004");
    for port in 9001..=9004 {
        expect(&gateway, port, None);
    }
    // What answers, but not in HTTP/2.
    sandbox.start_nginx();
    gateway.rewrite(
        &config
            .backend("other", &["10.9.2.2:8080"])
            .route("other", &[], ("PathPrefix", "/other"), &["other"])
            .document(&policy("other", ""))
            .text(),
    );
    expect(&gateway, 8080, Some("invalid answer"));
    assert_eq!(gateway.get("/other").status, 503);
    gateway.assert_alive();
}
