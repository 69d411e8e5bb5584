//! Ports without the kernel.
//!
//! This crate owns every raw pointer and every `rte_*` call of Millrace. What it hands out is safe: a
//! [`Lane`] is one core's rx and tx queue on one port, a [`Frame`] is one owned buffer. Two things
//! implement them: DPDK's ports, and [`sim`], a wire in virtual time for tests and replays.
//!
//! The polling core calls it; it never parses above Ethernet except to finish checksums, and it never
//! decides anything about a packet.

pub mod checksum;
pub mod eal;
pub mod error;
pub mod lane;
pub mod mbuf;
pub mod mempool;
pub mod offload;
pub mod port;
mod prefetch;
pub mod queue;
pub mod sim;
pub mod sleep;

pub use eal::{Eal, EalOptions, Hugepages, MemoryMode, RegisteredThread, dpdk_version};
pub use error::{EalError, PortError};
pub use lane::{
    BURST, Burst, Frame, LARGE_FRAME, Lane, LaneCounters, Link, PortSet, RESERVE, RxChecksum, Steering, TxChecksum, Way,
};
pub use mbuf::Mbuf;
pub use mempool::Mempool;
pub use offload::Offloads;
pub use port::{Capabilities, Port, PortOptions, PortStatistics, Spreading};
pub use prefetch::{prefetch, prefetch_whole};
pub use queue::DpdkLane;
pub use sleep::{Sleeper, Waker, WokenBy};
