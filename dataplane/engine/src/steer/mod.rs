//! Several cores on the same ports: which core a flow belongs to, and how its packets get there.
//!
//! A connection to a backend belongs to the core that opened it, and its source port says which: its remainder by the number of cores
//! ([`SourcePorts`]). A client's connection belongs to the core that its SYN was brought to. A [`Steered`] lane is one core's view
//! of a port: it receives from the core's own queue, where it has one, and from the others' rings, and hands on what is another core's.
//! So a core sees only frames of its own, and nothing above the lane knows of other cores.
//!
//! How frames are brought to their cores is a port's [`Way`]:
//!
//! - `Rss`: the NIC spreads flows by a Toeplitz hash whose key and table are known. Clients' flows stay where they arrive; source ports
//!   towards backends are chosen so that replies arrive at the core that asks. Nothing is handed over.
//! - `Queues`: each core has a queue, and the other side decides what goes into which (virtio, vhost, a fan-out of packet sockets).
//!   Clients' flows stay where they arrive; replies of backends are handed to the core that their port names. A segment whose connection
//!   is not known where it arrives is passed from core to core until one knows it.
//! - `Rules`: as `Queues`, but the device has taken a rule for an address of each core ([`Rules`]), from which that core asks backends: their replies
//!   arrive at it.
//! - `Hash`: there are fewer queues than cores (one, for most virtual devices). Who receives a frame hands it to the core that
//!   a keyed hash of its flow names, and sends for cores without a queue.
//!
//! A port begins with the way that its device promises ([`PortPlan`]). The self-test is there because devices promise more than they do:
//! the first segments of each queue are compared with what the hash or the rules say, and one in the wrong place makes it `Queues`.
//!
//! Order within a flow is kept: a flow's frames take one ring or none, and rings are first in, first out.
//!
//! Neighbors are each core's own: a core that asks for an address remembers the answer. Answers and announcements arrive at one core, which copies
//! them to the others; questions are answered by the core that they arrive at. An ICMP error goes where the segment it quotes would.

mod classify;
mod lane;
mod rules;
mod sources;
mod toeplitz;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pmd::Way;
use tables::TcpSettings;

use crate::stack::Limits;

use lane::Handed;
pub use lane::{Link, Steered};
pub use rules::Rules;
pub use sources::{FIRST_PORT, SourcePorts, port_set};
pub use toeplitz::{LONGEST_KEY, Rss, hash};

/// Cores that an appliance can have.
pub const MAX_CORES: u16 = 64;

/// Frames that wait in a ring between two cores at most: as many as a device's ring holds.
const RING: usize = 1024;

/// What is known of a port before it runs.
#[derive(Debug, Clone, Default)]
pub struct PortPlan {
    /// Queue pairs of the device: queue `i` is core `i`'s. Not more than there are cores.
    pub queues: u16,
    /// How the device spreads TCP flows over its queues, where it told.
    pub rss: Option<Rss>,
    /// The rules that the device took.
    pub rules: Option<Rules>,
}

/// A core's place among the others.
#[derive(Debug, Clone)]
pub struct Place {
    /// Chooses source ports.
    pub sources: SourcePorts,
    /// Agrees on the end.
    pub departure: Departure,
    /// Limits that the cores share; an only core has those of its settings.
    pub limits: Option<Limits>,
}

impl Place {
    /// The place of an only core.
    #[must_use]
    pub fn alone() -> Self {
        Self { sources: SourcePorts::alone(), departure: Departure::new(1).remove(0), limits: None }
    }
}

/// The places of `cores` cores, and for each core its link per port. `secret` keys the hash that spreads flows where the device does not:
/// nobody outside can then choose addresses and ports that all end at one core.
#[must_use]
pub fn places<F>(cores: u16, ports: &[PortPlan], tcp: &TcpSettings, secret: [u64; 2]) -> Vec<(Place, Vec<Link<F>>)> {
    // Another use of the same secret: what one hash tells must not help with the other.
    let limits = Limits::new(tcp, cores, secret.map(|half| !half));
    let departures = Departure::new(cores);
    let told: Vec<PortPlan> =
        ports.iter().map(|plan| if plan.queues == cores { plan.clone() } else { PortPlan::default() }).collect();
    let mut links: Vec<Vec<Link<F>>> =
        (0..cores).map(|core| ports.iter().map(|plan| Link::new(core, cores, plan, secret)).collect()).collect();
    let pairs = (0..cores).flat_map(|from| (0..cores).map(move |to| (from, to))).filter(|(from, to)| from != to);
    for (from, to) in pairs {
        for port in 0..ports.len() {
            let (producer, consumer) = spsc::ring::<Handed<F>>(RING);
            if let Some(link) = links.get_mut(usize::from(from)).and_then(|links| links.get_mut(port)) {
                link.connect_out(to, producer);
            }
            if let Some(link) = links.get_mut(usize::from(to)).and_then(|links| links.get_mut(port)) {
                link.connect_in(consumer);
            }
        }
    }
    let place = |((core, departure), links)| {
        let sources = SourcePorts::new(core, cores, told.clone());
        (Place { sources, departure, limits: Some(limits.clone()) }, links)
    };
    (0..cores).zip(departures).zip(links).map(place).collect()
}

/// How cores leave together. One that has nothing left of its own still receives and sends for others.
#[derive(Debug, Clone)]
pub struct Departure {
    core: usize,
    done: Arc<[AtomicBool]>,
}

impl Departure {
    fn new(cores: u16) -> Vec<Self> {
        let done: Arc<[AtomicBool]> = (0..cores).map(|_| AtomicBool::new(false)).collect();
        (0..usize::from(cores)).map(|core| Self { core, done: Arc::clone(&done) }).collect()
    }

    /// Says whether this core has nothing left, and returns whether that is so for all of them.
    pub fn agreed(&self, done: bool) -> bool {
        if let Some(mine) = self.done.get(self.core) {
            mine.store(done, Ordering::Release);
        }
        done && self.done.iter().all(|core| core.load(Ordering::Acquire))
    }
}

/// The way that a port begins with.
fn way(cores: u16, plan: &PortPlan) -> Way {
    match (cores, plan.queues, &plan.rss) {
        (..=1, _, _) => Way::Alone,
        (cores, queues, _) if queues < cores => Way::Hash,
        (_, _, Some(_)) => Way::Rss,
        (_, _, None) if plan.rules.is_some() => Way::Rules,
        (_, _, None) => Way::Queues,
    }
}

#[cfg(test)]
mod tests;
