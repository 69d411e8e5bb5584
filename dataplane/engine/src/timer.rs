//! Deadlines of many things, at a constant cost each.
//!
//! A [`Wheel`] belongs to one core (or to one part of it) and holds at most one deadline for each key. Keys are dense
//! indexes that the caller gives, such as connection slots. Arming, re-arming and cancelling relink a node and never
//! allocate; a jump of the clock by years costs a few steps and not one a tick.

use crate::clock::Instant;

/// A tick is 2^17 ns, about 131 µs: the most by which a deadline fires late.
const TICK_BITS: u32 = 17;

/// Slots per level: one bit each in a `u64`.
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;

/// Eight levels of 6 bits cover every tick of 64-bit nanoseconds (47 bits, and one for rounding up), so that no deadline needs clamping.
const LEVELS: usize = 8;

/// List heads, in front of the nodes of keys: the slots, then keys that are due, then those on their way to lower levels.
const DUE: u32 = (LEVELS * SLOTS) as u32;
const MOVING: u32 = DUE + 1;
const HEADS: u32 = MOVING + 1;

/// Links of a node that is in no list.
const NOWHERE: u32 = u32::MAX;

/// A hierarchical timer wheel (Varghese and Lauck, scheme 7).
///
/// The level of a key is the highest 6-bit digit in which its due tick differs from the current one, and its slot is that
/// digit. Hence all keys on a lower level are due before any on a higher one, and within a level by slot.
#[derive(Debug)]
pub struct Wheel {
    nodes: Vec<Node>,
    occupied: [u64; LEVELS],
    /// The tick that time has reached.
    current: u64,
    len: usize,
}

/// A link of a circular list.
#[derive(Debug, Clone, Copy)]
struct Node {
    due: u64,
    prev: u32,
    next: u32,
}

impl Wheel {
    /// A wheel at time 0 with room for keys below `keys`. A larger key makes it grow.
    #[must_use]
    pub fn with_capacity(keys: usize) -> Self {
        let mut nodes = Vec::with_capacity(HEADS as usize + keys);
        nodes.extend((0..HEADS).map(|head| Node { due: 0, prev: head, next: head }));
        Self { nodes, occupied: [0; LEVELS], current: 0, len: 0 }
    }

    /// Arms `key` for `at`, instead of what it was armed for before. A time in the past fires at the next
    /// [`Wheel::advance`]; [`Instant::NEVER`] cancels.
    pub fn schedule(&mut self, key: u32, at: Instant) {
        if at == Instant::NEVER {
            self.cancel(key);
            return;
        }
        let node = key + HEADS;
        if node as usize >= self.nodes.len() {
            self.nodes.resize(node as usize + 1, Node { due: 0, prev: NOWHERE, next: NOWHERE });
        }
        if self.nodes[node as usize].next == NOWHERE {
            self.len += 1;
        } else {
            self.unlink(node);
        }
        // Rounded up: it never fires early.
        self.nodes[node as usize].due = at.0.div_ceil(1 << TICK_BITS);
        self.place(node);
    }

    /// Disarms `key`. `false` where it was not armed.
    pub fn cancel(&mut self, key: u32) -> bool {
        let node = key.saturating_add(HEADS);
        let armed = self.nodes.get(node as usize).is_some_and(|n| n.next != NOWHERE);
        if armed {
            self.unlink(node);
            self.len -= 1;
        }
        armed
    }

    /// Whether `key` is armed.
    #[must_use]
    pub fn is_armed(&self, key: u32) -> bool {
        self.nodes.get(key.saturating_add(HEADS) as usize).is_some_and(|n| n.next != NOWHERE)
    }

    /// Moves time on to `now` and hands over the keys whose time has come, each once and disarmed, the earlier ticks first.
    ///
    /// Takes at most `limit` steps, of which each hands over a key or moves one to a lower level. Returns `true` when nothing
    /// that is due is left; otherwise the next call goes on where this one stopped.
    pub fn advance(&mut self, now: Instant, limit: usize, mut fire: impl FnMut(u32)) -> bool {
        let target = (now.0 >> TICK_BITS).max(self.current);
        if target == self.current && self.first(DUE).is_none() && self.first(MOVING).is_none() {
            // Turns are much shorter than ticks, and slots hold what is due later than this one.
            return true;
        }
        let mut steps = 0;
        loop {
            // Keys on their way may be due before anything else that is not.
            for list in [DUE, MOVING] {
                while let Some(node) = self.first(list) {
                    if steps == limit {
                        return false;
                    }
                    steps += 1;
                    self.unlink(node);
                    if list == DUE {
                        self.len -= 1;
                        fire(node - HEADS);
                    } else {
                        self.place(node);
                    }
                }
            }
            if self.first(DUE).is_some() {
                continue;
            }
            match self.next_slot() {
                Some((level, slot, tick)) if tick <= target => {
                    self.current = tick;
                    self.occupied[level] &= !(1 << slot);
                    let head = (level * SLOTS + slot) as u32;
                    self.splice(head, if level == 0 { DUE } else { MOVING });
                }
                _ => {
                    self.current = target;
                    return true;
                }
            }
        }
    }

    /// A time at which [`Wheel::advance`] has something to do: never later than the moment that the next key fires, and
    /// at least one step nearer to it with every call of `advance`. `None` where nothing is armed.
    #[must_use]
    pub fn next_due(&self) -> Option<Instant> {
        if self.first(DUE).is_some() || self.first(MOVING).is_some() {
            return Some(instant(self.current));
        }
        self.next_slot().map(|(_, _, tick)| instant(tick))
    }

    /// Armed keys.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no key is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The next slot in time that holds keys, and the tick at which it begins.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros();
        let shift = level as u32 * SLOT_BITS;
        let above = self.current >> (shift + SLOT_BITS) << (shift + SLOT_BITS);
        Some((level, slot as usize, above | u64::from(slot) << shift))
    }

    /// Links a node, which is in no list, to the list that its due tick belongs to.
    fn place(&mut self, node: u32) {
        let due = self.nodes[node as usize].due;
        let head = if due <= self.current {
            DUE
        } else {
            let level = (due ^ self.current).ilog2() / SLOT_BITS;
            let slot = (due >> (level * SLOT_BITS)) as usize % SLOTS;
            self.occupied[level as usize] |= 1 << slot;
            level * SLOTS as u32 + slot as u32
        };
        let last = self.nodes[head as usize].prev;
        self.nodes[node as usize].prev = last;
        self.nodes[node as usize].next = head;
        self.nodes[last as usize].next = node;
        self.nodes[head as usize].prev = node;
    }

    fn unlink(&mut self, node: u32) {
        let Node { prev, next, .. } = self.nodes[node as usize];
        self.nodes[prev as usize].next = next;
        self.nodes[next as usize].prev = prev;
        self.nodes[node as usize].prev = NOWHERE;
        self.nodes[node as usize].next = NOWHERE;
        // The list is empty when only its head is left.
        if prev == next && prev < DUE {
            self.occupied[prev as usize / SLOTS] &= !(1 << (prev as usize % SLOTS));
        }
    }

    /// Appends the whole list of `from` to that of `to`.
    fn splice(&mut self, from: u32, to: u32) {
        let Node { prev: last, next: first, .. } = self.nodes[from as usize];
        if first == from {
            return;
        }
        let tail = self.nodes[to as usize].prev;
        self.nodes[tail as usize].next = first;
        self.nodes[first as usize].prev = tail;
        self.nodes[last as usize].next = to;
        self.nodes[to as usize].prev = last;
        self.nodes[from as usize].prev = from;
        self.nodes[from as usize].next = from;
    }

    fn first(&self, head: u32) -> Option<u32> {
        let next = self.nodes[head as usize].next;
        (next != head).then_some(next)
    }
}

fn instant(tick: u64) -> Instant {
    Instant(u64::try_from(u128::from(tick) << TICK_BITS).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    const TICK: u64 = 1 << TICK_BITS;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u32> {
        let mut keys = Vec::new();
        assert!(wheel.advance(Instant(now), usize::MAX, |key| keys.push(key)));
        keys
    }

    #[test]
    fn never_early_and_at_most_a_tick_late() {
        for at in [0, 1, TICK - 1, TICK, TICK + 1, 64 * TICK, 4096 * TICK + 5, 1 << 40, (1 << 62) + 1] {
            let mut wheel = Wheel::with_capacity(1);
            wheel.schedule(0, Instant(at));
            if at > 0 {
                assert_eq!(fired(&mut wheel, at - 1), [], "{at}");
            }
            assert_eq!(fired(&mut wheel, at + TICK - 1), [0], "{at}");
            assert!(wheel.is_empty() && wheel.next_due().is_none());
        }
    }

    #[test]
    fn rearming_and_cancelling_leave_one_deadline_or_none() {
        let mut wheel = Wheel::with_capacity(0);
        wheel.schedule(9, Instant(TICK));
        wheel.schedule(9, Instant(1000 * TICK));
        assert_eq!(wheel.len(), 1);
        assert_eq!(fired(&mut wheel, 999 * TICK), []);
        wheel.schedule(9, Instant(3));
        assert_eq!(fired(&mut wheel, 999 * TICK), [9]);
        assert!(!wheel.cancel(9) && !wheel.cancel(1_000_000));
        wheel.schedule(9, Instant(2000 * TICK));
        assert!(wheel.is_armed(9));
        wheel.schedule(9, Instant::NEVER);
        assert!(!wheel.is_armed(9) && wheel.is_empty() && wheel.occupied == [0; LEVELS]);
    }

    #[test]
    fn a_jump_of_centuries_takes_steps_and_not_ticks() {
        let mut wheel = Wheel::with_capacity(4);
        for (key, years) in [(0, 0), (1, 1), (2, 100), (3, 500)] {
            wheel.schedule(key, Instant::default() + Duration::from_secs(years * 365 * 86_400 + 1));
        }
        assert_eq!(fired(&mut wheel, u64::MAX - 1), [0, 1, 2, 3]);
        wheel.schedule(0, Instant(u64::MAX - 1));
        assert!(wheel.next_due().is_some());
        assert_eq!(fired(&mut wheel, u64::MAX), []);
        assert_eq!(wheel.len(), 1, "the last tick of all never comes");
    }

    #[test]
    fn a_limit_delays_and_loses_nothing() {
        let mut wheel = Wheel::with_capacity(1000);
        for key in 0..1000 {
            wheel.schedule(key, Instant(5000 * TICK + u64::from(key)));
        }
        let mut keys = BTreeSet::new();
        let mut calls = 0;
        let now = Instant(6000 * TICK);
        while !wheel.advance(now, 10, |key| assert!(keys.insert(key))) {
            calls += 1;
            assert!(wheel.next_due().is_some_and(|due| due <= now));
        }
        assert_eq!(keys.len(), 1000);
        assert!((100..=400).contains(&calls), "{calls}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Schedule(u32, u64),
        Cancel(u32),
        Advance(u64, usize),
        Jump,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Spans of every order of magnitude.
        let span = (0u32..56, any::<u64>()).prop_map(|(bits, n)| n & ((1 << bits) - 1));
        let step = prop_oneof![
            4 => (0u32..40, span.clone()).prop_map(|(key, span)| Step::Schedule(key, span)),
            1 => (0u32..40).prop_map(Step::Cancel),
            2 => (span, 1usize..200).prop_map(|(span, limit)| Step::Advance(span, limit)),
            2 => Just(Step::Jump),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn does_what_a_sorted_map_does(steps in steps()) {
            let mut wheel = Wheel::with_capacity(8);
            // By key: the tick at which it has to fire.
            let mut model = BTreeMap::new();
            let mut now = 0u64;
            for step in steps {
                let limit = match step {
                    Step::Schedule(key, span) => {
                        wheel.schedule(key, Instant(now + span));
                        model.insert(key, (now + span).div_ceil(TICK));
                        continue;
                    }
                    Step::Cancel(key) => {
                        prop_assert_eq!(wheel.cancel(key), model.remove(&key).is_some());
                        continue;
                    }
                    Step::Advance(span, limit) => {
                        now += span;
                        limit
                    }
                    Step::Jump => {
                        let Some(due) = wheel.next_due() else {
                            prop_assert!(model.is_empty());
                            continue;
                        };
                        let first = model.values().min().copied().unwrap_or(u64::MAX);
                        prop_assert!(due.0 / TICK <= first.max(now / TICK), "{due:?} is later than {first}");
                        now = now.max(due.0);
                        usize::MAX
                    }
                };
                let mut keys = Vec::new();
                let done = wheel.advance(Instant(now), limit, |key| keys.push(key));
                prop_assert!(keys.len() <= limit);
                for key in keys {
                    let due = model.remove(&key);
                    prop_assert!(due.is_some_and(|due| due <= now / TICK), "{key} at {due:?}");
                }
                if done {
                    prop_assert!(model.values().all(|&due| due > now / TICK));
                }
                prop_assert_eq!(wheel.len(), model.len());
            }
            // Jumping from one due time to the next ends.
            let mut jumps = 0;
            while let Some(due) = wheel.next_due() {
                now = now.max(due.0);
                wheel.advance(Instant(now), usize::MAX, |key| { model.remove(&key); });
                jumps += 1;
                prop_assert!(jumps <= 40 * LEVELS);
            }
            prop_assert!(model.is_empty() && wheel.is_empty());
        }
    }
}
