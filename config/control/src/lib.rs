//! The slow path: everything between a user's configuration and the tables that cores read.
//!
//! [`compile`] turns a `schema::Configuration` into a `tables::Snapshot`; [`runtime`] publishes snapshots, watches over the
//! cores and drains them; [`reload`] takes changes while they run; [`admin`] answers on the kernel's network; [`access_log`] writes what cores say about requests. The
//! binary calls it. It never touches a packet, and no core ever waits for it.
#![forbid(unsafe_code)]
// What comes from outside never panics here: files, requests, answers of DNS, what was kept on disk.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod access_log;
pub mod admin;
pub mod compile;
pub mod endpoints;
pub mod epochs;
pub mod explain;
pub mod listing;
pub mod metrics;
mod names;
pub mod reload;
pub mod runtime;
mod secret;
pub mod status;
mod supervisor;
pub mod text;

pub use compile::{Compiled, Compiler, core_settings, exception_settings};
pub use names::{Resolutions, Resolved, Service};
pub use reload::Configured;
pub use runtime::{Control, CoreSeat, Drained, Facts, Launch, PortInfo};
pub use secret::session_key;
