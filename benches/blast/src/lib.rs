#![forbid(unsafe_code)]
//! A load generator that drives a kernel-bypass gateway over DPDK: thousands of clients and the backends, on one core.
//!
//! [`segment`] reads and writes frames, [`endpoint`] is one host with its TCP, [`message`] what is sent over it and how it is
//! checked, [`client`] and [`server`] the two halves of the load.

pub mod client;
pub mod endpoint;
pub mod message;
pub mod segment;
pub mod server;

pub use client::{Client, ClientOptions, Wrong};
pub use endpoint::{Endpoint, HostOptions};
pub use message::Message;
pub use server::Server;
