//! What the end-to-end tests share: a sandbox of network namespaces with a running Millrace, clients and backends
//! whose every byte a test decides, and hand-made packets.
//!
//! Each file of tests compiles this module for itself and uses a part of it.
#![allow(dead_code, unreachable_pub)]

pub mod backend;
pub mod client;
pub mod gateway;
pub mod load;
pub mod machine;
pub mod packets;
pub mod sandbox;
pub mod wire;
pub mod wrk;

use std::time::{Duration, Instant};

/// Skips a test that needs namespaces where the process is not root, and says so. Otherwise makes the sandbox.
#[macro_export]
macro_rules! sandbox_or_skip {
    () => {
        match $crate::support::sandbox::Sandbox::new() {
            Some(sandbox) => sandbox,
            None => {
                eprintln!("\n*** NOT RUN: {} needs root (network namespaces) ***\n", module_path!());
                return;
            }
        }
    };
}

/// Asks until `condition` holds; panics with `what` when it has not within `limit`.
pub fn wait_for(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// `len` bytes that repeat nowhere near: what arrives elsewhere or twice is seen.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
