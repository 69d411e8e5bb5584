//! From resources to tables, by the Gateway API's rules.
//!
//! A [`Compiler`] lives as long as the process: it hands out series and endpoint ids that stay true across compilations, and
//! numbers the epochs. It is pure otherwise: the same configurations in the same order give the same snapshots. It never
//! refuses one, because `schema` lets no wrong one through; what could not be attached shows in the conditions.

mod clusters;
mod conditions;
mod endpoints;
mod filters;
mod ids;
mod limits;
mod references;
pub(crate) mod routes;
mod settings;

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use schema::{Configuration, DnsName, Gateway, Hostname, HttpRoute, HttpRouteRule, Metadata, Name, ObjectName};
use tables::snapshot::Listener as ListenerTable;
use tables::{
    Bind, Cluster, ClusterId, EndpointId, Epoch, HostPattern, RouteTable, Rule, Series, SeriesId, SeriesLines,
    Snapshot, SourceTable,
};

use crate::endpoints::CheckIds;
use crate::endpoints::plan::ClusterPlan;
use crate::names::Resolutions;
use crate::status::{GatewayStatus, RouteStatus};
use clusters::{ClusterKey, Places};
use conditions::Attachment;
pub use endpoints::Touched;
use ids::Ids;
use limits::{LimitTables, Limits};
use references::References;
pub use settings::{core_settings, exception_settings};

/// Turns configurations into snapshots.
#[derive(Debug)]
pub struct Compiler {
    cores: usize,
    epoch: Epoch,
    series: Vec<Arc<Series>>,
    /// Since when each series has had its number.
    series_epochs: Vec<Epoch>,
    series_ids: Ids<[Arc<str>; 3]>,
    /// Where series of backends count, and those of requests that got to none.
    lines: SeriesLines,
    unserved_lines: SeriesLines,
    endpoint_ids: Ids<SocketAddr>,
    /// Whose turn it is, cores remember by these numbers.
    rule_cursors: Ids<RuleKey>,
    cluster_cursors: Ids<ClusterKey>,
    /// See [`Compiler::swept`].
    swept: Epoch,
    limit_tables: LimitTables,
    check_ids: CheckIds,
    resolutions: Resolutions,
    /// Names that have had other addresses since the last compilation.
    renamed: HashSet<DnsName>,
}

/// Series of what is gone that are kept, for who reads metrics now and then and for what comes back.
const KEPT_SERIES: usize = 1024;

/// Numbers of endpoints that are gone which are kept, for those that come back.
const KEPT_ENDPOINTS: usize = 1024;

/// Cursors of rules and clusters that are gone which are kept, for those that come back.
const KEPT_CURSORS: usize = 1024;

/// A rule across configurations: its listener, its route, and its name, or its position where it has none.
type RuleKey = (Arc<str>, ObjectName, Result<Name, u32>);

/// One configuration, compiled.
#[derive(Debug, Clone)]
pub struct Compiled {
    /// The tables.
    pub snapshot: Arc<Snapshot>,
    /// Series that this snapshot can count to; the others are of earlier ones.
    pub series_in_use: Arc<HashSet<SeriesId>>,
    /// What it was compiled from.
    pub configuration: Arc<Configuration>,
    /// The listeners that each route is attached to, both by their names.
    pub attached: Arc<HashMap<String, Vec<Arc<str>>>>,
    /// What the snapshot's clusters are worked out from, in their order.
    pub clusters: Arc<[ClusterPlan]>,
    /// What of it is to be checked.
    pub checks: Arc<[tables::Check]>,
    /// How each Gateway stands.
    pub gateways: Arc<[GatewayStatus]>,
    /// How each route stands.
    pub routes: Arc<[RouteStatus]>,
    /// What the snapshot's clusters are, in their order.
    keys: Arc<[ClusterKey]>,
}

impl Compiler {
    /// A compiler for an appliance with this many polling cores.
    #[must_use]
    pub fn new(cores: usize) -> Self {
        Self {
            cores,
            epoch: 0,
            series: Vec::new(),
            series_epochs: Vec::new(),
            series_ids: Ids::default(),
            lines: SeriesLines::new(cores),
            unserved_lines: SeriesLines::new(cores),
            endpoint_ids: Ids::default(),
            rule_cursors: Ids::default(),
            cluster_cursors: Ids::default(),
            swept: 0,
            limit_tables: LimitTables::default(),
            check_ids: CheckIds::default(),
            resolutions: Resolutions::new(),
            renamed: HashSet::new(),
        }
    }

    /// The addresses that names have, from the next compilation on.
    pub fn resolved(&mut self, resolutions: Resolutions) {
        let before = core::mem::replace(&mut self.resolutions, resolutions);
        let names = before.keys().chain(self.resolutions.keys());
        self.renamed.extend(names.filter(|name| before.get(*name) != self.resolutions.get(*name)).cloned());
    }

    /// All cores have closed their idle connections to endpoints that `epoch` did not have. Until this is known of a later epoch, the numbers of
    /// endpoints that are gone since are not given to others.
    pub fn swept(&mut self, epoch: Epoch) {
        self.swept = epoch;
    }

    /// Compiles one configuration under the next epoch.
    pub fn compile(&mut self, configuration: &Arc<Configuration>) -> Compiled {
        self.epoch += 1;
        self.renamed.clear();
        // Id 0 is what `Snapshot::route` answers for a bind that does not exist, and what counts for series that are gone.
        self.series_id(["".into(), "".into(), "".into()]);
        let listeners = listeners(configuration);
        let conflicted = conflicts(&listeners);
        let limits = Limits::new(configuration, &mut self.limit_tables, self.cores);
        let references = References::of(configuration);
        let mut run = Run {
            compiler: self,
            references: &references,
            configuration,
            places: Places::of(configuration),
            keys: Vec::new(),
            clusters: Vec::new(),
            plans: Vec::new(),
            cluster_ids: HashMap::new(),
            rules: Vec::new(),
            limits,
            in_use: HashSet::new(),
        };
        let attachments = attachments(configuration, &listeners, &conflicted);
        let tables: Vec<RouteTable> = listeners
            .iter()
            .enumerate()
            .map(|(index, listener)| run.routes_of(index, listener, &attachments))
            .collect();
        let binds = run.binds(&listeners, &conflicted, &tables);
        let Gathered { clusters, keys, mut plans, rules, limits, in_use } = run.gathered();
        let checks = self.check_ids.assign(&mut plans);
        let http = settings::http_settings(&configuration.appliance);
        self.retire();
        let snapshot = Snapshot::new(self.epoch, http, binds, rules, clusters, self.series.clone())
            .with_series_epochs(self.series_epochs.clone());
        Compiled {
            snapshot: Arc::new(snapshot.with_limits(limits.limits)),
            series_in_use: Arc::new(in_use),
            configuration: Arc::clone(configuration),
            attached: Arc::new(attached(&attachments, &listeners)),
            clusters: plans.into(),
            checks,
            gateways: conditions::gateways(configuration, &listeners, &conflicted, &attachments).into(),
            routes: conditions::routes(&references, &attachments).into(),
            keys: keys.into(),
        }
    }

    fn series_id(&mut self, labels: [Arc<str>; 3]) -> SeriesId {
        let (id, new) = self.series_ids.id(&labels, self.epoch);
        if new {
            let [listener, route, backend] = labels;
            let series = {
                // What is counted now and then is kept apart from what most requests are counted in.
                let lines = if backend.is_empty() { &mut self.unserved_lines } else { &mut self.lines };
                Arc::new(lines.series(listener, route, backend))
            };
            match (self.series.get_mut(id as usize), self.series_epochs.get_mut(id as usize)) {
                (Some(place), Some(since)) => (*place, *since) = (series, self.epoch),
                _ => {
                    self.series.push(series);
                    self.series_epochs.push(self.epoch);
                }
            }
        }
        SeriesId(id)
    }

    fn endpoint_id(&mut self, address: SocketAddr) -> EndpointId {
        EndpointId(self.endpoint_ids.id(&address, self.epoch).0)
    }

    /// Frees what has not been used for long. Snapshots that cores have hold their series themselves.
    fn retire(&mut self) {
        let Some(gone) = self.series.first().map(Arc::clone) else { return };
        for id in self.series_ids.retire(self.epoch, KEPT_SERIES, Epoch::MAX) {
            if let Some(place) = self.series.get_mut(id as usize) {
                *place = Arc::clone(&gone);
            }
        }
        self.endpoint_ids.retire(self.epoch, KEPT_ENDPOINTS, self.swept);
        self.rule_cursors.retire(self.epoch, KEPT_CURSORS, Epoch::MAX);
        self.cluster_cursors.retire(self.epoch, KEPT_CURSORS, Epoch::MAX);
    }
}

/// A listener with its Gateway and where it is bound. Older Gateways come first.
struct ListenerInput<'c> {
    gateway: &'c Gateway,
    listener: &'c schema::Listener,
    /// `namespace/gateway/listener`.
    name: Arc<str>,
    hostname: HostPattern,
    binds: Vec<SocketAddr>,
}

/// What one compilation gathers.
struct Run<'a> {
    compiler: &'a mut Compiler,
    references: &'a References<'a>,
    configuration: &'a Configuration,
    places: Places<'a>,
    clusters: Vec<Cluster>,
    keys: Vec<ClusterKey>,
    plans: Vec<ClusterPlan>,
    cluster_ids: HashMap<ClusterKey, ClusterId>,
    rules: Vec<Rule>,
    limits: Limits,
    in_use: HashSet<SeriesId>,
}

/// What outlives it.
struct Gathered {
    clusters: Vec<Cluster>,
    keys: Vec<ClusterKey>,
    plans: Vec<ClusterPlan>,
    rules: Vec<Rule>,
    limits: Limits,
    in_use: HashSet<SeriesId>,
}

impl Run<'_> {
    fn gathered(self) -> Gathered {
        let Self { clusters, keys, plans, rules, limits, in_use, .. } = self;
        Gathered { clusters, keys, plans, rules, limits, in_use }
    }

    fn binds(
        &mut self,
        listeners: &[ListenerInput<'_>],
        conflicted: &BTreeSet<usize>,
        tables: &[RouteTable],
    ) -> Vec<Bind> {
        let policies = limits::sources(self.configuration);
        let mut by_address: BTreeMap<SocketAddr, Vec<ListenerTable>> = BTreeMap::new();
        // Several Gateways may share an address and port; who connects has to be welcome to all of them.
        let mut sources: HashMap<SocketAddr, BTreeMap<&ObjectName, Arc<SourceTable>>> = HashMap::new();
        for (index, (listener, routes)) in listeners.iter().zip(tables).enumerate() {
            if conflicted.contains(&index) {
                continue;
            }
            let unmatched = self.series([Arc::clone(&listener.name), "".into(), "".into()]);
            let gateway = &listener.gateway.metadata.object;
            for &address in &listener.binds {
                if let Some(table) = policies.get(gateway) {
                    sources.entry(address).or_default().insert(gateway, Arc::clone(table));
                }
                by_address.entry(address).or_default().push(ListenerTable {
                    name: Arc::clone(&listener.name),
                    hostname: listener.hostname.clone(),
                    routes: routes.clone(),
                    unmatched,
                });
            }
        }
        by_address
            .into_iter()
            .map(|(address, listeners)| {
                let unmatched = self.series([address.to_string().into(), "".into(), "".into()]);
                let sources = sources.remove(&address).unwrap_or_default().into_values().collect();
                Bind::new(address, listeners, unmatched).with_sources(sources)
            })
            .collect()
    }

    /// The number of a rule's cursor.
    fn rule_cursor(
        &mut self,
        listener: &ListenerInput<'_>,
        route: &HttpRoute,
        number: u32,
        rule: &HttpRouteRule,
    ) -> u32 {
        let key = (Arc::clone(&listener.name), route.metadata.object.clone(), rule.name.clone().ok_or(number));
        self.compiler.rule_cursors.id(&key, self.compiler.epoch).0
    }

    fn series(&mut self, labels: [Arc<str>; 3]) -> SeriesId {
        let id = self.compiler.series_id(labels);
        self.in_use.insert(id);
        id
    }
}

/// All listeners, those of the oldest Gateway first.
fn listeners(configuration: &Configuration) -> Vec<ListenerInput<'_>> {
    let mut gateways: Vec<&Gateway> = configuration.gateways.iter().map(|g| &g.value).collect();
    gateways.sort_by(|a, b| by_age(&a.metadata, &b.metadata));
    let mut found = Vec::new();
    for gateway in gateways {
        let addresses: BTreeSet<IpAddr> = configuration.gateway_addresses(gateway).into_iter().collect();
        for listener in &gateway.spec.listeners {
            found.push(ListenerInput {
                gateway,
                listener,
                name: format!("{}/{}", gateway.metadata.object, listener.name).into(),
                hostname: listener.hostname.as_ref().map_or(HostPattern::Any, |h| pattern(h)),
                binds: addresses.iter().map(|&a| SocketAddr::new(a, listener.port.get())).collect(),
            });
        }
    }
    found
}

/// Listeners that share address, port and hostname with an earlier one. They are served nowhere: half a listener
/// would be harder to see than none.
fn conflicts(listeners: &[ListenerInput<'_>]) -> BTreeSet<usize> {
    let mut taken: HashSet<(SocketAddr, &HostPattern)> = HashSet::new();
    let mut conflicted = BTreeSet::new();
    for (index, listener) in listeners.iter().enumerate() {
        if listener.binds.iter().any(|&bind| taken.contains(&(bind, &listener.hostname))) {
            conflicted.insert(index);
        } else {
            taken.extend(listener.binds.iter().map(|&bind| (bind, &listener.hostname)));
        }
    }
    conflicted
}

/// Which listeners each route attaches to, by `parentRef`.
fn attachments<'c>(
    configuration: &'c Configuration,
    listeners: &[ListenerInput<'_>],
    conflicted: &BTreeSet<usize>,
) -> Vec<Attachment<'c>> {
    configuration
        .routes
        .iter()
        .map(|route| Attachment {
            route,
            parents: route
                .spec
                .parent_refs
                .iter()
                .map(|p| conditions::parent(configuration, route, p, listeners, conflicted))
                .collect(),
        })
        .collect()
}

/// The listeners that each route is attached to.
fn attached(attachments: &[Attachment<'_>], listeners: &[ListenerInput<'_>]) -> HashMap<String, Vec<Arc<str>>> {
    let of = |attachment: &Attachment<'_>| {
        let mut indices: Vec<usize> = attachment.parents.iter().flat_map(|p| p.listeners.iter().copied()).collect();
        indices.sort_unstable();
        indices.dedup();
        let names = indices.into_iter().filter_map(|index| Some(Arc::clone(&listeners.get(index)?.name)));
        (attachment.route.metadata.object.joined(), names.collect())
    };
    attachments.iter().map(of).collect()
}

fn pattern(hostname: &Hostname) -> HostPattern {
    match hostname {
        Hostname::Exact(host) => HostPattern::Exact(host.as_ref().into()),
        Hostname::Wildcard(suffix) => HostPattern::Wildcard(suffix.as_ref().into()),
    }
}

/// The Gateway API's order among equals: the older first, then by namespace and name. What comes from a file has no age and
/// counts as oldest.
pub(crate) fn by_age(a: &Metadata, b: &Metadata) -> Ordering {
    a.creation_timestamp.cmp(&b.creation_timestamp).then_with(|| a.object.cmp(&b.object))
}

#[cfg(test)]
mod tests;
