//! One polling core: from received frames to sent frames, through TCP and HTTP.

#![forbid(unsafe_code)]

pub mod balance;
pub mod clock;
pub mod core;
pub mod exception;
pub mod flow;
pub mod idle;
pub mod limit;
pub mod port;
pub mod proxy;
pub mod random;
pub mod reflect;
pub mod stack;
pub mod steer;
pub mod timer;
