//! Neighbors' Ethernet addresses: the cache, and the packets that wait for an answer.
//!
//! Owned by one port. It decides and remembers; the port sends. Bounded in everything that somebody else can drive: entries,
//! packets that wait, questions asked.
//!
//! Entries are in one list by last use. A neighbor that we never asked for enters it at the cold end, so that a flood of
//! senders evicts its own entries and costs the neighbors in use one place in all. The gateway is not in the list.

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

/// From one question to the next.
const RETRY: Duration = Duration::from_secs(1);

/// Questions without an answer after which a neighbor is given up.
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
    /// At [`LRU`] the head of the list by last use; at [`GATEWAY`] the gateway, or nothing.
    entries: Vec<Entry>,
    free: Vec<u32>,
    capacity: usize,
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
    prev: u32,
    next: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing is known: a free entry, or the gateway's before it is asked for.
    Empty,
    /// Asked for, never answered.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Believed, to be asked when it is used next.
    Stale,
    /// Believed and used while it is being asked.
    Probing,
}

impl State {
    fn has_mac(self) -> bool {
        matches!(self, Self::Reachable | Self::Stale | Self::Probing)
    }
}

const LRU: u32 = 0;
const GATEWAY: u32 = 1;

impl<F> Neighbors<F> {
    /// A cache for `capacity` neighbors and the gateway.
    pub(super) fn new(capacity: usize, per_neighbor: u16, gateway: Option<IpAddr>) -> Self {
        let capacity = capacity.max(LEAST_CAPACITY);
        let head = Entry {
            address: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            mac: [0; 6],
            state: State::Empty,
            attempts: 0,
            waiting: 0,
            prev: LRU,
            next: LRU,
        };
        let mut entries = Vec::with_capacity(capacity + 2);
        entries.push(head);
        entries.push(Entry { address: gateway.unwrap_or(head.address), prev: GATEWAY, next: GATEWAY, ..head });
        // The hash needs no secret: only on-link addresses get here, and a look-up's worst case is bounded.
        let mut table = FlowTable::with_capacity(capacity + 1, [0x6e65_6967_6862_6f72, 0]);
        if let Some(gateway) = gateway {
            // An empty table takes it.
            let _ = table.insert(table.hash(&key(gateway)), GATEWAY);
        }
        Self {
            table,
            entries,
            free: Vec::with_capacity(capacity),
            capacity,
            per_neighbor: u8::try_from(per_neighbor).unwrap_or(u8::MAX),
            wheel: Wheel::with_capacity(capacity + 2),
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
        let question = (entry.state == State::Stale).then(|| self.probe(now, index, Some(mac)));
        if index != GATEWAY {
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
        self.entries[entry as usize].state = State::Incomplete;
        self.entries[entry as usize].attempts = 1;
        self.wheel.schedule(entry, now + RETRY);
        Ok(Some(Question { address, to: None }))
    }

    /// Whether an answer from `address` is awaited.
    pub(super) fn is_asked(&self, address: IpAddr) -> bool {
        self.find(address)
            .is_some_and(|entry| matches!(self.entries[entry as usize].state, State::Incomplete | State::Probing))
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
            State::Incomplete | State::Probing => {
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
                self.wheel.schedule(index, now + STALE);
                if state != State::Empty {
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
        let settled = matches!(entry.state, State::Reachable | State::Stale);
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
                State::Empty => {}
                State::Incomplete | State::Probing if entry.attempts >= ATTEMPTS => self.give_up(index, counters),
                State::Incomplete | State::Probing => {
                    self.entries[index as usize].attempts += 1;
                    self.wheel.schedule(index, now + RETRY);
                    // The neighbor itself did not answer: it may have a new address.
                    questions.push(Question { address: entry.address, to: None });
                }
                State::Reachable => {
                    self.entries[index as usize].state = State::Stale;
                    self.wheel.schedule(index, now + STALE);
                }
                State::Stale => self.forget(index),
            }
        }
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
        if self.free.is_empty() && self.entries.len() >= self.capacity + 2 {
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
        self.entries[index as usize] =
            Entry { address, mac: [0; 6], state: State::Empty, attempts: 0, waiting: 0, prev: index, next: index };
        Some(index)
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
        let moved = entry.mac != mac;
        entry.mac = mac;
        entry.state = State::Reachable;
        self.wheel.schedule(index, now + REACHABLE);
        if index != GATEWAY {
            self.unlink(index);
            self.link(index, LRU);
        }
        if moved {
            self.age();
        }
    }

    fn give_up(&mut self, index: u32, counters: &CoreCounters) {
        let address = self.entries[index as usize].address;
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
        self.age();
    }

    /// Empties an entry for which nothing waits, and frees it unless it is the gateway's.
    fn forget(&mut self, index: u32) {
        self.wheel.cancel(index);
        self.entries[index as usize].state = State::Empty;
        if index == GATEWAY {
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
