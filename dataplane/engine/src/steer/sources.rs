//! Source ports of connections to backends: they say which core a connection belongs to.

use std::net::{IpAddr, SocketAddr};

use pmd::PortSet;

use super::PortPlan;
use crate::random::Random;

/// Source ports are drawn from here up: below lie the ports that listeners usually have.
pub const FIRST_PORT: u16 = 10_240;

/// The set of the ports of `addresses`.
#[must_use]
pub fn port_set(addresses: impl IntoIterator<Item = SocketAddr>) -> Box<PortSet> {
    let mut set = Box::new([0; 1024]);
    for address in addresses {
        set[usize::from(address.port() / 64)] |= 1 << (address.port() % 64);
    }
    set
}

#[inline]
pub(super) fn contains(set: &PortSet, port: u16) -> bool {
    set[usize::from(port / 64)] >> (port % 64) & 1 != 0
}

/// The core of `cores` that a connection from this source port belongs to.
#[inline]
pub(super) fn core_of(port: u16, cores: u16) -> u16 {
    port % cores
}

/// Chooses the source ports of one core.
#[derive(Debug, Clone)]
pub struct SourcePorts {
    core: u16,
    cores: u16,
    /// Per port of the appliance.
    plans: Vec<PortPlan>,
    listening: Box<PortSet>,
}

impl SourcePorts {
    /// Those of an only core: any.
    #[must_use]
    pub fn alone() -> Self {
        Self::new(0, 1, Vec::new())
    }

    pub(super) fn new(core: u16, cores: u16, plans: Vec<PortPlan>) -> Self {
        Self { core, cores: cores.max(1), plans, listening: port_set([]) }
    }

    /// Ports that clients connect to are no source ports from now on.
    pub fn listen(&mut self, ports: &PortSet) {
        self.listening.copy_from_slice(ports);
    }

    /// The address to ask from by the appliance's port `index`, where one of `local`'s network was chosen for this core.
    pub fn address(&self, index: usize, local: IpAddr) -> Option<IpAddr> {
        self.plans.get(index)?.rules.as_ref()?.address(self.core, local)
    }

    /// A source port towards `remote` by the appliance's port `index`, where the one that was drawn will do. Unless `insist` is given up,
    /// replies to it arrive at this core's queue, as far as the device's way is known; to all of them they get in the end.
    pub fn draw(
        &self,
        random: &mut Random,
        index: usize,
        local: IpAddr,
        remote: SocketAddr,
        insist: bool,
    ) -> Option<u16> {
        let cores = u32::from(self.cores);
        // The first multiple of `cores` that is not below FIRST_PORT; with the core added, remainders name it.
        let first = u32::from(FIRST_PORT).next_multiple_of(cores);
        let span = (u32::from(u16::MAX) + 1 - first) / cores;
        let drawn = (random.next_u64() % u64::from(span.max(1))) as u32;
        let port = u16::try_from(first + drawn * cores + u32::from(self.core)).ok()?;
        if contains(&self.listening, port) {
            return None;
        }
        let arrives = match self.plans.get(index).map(|plan| &plan.rss) {
            Some(Some(rss)) if insist => rss.queue(remote, SocketAddr::new(local, port)) == Some(self.core),
            _ => true,
        };
        arrives.then_some(port)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Rss;
    use super::*;

    #[test]
    fn a_port_names_its_core_and_no_listener() {
        let (local, remote) = ("10.0.0.1".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        for cores in [1, 2, 3, 7, 8, 64] {
            for core in 0..cores {
                let mut random = Random::new(7);
                let mut sources = SourcePorts::new(core, cores, Vec::new());
                let drawn: Vec<u16> =
                    (0..2000).map(|_| sources.draw(&mut random, 0, local, remote, true).unwrap()).collect();
                assert!(drawn.iter().all(|&port| core_of(port, cores) == core && port >= FIRST_PORT));
                assert!(drawn.iter().any(|&port| port > 64_000) && drawn.iter().any(|&port| port < 12_000));
                let busy = drawn[0];
                sources.listen(&port_set([SocketAddr::new(local, busy)]));
                let mut random = Random::new(7);
                assert_eq!(sources.draw(&mut random, 0, local, remote, true), None, "{busy} is listened on");
            }
        }
    }

    #[test]
    fn with_a_known_hash_replies_arrive_where_they_are_awaited() {
        let key: Vec<u8> = (0..40u8).map(|i| i.wrapping_mul(37) ^ 11).collect();
        let table: Vec<u16> = (0..128).map(|i| i % 4).collect();
        let rss = Rss::new(&key, &table).unwrap();
        let sources = SourcePorts::new(
            2,
            4,
            vec![PortPlan::default(), PortPlan { rss: Some(rss.clone()), ..PortPlan::default() }],
        );
        let (local, remote) = ("10.0.0.1".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let mut random = Random::new(1);
        let mut found = 0;
        for _ in 0..1000 {
            if let Some(port) = sources.draw(&mut random, 1, local, remote, true) {
                assert_eq!(rss.queue(remote, SocketAddr::new(local, port)), Some(2));
                found += 1;
            }
        }
        assert!((150..350).contains(&found), "about one in four: {found}");
        assert!(sources.draw(&mut random, 1, local, remote, false).is_some());
    }
}
