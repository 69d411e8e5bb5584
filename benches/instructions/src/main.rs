//! Instruction counts of the packet path and of HTTP parsing, with bounds.
//!
//! Each case runs under valgrind's callgrind, which counts what is executed within [`collect_here`] and nothing of what
//! prepares it. Such counts do not depend on the machine's load or speed, and for one binary they hardly vary; so they can fail
//! a build where a wall clock could not. They say nothing about cache misses.
//!
//! `benches/instructions/run` builds and starts it.

#![forbid(unsafe_code)]

mod cache_line;
mod callgrind;
mod control;
mod cores;
mod decisions;
mod frames;
mod gateway;
mod handover;
mod heads;
mod lane;
mod many_routes;
mod parts;

use std::hint::black_box;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use gateway::Gateway;
use heads::{CANARY, ENDLESS, NGINX, WRK, WRK_CLOSE};
use tables::{Method, SynCookies};

/// One operation to be measured.
struct Case {
    name: &'static str,
    /// Operations that are run.
    n: u64,
    /// Instructions that an operation may take.
    bound: u64,
    /// Runs so many operations.
    run: fn(u64),
}

/// What is measured. The bounds lie about 5 % above what rustc 1.95 and thin LTO came to: as much as compilers differ in.
/// A change that exceeds one of them has to be faster elsewhere, or to say why it is worth its instructions.
const CASES: &[Case] = &[
    Case { name: "checksum-1460", n: 1000, bound: 553, run: parts::checksum_1460 },
    Case { name: "flow-find-100k", n: 10_000, bound: 245, run: parts::flow_find },
    Case { name: "timer", n: 10_000, bound: 163, run: parts::timer },
    Case { name: "ingress-ack", n: 1000, bound: 613, run: |n| parts::ingress(n, 0) },
    Case { name: "ingress-1460", n: 1000, bound: 1057, run: |n| parts::ingress(n, 1460) },
    Case { name: "hand-over", n: 3200, bound: 481, run: parts::hand_over },
    Case { name: "parse-request-wrk", n: 1000, bound: 1260, run: parts::parse_wrk },
    Case { name: "parse-request-browser", n: 1000, bound: 6140, run: parts::parse_browser },
    Case { name: "encode-request-wrk", n: 1000, bound: 338, run: parts::encode_wrk },
    Case { name: "encode-request-browser", n: 1000, bound: 509, run: parts::encode_browser },
    Case { name: "parse-response-nginx", n: 1000, bound: 3310, run: parts::parse_response },
    Case { name: "encode-response-nginx", n: 1000, bound: 365, run: parts::encode_response },
    Case { name: "body-chunked-16k", n: 1000, bound: 2080, run: parts::chunked_16k },
    Case { name: "route-10", n: 1000, bound: 537, run: parts::route_10 },
    Case { name: "route-10000", n: 1000, bound: 547, run: parts::route_10_000 },
    Case { name: "route-header-10", n: 1000, bound: 1860, run: |n| parts::route_by_header(n, 10) },
    Case { name: "route-header-10000", n: 1000, bound: 1860, run: |n| parts::route_by_header(n, 10_000) },
    Case { name: "route-regex-10", n: 1000, bound: 1138, run: |n| decisions::route_regex(n, 2, 0) },
    Case { name: "route-regex-10000", n: 1000, bound: 1138, run: |n| decisions::route_regex(n, 50, 190) },
    Case { name: "pick-round-robin", n: 1000, bound: 46, run: |n| decisions::pick(n, Method::RoundRobin) },
    Case { name: "pick-random", n: 1000, bound: 56, run: |n| decisions::pick(n, Method::Random) },
    Case { name: "pick-least-request", n: 1000, bound: 113, run: |n| decisions::pick(n, Method::LeastRequest) },
    Case { name: "pick-peak-ewma", n: 1000, bound: 352, run: |n| decisions::pick(n, Method::PeakEwma) },
    Case { name: "pick-source-ip", n: 1000, bound: 185, run: |n| decisions::pick(n, Method::Modulo) },
    Case { name: "pick-ring", n: 1000, bound: 331, run: |n| decisions::pick(n, Method::Ring(1, 1024, 65_536)) },
    Case { name: "pick-maglev", n: 1000, bound: 193, run: |n| decisions::pick(n, Method::Maglev(1)) },
    Case { name: "pick-session", n: 1000, bound: 101, run: decisions::pick_session },
    Case { name: "limit-exact", n: 20_000, bound: 396, run: |n| decisions::limit(n, 1, 10_000) },
    Case { name: "limit-leased", n: 20_000, bound: 324, run: |n| decisions::limit(n, 2, 1) },
    Case { name: "limit-leased-10k", n: 20_000, bound: 483, run: |n| decisions::limit(n, 2, 10_000) },
    Case { name: "source-list-10", n: 1000, bound: 74, run: |n| decisions::sources(n, 10) },
    Case { name: "source-list-10000", n: 1000, bound: 168, run: |n| decisions::sources(n, 10_000) },
    Case { name: "schedule-next", n: 1000, bound: 17, run: parts::schedule },
    Case { name: "read-route", n: 1000, bound: 300_000, run: control::read },
    Case { name: "compile-route", n: 1000, bound: 34_500, run: control::compile_routes },
    Case { name: "compile-endpoint", n: 10_000, bound: 5_150, run: control::compile_endpoints },
    Case { name: "idle-turn", n: 1000, bound: 720, run: idle_turn },
    Case { name: "request", n: 1000, bound: 21_050, run: |n| requests(n, 1) },
    Case { name: "request-filtered", n: 1000, bound: 24_570, run: filtered },
    Case { name: "request-policies", n: 1000, bound: 23_262, run: with_policies },
    Case { name: "request-burst-32", n: 3200, bound: 19_520, run: |n| requests(n, 32) },
    Case { name: "connection-burst-16", n: 1600, bound: 35_010, run: |n| visits(n, SynCookies::Never) },
    Case { name: "connection-cookie-16", n: 1600, bound: 35_550, run: |n| visits(n, SynCookies::Always) },
    Case { name: "flooded-syn-32", n: 3200, bound: 2895, run: flooded },
    Case { name: "bulk-segment", n: 3200, bound: 6890, run: bulk },
];

/// callgrind counts while this function is on the stack. Not nested.
#[inline(never)]
fn collect_here(run: &mut dyn FnMut()) {
    run();
    // Keeps the call from becoming a jump, which callgrind would take for the end of this function.
    black_box(0_u64);
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => measure(),
        ["case", name, n] => match (find(name), n.parse()) {
            (Some(case), Ok(n)) => {
                (case.run)(n);
                ExitCode::SUCCESS
            }
            _ => usage(),
        },
        ["time", "cache-line"] => {
            cache_line::time();
            ExitCode::SUCCESS
        }
        ["time", "cores"] => {
            cores::time();
            ExitCode::SUCCESS
        }
        ["time", "hand-over"] => {
            if handover::time() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        ["time", "routes"] => {
            many_routes::time();
            ExitCode::SUCCESS
        }
        ["profile", name, file] => match find(name) {
            Some(case) => report(callgrind::count(name, case.n, Path::new(file)).map(|sum| {
                println!("{name}: {} instructions an operation, of {} operations", sum / case.n, case.n);
            })),
            None => usage(),
        },
        _ => usage(),
    }
}

/// Measures all cases and prints a table. Fails where a case exceeds its bound.
fn measure() -> ExitCode {
    let mut over = 0;
    println!("{:<24} {:>12} {:>9} {:>8}", "case", "instructions", "bound", "margin");
    for (case, counted) in CASES.iter().zip(count_all()) {
        let each = match counted {
            Ok(sum) => sum.div_ceil(case.n),
            Err(error) => return report(Err(error)),
        };
        let margin = (case.bound as f64 - each as f64) / case.bound as f64 * 100.0;
        let verdict = if each > case.bound { "  over its bound" } else { "" };
        over += u32::from(each > case.bound);
        println!("{:<24} {each:>12} {:>9} {margin:>7.1}%{verdict}", case.name, case.bound);
    }
    if over == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The counts of all cases, in their order. As many are run at a time as there are CPUs: that changes how long it takes, and not what is counted.
fn count_all() -> Vec<std::io::Result<u64>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let taken = std::iter::from_fn(|| {
            let index = next.fetch_add(1, Ordering::Relaxed);
            CASES.get(index).map(|case| (index, case))
        });
        let counted = taken.map(|(index, case)| {
            let file = callgrind::scratch(case.name);
            let counted = callgrind::count(case.name, case.n, &file);
            drop(std::fs::remove_file(&file));
            (index, counted)
        });
        counted.collect::<Vec<_>>()
    };
    let mut counts = std::thread::scope(|scope| {
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let workers = (0..workers).map(|_| scope.spawn(worker)).collect::<Vec<_>>();
        let joined = workers.into_iter().flat_map(|thread| thread.join().expect("a worker does not panic"));
        joined.collect::<Vec<_>>()
    });
    counts.sort_by_key(|&(index, _)| index);
    counts.into_iter().map(|(_, counted)| counted).collect()
}

fn find(name: &str) -> Option<&'static Case> {
    CASES.iter().find(|case| case.name == name)
}

fn report(outcome: std::io::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: instructions [profile CASE FILE | time cores | time hand-over | time cache-line | time routes]; cases:"
    );
    for case in CASES {
        eprintln!("  {}", case.name);
    }
    ExitCode::from(2)
}

/// A turn that finds nothing.
fn idle_turn(n: u64) {
    let mut gateway = Gateway::new(WRK, NGINX);
    gateway.connect(1);
    gateway.wait(Duration::from_millis(100));
    gateway.count();
    for _ in 0..n {
        gateway.idle(Duration::from_nanos(200));
    }
    gateway.check();
}

/// Requests on `connections` connections that stay, whose segments arrive together.
fn requests(n: u64, connections: usize) {
    let mut gateway = Gateway::new(WRK, NGINX);
    // One by one until all neighbors are known: few packets wait for one that is not.
    gateway.connect(1);
    gateway.connect(1);
    let ports = gateway.connect(connections);
    for _ in 0..8 {
        gateway.exchange(&ports);
    }
    gateway.count();
    for _ in 0..n / connections as u64 {
        gateway.exchange(&ports);
    }
    gateway.check();
}

/// Requests on one connection, routed by a header field, rewritten, and changed both ways.
fn filtered(n: u64) {
    one_connection(n, Gateway::filtered(CANARY, NGINX));
}

/// Requests on one connection, routed by a header field, rewritten, limited by the client's address, to the endpoint with fewer requests.
fn with_policies(n: u64) {
    one_connection(n, Gateway::with_policies(CANARY, NGINX));
}

fn one_connection(n: u64, mut gateway: Gateway) {
    gateway.connect(1);
    gateway.connect(1);
    let ports = gateway.connect(1);
    for _ in 0..8 {
        gateway.exchange(&ports);
    }
    gateway.count();
    for _ in 0..n {
        gateway.exchange(&ports);
    }
    gateway.check();
}

/// Connections of one request each, from SYN to TIME-WAIT and its end; their segments arrive together.
fn visits(n: u64, cookies: SynCookies) {
    const TOGETHER: usize = 16;
    let mut gateway = Gateway::with(WRK_CLOSE, NGINX, cookies);
    // One by one until all neighbors are known: few packets wait for one that is not.
    gateway.visit(1);
    gateway.visit(1);
    for _ in 0..100 {
        gateway.visit(TOGETHER);
    }
    gateway.count();
    for _ in 0..n / TOGETHER as u64 {
        gateway.visit(TOGETHER);
    }
    gateway.check();
}

/// A SYN of a flood, of which full bursts arrive: looked at, answered with a cookie, forgotten.
fn flooded(n: u64) {
    const TOGETHER: usize = 32;
    let mut gateway = Gateway::with(WRK_CLOSE, NGINX, SynCookies::Always);
    for _ in 0..16 {
        gateway.flood(TOGETHER);
    }
    gateway.count();
    for _ in 0..n / TOGETHER as u64 {
        gateway.flood(TOGETHER);
    }
    gateway.check();
}

/// A full segment of a long response, with its share of acknowledgments.
fn bulk(n: u64) {
    const TOGETHER: usize = 16;
    let mut gateway = Gateway::new(WRK, ENDLESS);
    gateway.connect(1);
    for _ in 0..16 {
        gateway.stream(TOGETHER);
    }
    gateway.count();
    for _ in 0..n / TOGETHER as u64 {
        gateway.stream(TOGETHER);
    }
    gateway.check();
}
