//! The exception path: whatever arrives stays Millrace's as it came, goes to the kernel as it came, or both, or is dropped and counted; and no buffer
//! stays behind.
#![no_main]

use core::time::Duration;
use std::net::SocketAddr;

use engine::clock::Instant;
use engine::exception::Exception;
use libfuzzer_sys::fuzz_target;
use pmd::sim::{Clock, EndOptions, PathOptions, WireOptions, receive_all, send, wire};
use pmd::{Burst, Frame, Lane};
use tables::counters::PortCounters;
use tables::{CoreCounters, ExceptionSettings, Verdict};

/// Frames taken from one input.
const FRAMES: usize = 16;

/// Less than there are frames, so that the limit is met, too.
const RATE: u32 = 40;

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn rules() -> ExceptionSettings {
    ExceptionSettings {
        tcp: vec![22, 179],
        udp: vec![3784],
        protocols: vec![89],
        addresses: vec!["10.9.1.10".parse().unwrap(), "2001:db8::10".parse().unwrap()],
        packets_per_second: RATE,
    }
}

// Each frame: its length in two bytes, and the frame.
fuzz_target!(|data: &[u8]| {
    let clock = Clock::new();
    let pair = || {
        let options = WireOptions::symmetric(&clock, PathOptions::default());
        wire(WireOptions { left: EndOptions::new(MAC), ..options }, 1)
    };
    let ((mut port, mut far), (tap, mut kernel)) = (pair(), pair());
    let mut exception = Exception::new(tap, MAC, rules());
    let (counters, shown) = (CoreCounters::new(1), PortCounters::default());
    let listens = |address: SocketAddr| address.port() == 80;
    let (mut rest, mut sent, mut kept) = (data, Vec::new(), 0);
    while let ([high, low, more @ ..], true) = (rest, sent.len() < FRAMES) {
        let len = usize::from(u16::from_be_bytes([*high, *low])).min(more.len()).min(1514);
        let (frame, behind) = more.split_at(len);
        rest = behind;
        if frame.is_empty() || !send(&mut far, frame) {
            continue;
        }
        sent.push(frame.to_vec());
        clock.advance_to(clock.now() + Duration::from_millis(10));
        let mut burst = Burst::new();
        port.receive(&mut burst);
        for frame in burst {
            let now = Instant::default() + clock.now();
            if let Some(frame) = exception.divert(now, frame, &counters, Some(&shown), listens) {
                assert_eq!(Some(frame.bytes()), sent.last().map(Vec::as_slice));
                kept += 1;
            }
        }
        exception.serve(Instant::default() + clock.now(), &mut port, Some(&shown));
    }
    clock.advance_to(clock.now() + Duration::from_millis(10));
    let got = receive_all(&mut kernel);
    assert!(got.iter().all(|frame| sent.contains(frame)));
    let (to_host, dropped) = (shown.exception_to_host.read(), counters.drops[Verdict::ExceptionRate as usize].read());
    assert_eq!(kept + to_host + dropped, sent.len() as u64);
    assert!((to_host..=to_host + kept).contains(&(got.len() as u64)), "copies are of what is kept");
    drop(got);
    let (tap, _) = exception.into_parts();
    assert_eq!((port.frames_in_use(), tap.frames_in_use()), (0, 0));
});
