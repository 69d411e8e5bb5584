//! One epoch of everything that decides about requests.

use core::time::Duration;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::HashMap;

use crate::cluster::{Cluster, ClusterId, EndpointId};
use crate::counters::{Finished, Places, Series, SeriesId, SeriesLine};
use crate::filter::RuleFilters;
use crate::limit::{Limit, LimitId};
use crate::matching::{Fields, Request};
use crate::publish::Versioned;
use crate::route::{Host, HostPattern, HostTable, RouteTable};
use crate::schedule::Schedule;
use crate::settings::HttpSettings;
use crate::sources::SourceTable;

/// Number of a snapshot: each that control compiles has a larger one.
pub type Epoch = u64;

/// Index of a bind in its snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BindId(pub u32);

/// Everything that decides about requests, compiled from one configuration. Immutable. What does not change from one to the next, they share.
#[derive(Debug)]
pub struct Snapshot {
    /// Its number.
    pub epoch: Epoch,
    /// Limits and timers.
    pub http: HttpSettings,
    binds: Arc<[Bind]>,
    by_address: Arc<HashMap<SocketAddr, BindId>>,
    /// Rules, in the order that route tables index.
    pub rules: Arc<[Rule]>,
    /// The targets of plain rules, by the rules' positions: [`Snapshot::plain_target`].
    plain: Box<[PlainTarget]>,
    /// Clusters, by [`ClusterId`].
    pub clusters: Box<[Cluster]>,
    /// Rate limits, by [`LimitId`].
    pub limits: Arc<[Limit]>,
    /// Series by [`SeriesId`]: those that it counts to, and others of earlier snapshots. A number that nothing has leads to the first series.
    pub series: Arc<[Arc<Series>]>,
    /// Where each counts, without the way through it: with thousands of routes it is a miss for each step.
    places: Arc<Places>,
    /// The epoch since which each series has had its number; all of them for ever where it is empty.
    series_epochs: Arc<[Epoch]>,
    /// Addresses by [`EndpointId`], of all clusters.
    endpoints: Box<[Option<SocketAddr>]>,
    /// Numbers above those that rules' and clusters' cursors have.
    cursors: (usize, usize),
}

/// One address and port that clients connect to, with the listeners that share it.
#[derive(Debug)]
pub struct Bind {
    /// Where clients connect.
    pub address: SocketAddr,
    hosts: HostTable,
    listeners: Box<[Listener]>,
    /// All of them have to let a client connect.
    sources: Box<[Arc<SourceTable>]>,
    /// Counts requests whose host belongs to none of the listeners.
    pub unmatched: SeriesId,
}

/// One listener of a Gateway.
#[derive(Debug)]
pub struct Listener {
    /// `namespace/gateway/listener`.
    pub name: Arc<str>,
    /// The hosts it serves.
    pub hostname: HostPattern,
    /// The routes attached to it.
    pub routes: RouteTable,
    /// Counts requests for which it has no route.
    pub unmatched: SeriesId,
}

/// One rule of a route.
#[derive(Debug)]
pub struct Rule {
    /// Its backends.
    pub targets: Targets,
    /// Whose turn it is among the targets. `None` where none takes requests: they are answered 500.
    pub schedule: Option<Schedule>,
    /// What is done beside forwarding.
    pub filters: Option<Box<RuleFilters>>,
    /// Counts requests for which no target was chosen.
    pub unserved: SeriesId,
    /// Which of a core's cursors says whose turn it is: the same in every snapshot that has this rule. [`BY_POSITION`] until it is in one.
    pub cursor: u32,
    /// Rate limits that its requests have to pass, all of them.
    pub limits: Option<Box<[LimitId]>>,
    /// `timeouts.request`: from the head's arrival to the end of the response.
    pub request_timeout: Option<Duration>,
    /// `timeouts.backendRequest`: from sending to the end of the response.
    pub backend_timeout: Option<Duration>,
    /// `namespace/route`.
    pub route: Arc<str>,
    /// Position in the route, from 0.
    pub index: u32,
}

/// The cursor of a rule or cluster that nobody gave a number: its position in the snapshot.
pub const BY_POSITION: u32 = u32::MAX;

/// All that a request needs to know of a rule that has one target, which takes requests and keeps no clients, and neither filters nor limits nor timeouts.
/// Others have [`ClusterId::INVALID`] here. Ten thousand rules fill the caches of a core, and their targets alone a tenth of it.
#[derive(Debug, Clone, Copy)]
struct PlainTarget {
    cluster: ClusterId,
    series: SeriesId,
}

/// The backends of a rule. A single one lies in the rule itself.
#[derive(Debug, Clone)]
pub enum Targets {
    /// There is one.
    One([Target; 1]),
    /// There are several, or none.
    Many(Box<[Target]>),
}

impl core::ops::Deref for Targets {
    type Target = [Target];

    #[inline]
    fn deref(&self) -> &[Target] {
        match self {
            Self::One(target) => target,
            Self::Many(targets) => targets,
        }
    }
}

impl From<Vec<Target>> for Targets {
    fn from(targets: Vec<Target>) -> Self {
        match targets[..] {
            [target] => Self::One([target]),
            _ => Self::Many(targets.into()),
        }
    }
}

/// One backend of a rule.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where requests go; [`ClusterId::INVALID`] where the reference is invalid, so that they are answered 500.
    pub cluster: ClusterId,
    /// Its share, relative to the rule's other targets.
    pub weight: u32,
    /// Counts its requests.
    pub series: SeriesId,
}

/// What a request met.
#[derive(Debug, Clone, Copy)]
pub enum Routed<'s> {
    /// This rule, whose position in [`Snapshot::rules`] comes with it.
    Rule(u32, &'s Rule),
    /// A listener without a route for it, or an address without a listener for its host.
    Nothing(SeriesId),
}

impl Bind {
    /// A bind of `listeners`, which share no hostname.
    #[must_use]
    pub fn new(address: SocketAddr, listeners: Vec<Listener>, unmatched: SeriesId) -> Self {
        let patterns: Vec<_> = listeners.iter().map(|l| l.hostname.clone()).collect();
        Self {
            address,
            hosts: HostTable::new(&patterns),
            listeners: listeners.into(),
            sources: Box::default(),
            unmatched,
        }
    }

    /// The same, and only clients that all of `sources` allow may connect.
    #[must_use]
    pub fn with_sources(mut self, sources: Vec<Arc<SourceTable>>) -> Self {
        self.sources = sources.into();
        self
    }

    /// Whether this client may connect.
    #[inline]
    #[must_use]
    pub fn allows(&self, client: IpAddr) -> bool {
        self.sources.iter().all(|table| table.allows(client))
    }

    /// The listener that takes this host, given without port.
    #[must_use]
    pub fn listener(&self, host: &[u8]) -> Option<&Listener> {
        self.listeners.get(self.hosts.find(&Host::new(host))? as usize)
    }

    /// Its listeners.
    #[must_use]
    pub fn listeners(&self) -> &[Listener] {
        &self.listeners
    }
}

impl Rule {
    fn plain_target(&self, clusters: &[Cluster]) -> PlainTarget {
        let kept = |id: ClusterId| clusters.get(id.0 as usize).is_none_or(|cluster| cluster.affinity.is_some());
        let bare = self.filters.is_none() && self.limits.is_none();
        let timed = self.request_timeout.is_some() || self.backend_timeout.is_some();
        match *self.targets {
            [Target { cluster, series, .. }] if bare && !timed && self.schedule.is_some() && !kept(cluster) => {
                PlainTarget { cluster, series }
            }
            _ => PlainTarget { cluster: ClusterId::INVALID, series: self.unserved },
        }
    }

    /// A rule whose schedule follows the targets' weights.
    #[must_use]
    pub fn new(route: Arc<str>, index: u32, targets: Vec<Target>, unserved: SeriesId) -> Self {
        let weights: Vec<u32> = targets.iter().map(|t| t.weight).collect();
        Self {
            route,
            index,
            targets: Targets::from(targets),
            schedule: Schedule::new(&weights),
            limits: None,
            unserved,
            cursor: BY_POSITION,
            request_timeout: None,
            backend_timeout: None,
            filters: None,
        }
    }
}

impl Snapshot {
    /// Puts the tables together. Where two binds have the same address, the later one is served.
    #[must_use]
    pub fn new(
        epoch: Epoch,
        http: HttpSettings,
        binds: Vec<Bind>,
        mut rules: Vec<Rule>,
        mut clusters: Vec<Cluster>,
        series: Vec<Arc<Series>>,
    ) -> Self {
        let places = Arc::new(Places::of(&series));
        let cursors = (
            number((0u32..).zip(rules.iter_mut().map(|rule| &mut rule.cursor))),
            number((0u32..).zip(clusters.iter_mut().map(|cluster| &mut cluster.cursor))),
        );
        let by_address = (0u32..).zip(&binds).map(|(i, b)| (b.address, BindId(i))).collect();
        Self {
            epoch,
            http,
            binds: binds.into(),
            by_address: Arc::new(by_address),
            plain: rules.iter().map(|rule| rule.plain_target(&clusters)).collect(),
            rules: rules.into(),
            endpoints: addresses(&clusters),
            clusters: clusters.into(),
            limits: Arc::default(),
            series: series.into(),
            places,
            series_epochs: Arc::default(),
            cursors,
        }
    }

    /// The same under another epoch, with `clusters` in the places of its own, one for one: all the rest is shared and not copied.
    #[must_use]
    pub fn with_clusters(&self, epoch: Epoch, clusters: Vec<Cluster>) -> Self {
        Self {
            epoch,
            http: self.http.clone(),
            binds: Arc::clone(&self.binds),
            by_address: Arc::clone(&self.by_address),
            plain: self.rules.iter().map(|rule| rule.plain_target(&clusters)).collect(),
            rules: Arc::clone(&self.rules),
            endpoints: addresses(&clusters),
            clusters: clusters.into(),
            limits: Arc::clone(&self.limits),
            series: Arc::clone(&self.series),
            places: Arc::clone(&self.places),
            series_epochs: Arc::clone(&self.series_epochs),
            cursors: self.cursors,
        }
    }

    /// How many cursors its rules and its clusters need.
    #[must_use]
    pub fn cursors(&self) -> (usize, usize) {
        self.cursors
    }

    /// The same with rate limits, which rules name by their positions.
    #[must_use]
    pub fn with_limits(mut self, limits: Vec<Limit>) -> Self {
        self.limits = limits.into();
        self
    }

    /// The same with the epochs since which series have had their numbers.
    #[must_use]
    pub fn with_series_epochs(mut self, epochs: Vec<Epoch>) -> Self {
        self.series_epochs = epochs.into();
        self
    }

    /// The series that a request counts to which was given `id` under epoch `began`. Where that series is gone and its number another's, the first one.
    #[must_use]
    pub fn series_since(&self, id: SeriesId, began: Epoch) -> Option<&Arc<Series>> {
        self.series.get(self.series_position(id, began))
    }

    /// Where `core` counts most requests of that series, to be fetched ahead.
    #[inline]
    #[must_use]
    pub fn series_line(&self, id: SeriesId, began: Epoch, core: u16) -> Option<&SeriesLine> {
        self.places.line(self.series_position(id, began), core)
    }

    /// Counts a request of that series that `core` has finished. `status` 0 means that no response was sent.
    #[inline]
    pub fn finished(&self, id: SeriesId, began: Epoch, core: u16, request: &Finished) {
        let at = self.series_position(id, began);
        let Some(beside) = self.places.line(at, core).and_then(|line| line.finished(request)) else { return };
        if let Some(core) = self.series.get(at).and_then(|series| series.cores.get(usize::from(core))) {
            core.beside(beside);
        }
    }

    #[inline]
    fn series_position(&self, id: SeriesId, began: Epoch) -> usize {
        if began == self.epoch { id.0 as usize } else { self.older_position(id, began) }
    }

    #[cold]
    fn older_position(&self, id: SeriesId, began: Epoch) -> usize {
        let at = id.0 as usize;
        if self.series_epochs.get(at).is_none_or(|&since| since <= began) { at } else { 0 }
    }

    /// Where the endpoint of this number is. `None` where no cluster has it.
    #[must_use]
    pub fn endpoint(&self, id: EndpointId) -> Option<SocketAddr> {
        self.endpoints.get(id.0 as usize).copied().flatten()
    }

    /// All binds.
    #[must_use]
    pub fn binds(&self) -> &[Bind] {
        &self.binds
    }

    /// Whether anybody listens there.
    #[must_use]
    pub fn bind(&self, address: SocketAddr) -> Option<BindId> {
        self.by_address.get(&address).copied()
    }

    /// Who listens there.
    #[must_use]
    pub fn bind_at(&self, address: SocketAddr) -> Option<&Bind> {
        self.binds.get(self.bind(address)?.0 as usize)
    }

    /// The rule for a request that came in by `bind`. `host` comes without port.
    #[must_use]
    pub fn route<'b, F: Fields<'b>>(&self, bind: BindId, host: &[u8], request: &Request<'b, F>) -> Routed<'_> {
        let Some(bind) = self.binds.get(bind.0 as usize) else {
            return Routed::Nothing(SeriesId(0));
        };
        let host = Host::new(host);
        let Some(listener) = bind.hosts.find(&host).and_then(|l| bind.listeners.get(l as usize)) else {
            return Routed::Nothing(bind.unmatched);
        };
        match listener.routes.find(&host, request).and_then(|r| Some((r, self.rules.get(r as usize)?))) {
            Some((index, rule)) => Routed::Rule(index, rule),
            None => Routed::Nothing(listener.unmatched),
        }
    }

    /// The only target of a rule that does nothing but forward, if it is such a one: `(cluster, series)`. It is all that a request needs to know of
    /// the rule, and an eighth of a cache line.
    #[inline]
    #[must_use]
    pub fn plain_target(&self, rule: u32) -> Option<(ClusterId, SeriesId)> {
        let plain = self.plain.get(rule as usize)?;
        (plain.cluster != ClusterId::INVALID).then_some((plain.cluster, plain.series))
    }

    /// Where requests of this rule go that were given this target.
    #[inline]
    #[must_use]
    pub fn target_cluster(&self, rule: u32, target: u32) -> Option<(ClusterId, &Cluster)> {
        let id = match self.plain_target(rule) {
            Some((cluster, _)) => cluster,
            None => self.rules.get(rule as usize)?.targets.get(target as usize)?.cluster,
        };
        Some((id, self.cluster(id)?))
    }

    /// The cluster of a target.
    #[must_use]
    pub fn cluster(&self, id: ClusterId) -> Option<&Cluster> {
        self.clusters.get(id.0 as usize)
    }
}

/// The addresses of all endpoints, by their numbers.
fn addresses(clusters: &[Cluster]) -> Box<[Option<SocketAddr>]> {
    let mut addresses = Vec::new();
    for endpoint in clusters.iter().flat_map(|cluster| cluster.endpoints.iter()) {
        let at = endpoint.id.0 as usize;
        if at >= addresses.len() {
            addresses.resize(at + 1, None);
        }
        if let Some(place) = addresses.get_mut(at) {
            *place = Some(endpoint.address);
        }
    }
    addresses.into()
}

/// Gives a cursor to whoever has none. Returns the number above all of them.
fn number<'c>(cursors: impl Iterator<Item = (u32, &'c mut u32)>) -> usize {
    cursors.fold(0, |above, (position, cursor)| {
        if *cursor == BY_POSITION {
            *cursor = position;
        }
        above.max(*cursor as usize + 1)
    })
}

impl Versioned for Snapshot {
    fn epoch(&self) -> u64 {
        self.epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_plain_that_only_forwards() {
        let target = |cluster, weight| Target { cluster: ClusterId(cluster), weight, series: SeriesId(7) };
        let rule = |targets| Rule::new("r".into(), 0, targets, SeriesId(8));
        let plain = rule(vec![target(0, 1)]);
        let filtered = Rule { filters: Some(Box::default()), ..rule(vec![target(0, 1)]) };
        let limited = Rule { limits: Some(Box::default()), ..rule(vec![target(0, 1)]) };
        let timed = Rule { request_timeout: Some(Duration::from_secs(1)), ..rule(vec![target(0, 1)]) };
        let slow = Rule { backend_timeout: Some(Duration::from_secs(1)), ..rule(vec![target(0, 1)]) };
        let two = rule(vec![target(0, 1), target(0, 1)]);
        let none = rule(vec![target(0, 0)]);
        let (invalid, gone) = (rule(vec![target(ClusterId::INVALID.0, 1)]), rule(vec![target(9, 1)]));
        let kept = rule(vec![target(1, 1)]);
        let rules = vec![plain, filtered, limited, timed, slow, two, none, invalid, gone, kept];
        let mut keeps = Cluster::new("b".into(), vec![]);
        keeps.affinity = Some(Box::new(crate::Affinity { hash_on: None, seed: 0, session: None }));
        let clusters = vec![Cluster::new("a".into(), vec![]), keeps];
        let snapshot = Snapshot::new(1, HttpSettings::default(), vec![], rules, clusters, vec![]);
        let found: Vec<_> = (0..11).map(|rule| snapshot.plain_target(rule)).collect();
        assert_eq!(found[0], Some((ClusterId(0), SeriesId(7))));
        assert_eq!(found[1..], [None; 10]);
        assert_eq!(snapshot.target_cluster(5, 1).map(|(id, _)| id), Some(ClusterId(0)));
        assert!(snapshot.target_cluster(5, 2).is_none() && snapshot.target_cluster(8, 0).is_none());
        // Other clusters may keep their clients.
        let other = snapshot.with_clusters(2, vec![Cluster::new("a".into(), vec![]), Cluster::new("b".into(), vec![])]);
        assert_eq!(other.plain_target(9), Some((ClusterId(1), SeriesId(7))));
    }
}
