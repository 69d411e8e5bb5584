//! What a path does to the frames on it: delay, loss, duplication, corruption, reordering.
//!
//! [`Injector`] only decides, and counts what it decided; [`super::wire`] carries it out. Equal options, an equal
//! seed and equal frame lengths give equal decisions, in every release: the generator is written out here.

use arrayvec::ArrayVec;
use core::num::NonZeroU64;
use core::time::Duration;

/// One direction of a wire. Probabilities are per frame, from 0 (never, also for NaN) to 1 (always).
#[derive(Debug, Clone, PartialEq)]
pub struct PathOptions {
    /// Propagation delay.
    pub delay: Duration,
    /// Added to the delay of each frame, uniform from 0 to this. Jitter alone does not reorder: a frame
    /// waits for the one before it, as in a queue.
    pub jitter: Duration,
    /// Probability that a frame vanishes. Each copy of a duplicated frame takes the risk by itself.
    pub loss: f64,
    /// Probability that a frame arrives twice.
    pub duplication: f64,
    /// Probability that one random bit of a frame is flipped, anywhere from the destination MAC on. (A real
    /// wire's FCS would catch it: this is the corruption that happens in hosts and switches.)
    pub corruption: f64,
    /// Probability that a frame is held back by `reorder_delay`, so that later ones overtake it.
    pub reordering: f64,
    /// The extra delay of a frame that is held back.
    pub reorder_delay: Duration,
    /// Bytes per second at which frames are serialised; `None` is at once. Ethernet's preamble, FCS and
    /// gap are not counted.
    pub rate: Option<NonZeroU64>,
}

impl Default for PathOptions {
    /// A perfect path of 10 µs.
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            corruption: 0.0,
            reordering: 0.0,
            reorder_delay: Duration::from_micros(100),
            rate: None,
        }
    }
}

/// What happened to the frames of one direction. All counters only grow, and at any time
/// `sent + duplicated = delivered + lost + oversize + ring_full + no_buffer + in flight`,
/// where in flight is what is on the wire or waits in the receive ring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultCounters {
    /// Frames that the wire took from the sender.
    pub sent: u64,
    /// Copies added by duplication.
    pub duplicated: u64,
    /// Frames handed to the receiver.
    pub delivered: u64,
    /// Frames that vanished: by `loss`, or because the link was down.
    pub lost: u64,
    /// Frames larger than one of the two ends carries.
    pub oversize: u64,
    /// Frames that found the receive ring full.
    pub ring_full: u64,
    /// Frames that found the receiver's pool empty.
    pub no_buffer: u64,
    /// Frames with a bit flipped. They travel on and are counted where they end.
    pub corrupted: u64,
    /// Frames held back. They travel on and are counted where they end.
    pub reordered: u64,
}

impl FaultCounters {
    /// Frames that have not ended yet, by the sum above.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let ended = self.delivered + self.lost + self.oversize + self.ring_full + self.no_buffer;
        (self.sent + self.duplicated).saturating_sub(ended)
    }
}

/// One copy of a frame that does arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passage {
    /// Delay and jitter, and the extra delay of a frame that is held back.
    pub delay: Duration,
    /// The frame is held back: it neither waits for those before it nor makes those after it wait.
    pub held_back: bool,
    /// The bit to flip: its byte, and a mask.
    pub flip: Option<(usize, u8)>,
}

/// Decides the fate of one direction's frames.
#[derive(Debug)]
pub struct Injector {
    options: PathOptions,
    random: SplitMix64,
    lost: u64,
    duplicated: u64,
    corrupted: u64,
    reordered: u64,
}

impl Injector {
    /// An injector whose decisions follow from `seed`.
    #[must_use]
    pub fn new(options: PathOptions, seed: u64) -> Self {
        Self { options, random: SplitMix64(seed), lost: 0, duplicated: 0, corrupted: 0, reordered: 0 }
    }

    /// What the next decisions follow.
    #[must_use]
    pub fn options(&self) -> &PathOptions {
        &self.options
    }

    /// Changes what the next decisions follow. The generator runs on.
    pub fn set_options(&mut self, options: PathOptions) {
        self.options = options;
    }

    /// The copies of a frame of `len` bytes that arrive: none where it is lost, two where it is duplicated.
    pub fn decide(&mut self, len: usize) -> ArrayVec<Passage, 2> {
        let twice = self.random.chance(self.options.duplication);
        self.duplicated += u64::from(twice);
        let mut copies = ArrayVec::new();
        for _ in 0..1 + usize::from(twice) {
            copies.extend(self.copy(len));
        }
        copies
    }

    /// Adds what was decided so far to `counters`.
    pub fn count_into(&self, counters: &mut FaultCounters) {
        counters.lost += self.lost;
        counters.duplicated += self.duplicated;
        counters.corrupted += self.corrupted;
        counters.reordered += self.reordered;
    }

    fn copy(&mut self, len: usize) -> Option<Passage> {
        // All numbers are drawn in any case, so that a change of one probability leaves the other
        // decisions of a seed as they are.
        let lost = self.random.chance(self.options.loss);
        let held_back = self.random.chance(self.options.reordering);
        let corrupt = self.random.chance(self.options.corruption);
        let bit = self.random.below(8 * len as u64);
        let jitter = self.random.duration(self.options.jitter);
        if lost {
            self.lost += 1;
            return None;
        }
        let flip = (corrupt && len > 0).then_some(((bit / 8) as usize, 1 << (bit % 8)));
        self.corrupted += u64::from(flip.is_some());
        self.reordered += u64::from(held_back);
        let extra = if held_back { self.options.reorder_delay } else { Duration::ZERO };
        let delay = self.options.delay.saturating_add(jitter).saturating_add(extra);
        Some(Passage { delay, held_back, flip })
    }
}

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Debug, Clone)]
pub struct SplitMix64(pub u64);

impl SplitMix64 {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `true` with the given probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        // The upper 53 bits are a uniform number in [0, 1).
        let uniform = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        uniform < probability
    }

    /// A number from 0 to `bound` − 1; 0 where `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A duration from zero to `bound`, in nanoseconds; bounds above 584 years count as that.
    pub fn duration(&mut self, bound: Duration) -> Duration {
        let nanos = u64::try_from(bound.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.below(nanos.saturating_add(1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generator_is_the_published_one() {
        // The first outputs for seed 1234567 of the reference implementation (Vigna, splitmix64.c).
        let mut random = SplitMix64(1_234_567);
        assert_eq!(random.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(random.next_u64(), 3_203_168_211_198_807_973);
        assert_eq!(random.next_u64(), 9_817_491_932_198_370_423);
    }

    #[test]
    fn zero_never_happens_and_one_always_does() {
        let mut random = SplitMix64(7);
        for _ in 0..1000 {
            assert!(!random.chance(0.0) && !random.chance(f64::NAN) && random.chance(1.0));
            assert_eq!(random.below(0), 0);
            assert_eq!(random.below(1), 0);
            assert!(random.duration(Duration::from_nanos(3)) <= Duration::from_nanos(3));
        }
    }

    #[test]
    fn one_probability_does_not_move_the_decisions_of_another() {
        let jittery = PathOptions { jitter: Duration::from_micros(50), ..Default::default() };
        let mut corrupt = jittery.clone();
        corrupt.corruption = 0.5;
        let (mut a, mut b) = (Injector::new(jittery, 3), Injector::new(corrupt, 3));
        for _ in 0..100 {
            assert_eq!(a.decide(60)[0].delay, b.decide(60)[0].delay);
        }
    }

    #[test]
    fn flips_fall_on_every_byte_and_never_outside() {
        let mut injector = Injector::new(PathOptions { corruption: 1.0, ..Default::default() }, 1);
        let mut seen = [0u8; 4];
        for _ in 0..500 {
            let (byte, mask) = injector.decide(4)[0].flip.unwrap();
            assert_eq!(mask.count_ones(), 1);
            seen[byte] |= mask;
        }
        assert_eq!(seen, [0xff; 4]);
        assert_eq!(injector.decide(0)[0].flip, None);
    }
}
