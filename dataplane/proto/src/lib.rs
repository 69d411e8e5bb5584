//! Protocols above TCP, sans-IO: bytes in, values out.
//!
//! Called by `engine::conn` and `engine::proxy`. Nothing here reads a clock, does I/O, keeps a connection or allocates
//! in steady state; encoders append to a buffer of the caller's.

#![forbid(unsafe_code)]

pub mod grpc_health;
pub mod http1;
