//! Bindings to the parts of DPDK that the `pmd` crate calls, and nothing more.
//!
//! The list of names stands in `build.rs`. Inline functions and macros of DPDK are reached through
//! `wrapper.h`, compiled as C with DPDK's own flags. No other crate may depend on this one.

#![allow(missing_docs, reason = "generated: DPDK's own documentation describes these names")]
#![allow(non_camel_case_types, non_snake_case, non_upper_case_globals, reason = "C's names are kept")]
#![allow(clippy::all, clippy::pedantic, clippy::undocumented_unsafe_blocks, reason = "generated")]
#![allow(unreachable_pub, unnecessary_transmutes, reason = "generated")]

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
