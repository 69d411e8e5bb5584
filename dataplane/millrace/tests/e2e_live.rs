//! Changes while Millrace serves: of its files, by its admin address, good and bad ones.

mod support;

use std::fmt::Write;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use support::backend::Backend;
use support::gateway::{Config, Gateway, MILLRACE};
use support::sandbox::{Ns, Sandbox, VIP};
use support::wait_for;
use support::wrk::Wrk;

/// Everything to one of the two nginx.
fn to(backend: &str) -> Config {
    let address = if backend == "b1" { "10.9.2.2:8080" } else { "10.9.2.3:8080" };
    Config::everything_to(&[address])
}

/// What `work` does while wrk runs, and what wrk says then; it has to have seen no failure.
fn under_wrk(sandbox: &Sandbox, work: impl FnOnce()) -> String {
    let wrk = Wrk::start(sandbox, &["-c32", &format!("http://{VIP}/1k")]);
    work();
    wrk.finish()
}

fn millrace(gateway: &Gateway<'_>, arguments: &[&str]) -> (i32, String) {
    let output = gateway.sandbox.command(Ns::Millrace, MILLRACE).args(arguments).output().expect("millrace runs");
    (output.status.code().expect("a code"), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn a_file_that_changes_is_taken_and_no_request_fails() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let mut gateway = Gateway::start(&sandbox, &to("b1"));
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"));
    let text = under_wrk(&sandbox, || {
        for backend in ["b2", "b1", "b2"] {
            let epoch = gateway.epoch();
            gateway.rewrite(&to(backend).text());
            gateway.await_epoch_after(epoch);
            assert_eq!(gateway.get("/").field("X-Backend"), Some(backend));
        }
    });
    eprintln!("{text}");
    assert_eq!(gateway.epoch(), 4);
    let (code, text) = millrace(&gateway, &["get", "epochs"]);
    assert!(code == 0 && text.starts_with("epoch 4\n"), "{text}");
    eprintln!("{text}");
    let (code, text) = millrace(&gateway, &["reload"]);
    assert_eq!((code, text.as_str()), (0, "unchanged: epoch 4 runs on\n"));
    gateway.assert_alive();
}

#[test]
fn a_mistake_is_refused_shown_and_mended() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let gateway = Gateway::start(&sandbox, &to("b1"));
    let bad = to("b2").text().replace("PathPrefix", "Prefx");
    gateway.rewrite(&bad);
    wait_for("the refusal", Duration::from_secs(5), || {
        gateway.metric("millrace_config_last_reload_successful", &[]) == 0
    });
    let ready = gateway.admin("/readyz");
    assert_eq!(ready.status, 200);
    assert!(ready.text().contains("spec.rules[0].matches[0].path.type: unknown value \"Prefx\""), "{}", ready.text());
    assert_eq!((gateway.get("/").field("X-Backend"), gateway.epoch()), (Some("b1"), 1));
    let (code, text) = millrace(&gateway, &["status"]);
    assert!(
        code == 0 && text.contains("configuration refused, 1 error; the one before it runs on as epoch 1"),
        "{text}"
    );
    let (code, text) = millrace(&gateway, &["reload"]);
    assert!(code == 2 && text.ends_with("1 error: refused, epoch 1 runs on\n"), "{text}");
    gateway.rewrite(&to("b2").text());
    gateway.await_epoch_after(1);
    assert_eq!(gateway.admin("/readyz").text(), "ok\n");
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b2"));
}

#[test]
fn a_restart_with_bad_files_runs_the_last_good_configuration() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let mut gateway = Gateway::start(&sandbox, &to("b1"));
    gateway.rewrite(&to("b2").text());
    gateway.await_epoch_after(1);
    gateway.rewrite("kind: [");
    gateway.terminate();
    assert!(gateway.ended(Duration::from_secs(20)).success());
    drop(gateway);
    let gateway = Gateway::start_as_is(&sandbox, &[]);
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b2"));
    assert!(gateway.log().contains("THE LAST GOOD ONE RUNS"), "{}", gateway.log());
    assert_eq!(gateway.metric("millrace_config_last_good", &[]), 1);
    let (_, text) = millrace(&gateway, &["status"]);
    assert!(text.contains("configuration: THE LAST GOOD ONE, because the files are bad"), "{text}");
    gateway.rewrite(&to("b1").text());
    gateway.await_epoch_after(1);
    assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"));
    assert_eq!(gateway.metric("millrace_config_last_good", &[]), 0);
}

#[test]
fn the_example_says_which_epoch_served() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let gateway = Gateway::start_example(&sandbox, "live.yaml");
    assert_eq!(gateway.get("/").field("x-millrace-epoch"), Some("1"));
    assert_eq!(gateway.request("GET / HTTP/1.1\r\nHost: a b").status, 400);
    // What Millrace says itself, too.
    let text = std::fs::read_to_string(sandbox.dir().join("millrace.yaml")).expect("it is there");
    gateway.rewrite(&text.replace("  rules:\n", "  hostnames: [a.example]\n  rules:\n"));
    gateway.await_epoch_after(1);
    let response = gateway.get("/");
    assert_eq!((response.status, response.field("x-millrace-epoch")), (404, Some("2")));
}

/// Counts responses that were not served as the epoch they name has it: odd ones by b1, even ones by b2.
const EPOCHS_MIX: &str = r#"
local threads = {}
function setup(thread) table.insert(threads, thread) end
function init(args) wrong, right, newest = 0, 0, 0 end
function response(status, headers, body)
  local epoch = tonumber(headers["x-millrace-epoch"]) or 0
  if status == 200 and headers["X-Backend"] == (epoch % 2 == 1 and "b1" or "b2") then right = right + 1 else wrong = wrong + 1 end
  if epoch > newest then newest = epoch end
end
function done(summary, latency, requests)
  for _, thread in ipairs(threads) do
    io.write(string.format("right=%d wrong=%d newest=%d\n", thread:get("right"), thread:get("wrong"), thread:get("newest")))
  end
end
"#;

/// So many routes of which the last serves everything, and whose names change from epoch to epoch.
fn many(routes: usize, epoch: u64) -> String {
    let config = to(if epoch % 2 == 1 { "b1" } else { "b2" }).appliance("  http: { epochHeader: true }\n");
    let mut text = config.text();
    for route in 0..routes {
        // One in ten is another one each time.
        let name = if route % 10 == 0 { format!("r{route}-{}", epoch % 1000) } else { format!("r{route}") };
        write!(
            text,
            "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{ name: {name} }}\nspec:\n  \
             parentRefs: [{{ name: web }}]\n  rules:\n    - matches: [{{ path: {{ type: PathPrefix, value: /r{route} }} }}]\n      \
             backendRefs: [{{ group: millrace.dev, kind: Backend, name: all, port: 8080 }}]\n"
        )
        .expect("a string takes all");
    }
    text
}

/// Swaps for some seconds under wrk: none fails a request, none mixes two epochs, and memory stays as it is.
fn swaps_under_load(routes: usize, growth_kib: u64) {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let seconds: u64 = std::env::var("MILLRACE_SWAP_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(8);
    let mut gateway = Gateway::start_text(&sandbox, &many(routes, 1));
    let script = sandbox.dir().join("epochs.lua");
    std::fs::write(&script, EPOCHS_MIX).expect("the sandbox can be written");
    let script = script.display().to_string();
    let wrk = Wrk::start(&sandbox, &["-c16", "-s", &script, &format!("http://{VIP}/60")]);
    let started = Instant::now();
    let (mut epoch, mut slowest, mut settled) = (1, 0.0_f64, None);
    while started.elapsed() < Duration::from_secs(seconds) {
        let answer = gateway.post("/config", &many(routes, epoch + 1));
        assert_eq!(answer.status, 200, "{}", answer.text());
        epoch += 1;
        let answer: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
        let swap = &answer["swap"];
        assert!(answer["epoch"] == epoch && swap["complete"] == true && swap["lost"] == 0, "{answer}");
        slowest = slowest.max(swap["cores"][0]["microseconds"].as_f64().expect("a number"));
        // What is allocated once is there by then.
        if settled.is_none() && started.elapsed() > Duration::from_secs(seconds) / 3 {
            settled = Some((epoch, gateway.resident_kib()));
        }
    }
    let (from, before) = settled.expect("a third of the time has passed");
    let after = gateway.resident_kib();
    let text = wrk.finish();
    let rate = text.lines().find(|line| line.starts_with("Requests/sec")).unwrap_or_default();
    eprintln!(
        "{routes} routes: {} swaps, the slowest reached the core after {slowest:.0} us; {} KiB, {} swaps earlier {before} KiB; {rate}",
        epoch - 1,
        after,
        epoch - from,
    );
    assert!(text.contains("wrong=0 ") && !text.contains("right=0 "), "{text}");
    assert!(epoch > 2, "{} swaps in {seconds} s", epoch - 1);
    assert!(after < before + growth_kib, "memory grew from {before} to {after} KiB in {} swaps", epoch - from);
    gateway.assert_alive();
}

#[test]
fn a_hundred_routes_change_under_load() {
    swaps_under_load(100, 8 << 10);
}

#[test]
fn a_thousand_routes_change_under_load() {
    swaps_under_load(1000, 16 << 10);
}

#[test]
fn ten_thousand_routes_change_under_load() {
    swaps_under_load(10_000, 64 << 10);
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*state ^ (*state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb) >> 16
}

/// A text that is wrong in one to three places, or not.
fn mutated(text: &str, state: &mut u64) -> Vec<u8> {
    const PIECES: [&str; 10] = ["{", "}", "[", ": ", "- ", "0", "\n", "\u{1}", "Backend", "---\n"];
    let mut bytes = text.as_bytes().to_vec();
    for _ in 0..=random(state) % 3 {
        let at = random(state) as usize % bytes.len().max(1);
        let len = (random(state) as usize % 12).min(bytes.len() - at);
        match random(state) % 4 {
            0 => drop(bytes.drain(at..at + len)),
            1 if at < bytes.len() => bytes[at] = random(state) as u8,
            2 => {
                let piece = PIECES[random(state) as usize % PIECES.len()];
                bytes.splice(at..at, piece.bytes());
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

#[test]
fn ten_thousand_mutated_configurations_hurt_nobody() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let good = to("b1").appliance("  http: { via: edge }\n").text();
    let mut gateway = Gateway::start_text(&sandbox, &good);
    let seed = std::env::var("MILLRACE_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(7);
    eprintln!("MILLRACE_SEED={seed}");
    let mut state = seed;
    let (mut refused, mut accepted) = (0, 0);
    for round in 0..10_000 {
        let body = mutated(&good, &mut state);
        let answer = gateway.post_bytes("/config", &body);
        match answer.status {
            422 => {
                refused += 1;
                let answer: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
                let errors = answer["errors"].as_array().expect("a list");
                assert!(!errors.is_empty() && errors.iter().all(|e| e["problem"] != ""), "{answer}");
            }
            200 => {
                accepted += 1;
                assert_eq!(gateway.post("/config", &good).status, 200);
            }
            _ => panic!("round {round}: {}\n{}", answer.status, answer.text()),
        }
        if round % 500 == 0 {
            assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"), "round {round}");
        }
    }
    eprintln!("{refused} refused, {accepted} accepted");
    assert!(refused > 5000 && accepted > 100);
    gateway.assert_alive();
}

/// What control knew when it died, it knows when it is back: the epoch, what an operator set, what checks found out and how often they did.
#[test]
fn control_remembers_what_it_knew_before_it_died() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let policy = "apiVersion: millrace.dev/v1alpha1\nkind: BackendPolicy\nmetadata: { name: all }\nspec:\n  \
                  targetRefs: [{ group: millrace.dev, kind: Backend, name: all }]\n  healthCheck:\n    active: { type: TCP, \
                  interval: 200ms, timeout: 100ms, unhealthyThreshold: 2, healthyThreshold: 2 }\n";
    // The third one is not there.
    let list = ["10.9.2.2:8080", "10.9.2.3:8080", "10.9.2.2:8099"];
    let config = Config::everything_to(&list).document(policy);
    std::fs::write(sandbox.dir().join("millrace.yaml"), config.text()).expect("the sandbox can be written");
    let mut gateway = Gateway::start_as_is(&sandbox, &[("MILLRACE_TEST_PANICS", "1")]);
    let endpoints = || -> Vec<(String, String, u64)> {
        let all: serde_json::Value = serde_json::from_slice(&gateway.admin("/endpoints").body).expect("JSON");
        let text = |value: &serde_json::Value| value.as_str().expect("a word").to_owned();
        let all = all["endpoints"].as_array().expect("a list").iter();
        all.map(|e| (text(&e["state"]), text(&e["health"]), e["checksPassed"].as_u64().expect("a number"))).collect()
    };
    let known = |endpoints: &[(String, String, u64)]| {
        endpoints.iter().map(|(state, health, _)| format!("{state} {health}")).collect::<Vec<_>>()
    };
    let expected = ["ready healthy", "draining healthy", "ready unhealthy"];
    gateway.rewrite(&config.text().replace("interval: 200ms", "interval: 201ms"));
    gateway.await_epoch_after(1);
    let (code, text) = millrace(&gateway, &["set", "endpoint", "all", "10.9.2.3", "drain"]);
    assert_eq!(code, 0, "{text}");
    wait_for("checks say how they are", Duration::from_secs(10), || known(&endpoints()) == expected);
    under_wrk(&sandbox, || {
        let passed = endpoints()[0].2;
        for round in 1..=3 {
            for thread in ["admin", "reload"] {
                assert_eq!(gateway.post(&format!("/panic?thread={thread}"), "").status, 200);
                wait_for("it comes back", Duration::from_secs(5), || {
                    gateway.try_admin("/livez").is_some()
                        && gateway.metric("millrace_control_restarts_total", &[("thread", thread)]) == round
                });
                assert_eq!((known(&endpoints()), gateway.epoch()), (expected.map(str::to_owned).to_vec(), 2));
                assert_eq!(gateway.get("/").field("X-Backend"), Some("b1"), "the others take nothing");
            }
        }
        wait_for("checks go on", Duration::from_secs(5), || endpoints()[0].2 > passed + 5);
        // A change is the next epoch, and forgets nothing either.
        gateway.rewrite(&config.text());
        gateway.await_epoch_after(2);
        assert_eq!(gateway.epoch(), 3);
        assert_eq!(known(&endpoints())[1], "draining healthy");
        let (code, text) = millrace(&gateway, &["set", "endpoint", "all", "10.9.2.3", "ready"]);
        assert_eq!(code, 0, "{text}");
        wait_for("it takes requests again", Duration::from_secs(5), || {
            gateway.get("/").field("X-Backend") == Some("b2")
        });
    });
    gateway.assert_alive();
}

/// A controller that publishes ten times a second, and clients whose requests wait for their answers much longer than 31 epochs last, while others
/// tunnel, download and come and go: nothing fails, and every table is given back in the end.
#[test]
fn requests_that_outlast_many_epochs_fail_nothing() {
    const LONG: Duration = Duration::from_secs(7);
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let seen = std::sync::Mutex::new(std::collections::HashSet::new());
    let slow = move |served: &mut support::backend::Served| {
        while let Some(request) = served.request() {
            if request.head.contains("\r\nUpgrade: ") || request.head.contains("\r\nupgrade: ") {
                served.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: test\r\nConnection: Upgrade\r\n\r\n");
                while let Some(bytes) = served.some() {
                    served.send(bytes);
                }
                return;
            }
            if request.head.starts_with("GET /poll") {
                std::thread::sleep(LONG);
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npolled");
            } else if request.head.starts_with("GET /again") {
                // Not the first time, which takes long.
                let target = request.head.lines().next().expect("a line").to_owned();
                if seen.lock().expect("nobody panicked").insert(target) {
                    std::thread::sleep(LONG);
                    served.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
                } else {
                    served.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nagain");
                }
            } else {
                // A download: its head at once, and then a piece now and then.
                served.send("HTTP/1.1 200 OK\r\nContent-Length: 70\r\n\r\n");
                for _ in 0..70 {
                    std::thread::sleep(LONG / 70);
                    served.send("x");
                }
            }
        }
    };
    let _slow = Backend::start(&sandbox, Ns::B1, "10.9.2.2:9000", slow);
    let make = |epoch: usize| {
        Config::new()
            .backend("all", if epoch.is_multiple_of(2) { &["10.9.2.2:8080"] } else { &["10.9.2.3:8080"] })
            .backend("slow", &["10.9.2.2:9000"])
            .route("all", &[], ("PathPrefix", "/"), &["all"])
            .route("slow", &[], ("PathPrefix", "/slow"), &["slow"])
            .route("poll", &[], ("PathPrefix", "/poll"), &["slow"])
            .document(
                "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: { name: again }\nspec:\n  \
                 parentRefs: [{ name: web }]\n  rules:\n    - matches: [{ path: { type: PathPrefix, value: /again } }]\n      \
                 retry: { codes: [503], attempts: 1 }\n      \
                 backendRefs: [{ group: millrace.dev, kind: Backend, name: slow, port: 8080 }]\n",
            )
            .text()
    };
    let mut gateway = Gateway::start_text(&sandbox, &make(0));
    let mut waiting = Vec::new();
    let ask = |request: &str| {
        let mut connection = gateway.connect();
        connection.send(request);
        connection
    };
    under_wrk(&sandbox, || {
        let began = Instant::now();
        let mut tunnel = ask("GET /slow HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: test\r\n\r\n");
        assert_eq!(tunnel.response().status, 101);
        for epoch in 1..=60 {
            waiting.push(ask("GET /poll HTTP/1.1\r\nHost: a\r\n\r\n"));
            waiting.push(ask("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n"));
            waiting.push(ask(&format!("GET /again/{epoch} HTTP/1.1\r\nHost: a\r\n\r\n")));
            let answer = gateway.post("/config", &make(epoch));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let answer: serde_json::Value = serde_json::from_str(&answer.text()).expect("JSON");
            assert!(answer["swap"]["complete"] == true, "{answer}");
            assert_eq!(gateway.get("/").status, 200);
            tunnel.send("still there");
            assert_eq!(tunnel.bytes(11), b"still there");
            std::thread::sleep((Duration::from_millis(100) * epoch as u32).saturating_sub(began.elapsed()));
        }
        let held = gateway.admin("/epochs").text();
        eprintln!(
            "{:?} for 60 epochs; {}",
            began.elapsed(),
            held.lines().find(|l| l.contains("held")).unwrap_or_default()
        );
        for connection in &mut waiting {
            let response = connection.response();
            assert_eq!((response.status, response.complete), (200, true));
        }
    });
    wait_for("all tables are given back", Duration::from_secs(5), || {
        let epochs: serde_json::Value = serde_json::from_str(&gateway.admin("/epochs").text()).expect("JSON");
        epochs["cores"][0]["held"] == 0
    });
    let mut answers = gateway.answers();
    // The tunnel, and what wrk did not wait for when it was ended.
    assert!(answers.remove("101").unwrap_or(0) <= 1 && answers.remove("499").unwrap_or(0) <= 32);
    assert!(answers.keys().eq(["200"]), "{answers:?}");
    gateway.assert_alive();
}

#[test]
fn control_dies_and_comes_back_and_the_cores_do_not_notice() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    std::fs::write(sandbox.dir().join("millrace.yaml"), to("b1").text()).expect("the sandbox can be written");
    let mut gateway = Gateway::start_as_is(&sandbox, &[("MILLRACE_TEST_PANICS", "1")]);
    under_wrk(&sandbox, || {
        for (thread, count) in [("admin", 1), ("reload", 1), ("admin", 2), ("reload", 2)] {
            assert_eq!(gateway.post(&format!("/panic?thread={thread}"), "").status, 200);
            wait_for("it comes back", Duration::from_secs(5), || {
                gateway.try_admin("/livez").is_some()
                    && gateway.metric("millrace_control_restarts_total", &[("thread", thread)]) == count
            });
        }
        // With what it had.
        gateway.rewrite(&to("b2").text());
        gateway.await_epoch_after(1);
        assert_eq!(gateway.get("/").field("X-Backend"), Some("b2"));
    });
    assert_eq!((gateway.epoch(), gateway.post("/reload", "").status), (2, 200));
    gateway.assert_alive();
}

#[test]
fn nobody_can_make_control_panic_in_production() {
    let sandbox = sandbox_or_skip!();
    let gateway = Gateway::start(&sandbox, &Config::new());
    assert_eq!(gateway.post("/panic?thread=admin", "").status, 404);
}

#[test]
fn listeners_come_and_go() {
    let sandbox = sandbox_or_skip!();
    sandbox.start_nginx();
    let one = to("b1").text();
    let two = one.replace("port: 80 }]", "port: 80 }, { name: more, protocol: HTTP, port: 81 }]");
    let gateway = Gateway::start_text(&sandbox, &one);
    let status = |port: u16| {
        sandbox.inside(Ns::Client, || {
            let stream = std::net::TcpStream::connect((VIP, port));
            stream.map(|_| ()).map_err(|error| error.kind())
        })
    };
    assert_eq!((status(80), status(81)), (Ok(()), Err(std::io::ErrorKind::ConnectionRefused)));
    gateway.rewrite(&two);
    gateway.await_epoch_after(1);
    assert_eq!((status(80), status(81)), (Ok(()), Ok(())));
    let mut waiting = gateway.connect();
    waiting.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(waiting.response().status, 200);
    // Only the other one is left.
    gateway.rewrite(&two.replace("{ name: http, protocol: HTTP, port: 80 }, ", ""));
    gateway.await_epoch_after(2);
    assert_eq!((status(80), status(81)), (Err(std::io::ErrorKind::ConnectionRefused), Ok(())));
    assert!(waiting.closed(), "who waits there is let go");
}

#[test]
fn sighup_has_the_files_read_and_drain_ends_in_order() {
    let sandbox = sandbox_or_skip!();
    let slow = Backend::start(&sandbox, Ns::B1, "10.9.2.2:9000", |served| {
        while served.request().is_some() {
            std::thread::sleep(Duration::from_millis(800));
            served.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let mut gateway = Gateway::start(&sandbox, &Config::everything_to(&["10.9.2.2:9000"]));
    let pid = Pid::from_raw(gateway.id().cast_signed()).expect("a process id");
    kill_process(pid, Signal::HUP).expect("it runs");
    wait_for("a reload", Duration::from_secs(5), || {
        gateway.metric("millrace_config_reloads_total", &[("outcome", "unchanged")]) == 1
    });
    let mut running = gateway.connect();
    running.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    wait_for("the request", Duration::from_secs(5), || slow.connections() == 1);
    let (code, text) = millrace(&gateway, &["drain"]);
    assert_eq!((code, text.as_str()), (0, "draining\n"));
    assert_eq!(gateway.admin("/readyz").status, 503);
    let response = running.response();
    assert_eq!((response.status, response.field("Connection")), (200, Some("close")));
    assert!(gateway.ended(Duration::from_secs(10)).success());
}
