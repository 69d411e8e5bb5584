//! SYN cookies (RFC 4987 §3.6): a handshake without memory.
//!
//! The sequence number of a SYN-ACK says all that has to be remembered of the SYN, and that we said it. Its upper 24 bits
//! are a keyed hash of the connection, the peer's sequence number and the lower eight; these say the peer's MSS, window scale and SACK-permitted,
//! rounded down to what fits, and which of two secrets made it. That is FreeBSD's layout (`tcp_syncache.c`): unlike Linux's it needs no
//! timestamps to keep the window scale, and smoltcp sends none.
//!
//! A secret makes cookies for 32 s and is believed for as long again, so that a cookie is good for 32 to 64 s. Guessing one takes 2^23 ACKs
//! on average, and only while cookies are out. Who records a handshake's last ACK can open that connection once more within its time.

use core::hash::{Hash, Hasher};
use core::time::Duration;

use siphasher::sip::SipHasher13;

use crate::clock::Instant;
use crate::flow::FlowKey;
use crate::port::{LARGEST_WINDOW_SCALE, Options};
use crate::random::Random;

/// How long a secret makes cookies.
const PERIOD: Duration = Duration::from_secs(32);

/// The largest segment sizes that a cookie can say, in bytes: the least that configuration allows, the default, and what is left of
/// the MTUs 1,280, 1,400, 1,460 (IPv6 over 1,500), 1,500 and 9,000 below the usual tunnels. A peer's own is rounded down.
const SEGMENT_SIZES: [u16; 8] = [64, 536, 1200, 1360, 1400, 1440, 1460, 8940];

/// The window scales that a cookie can say. A peer's own is rounded down, so that its window never seems larger than it is.
const WINDOW_SCALES: [Option<u8>; 8] = [None, Some(0), Some(2), Some(4), Some(6), Some(7), Some(8), Some(10)];

/// What a SYN asks for, as far as a cookie can say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    /// The peer's largest segment, in bytes.
    pub mss: u16,
    /// The peer's window scale.
    pub window_scale: Option<u8>,
    /// Selective acknowledgments may be sent.
    pub sack_permitted: bool,
}

impl Offer {
    /// What the options of a SYN ask for. `default_mss` stands where they say none.
    #[must_use]
    pub(super) fn new(options: &Options, default_mss: u16, least_mss: u16) -> Self {
        Self {
            mss: options.mss.unwrap_or(default_mss).max(least_mss),
            window_scale: options.window_scale.map(|scale| scale.min(LARGEST_WINDOW_SCALE)),
            sack_permitted: options.sack_permitted,
        }
    }

    /// Seven bits, rounded down.
    fn pack(self) -> u8 {
        let mss = SEGMENT_SIZES.partition_point(|&size| size <= self.mss).saturating_sub(1);
        let scale = WINDOW_SCALES.partition_point(|&scale| scale <= self.window_scale).saturating_sub(1);
        // Both are below eight.
        (mss as u8) << 5 | (scale as u8) << 2 | u8::from(self.sack_permitted) << 1
    }

    fn unpack(bits: u8) -> Self {
        let (mss, scale) = (usize::from(bits >> 5), usize::from(bits >> 2 & 7));
        Self { mss: SEGMENT_SIZES[mss % 8], window_scale: WINDOW_SCALES[scale % 8], sack_permitted: bits & 2 != 0 }
    }
}

/// Makes cookies and knows its own.
#[derive(Debug)]
pub(super) struct Cookies {
    /// The secret of this period and that of the last one, by the period's parity.
    secrets: [SipHasher13; 2],
    period: u64,
    random: Random,
    /// Until when a cookie may come back. Nothing is looked at after that: no cookie can be guessed while none is out.
    good_until: Instant,
}

impl Cookies {
    /// Cookies under secrets that `random` draws.
    #[must_use]
    pub(super) fn new(mut random: Random) -> Self {
        let secrets = [secret(&mut random), secret(&mut random)];
        Self { secrets, period: 0, random, good_until: Instant::default() }
    }

    /// The sequence number for the SYN-ACK to a SYN of `key` at `peer_isn`.
    pub(super) fn make(&mut self, now: Instant, key: &FlowKey, peer_isn: u32, offer: Offer) -> u32 {
        self.rotate(now);
        self.good_until = now + PERIOD * 2;
        let parity = (self.period & 1) as u8;
        let bits = offer.pack() | parity;
        let mac = self.mac(key, peer_isn, bits);
        // The lower bits are veiled by the upper ones: nobody has to see from outside what they say.
        mac | u32::from(bits ^ (mac >> 24) as u8)
    }

    /// What the SYN of `key` at `peer_isn` asked for, if `cookie` was the answer to it and is still good.
    pub(super) fn open(&mut self, now: Instant, key: &FlowKey, peer_isn: u32, cookie: u32) -> Option<Offer> {
        if now >= self.good_until {
            return None;
        }
        self.rotate(now);
        let bits = (cookie ^ (cookie >> 24)) as u8;
        (self.mac(key, peer_isn, bits) == cookie & !0xff).then(|| Offer::unpack(bits))
    }

    /// 24 bits in the upper end, under the secret that `bits` names.
    fn mac(&self, key: &FlowKey, peer_isn: u32, bits: u8) -> u32 {
        let mut hasher = self.secrets[usize::from(bits & 1)];
        key.hash(&mut hasher);
        hasher.write_u32(peer_isn);
        hasher.write_u8(bits);
        (hasher.finish() >> 32) as u32 & !0xff
    }

    /// Replaces the secrets whose time is over.
    fn rotate(&mut self, now: Instant) {
        let period = now.0 / PERIOD.as_nanos() as u64;
        if period <= self.period {
            return;
        }
        // After two periods both are old.
        if period > self.period + 1 {
            self.secrets[(self.period & 1) as usize] = secret(&mut self.random);
        }
        self.secrets[((self.period + 1) & 1) as usize] = secret(&mut self.random);
        self.period = period;
    }
}

fn secret(random: &mut Random) -> SipHasher13 {
    SipHasher13::new_with_keys(random.next_u64(), random.next_u64())
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    const OFFER: Offer = Offer { mss: 1460, window_scale: Some(7), sack_permitted: true };

    fn cookies() -> Cookies {
        Cookies::new(Random::new(5).behind_a_hash())
    }

    fn at(seconds: u64) -> Instant {
        Instant::default() + Duration::from_secs(seconds)
    }

    fn key(port: u16) -> FlowKey {
        let remote = SocketAddr::new("10.0.0.2".parse().unwrap(), port);
        FlowKey::new("10.0.0.1:80".parse().unwrap(), remote)
    }

    #[test]
    fn what_common_stacks_ask_for_survives() {
        for (mss, scale) in [(1460, 7), (1440, 8), (1400, 6), (1200, 2), (8940, 10), (536, 0)] {
            let offer = Offer { mss, window_scale: Some(scale), sack_permitted: true };
            assert_eq!(Offer::unpack(offer.pack()), offer);
        }
        let none = Offer::new(&Options::default(), 536, 64);
        assert_eq!(Offer::unpack(none.pack()), Offer { mss: 536, window_scale: None, sack_permitted: false });
        let odd = Options { mss: Some(0), window_scale: Some(255), ..Options::default() };
        let odd = Offer::unpack(Offer::new(&odd, 536, 64).pack());
        assert_eq!((odd.mss, odd.window_scale), (64, Some(10)));
    }

    #[test]
    fn a_cookie_is_good_for_32_to_64_seconds() {
        let mut cookies = cookies();
        for made in [0, 1, 31, 32, 100, 127] {
            let cookie = cookies.make(at(made), &key(1), 7, OFFER);
            let end = (made / 32 + 2) * 32;
            for good in [made, made + 31, end - 1] {
                assert_eq!(cookies.open(at(good), &key(1), 7, cookie), Some(OFFER), "made at {made}, back at {good}");
            }
            // Others are made in the meantime, so that it is the secret that is gone.
            cookies.make(at(end), &key(2), 7, OFFER);
            assert_eq!(cookies.open(at(end), &key(1), 7, cookie), None, "made at {made}, back at {end}");
            cookies = self::cookies();
        }
    }

    #[test]
    fn an_old_cookie_stays_bad_after_rotations() {
        let mut cookies = cookies();
        let cookie = cookies.make(at(5), &key(1), 7, OFFER);
        for later in (64..3200).step_by(8) {
            cookies.make(at(later), &key(2), 7, OFFER);
            assert_eq!(cookies.open(at(later), &key(1), 7, cookie), None, "{later}");
        }
    }

    #[test]
    fn nothing_is_good_while_no_cookie_is_out() {
        let mut cookies = cookies();
        let twin = self::cookies().make(at(1), &key(1), 7, OFFER);
        assert_eq!(cookies.open(at(1), &key(1), 7, twin), None);
        cookies.make(at(1), &key(9), 7, OFFER);
        assert_eq!(cookies.open(at(1), &key(1), 7, twin), Some(OFFER), "the twin has the same secrets");
        assert_eq!(cookies.open(at(66), &key(1), 7, twin), None);
    }

    /// 2^-24 a guess: of a hundred thousand, none or one.
    #[test]
    fn guesses_fail() {
        let mut cookies = cookies();
        cookies.make(at(1), &key(1), 7, OFFER);
        let mut random = Random::new(1);
        let hits = (0..100_000).filter(|_| cookies.open(at(1), &key(1), 7, random.next_u64() as u32).is_some());
        assert!(hits.count() <= 1);
    }

    proptest! {
        #[test]
        fn an_offer_is_kept_or_rounded_down(mss in 64u16.., scale in prop::option::of(0u8..=14), sack: bool) {
            let offer = Offer { mss, window_scale: scale, sack_permitted: sack };
            let kept = Offer::unpack(offer.pack());
            prop_assert!(kept.mss <= mss && (kept.mss >= 1460 || mss < 1460));
            prop_assert_eq!(kept.window_scale.is_some(), scale.is_some());
            prop_assert!(kept.window_scale <= scale && kept.window_scale.unwrap_or(0) + 4 >= scale.unwrap_or(0));
            prop_assert_eq!(kept.sack_permitted, sack);
            prop_assert_eq!(Offer::unpack(kept.pack()), kept);
        }

        #[test]
        fn only_the_very_same_handshake_opens_it(peer_isn: u32, bit in 0u32..32, other in 2u16.., seconds in 0u64..1000) {
            let mut cookies = cookies();
            let now = at(seconds);
            let cookie = cookies.make(now, &key(1), peer_isn, OFFER);
            prop_assert_eq!(cookies.open(now, &key(1), peer_isn, cookie), Some(OFFER));
            prop_assert_eq!(cookies.open(now, &key(1), peer_isn, cookie ^ (1 << bit)), None);
            prop_assert_eq!(cookies.open(now, &key(1), peer_isn ^ (1 << bit), cookie), None);
            prop_assert_eq!(cookies.open(now, &key(other), peer_isn, cookie), None);
        }
    }
}
