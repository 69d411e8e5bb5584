use core::time::Duration;

use pmd::sim::{Clock, EndOptions, PathOptions, SimLane, WireOptions, receive_all, send, wire};

use super::*;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OURS: &str = "10.9.1.1";
const KERNELS: &str = "10.9.1.10";
const OURS_V6: &str = "2001:db8::1";
const KERNELS_V6: &str = "2001:db8::10";

fn rules() -> ExceptionSettings {
    ExceptionSettings {
        tcp: vec![22, 179],
        udp: vec![3784],
        protocols: vec![89],
        addresses: vec![KERNELS.parse().unwrap(), KERNELS_V6.parse().unwrap()],
        packets_per_second: 100,
    }
}

fn frame(to: [u8; 6], ethertype: [u8; 2], packet: &[u8]) -> Vec<u8> {
    [&to, &[2, 0, 0, 0, 0, 9], &ethertype[..], packet].concat()
}

/// An IP packet of either family, from 10.9.1.2 or 2001:db8::2.
fn ip(to: &str, protocol: u8, payload: &[u8]) -> (Vec<u8>, [u8; 2]) {
    match to.parse().unwrap() {
        IpAddr::V4(to) => {
            let mut packet = vec![0x45, 0, 0, 20 + payload.len() as u8, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 9, 1, 2];
            packet.extend(to.octets());
            packet.extend(payload);
            (packet, IPV4)
        }
        IpAddr::V6(to) => {
            let mut packet = vec![0x60, 0, 0, 0, 0, payload.len() as u8, protocol, 64];
            packet.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
            packet.extend(to.octets());
            packet.extend(payload);
            (packet, IPV6)
        }
    }
}

/// Whose a packet is where Millrace listens on port 80.
fn whose(to: &str, protocol: u8, payload: &[u8]) -> Claim {
    let (packet, ethertype) = ip(to, protocol, payload);
    claim(&rules(), &MAC, &frame(MAC, ethertype, &packet), &|address| address.port() == 80)
}

fn ports(remote: u16, local: u16) -> Vec<u8> {
    [&remote.to_be_bytes()[..], &local.to_be_bytes(), &[0; 16]].concat()
}

#[test]
fn ports_of_either_end_and_listeners_before_those_of_the_other() {
    use Claim::{Kernel, Millrace};
    for ours in [OURS, OURS_V6] {
        for (protocol, remote, local, expected) in [
            (TCP, 40000, 80, Millrace),
            (TCP, 40000, 179, Kernel),
            (TCP, 179, 33000, Kernel),
            (TCP, 179, 80, Millrace),
            (TCP, 40000, 81, Millrace),
            (TCP, 8080, 40000, Millrace),
            (TCP, 40000, 3784, Millrace),
            (UDP, 49152, 3784, Kernel),
            (UDP, 3784, 49152, Kernel),
            (UDP, 49152, 22, Millrace),
        ] {
            assert_eq!(whose(ours, protocol, &ports(remote, local)), expected, "{ours} {protocol} {remote} {local}");
        }
        assert_eq!(whose(ours, 89, &[]), Kernel);
        assert_eq!(whose(ours, 47, &[]), Millrace);
        assert_eq!(whose(ours, TCP, &[0, 22]), Millrace, "cut short");
    }
    for kernels in [KERNELS, KERNELS_V6] {
        for protocol in [TCP, UDP, ICMP, ICMPV6, 47] {
            assert_eq!(whose(kernels, protocol, &ports(40000, 80)), Kernel);
        }
    }
}

#[test]
fn echo_replies_and_errors_about_the_kernels_packets() {
    use Claim::{Kernel, Millrace};
    for (ours, icmp, echo_request, echo_reply, error) in [(OURS, ICMP, 8, 0, 3), (OURS_V6, ICMPV6, 128, 129, 1)] {
        assert_eq!(whose(ours, icmp, &[echo_request, 0, 0, 0]), Millrace);
        assert_eq!(whose(ours, icmp, &[echo_reply, 0, 0, 0]), Kernel);
        for (protocol, local, remote, expected) in [
            (TCP, 33000, 179, Kernel),
            (TCP, 22, 50000, Kernel),
            (TCP, 80, 50000, Millrace),
            (TCP, 40000, 8080, Millrace),
            (UDP, 49152, 3784, Kernel),
            (icmp, 0, 0, Kernel),
        ] {
            let (quoted, _) = ip(ours, protocol, &ports(local, remote));
            let message = [&[error, 0, 0, 0, 0, 0, 0, 0], &quoted[..]].concat();
            assert_eq!(whose(ours, icmp, &message), expected, "{icmp} about {protocol} {local} {remote}");
        }
    }
}

#[test]
fn neighbors_answers_are_for_both_and_questions_for_who_has_the_address() {
    let listens = |_| false;
    let arp = |operation: u8, target: &str| {
        let mut packet = vec![0, 1, 8, 0, 6, 4, 0, operation, 2, 0, 0, 0, 0, 9, 10, 9, 1, 2, 0, 0, 0, 0, 0, 0];
        packet.extend(target.parse::<Ipv4Addr>().unwrap().octets());
        let to = if operation == 1 { [0xff; 6] } else { MAC };
        claim(&rules(), &MAC, &frame(to, ARP, &packet), &listens)
    };
    assert_eq!(arp(1, OURS), Claim::Millrace);
    assert_eq!(arp(1, KERNELS), Claim::Kernel);
    assert_eq!(arp(2, OURS), Claim::Both);
    assert_eq!(arp(2, KERNELS), Claim::Kernel);
    let nd = |kind: u8, target: &str| {
        let message = [&[kind, 0, 0, 0, 0, 0, 0, 0], &target.parse::<Ipv6Addr>().unwrap().octets()[..]].concat();
        let (packet, _) = ip("ff02::1:ff00:10", ICMPV6, &message);
        claim(&rules(), &MAC, &frame([0x33, 0x33, 0xff, 0, 0, 0x10], IPV6, &packet), &listens)
    };
    assert_eq!(nd(135, OURS_V6), Claim::Millrace);
    assert_eq!(nd(135, KERNELS_V6), Claim::Kernel);
    assert_eq!(nd(136, "2001:db8::2"), Claim::Both);
    assert_eq!(nd(134, "2001:db8::2"), Claim::Both);
}

#[test]
fn groups_by_protocol_and_port_and_nothing_for_other_stations() {
    let (ospf, ethertype) = ip("224.0.0.5", 89, &[]);
    let listens = |_| false;
    assert_eq!(claim(&rules(), &MAC, &frame([1, 0, 0x5e, 0, 0, 5], ethertype, &ospf), &listens), Claim::Kernel);
    assert_eq!(claim(&rules(), &MAC, &frame([2, 9, 9, 9, 9, 9], ethertype, &ospf), &listens), Claim::Millrace);
    let (ping, ethertype) = ip("224.0.0.1", ICMP, &[8, 0]);
    assert_eq!(claim(&rules(), &MAC, &frame([1, 0, 0x5e, 0, 0, 1], ethertype, &ping), &listens), Claim::Millrace);
    // A later fragment has no ports.
    let (mut fragment, ethertype) = ip(OURS, TCP, &ports(1, 22));
    fragment[7] = 9;
    assert_eq!(claim(&rules(), &MAC, &frame(MAC, ethertype, &fragment), &listens), Claim::Millrace);
}

#[test]
fn a_vlan_tag_changes_nothing() {
    let (packet, [high, low]) = ip(OURS, TCP, &ports(40000, 22));
    let tagged = |tag: &[u8]| claim(&rules(), &MAC, &frame(MAC, VLAN, &[tag, &packet].concat()), &|_| false);
    assert_eq!(tagged(&[0, 100, high, low]), Claim::Kernel);
    assert_eq!(tagged(&[0, 100, 0x88, 0xcc]), Claim::Millrace);
}

#[test]
fn no_prefix_of_a_frame_panics() {
    let (quoted, _) = ip(OURS, TCP, &ports(22, 1));
    let (icmp, ethertype) = ip(OURS, ICMP, &[&[3, 0, 0, 0, 0, 0, 0, 0], &quoted[..]].concat());
    let (icmpv6, ethertype_v6) = ip(OURS_V6, ICMPV6, &[136; 60]);
    for frame in [frame(MAC, ethertype, &icmp), frame(MAC, ethertype_v6, &icmpv6), frame(MAC, ARP, &[0; 28])] {
        for end in 0..=frame.len() {
            claim(&rules(), &MAC, &frame[..end], &|_| false);
        }
    }
}

/// A port's lane and its far end; a TAP's lane and the kernel.
fn sides() -> (Clock, SimLane, SimLane, SimLane, SimLane) {
    let clock = Clock::new();
    let pair = || {
        let options = WireOptions::symmetric(&clock, PathOptions::default());
        wire(WireOptions { left: EndOptions::new(MAC), ..options }, 1)
    };
    let ((port, far), (tap, kernel)) = (pair(), pair());
    (clock, port, far, tap, kernel)
}

/// What is on a wire arrives.
fn arrive(clock: &Clock) {
    clock.advance_to(clock.now() + Duration::from_millis(10));
}

#[test]
fn frames_pass_as_they_are_and_at_a_bounded_rate() {
    let (clock, mut port, mut far, tap, mut kernel) = sides();
    let mut exception = Exception::new(tap, MAC, rules());
    let (counters, shown) = (CoreCounters::new(1), PortCounters::default());
    let (packet, ethertype) = ip(OURS, TCP, &ports(40000, 22));
    let theirs = frame(MAC, ethertype, &packet);
    let (packet, _) = ip(OURS, TCP, &ports(40000, 80));
    let ours = frame(MAC, ethertype, &packet);
    let now = |ms| Instant::default() + Duration::from_millis(ms);
    let mut left = 0;
    for _ in 0..50 {
        assert!(send(&mut far, &theirs) && send(&mut far, &ours));
        arrive(&clock);
        let mut burst = Burst::new();
        port.receive(&mut burst);
        for frame in burst {
            let back = exception.divert(now(0), frame, &counters, Some(&shown), |_| false);
            assert!(back.as_ref().is_none_or(|frame| frame.bytes() == ours));
            left += usize::from(back.is_some());
        }
    }
    exception.serve(now(0), &mut port, Some(&shown));
    arrive(&clock);
    assert_eq!(left, 50, "whatever is Millrace's stays");
    let got = receive_all(&mut kernel);
    assert_eq!(got.len(), 25, "a quarter of a second's worth");
    assert!(got.iter().all(|frame| *frame == theirs));
    assert_eq!(shown.exception_to_host.read(), 25);
    assert_eq!(counters.drops[Verdict::ExceptionRate as usize].read(), 25);
    // The other way, nothing is lost: what is too fast waits.
    for _ in 0..64 {
        assert!(send(&mut kernel, &theirs));
    }
    arrive(&clock);
    let mut sent = 0;
    for ms in 0..2000 {
        exception.serve(now(ms), &mut port, Some(&shown));
        port.flush();
        arrive(&clock);
        sent += receive_all(&mut far).len();
        if ms == 0 {
            assert_eq!(sent, 32, "a burst");
        }
    }
    assert_eq!((sent, shown.exception_from_host.read()), (64, 64));
}

#[test]
fn an_answer_of_a_neighbors_is_copied() {
    let (clock, mut port, mut far, tap, mut kernel) = sides();
    let mut exception = Exception::new(tap, MAC, rules());
    let counters = CoreCounters::new(1);
    let mut answer = vec![0, 1, 8, 0, 6, 4, 0, 2, 2, 0, 0, 0, 0, 9, 10, 9, 1, 2, 2, 0, 0, 0, 0, 1];
    answer.extend([10, 9, 1, 1]);
    let answer = frame(MAC, ARP, &answer);
    for _ in 0..40 {
        assert!(send(&mut far, &answer));
        arrive(&clock);
        let mut burst = Burst::new();
        port.receive(&mut burst);
        for frame in burst {
            let back = exception.divert(Instant::default(), frame, &counters, None, |_| false);
            assert!(back.is_some(), "Millrace sees each");
        }
    }
    exception.serve(Instant::default(), &mut port, None);
    arrive(&clock);
    assert_eq!(receive_all(&mut kernel).len(), 2, "the kernel as many as a tenth of its rate allows at once");
    assert_eq!(counters.drops[Verdict::ExceptionRate as usize].read(), 0);
}
