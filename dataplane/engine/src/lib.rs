//! One polling core: from received frames to sent frames, through TCP and HTTP.

#![forbid(unsafe_code)]

pub mod clock;
pub mod flow;
pub mod port;
pub mod timer;
