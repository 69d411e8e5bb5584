//! `Appliance.spec.ports[].exception`.

use std::num::NonZeroU16;
use std::sync::Arc;

use super::object::Object;
use super::scalar::{address, integer, text};
use super::{At, Decoder, quote};
use crate::resources::Exception;

/// Longest name that Linux gives an interface.
const LONGEST_NAME: usize = 15;

/// Protocols that Millrace speaks itself: ICMP, TCP, UDP and ICMPv6.
const OWN: [u8; 4] = [1, 6, 17, 58];

pub(super) fn exception(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Exception> {
    let mut object = Object::open(decoder, at)?;
    let interface = object.required(decoder, "interface", interface);
    let port = |decoder: &mut Decoder<'_>, at: At<'_>| NonZeroU16::new(integer(1..=u16::MAX)(decoder, at)?);
    let before = decoder.found.len();
    let tcp = object.list(decoder, "tcp", port);
    let udp = object.list(decoder, "udp", port);
    let protocols = object.list(decoder, "protocols", protocol);
    let addresses = object.list(decoder, "addresses", address);
    let packets_per_second = object.or(decoder, "packetsPerSecond", 10_000, integer(1..=10_000_000));
    object.close(decoder);
    let nothing = tcp.is_empty() && udp.is_empty() && protocols.is_empty() && addresses.is_empty();
    if nothing && decoder.found.len() == before {
        decoder.error(at, "lists nothing for the kernel", "at least one of tcp, udp, protocols and addresses");
    }
    Some(Exception { interface: interface?, tcp, udp, protocols, addresses, packets_per_second })
}

fn interface(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Arc<str>> {
    let name = text(decoder, at)?;
    // What the kernel refuses, and what would end an argument of a DPDK device.
    let odd = |c: char| c.is_whitespace() || c.is_control() || "/:,=%".contains(c);
    if name.is_empty() || name.len() > LONGEST_NAME || name.contains(odd) || matches!(&*name, "." | "..") {
        let problem = format!("{} is not an interface's name", quote(&name));
        decoder.error(at, problem, "1 to 15 characters such as mr-north");
        return None;
    }
    Some(name)
}

fn protocol(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<u8> {
    let number = integer(0..=u8::MAX)(decoder, at)?;
    if OWN.contains(&number) {
        let problem = format!("protocol {number} is not the kernel's as a whole");
        decoder.error(
            at,
            problem,
            "list TCP and UDP by their ports; echo replies and errors about the kernel's packets reach it anyway",
        );
        return None;
    }
    Some(number)
}
