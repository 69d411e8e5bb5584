//! Which endpoint a request goes to: the core's own place in each schedule, its dice, and what it knows of latencies.

use std::net::SocketAddr;

pub use tables::affinity::Wish;
use tables::inspect::PLACES;
use tables::selection::HashTable;
use tables::weighted::Weighted;
use tables::{Chooser, Cluster, Endpoint, EndpointId, Rule, Selection, Snapshot};

use crate::clock::Instant;
use crate::random::Random;

/// Endpoints drawn at most to find another than the one that failed, before the members are gone through in order.
const DRAWS: u32 = 4;

/// Members gone through at most to find another than the one that failed.
const LOOKED_THROUGH: usize = 64;

/// Over which time a peak of latency is forgotten, in nanoseconds (Finagle's and Linkerd's default).
const DECAY: f64 = 10e9;

/// The cost of an endpoint that has a request under way and has never answered: it gets one, and then waits.
const UNKNOWN: f64 = 1e18;

/// One core's part in balancing. Nothing is shared with other cores.
#[derive(Debug)]
pub struct Balance {
    /// By [`Rule::cursor`].
    rules: Vec<u32>,
    /// By [`Cluster::cursor`].
    clusters: Vec<u32>,
    random: Random,
    /// By endpoint; as long as needed by those that are balanced by latency.
    latencies: Vec<Latency>,
}

/// A peak-sensitive moving average of an endpoint's latency.
#[derive(Debug, Clone, Copy, Default)]
struct Latency {
    nanoseconds: f64,
    at: Instant,
    /// Whose it is: an endpoint's number may be another one's by now.
    of: Option<SocketAddr>,
}

impl Latency {
    fn now(self, now: Instant) -> f64 {
        self.nanoseconds * (-(now.since(self.at) as f64) / DECAY).exp()
    }
}

impl Balance {
    /// A core's part, with dice of its own.
    #[must_use]
    pub fn new(snapshot: &Snapshot, random: Random) -> Self {
        let mut balance = Self { rules: Vec::new(), clusters: Vec::new(), random, latencies: Vec::new() };
        balance.renew(snapshot);
        balance
    }

    /// Makes room for the cursors of a new snapshot. A rule or cluster has the same one in every snapshot, wherever it stands there.
    pub fn renew(&mut self, snapshot: &Snapshot) {
        // Never fewer: requests that began under an older snapshot may still take turns there.
        let (rules, clusters) = snapshot.cursors();
        self.rules.resize(rules.max(self.rules.len()), 0);
        self.clusters.resize(clusters.max(self.clusters.len()), 0);
    }

    /// The position of the target whose turn it is. `None` where no target takes requests.
    #[inline]
    pub fn target(&mut self, rule: &Rule) -> Option<usize> {
        if rule.targets.len() == 1 {
            return rule.schedule.is_some().then_some(0);
        }
        Some(rule.schedule.as_ref()?.next(self.rules.get_mut(rule.cursor as usize)?))
    }

    /// The position of the member to go to, and another than `failed` where there is another. `None` where none takes requests.
    /// `under_way` tells how many requests an endpoint has from this core.
    #[inline]
    pub fn member(
        &mut self,
        cluster: &Cluster,
        selection: &Selection,
        wish: Wish,
        failed: Option<EndpointId>,
        now: Instant,
        under_way: impl Fn(EndpointId) -> u32,
    ) -> Option<usize> {
        if wish.session != 0
            && let Some(kept) = selection.sessions().and_then(|sessions| sessions.find(wish.session))
            && selection.member(kept).is_some_and(|member| Some(member.id) != failed)
        {
            return Some(kept);
        }
        let chosen = self.choose(cluster, selection, wish.hash, now, &under_way)?;
        match failed {
            Some(failed) if selection.member(chosen).is_some_and(|member| member.id == failed) => {
                Some(self.another(cluster, selection, failed, chosen, now, &under_way))
            }
            _ => Some(chosen),
        }
    }

    /// Notes that the response of `endpoint` began so many nanoseconds after the request was sent.
    pub fn observe(&mut self, (endpoint, address): (EndpointId, SocketAddr), nanoseconds: u64, now: Instant) {
        let at = endpoint.0 as usize;
        if at >= self.latencies.len() {
            self.latencies.resize(at + 1, Latency::default());
        }
        let Some(latency) = self.latencies.get_mut(at) else { return };
        if latency.of != Some(address) {
            *latency = Latency::default();
        }
        let (seen, kept) = (nanoseconds as f64, (-(now.since(latency.at) as f64) / DECAY).exp());
        // A peak counts at once, and is forgotten slowly.
        let average = if seen > latency.nanoseconds { seen } else { latency.nanoseconds * kept + seen * (1.0 - kept) };
        *latency = Latency { nanoseconds: average, at: now, of: Some(address) };
    }

    #[inline]
    fn choose(
        &mut self,
        cluster: &Cluster,
        selection: &Selection,
        hash: u64,
        now: Instant,
        under_way: &impl Fn(EndpointId) -> u32,
    ) -> Option<usize> {
        match selection.chooser() {
            Chooser::RoundRobin(schedule) => Some(schedule.next(self.clusters.get_mut(cluster.cursor as usize)?)),
            Chooser::Nobody => None,
            Chooser::Random(weighted) => Some(weighted.pick(self.random.next_u64())),
            Chooser::LeastRequest(weighted) => {
                let (one, other) = self.two(weighted);
                let load = |at: usize| selection.member(at).map_or(u32::MAX, |member| under_way(member.id));
                // As many requests for its weight; a tie leaves it with the one that was drawn by weight.
                let cost = |at: usize, of: usize| u64::from(load(at)) * u64::from(weighted.weight(of));
                Some(if cost(one, other) <= cost(other, one) { one } else { other })
            }
            Chooser::PeakEwma(weighted) => {
                let (one, other) = self.two(weighted);
                let cost = |at: usize| {
                    let Some(member) = selection.member(at) else { return f64::MAX };
                    let known =
                        self.latencies.get(member.id.0 as usize).filter(|known| known.of == Some(member.address));
                    let latency = known.map_or(0.0, |latency| latency.now(now));
                    let load = under_way(member.id);
                    let latency = if latency == 0.0 && load > 0 { UNKNOWN } else { latency };
                    latency * f64::from(load + 1)
                };
                // By itself and for its weight: the weights have drawn already, and must not decide again where both are as good.
                let (first, second) = (cost(one), cost(other));
                let weight = |at| f64::from(weighted.weight(at).max(1));
                let better = second < first && second / weight(other) < first / weight(one);
                Some(if better { other } else { one })
            }
            Chooser::Hashed(table) => Some(self.hashed(table, hash)),
        }
    }

    fn hashed(&mut self, table: &HashTable, hash: u64) -> usize {
        table.find(if hash == 0 { self.random.next_u64() } else { hash })
    }

    /// One member by weight, and another.
    #[inline]
    fn two(&mut self, weighted: &Weighted) -> (usize, usize) {
        let random = self.random.next_u64();
        let one = weighted.pick(random);
        let other = weighted.pick(random.wrapping_mul(0xda94_2042_e4dd_58b5).rotate_left(32));
        if one != other {
            return (one, other);
        }
        (one, if one + 1 < weighted.len() { one + 1 } else { 0 })
    }

    /// Another member than the one that failed, and that was chosen again.
    fn another(
        &mut self,
        cluster: &Cluster,
        selection: &Selection,
        failed: EndpointId,
        chosen: usize,
        now: Instant,
        under_way: &impl Fn(EndpointId) -> u32,
    ) -> usize {
        let other = |at: &usize| selection.member(*at).is_some_and(|member| member.id != failed && member.weight > 0);
        for _ in 0..DRAWS {
            // By chance, also where a hash decides: what failed here goes to all others and not to one.
            let hash = self.random.next_u64() | 1;
            if let Some(at) = self.choose(cluster, selection, hash, now, under_way).filter(other) {
                return at;
            }
        }
        let members = selection.members().len();
        (1..members.min(LOOKED_THROUGH)).map(|step| (chosen + step) % members).find(other).unwrap_or(chosen)
    }

    /// The place in the schedule of a rule, and those in the schedules of its first targets, for who asks. Nothing moves.
    #[must_use]
    pub fn places(&self, snapshot: &Snapshot, rule: &Rule) -> (u32, [u32; PLACES]) {
        let at = |cursors: &[u32], cursor: u32| cursors.get(cursor as usize).copied().unwrap_or_default();
        let mut places = [0; PLACES];
        for (place, target) in places.iter_mut().zip(rule.targets.iter()) {
            *place = snapshot.cluster(target.cluster).map_or(0, |cluster| at(&self.clusters, cluster.cursor));
        }
        (at(&self.rules, rule.cursor), places)
    }

    /// Where a copy goes that asks for nothing, and of whose endpoint nothing is known.
    pub fn endpoint<'s>(&mut self, of: &Cluster, selection: &'s Selection, now: Instant) -> Option<&'s Endpoint> {
        let member = self.choose(of, selection, 0, now, &|_| 0)?;
        selection.member(member)
    }
}

#[cfg(test)]
mod tests;
