//! Captures: what is written can be read, a tap sees both directions, a replay says it again, and garbage is an error.

use core::time::Duration;
use pmd::sim::pcap::{Packet, PcapError, Reader, Replay, SNAP_LEN, Tap, Writer};
use pmd::sim::{WireOptions, receive_all, send, wire};
use pmd::{Frame, Lane, TxChecksum};
use proptest::prelude::*;
use std::io;

const MICROSECOND: Duration = Duration::from_micros(1);

fn written(frames: &[(Duration, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new()).unwrap();
    for (at, frame) in frames {
        writer.write(*at, frame).unwrap();
    }
    writer.finish().unwrap()
}

fn read(file: &[u8]) -> Result<Vec<Packet>, PcapError> {
    Reader::new(file)?.collect()
}

/// A file with one frame, its numbers in the wanted byte order.
fn foreign(big_endian: bool, magic: u32, fraction: u32, len: u32, frame: &[u8]) -> Vec<u8> {
    let order = |value: u32| if big_endian { value.to_be_bytes() } else { value.to_le_bytes() };
    let mut file = order(magic).to_vec();
    file.extend(if big_endian { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
    for value in [0, 0, 65535, 1, 7, fraction, len, frame.len() as u32] {
        file.extend(order(value));
    }
    file.extend(frame);
    file
}

#[test]
fn the_file_is_laid_out_as_the_format_says() {
    let file = written(&[(Duration::new(1, 2), vec![0xab; 3])]);
    let mut wanted = vec![0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 0, 1, 0, 0, 0];
    wanted.extend([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0xab, 0xab, 0xab]);
    assert_eq!(file, wanted);
}

#[test]
fn both_units_in_both_byte_orders_are_read() {
    for big_endian in [false, true] {
        for (magic, nanos) in [(0xa1b2_c3d4, 5000), (0xa1b2_3c4d, 5)] {
            let packets = read(&foreign(big_endian, magic, 5, 4, b"abcd")).unwrap();
            let wanted = Packet { at: Duration::new(7, nanos), bytes: b"abcd".to_vec(), original_len: 4 };
            assert_eq!(packets, [wanted]);
        }
    }
}

#[test]
fn long_frames_are_cut_and_say_so() {
    let file = written(&[(MICROSECOND, vec![1; SNAP_LEN + 5])]);
    let packets = read(&file).unwrap();
    assert_eq!((packets[0].bytes.len(), packets[0].original_len as usize), (SNAP_LEN, SNAP_LEN + 5));
}

#[test]
fn bad_files_are_named_for_what_is_wrong() {
    assert!(matches!(read(b""), Err(PcapError::Truncated)));
    assert!(matches!(read(&[0x0a; 24]), Err(PcapError::Magic(0x0a0a_0a0a))));
    let good = foreign(false, 0xa1b2_c3d4, 5, 4, b"abcd");
    for cut in (1..good.len()).filter(|cut| *cut != 24) {
        assert!(matches!(read(&good[..cut]), Err(PcapError::Truncated)), "cut at {cut}");
    }
    assert_eq!(read(&good[..24]).unwrap(), []);
    let changed = |at: usize, value: u8| {
        let mut file = good.clone();
        file[at] = value;
        read(&file).unwrap_err()
    };
    assert!(matches!(changed(4, 3), PcapError::Version { major: 3, minor: 4 }));
    assert!(matches!(changed(20, 113), PcapError::LinkType(113)));
    assert!(matches!(changed(35, 0xff), PcapError::TooLong(0xff00_0004)));
    assert!(matches!(read(&foreign(true, 0xa1b2_c3d4, 1_000_000, 4, b"abcd")), Err(PcapError::Time(1_000_000))));
    let late = Writer::new(Vec::new()).unwrap().write(Duration::from_secs(1 << 32), b"").unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::InvalidInput);
}

#[test]
fn reading_ends_after_the_first_error() {
    let mut file = foreign(false, 0xa1b2_c3d4, 2_000_000, 4, b"abcd");
    file.extend_from_within(24..);
    let mut reader = Reader::new(&file[..]).unwrap();
    assert!(reader.next().unwrap().is_err());
    assert!(reader.next().is_none());
}

#[test]
fn a_tap_writes_both_directions_with_finished_checksums() {
    let (left, mut right) = wire(WireOptions::default(), 1);
    let clock = left.clock().clone();
    let time = clock.clone();
    let mut tap = Tap::new(left, Vec::new(), move || time.now()).unwrap();
    let mut packet = vec![0u8; 14];
    packet.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 9, 1, 1, 10, 9, 2, 2]);
    packet.extend([0x1f, 0x90, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 1, 0, 0, 0, 0, 0]);
    let mut frame = tap.allocate().unwrap();
    assert!(frame.set_len(packet.len()));
    frame.bytes_mut().copy_from_slice(&packet);
    tap.transmit(frame, TxChecksum::Tcp { l2_len: 14, l3_len: 20 });
    tap.flush();
    clock.advance(MICROSECOND * 10);
    let at_peer = receive_all(&mut right);
    assert!(send(&mut right, b"answer"));
    clock.advance(MICROSECOND * 10);
    assert_eq!(receive_all(&mut tap), [b"answer"]);
    assert_eq!((tap.lane().frames_in_use(), tap.mac(), tap.mtu(), tap.link().up), (0, [2, 0, 0, 0, 0, 1], 1500, true));
    assert_eq!(tap.counters(), tap.lane_mut().counters());

    let (_, file) = tap.finish().unwrap();
    let packets = read(&file).unwrap();
    let seen: Vec<_> = packets.into_iter().map(|packet| (packet.at, packet.bytes)).collect();
    assert_eq!(seen, [(Duration::ZERO, at_peer[0].clone()), (MICROSECOND * 20, b"answer".to_vec())]);
    assert_ne!(at_peer[0], packet, "the checksums are filled");
}

#[test]
fn a_tap_outlives_a_full_disk_and_reports_it() {
    let (left, mut right) = wire(WireOptions::default(), 1);
    let clock = left.clock().clone();
    let mut disk = [0u8; 50];
    let mut tap = Tap::new(left, &mut disk[..], || Duration::ZERO).unwrap();
    for _ in 0..5 {
        assert!(send(&mut tap, b"sent all the same"));
    }
    clock.advance(MICROSECOND * 10);
    assert_eq!(receive_all(&mut right).len(), 5);
    assert_eq!(tap.finish().unwrap_err().kind(), io::ErrorKind::WriteZero);
}

#[test]
fn a_replay_keeps_the_times_and_one_side() {
    let to = |last: u8, body: u8| vec![2, 0, 0, 0, 0, last, body];
    let epoch = Duration::from_secs(1_700_000_000);
    let file = written(&[
        (epoch, to(1, b'x')),
        (epoch + MICROSECOND * 5, to(2, b'a')),
        (epoch + MICROSECOND * 3, to(2, b'b')),
        (epoch + MICROSECOND * 7, vec![0xff; 7]),
        (epoch + MICROSECOND * 9, to(1, b'y')),
    ]);
    let (mut left, mut right) = wire(WireOptions::default(), 1);
    let clock = left.clock().clone();
    let start = MICROSECOND * 100;
    let mac = right.mac();
    let mut replay = Replay::new(Reader::new(&file[..]).unwrap(), start, Some(mac)).unwrap();
    let mut arrived = Vec::new();
    while let Some(next) = replay.next_at().into_iter().chain(right.next_arrival()).min() {
        clock.advance_to(next);
        replay.feed(&mut left, clock.now()).unwrap();
        arrived.extend(receive_all(&mut right).into_iter().map(|frame| (clock.now() - start, frame)));
    }
    let wanted = [(15, to(2, b'a')), (15, to(2, b'b')), (17, vec![0xff; 7])];
    assert_eq!(arrived, wanted.map(|(micros, frame)| (MICROSECOND * micros, frame)));
    assert_eq!((replay.fed(), replay.refused()), (3, 0));
}

#[test]
fn a_replay_refuses_cut_frames_and_ends_at_a_broken_record() {
    let mut file = foreign(false, 0xa1b2_c3d4, 0, 4, b"abcd");
    let cut_frame = foreign(false, 0xa1b2_c3d4, 0, 3, b"abcd");
    file.extend(&cut_frame[24..cut_frame.len() - 1]);
    file.extend([0; 7]);
    let (mut left, _right) = wire(WireOptions::default(), 1);
    let mut replay = Replay::new(Reader::new(&file[..]).unwrap(), Duration::ZERO, None).unwrap();
    assert!(matches!(replay.feed(&mut left, Duration::ZERO), Err(PcapError::Truncated)));
    assert_eq!((replay.fed(), replay.refused(), replay.next_at()), (1, 1, None));
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        frames in prop::collection::vec((any::<u32>(), 0..1_000_000_000u32, prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) {
        let frames: Vec<_> = frames.into_iter().map(|(s, n, frame)| (Duration::new(s.into(), n), frame)).collect();
        let packets = read(&written(&frames)).unwrap();
        let back: Vec<_> = packets.into_iter().map(|packet| (packet.at, packet.bytes)).collect();
        prop_assert_eq!(back, frames);
    }

    #[test]
    fn garbage_never_panics(mut file in prop::collection::vec(any::<u8>(), 0..300), plausible: bool) {
        if plausible && file.len() >= 24 {
            let header = written(&[]);
            file[..24].copy_from_slice(&header);
        }
        let _ = read(&file);
    }

    /// One byte changed anywhere: other content or an error, never more bytes than the file has.
    #[test]
    fn a_changed_byte_never_panics(at in 0..200usize, value: u8) {
        let mut file = written(&[(MICROSECOND, vec![1; 60]), (MICROSECOND * 2, vec![2; 60])]);
        let at = at % file.len();
        file[at] = value;
        if let Ok(packets) = read(&file) {
            prop_assert!(packets.iter().map(|packet| packet.bytes.len()).sum::<usize>() <= file.len());
        }
    }
}
