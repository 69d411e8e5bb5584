//! Frames without TCP: what a wire can carry.
//!
//! One process runs `raw` and sends, another runs `reflect` at the other end and sends back.

use std::time::Instant;

use pmd::{BURST, Burst, DpdkLane, Frame, Lane, TxChecksum};

use crate::cli::Arguments;
use crate::wires::Wire;

/// EtherType for local experiments (IEEE 802): no kernel answers it.
const ETHER_TYPE: [u8; 2] = [0x88, 0xb5];

/// Frames under way at most: half of a ring.
const UNDER_WAY: u64 = 512;

/// Nanoseconds without a frame after which those under way are lost.
const SILENCE: u64 = 100_000_000;

/// Sends numbered frames and counts what comes back, right or wrong.
pub(crate) fn send(arguments: &Arguments, wire: Wire) -> Result<bool, String> {
    let Wire { port: _port, mut lane } = wire;
    if !(60..=1514).contains(&arguments.frame) {
        return Err("a frame has 60 to 1514 bytes".to_owned());
    }
    let clock = Instant::now();
    let (from, to) = (nanoseconds(arguments.warm_up), nanoseconds(arguments.warm_up + arguments.duration));
    let mut burst = Burst::new();
    let (mut sent, mut back, mut lost, mut wrong, mut measured) = (0u64, 0u64, 0u64, 0u64, 0u64);
    let mut heard = 0;
    loop {
        let now = u64::try_from(clock.elapsed().as_nanos()).unwrap_or(u64::MAX);
        if now >= to {
            break;
        }
        lane.receive(&mut burst);
        for frame in burst.drain(..) {
            heard = now;
            match number(&frame, arguments.frame) {
                Some(number) if number < sent => back += 1,
                _ => wrong += 1,
            }
            measured += u64::from(now >= from);
        }
        if now - heard > SILENCE {
            lost += sent - back - lost;
            heard = now;
        }
        if sent - back - lost + BURST as u64 <= UNDER_WAY {
            for _ in 0..BURST {
                let Some(mut frame) = lane.allocate() else { break };
                if !frame.set_len(arguments.frame) {
                    return Err(format!("no frame holds {} bytes", arguments.frame));
                }
                let mac = lane.mac();
                let bytes = frame.bytes_mut();
                bytes.fill(0x5a);
                bytes[..6].fill(0xff);
                bytes[6..12].copy_from_slice(&mac);
                bytes[12..14].copy_from_slice(&ETHER_TYPE);
                bytes[14..22].copy_from_slice(&sent.to_be_bytes());
                lane.transmit(frame, TxChecksum::Complete);
                sent += 1;
            }
        }
        lane.flush();
    }
    let rate = measured as f64 / arguments.duration;
    let counters = lane.counters();
    let json = serde_json::json!({
        "workload": "raw", "frame_bytes": arguments.frame, "seconds": arguments.duration, "sent": sent, "returned": back,
        "lost": lost, "wrong": wrong, "packets_per_second": rate, "tx_full": counters.tx_full,
    });
    match arguments.json.as_deref() {
        Some("-") => println!("{json:#}"),
        file => {
            println!("raw: {rate:.0} frames/s of {} bytes each way, {lost} lost, {wrong} wrong", arguments.frame);
            if let Some(file) = file {
                std::fs::write(file, format!("{json:#}")).map_err(|error| format!("{file}: {error}"))?;
            }
        }
    }
    Ok(wrong == 0)
}

/// Sends everything back, for as long as a measurement takes.
pub(crate) fn reflect(arguments: &Arguments, north: Wire, south: Option<Wire>) -> Result<bool, String> {
    let clock = Instant::now();
    let seconds = arguments.warm_up + arguments.duration;
    let mut wires: Vec<Wire> = std::iter::once(north).chain(south).collect();
    let mut burst = Burst::new();
    while clock.elapsed().as_secs_f64() < seconds {
        // The clock is read seldom, so that it costs nothing.
        for _ in 0..1024 {
            for wire in &mut wires {
                turn_round(&mut wire.lane, &mut burst);
            }
        }
    }
    for wire in &wires {
        println!("reflect: {}: {} frames", wire.port.name(), wire.lane.counters().tx_packets);
    }
    Ok(true)
}

/// Sends everything out of the other port. Ends with its process.
pub(crate) fn forward(north: Wire, south: Option<Wire>) -> Result<bool, String> {
    let (mut north, mut south) = (north, south.ok_or("forward needs --south, too")?);
    let mut burst = Burst::new();
    println!("forward: ready");
    loop {
        for _ in 0..1 << 16 {
            pass_on(&mut north.lane, &mut south.lane, &mut burst);
            pass_on(&mut south.lane, &mut north.lane, &mut burst);
        }
        // net_virtio_user takes back a peer that was gone when somebody looks at the link.
        let _ = (north.lane.link(), south.lane.link());
    }
}

fn pass_on(from: &mut DpdkLane, to: &mut DpdkLane, burst: &mut Burst<<DpdkLane as Lane>::Frame>) {
    from.receive(burst);
    for frame in burst.drain(..) {
        to.transmit(frame, TxChecksum::Complete);
    }
    to.flush();
}

fn turn_round(lane: &mut DpdkLane, burst: &mut Burst<<DpdkLane as Lane>::Frame>) {
    lane.receive(burst);
    let own = lane.mac();
    for mut frame in burst.drain(..) {
        if let Some((destination, rest)) = frame.bytes_mut().split_first_chunk_mut::<6>()
            && let Some(source) = rest.first_chunk_mut::<6>()
        {
            *destination = *source;
            *source = own;
        }
        lane.transmit(frame, TxChecksum::Complete);
    }
    lane.flush();
}

fn number(frame: &impl Frame, len: usize) -> Option<u64> {
    let bytes = frame.bytes();
    let header = bytes.first_chunk::<22>().filter(|header| header[12..14] == ETHER_TYPE && bytes.len() == len)?;
    header.last_chunk::<8>().map(|number| u64::from_be_bytes(*number))
}

fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}
