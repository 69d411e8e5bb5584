//! A NIC's segmentation offload, in software. Called by the wire where an end is told to have one.

use std::ops::Range;

/// Cuts the TCP packet that begins `l2_len` bytes into `frame`, after an IP header of `l3_len` bytes, into segments of `mss` bytes of
/// payload, and hands each to `send`, checksums not filled. `false`, and nothing is sent, where the frame is no whole TCP packet.
///
/// Headers repeat but for the lengths, the IPv4 identification and the sequence number; FIN and PSH stand in the last segment only, CWR in the
/// first only (RFC 3168 §6.1.2).
pub(super) fn cut(frame: &[u8], l2_len: usize, l3_len: usize, mss: u16, mut send: impl FnMut(&[&[u8]; 2])) -> bool {
    let l4_at = l2_len + l3_len;
    let Some(tcp) = frame.get(l4_at..) else { return false };
    let Some(&offset) = tcp.get(12) else { return false };
    let payload_at = l4_at + usize::from(offset >> 4) * 4;
    let (Some(headers), Some(payload)) = (frame.get(..payload_at), frame.get(payload_at..)) else { return false };
    let (true, Some(&version)) = (payload_at >= l4_at + 20 && mss > 0, headers.get(l2_len)) else { return false };
    let pieces = payload.len().div_ceil(usize::from(mss)).max(1);
    for (number, piece) in payload.chunks(usize::from(mss)).enumerate() {
        let mut headers = headers.to_vec();
        // An IP packet that a frame holds has at most 65,535 bytes.
        let stated = (payload_at - l2_len + piece.len()) as u16;
        if version >> 4 == 4 {
            put(&mut headers, l2_len + 2..l2_len + 4, stated);
            add(&mut headers, l2_len + 4..l2_len + 6, number as u32);
        } else {
            put(&mut headers, l2_len + 4..l2_len + 6, stated - 40);
        }
        add(&mut headers, l4_at + 4..l4_at + 8, number as u32 * u32::from(mss));
        let (first, last) = (number == 0, number + 1 == pieces);
        if let Some(flags) = headers.get_mut(l4_at + 13) {
            *flags &= if last { 0xff } else { !(FIN | PSH) } & if first { 0xff } else { !CWR };
        }
        send(&[&headers, piece]);
    }
    true
}

const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

fn put(bytes: &mut [u8], at: Range<usize>, value: u16) {
    if let Some(field) = bytes.get_mut(at) {
        field.copy_from_slice(&value.to_be_bytes());
    }
}

/// Adds to a big-endian number of two or four bytes, and wraps.
fn add(bytes: &mut [u8], at: Range<usize>, value: u32) {
    let Some(field) = bytes.get_mut(at) else { return };
    let before = field.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    let after = before.wrapping_add(value).to_be_bytes();
    let from = after.len() - field.len();
    field.copy_from_slice(&after[from..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(ipv6: bool, payload: usize) -> Vec<u8> {
        let mut frame = vec![0; 14];
        if ipv6 {
            frame.extend([0x60, 0, 0, 0, 0, 0, 6, 64]);
            frame.extend([7; 32]);
        } else {
            frame.extend([0x45, 0, 0, 0, 0xff, 0xff, 0x40, 0, 64, 6, 0, 0]);
            frame.extend([7; 8]);
        }
        frame.extend([0, 80, 1, 2, 0xff, 0xff, 0xff, 0xf0, 5, 6, 7, 8, 0x50, 0x99, 1, 1, 0, 0, 0, 0]);
        frame.extend((0..payload).map(|at| (at % 251) as u8));
        frame
    }

    #[test]
    fn segments_carry_everything_once_and_their_own_numbers() {
        for (ipv6, l3_len) in [(false, 20), (true, 40)] {
            let whole = frame(ipv6, 2500);
            let l4_at = 14 + l3_len;
            let mut sent = Vec::new();
            assert!(cut(&whole, 14, l3_len, 1000, |[headers, piece]| sent.push([*headers, *piece].concat())));
            let payload: Vec<u8> = sent.iter().flat_map(|frame| frame[l4_at + 20..].to_vec()).collect();
            assert_eq!(payload, whole[l4_at + 20..]);
            let seqs: Vec<&[u8]> = sent.iter().map(|frame| &frame[l4_at + 4..l4_at + 8]).collect();
            assert_eq!(seqs, [&[0xff, 0xff, 0xff, 0xf0], &[0, 0, 3, 0xd8], &[0, 0, 7, 0xc0]], "sequence numbers wrap");
            let flags: Vec<u8> = sent.iter().map(|frame| frame[l4_at + 13]).collect();
            assert_eq!(flags, [0x90, 0x10, 0x19], "CWR first, FIN and PSH last");
            for frame in &sent {
                let at = if ipv6 { 18 } else { 16 };
                let stated = usize::from(u16::from_be_bytes([frame[at], frame[at + 1]]));
                assert_eq!(stated, frame.len() - if ipv6 { 54 } else { 14 });
            }
            if !ipv6 {
                let ids: Vec<&[u8]> = sent.iter().map(|frame| &frame[18..20]).collect();
                assert_eq!(ids, [&[0xff, 0xff], &[0, 0], &[0, 1]]);
            }
        }
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let whole = frame(false, 100);
        for len in 0..54 {
            assert!(!cut(&whole[..len], 14, 20, 10, |_| panic!("{len}")));
        }
        assert!(!cut(&whole, 14, 20, 0, |_| panic!("no size")));
    }
}
