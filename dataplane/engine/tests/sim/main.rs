//! The engine in virtual time: scripted segments against it, and both ends Millrace's over lossy wires.
//!
//! Every run follows from seeds, which failing tests print (`MILLRACE_SIM_SEED=…` replays one); with `MILLRACE_SIM_PCAP=directory` what
//! passes the gateway's ports is written there.

#![allow(unreachable_pub, reason = "a test crate: `pub` means for the other modules")]

#[path = "../support/mod.rs"]
mod support;

mod attack;
mod balancing;
mod chaos;
mod close;
mod cores;
mod data;
mod end_to_end;
mod failures;
mod filters;
mod flood;
mod handshake;
mod http;
mod inspect;
mod ipv6;
mod limits;
mod live;
mod tcp;
