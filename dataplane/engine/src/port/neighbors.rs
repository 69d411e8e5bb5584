//! Neighbors' Ethernet addresses: the cache, and the packets that wait for an answer.
//!
//! Owned by one port. It decides and remembers; the port sends. Bounded in everything that somebody else can drive: entries,
//! packets that wait, questions asked.
//!
//! Entries are in one list by last use. A neighbor that we never asked for enters it at the cold end, so that a flood of
//! senders evicts its own entries and costs the neighbors in use one place in all. Next hops of routes are not in the list.
//!
//! IPv4's neighbors and IPv6's go through the same states, which are those of RFC 4861 §7.3.2. They differ in what happens when an old
//! address is used: in ARP the neighbor is asked at once, and everybody when it does not answer; in ND it is asked after a delay, and nobody
//! else.

use core::net::{IpAddr, Ipv4Addr, SocketAddr};
use core::time::Duration;

use arrayvec::ArrayVec;
use pmd::TxChecksum;
use tables::{CoreCounters, Verdict};

use crate::clock::Instant;
use crate::flow::{FlowKey, FlowTable};
use crate::timer::Wheel;

/// An answer is believed for so long without asking again.
const REACHABLE: Duration = Duration::from_secs(30);

/// What nobody used since is forgotten after so long.
const STALE: Duration = Duration::from_secs(300);

/// From one question to the next (RFC 4861 §10: RETRANS_TIMER).
const RETRY: Duration = Duration::from_secs(1);

/// From the use of an old address to the question whether it still holds (RFC 4861 §10: DELAY_FIRST_PROBE_TIME).
const DELAY: Duration = Duration::from_secs(5);

/// How often a next hop that has alternatives is asked whether it is there, used or not.
const WATCH: Duration = Duration::from_secs(5);

/// Questions without an answer after which a neighbor is given up (RFC 4861 §10: MAX_UNICAST_SOLICIT and MAX_MULTICAST_SOLICIT).
const ATTEMPTS: u8 = 3;

/// Packets that wait in all. Each holds a buffer of the pool, and each waiting neighbor holds a cache entry.
const WAITING: usize = 256;

/// Timers handled by one call, so that a turn stays short; the rest follows in the next one.
pub(super) const MAINTAIN_STEPS: usize = 64;

/// The least capacity. Half of the entries may be unanswered; the others can always be evicted.
const LEAST_CAPACITY: usize = 8;

/// A question that the port has to send: who has `address`?
#[derive(Debug, Clone, Copy)]
pub(super) struct Question {
    pub(super) address: IpAddr,
    /// The neighbor's last known Ethernet address, to ask it alone; `None` asks everybody.
    pub(super) to: Option<[u8; 6]>,
}

/// A packet whose next hop's Ethernet address is not known yet.
#[derive(Debug)]
pub(super) struct Waiting<F> {
    pub(super) frame: F,
    pub(super) destination: IpAddr,
    pub(super) checksum: TxChecksum,
    entry: u32,
}

/// The cache of one port.
#[derive(Debug)]
pub(super) struct Neighbors<F> {
    table: FlowTable,
    /// At [`LRU`] the head of the list by last use; then those that are pinned.
    entries: Vec<Entry>,
    free: Vec<u32>,
    capacity: usize,
    /// Entries behind [`LRU`] that are never evicted: next hops of routes.
    pinned: u32,
    /// Packets that wait for one neighbor at most.
    per_neighbor: u8,
    wheel: Wheel,
    waiting: Vec<Waiting<F>>,
    given_up: Vec<IpAddr>,
    generation: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    address: IpAddr,
    mac: [u8; 6],
    state: State,
    attempts: u8,
    waiting: u8,
    /// It did not answer when it was asked last.
    dead: bool,
    /// It is asked again and again.
    watched: bool,
    prev: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is known: a free entry, or a next hop's before it is asked for.
    Empty,
    /// Asked for, never answered.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Believed, to be asked when it is used next.
    Stale,
    /// Believed and used, to be asked in a moment.
    Delay,
    /// Believed and used while it is being asked.
    Probing,
}

impl State {
    fn has_mac(self) -> bool {
        matches!(self, Self::Reachable | Self::Stale | Self::Delay | Self::Probing)
    }
}

const LRU: u32 = 0;

/// A next hop that the cache never forgets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pin {
    /// Who; `None` keeps the place for one that is learned later.
    pub(super) address: Option<IpAddr>,
    /// It has alternatives: whether it is there is to be known.
    pub(super) watched: bool,
}

impl<F> Neighbors<F> {
    /// A cache for `capacity` neighbors beside those that are pinned, which are in no more than one place each.
    pub(super) fn new(capacity: usize, per_neighbor: u16, pins: &[Pin]) -> Self {
        let capacity = capacity.max(LEAST_CAPACITY);
        let head = Entry {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mac: [0; 6],
            state: State::Empty,
            attempts: 0,
            waiting: 0,
            dead: false,
            watched: false,
            prev: LRU,
            next: LRU,
        };
        let pinned = pins.len() as u32;
        let mut entries = Vec::with_capacity(capacity + 1 + pins.len());
        entries.push(head);
        // The hash needs no secret: only on-link addresses get here, and a look-up's worst case is bounded.
        let mut table = FlowTable::with_capacity(capacity + pins.len(), [0x6e65_6967_6862_6f72, 0]);
        for (index, pin) in (1..).zip(pins) {
            let address = pin.address.unwrap_or(head.address);
            entries.push(Entry { address, watched: pin.watched, prev: index, next: index, ..head });
            if let Some(address) = pin.address {
                // The table has room for as many.
                let _ = table.insert(table.hash(&key(address)), index);
            }
        }
        Self {
            table,
            entries,
            free: Vec::with_capacity(capacity),
            capacity,
            pinned,
            per_neighbor: u8::try_from(per_neighbor).unwrap_or(u8::MAX),
            wheel: Wheel::with_capacity(capacity + 1 + pins.len()),
            waiting: Vec::with_capacity(WAITING),
            given_up: Vec::with_capacity(WAITING),
            generation: 1,
        }
    }

    /// A number that changes when an answer of [`Neighbors::look_up`] may have changed, and whenever [`Neighbors::age`] is
    /// called; never 0.
    #[inline]
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// Makes everybody look up again. Called once a second, so that what is in use is known to be: it is asked again when
    /// it got old, and moves to the warm end of the list.
    pub(super) fn age(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    /// Neighbors in the cache.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.iter().skip(1).filter(|entry| entry.state != State::Empty).count()
    }

    /// Packets that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// The Ethernet address of `address`, to be used now, and a question to be sent where it got old.
    pub(super) fn look_up(&mut self, now: Instant, address: IpAddr) -> Option<([u8; 6], Option<Question>)> {
        let index = self.find(address)?;
        let entry = &mut self.entries[index as usize];
        if !entry.state.has_mac() {
            return None;
        }
        let mac = entry.mac;
        let question = match (entry.state, address) {
            (State::Stale, IpAddr::V4(_)) => Some(self.probe(now, index, Some(mac))),
            (State::Stale, IpAddr::V6(_)) => {
                entry.state = State::Delay;
                self.wheel.schedule(index, now + DELAY);
                None
            }
            _ => None,
        };
        if !self.is_pinned(index) {
            self.unlink(index);
            self.link(index, LRU);
        }
        Some((mac, question))
    }

    /// Keeps a packet until `address` is known, and says what to ask. A packet that needs no connection (`stateless`) may use
    /// half of the places only, so that provoked answers do not displace our own traffic.
    ///
    /// # Errors
    /// [`Verdict::NeighborQueueFull`] where too many wait.
    pub(super) fn wait(
        &mut self,
        now: Instant,
        address: IpAddr,
        frame: F,
        destination: IpAddr,
        checksum: TxChecksum,
        stateless: bool,
    ) -> Result<Option<Question>, Verdict> {
        let places = WAITING.min(self.capacity / 2);
        if self.waiting.len() >= if stateless { places / 2 } else { places } {
            return Err(Verdict::NeighborQueueFull);
        }
        let known = self.find(address);
        let entry = match known {
            Some(entry) => entry,
            None => self.add(address).ok_or(Verdict::NeighborQueueFull)?,
        };
        let state = self.entries[entry as usize].state;
        if self.entries[entry as usize].waiting >= self.per_neighbor {
            return Err(Verdict::NeighborQueueFull);
        }
        self.entries[entry as usize].waiting += 1;
        self.waiting.push(Waiting { frame, destination, checksum, entry });
        if state == State::Incomplete {
            return Ok(None);
        }
        Ok(Some(self.first_question(now, entry)))
    }

    /// Whether an answer from `address` is awaited.
    pub(super) fn is_asked(&self, address: IpAddr) -> bool {
        self.find(address)
            .is_some_and(|entry| matches!(self.entries[entry as usize].state, State::Incomplete | State::Probing))
    }

    /// The Ethernet address of `address`, if it is believed.
    pub(super) fn mac(&self, address: IpAddr) -> Option<[u8; 6]> {
        let entry = &self.entries[self.find(address)? as usize];
        entry.state.has_mac().then_some(entry.mac)
    }

    /// Takes an answer. `false` where nobody asked, unless it says what is known already.
    /// Where it is `true`, [`Neighbors::next_ready`] has the packets that waited for it.
    pub(super) fn answered(&mut self, now: Instant, address: IpAddr, mac: [u8; 6]) -> bool {
        let Some(index) = self.find(address) else {
            return false;
        };
        let entry = self.entries[index as usize];
        match entry.state {
            State::Empty => false,
            State::Reachable | State::Stale => entry.mac == mac,
            // A delayed question is answered before it is asked.
            State::Delay if entry.mac != mac => false,
            State::Incomplete | State::Delay | State::Probing => {
                self.confirm(now, index, mac);
                true
            }
        }
    }

    /// Takes what a neighbor says of itself while it asks for one of our addresses.
    pub(super) fn heard(&mut self, now: Instant, address: IpAddr, mac: [u8; 6]) {
        let known = self.find(address);
        let index = match known {
            Some(index) => index,
            // Nobody has use for it yet: it goes where evictions take from.
            None => match self.add(address) {
                Some(index) => {
                    self.link_cold(index);
                    index
                }
                None => return,
            },
        };
        let entry = &mut self.entries[index as usize];
        match entry.state {
            State::Incomplete => self.confirm(now, index, mac),
            state if state.has_mac() && entry.mac == mac => {}
            state => {
                entry.mac = mac;
                entry.state = State::Stale;
                let until = if entry.watched { WATCH } else { STALE };
                let revived = core::mem::take(&mut entry.dead);
                self.wheel.schedule(index, now + until);
                if state != State::Empty || revived {
                    self.age();
                }
            }
        }
    }

    /// Somebody announced that `address` is at `mac`. Nothing is believed; where something else is known, it is asked
    /// for again at once, so that a gateway that moved is followed.
    pub(super) fn hinted(&mut self, now: Instant, address: IpAddr, mac: [u8; 6]) -> Option<Question> {
        let index = self.find(address)?;
        let entry = &self.entries[index as usize];
        let settled = matches!(entry.state, State::Reachable | State::Stale | State::Delay);
        (settled && entry.mac != mac).then(|| self.probe(now, index, None))
    }

    /// The next packet, oldest first, that waited for `address` and can go now.
    pub(super) fn next_ready(&mut self, address: IpAddr) -> Option<Waiting<F>> {
        let index = self.find(address)?;
        self.take_waiting(index)
    }

    /// Handles what is due: questions to be sent again go to `questions`, packets given up are dropped and counted.
    pub(super) fn maintain(
        &mut self,
        now: Instant,
        questions: &mut ArrayVec<Question, MAINTAIN_STEPS>,
        counters: &CoreCounters,
    ) {
        let mut due = ArrayVec::<u32, MAINTAIN_STEPS>::new();
        self.wheel.advance(now, MAINTAIN_STEPS, |index| due.push(index));
        for index in due {
            let entry = self.entries[index as usize];
            match entry.state {
                State::Empty if entry.watched => questions.push(self.first_question(now, index)),
                State::Empty => {}
                State::Incomplete | State::Probing if entry.attempts >= ATTEMPTS => {
                    self.give_up(now, index, counters);
                }
                State::Incomplete | State::Probing => {
                    self.entries[index as usize].attempts += 1;
                    self.wheel.schedule(index, now + RETRY);
                    // By ARP everybody is asked once the neighbor itself did not answer: it may have a new address.
                    let alone = entry.state == State::Probing && entry.address.is_ipv6();
                    questions.push(Question { address: entry.address, to: alone.then_some(entry.mac) });
                }
                State::Delay => questions.push(self.probe(now, index, Some(entry.mac))),
                State::Reachable | State::Stale if entry.watched => {
                    questions.push(self.probe(now, index, Some(entry.mac)));
                }
                State::Reachable => {
                    self.entries[index as usize].state = State::Stale;
                    self.wheel.schedule(index, now + STALE);
                }
                State::Stale => self.forget(index),
            }
        }
    }

    /// Begins to ask whether next hops with alternatives are there, with the next [`Neighbors::maintain`].
    pub(super) fn watch(&mut self, now: Instant) {
        for index in 1..=self.pinned {
            let entry = &self.entries[index as usize];
            if entry.watched && entry.state == State::Empty {
                self.wheel.schedule(index, now);
            }
        }
    }

    /// Whether `address` did not answer when it was asked last. Only next hops are remembered as that.
    pub(super) fn is_dead(&self, address: IpAddr) -> bool {
        self.find(address).is_some_and(|index| self.entries[index as usize].dead)
    }

    /// Pins `address`, which was learned, in one of the places kept for that. `false` where none is left, or packets wait for it.
    pub(super) fn pin(&mut self, address: IpAddr) -> bool {
        match self.find(address) {
            Some(index) if self.is_pinned(index) => return true,
            Some(index) if self.entries[index as usize].waiting > 0 => return false,
            Some(index) => self.forget(index),
            None => {}
        }
        let vacant = (1..=self.pinned).find(|&index| self.entries[index as usize].address.is_unspecified());
        let Some(index) = vacant else { return false };
        let hash = self.table.hash(&key(address));
        let pinned = self.table.insert(hash, index).is_ok();
        if pinned {
            self.entries[index as usize].address = address;
        }
        pinned
    }

    /// Gives up the place of `address`, which [`Neighbors::pin`] pinned, with what is known of it and what waits for it.
    pub(super) fn unpin(&mut self, now: Instant, address: IpAddr, counters: &CoreCounters) {
        let Some(index) = self.find(address).filter(|&index| self.is_pinned(index)) else { return };
        self.give_up(now, index, counters);
        self.table.remove(self.table.hash(&key(address)), index);
        let entry = &mut self.entries[index as usize];
        entry.address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        entry.dead = false;
    }

    /// When [`Neighbors::maintain`] has something to do.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.wheel.next_due()
    }

    /// Takes the destinations given up since the last call.
    pub(super) fn unreachable(&mut self, f: impl FnMut(IpAddr)) {
        self.given_up.drain(..).for_each(f);
    }

    fn find(&self, address: IpAddr) -> Option<u32> {
        let is_it = |index: u32| self.entries.get(index as usize).is_some_and(|entry| entry.address == address);
        self.table.find(self.table.hash(&key(address)), is_it)
    }

    /// A new entry, empty and in no list; where there is no room, in the place of the one that was not used for longest.
    /// `None` where all the others are unanswered.
    fn add(&mut self, address: IpAddr) -> Option<u32> {
        if self.free.is_empty() && self.entries.len() > self.capacity + self.pinned as usize {
            let coldest = self.entries[LRU as usize].prev;
            if coldest == LRU {
                return None;
            }
            self.forget(coldest);
        }
        let hash = self.table.hash(&key(address));
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.entries.push(self.entries[LRU as usize]);
                self.entries.len() as u32 - 1
            }
        };
        if self.table.insert(hash, index).is_err() {
            self.free.push(index);
            return None;
        }
        self.entries[index as usize] = Entry { address, prev: index, next: index, ..self.entries[LRU as usize] };
        Some(index)
    }

    fn first_question(&mut self, now: Instant, index: u32) -> Question {
        let question = self.probe(now, index, None);
        self.entries[index as usize].state = State::Incomplete;
        question
    }

    fn is_pinned(&self, index: u32) -> bool {
        (1..=self.pinned).contains(&index)
    }

    fn probe(&mut self, now: Instant, index: u32, to: Option<[u8; 6]>) -> Question {
        self.wheel.schedule(index, now + RETRY);
        let entry = &mut self.entries[index as usize];
        entry.state = State::Probing;
        entry.attempts = 1;
        Question { address: entry.address, to }
    }

    fn confirm(&mut self, now: Instant, index: u32, mac: [u8; 6]) {
        let entry = &mut self.entries[index as usize];
        let revived = core::mem::take(&mut entry.dead);
        let moved = entry.mac != mac || revived;
        entry.mac = mac;
        entry.state = State::Reachable;
        let until = if entry.watched { WATCH } else { REACHABLE };
        self.wheel.schedule(index, now + until);
        if !self.is_pinned(index) {
            self.unlink(index);
            self.link(index, LRU);
        }
        if moved {
            self.age();
        }
    }

    fn give_up(&mut self, now: Instant, index: u32, counters: &CoreCounters) {
        let Entry { address, dead, waiting, .. } = self.entries[index as usize];
        if dead && waiting == 0 {
            // Nobody asks but we, and nothing has changed.
            self.forget(index);
            self.entries[index as usize].dead = true;
            return self.wheel.schedule(index, now + WATCH);
        }
        let mut report = |destination| {
            if self.given_up.len() < WAITING && !self.given_up.contains(&destination) {
                self.given_up.push(destination);
            }
        };
        report(address);
        let mut position = 0;
        while let Some(waiting) = self.waiting.get(position) {
            if waiting.entry == index {
                report(waiting.destination);
                self.waiting.remove(position);
                counters.drops[Verdict::NeighborUnresolved as usize].add(1);
            } else {
                position += 1;
            }
        }
        self.entries[index as usize].waiting = 0;
        self.forget(index);
        if self.is_pinned(index) {
            let entry = &mut self.entries[index as usize];
            entry.dead = true;
            if entry.watched {
                self.wheel.schedule(index, now + WATCH);
            }
        }
        self.age();
    }

    /// Empties an entry for which nothing waits, and frees it unless it is pinned.
    fn forget(&mut self, index: u32) {
        self.wheel.cancel(index);
        self.entries[index as usize].state = State::Empty;
        if self.is_pinned(index) {
            return;
        }
        self.unlink(index);
        let hash = self.table.hash(&key(self.entries[index as usize].address));
        self.table.remove(hash, index);
        self.free.push(index);
    }

    fn take_waiting(&mut self, index: u32) -> Option<Waiting<F>> {
        let entry = &mut self.entries[index as usize];
        if entry.waiting == 0 {
            return None;
        }
        entry.waiting -= 1;
        let position = self.waiting.iter().position(|waiting| waiting.entry == index)?;
        Some(self.waiting.remove(position))
    }

    /// Takes an entry out of the list by last use; no harm where it is in none.
    fn unlink(&mut self, index: u32) {
        let Entry { prev, next, .. } = self.entries[index as usize];
        self.entries[prev as usize].next = next;
        self.entries[next as usize].prev = prev;
        self.entries[index as usize].prev = index;
        self.entries[index as usize].next = index;
    }

    /// Links an entry behind `place`: behind [`LRU`] it is the one used last.
    fn link(&mut self, index: u32, place: u32) {
        let next = self.entries[place as usize].next;
        self.entries[index as usize].prev = place;
        self.entries[index as usize].next = next;
        self.entries[next as usize].prev = index;
        self.entries[place as usize].next = index;
    }

    fn link_cold(&mut self, index: u32) {
        self.link(index, self.entries[LRU as usize].prev);
    }
}

fn key(address: IpAddr) -> FlowKey {
    FlowKey::new(SocketAddr::new(address, 0), SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0))
}
