//! The Internet checksum (RFC 1071) in software, for devices that cannot do it.

/// The one's complement sum of `bytes`, taken as big-endian 16-bit words, folded to 16 bits and
/// added to `seed` (itself such a sum). Not yet inverted.
#[must_use]
pub fn sum(seed: u16, bytes: &[u8]) -> u16 {
    // Eight bytes a step with end-around carry: the sum is the same in any word size and byte order (RFC 1071 §2).
    let mut wide: u64 = 0;
    let mut carry: u64 = 0;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_ne_bytes(chunk.try_into().unwrap_or_default());
        let (next, over) = wide.overflowing_add(word);
        wide = next;
        carry += u64::from(over);
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut last = [0u8; 8];
        last[..rest.len()].copy_from_slice(rest);
        let (next, over) = wide.overflowing_add(u64::from_ne_bytes(last));
        wide = next;
        carry += u64::from(over);
    }
    let (folded, over) = wide.overflowing_add(carry);
    let folded = (folded >> 32) + (folded & 0xffff_ffff) + u64::from(over);
    let folded = (folded >> 16) + (folded & 0xffff);
    let folded = (folded >> 16) + (folded & 0xffff);
    let folded = (folded >> 16) + (folded & 0xffff);
    // Truncation is the point: the value fits 16 bits after three folds.
    add(seed, u16::from_be(folded as u16))
}

/// One's complement addition of two folded sums.
#[must_use]
pub fn add(a: u16, b: u16) -> u16 {
    let (sum, over) = a.overflowing_add(b);
    sum + u16::from(over)
}

/// The sum over the pseudo header of TCP or UDP (RFC 9293 §3.1, RFC 8200 §8.1): `addresses` is source and
/// destination as they stand in the IP header, `len` the length of L4 header and payload in bytes.
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8, len: u16) -> u16 {
    add(add(sum(0, addresses), u16::from(protocol)), len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reference(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
        while sum > 0xffff {
            sum = (sum >> 16) + (sum & 0xffff);
        }
        sum as u16
    }

    #[test]
    fn rfc_1071_example() {
        assert_eq!(sum(0, &[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), 0xddf2);
    }

    #[test]
    fn agrees_with_a_word_at_a_time_at_every_length() {
        let bytes: Vec<u8> = (0..2048u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for len in (0..100).chain([1460, 1461, 2047, 2048]) {
            assert_eq!(sum(0, &bytes[..len]), reference(&bytes[..len]), "length {len}");
        }
        assert_eq!(sum(0, &[0xff; 1500]), 0xffff);
    }

    #[test]
    fn seeds_add_up() {
        let bytes: Vec<u8> = (0..64).collect();
        assert_eq!(sum(sum(0, &bytes[..20]), &bytes[20..]), reference(&bytes));
    }
}
