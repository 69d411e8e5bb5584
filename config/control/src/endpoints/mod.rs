//! What control knows of endpoints, and the small table that it makes of it.
//!
//! `Endpoints` keeps what operators said of endpoints and what checks found out, over all configurations; of each configuration it
//! keeps the plans. Whenever something changes it works out the selections of the clusters concerned, and of no others.

mod kept;
pub mod plan;
mod select;

use core::time::Duration;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tables::{Check, CheckFailure, CheckId, EndpointId, EndpointTable, Epoch, Probe, Report, Selection, Snapshot};

use crate::status::{CheckedState, EndpointFailure, EndpointStatus};
use plan::{ClusterPlan, PlannedEndpoint, Readiness};
pub(crate) use select::{SessionKey, select_ready};
use select::{State, select};

/// How often the weights of endpoints that start slowly are worked out anew.
const RAMP: Duration = Duration::from_secs(1);

/// Endpoints of which an operator may have said something. Each is a name and an address.
const OVERRIDES: usize = 65_536;

/// Everything about endpoints that outlives a configuration, and what follows from it for this one.
pub(crate) struct Endpoints {
    key: SessionKey,
    version: u64,
    snapshot: Epoch,
    plans: Arc<[ClusterPlan]>,
    checks: Arc<[Check]>,
    /// Clusters by check.
    of_check: HashMap<CheckId, Vec<u32>>,
    overrides: HashMap<(Arc<str>, SocketAddr), Override>,
    health: HashMap<CheckId, Health>,
    /// When endpoints of clusters with slow start began to take requests.
    since: HashMap<(Arc<str>, EndpointId), Instant>,
    selections: Vec<Option<Arc<Selection>>>,
    /// What the snapshot itself has.
    defaults: Vec<Arc<Selection>>,
    /// Clusters whose selection has to be worked out anew.
    changed: BTreeSet<u32>,
    ramped: Instant,
    first: bool,
}

/// What an operator said of an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Override {
    weight: Option<u32>,
    drain: bool,
}

impl Override {
    /// In words; empty where nothing was said.
    fn text(self) -> String {
        let weight = self.weight.map(|weight| format!("weight {weight}"));
        let parts: Vec<String> = weight.into_iter().chain(self.drain.then(|| "drain".to_owned())).collect();
        parts.join(", ")
    }
}

/// What an operator can say of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Setting {
    /// Its weight is this one, whatever the configuration says.
    Weight(u32),
    /// It takes no new requests.
    Drain,
    /// It is as the configuration says.
    Ready,
}

/// What checks found out.
#[derive(Debug, Clone, Default)]
struct Health {
    /// `None` as long as no verdict is known.
    healthy: Option<bool>,
    /// Results in a row that speak against the verdict.
    streak: u32,
    passed: u64,
    failed: u64,
    last_failure: Option<(CheckFailure, Instant)>,
    healthy_threshold: u32,
    unhealthy_threshold: u32,
}

impl Health {
    /// Takes a result. Whether the verdict changed.
    fn take(&mut self, failure: Option<CheckFailure>, now: Instant) -> bool {
        let passed = failure.is_none();
        if let Some(failure) = failure {
            self.failed += 1;
            self.last_failure = Some((failure, now));
        } else {
            self.passed += 1;
        }
        // Who was never checked is taken for healthy until it fails often enough; one pass confirms it.
        if self.healthy.unwrap_or(true) == passed {
            self.streak = 0;
            self.healthy = Some(passed);
            return false;
        }
        self.streak += 1;
        let needed = if passed { self.healthy_threshold } else { self.unhealthy_threshold };
        if self.streak < needed {
            return false;
        }
        self.healthy = Some(passed);
        self.streak = 0;
        true
    }
}

impl Endpoints {
    pub(crate) fn new(key: SessionKey, now: Instant) -> Self {
        Self {
            key,
            version: 0,
            snapshot: 0,
            plans: Arc::default(),
            checks: Arc::default(),
            of_check: HashMap::new(),
            overrides: HashMap::new(),
            health: HashMap::new(),
            since: HashMap::new(),
            selections: Vec::new(),
            defaults: Vec::new(),
            changed: BTreeSet::new(),
            ramped: now,
            first: true,
        }
    }

    /// Takes the plans of a configuration that is about to be published. Its selections are those of the moment then, without a table's help, where nobody
    /// else holds the snapshot.
    pub(crate) fn adopt(
        &mut self,
        snapshot: &mut Arc<Snapshot>,
        plans: &Arc<[ClusterPlan]>,
        checks: &Arc<[Check]>,
        now: Instant,
    ) {
        self.snapshot = snapshot.epoch;
        let before = self.verdicts_before(plans, checks);
        let kept = self.kept(plans);
        let pending = core::mem::take(&mut self.changed);
        self.plans = Arc::clone(plans);
        if *self.checks != **checks {
            self.checks = Arc::clone(checks);
        }
        self.of_check.clear();
        let mut health = HashMap::new();
        let mut since = HashMap::new();
        let tended = |plan: &ClusterPlan| plan.check.is_some() || plan.slow_start.is_some();
        for (cluster, plan) in (0u32..).zip(plans.iter()).filter(|(_, plan)| tended(plan)) {
            for planned in plan.endpoints.iter() {
                if let (Some(check), Some(rule)) = (planned.check, &plan.check) {
                    self.of_check.entry(check).or_default().push(cluster);
                    let known = self.health.get(&check).or_else(|| {
                        before
                            .get(&(&*plan.name, planned.endpoint.id))
                            .filter(|(probe, _)| *probe == rule.way.probe)
                            .map(|(_, health)| health)
                    });
                    let known = known.cloned().unwrap_or_default();
                    let (healthy_threshold, unhealthy_threshold) = (rule.healthy_threshold, rule.unhealthy_threshold);
                    health.insert(check, Health { healthy_threshold, unhealthy_threshold, ..known });
                }
                if plan.slow_start.is_some() && !self.first {
                    let key = (Arc::clone(&plan.name), planned.endpoint.id);
                    let known = self.since.get(&key).copied();
                    since.insert(key, known.unwrap_or(now));
                }
            }
        }
        if self.first {
            // All start together: none of them has to start slower than another.
            let long_ago = plans.iter().filter(|plan| plan.slow_start.is_some());
            for (plan, planned) in long_ago.flat_map(|plan| plan.endpoints.iter().map(move |e| (plan, e))) {
                if let Some(past) = plan.slow_start.and_then(|slow| now.checked_sub(slow.window)) {
                    since.insert((Arc::clone(&plan.name), planned.endpoint.id), past);
                }
            }
        }
        self.first = false;
        self.health = health;
        self.since = since;
        self.selections = vec![None; plans.len()];
        self.defaults = snapshot.clusters.iter().map(|cluster| Arc::clone(&cluster.selection)).collect();
        let mut kept = kept.into_iter();
        for (cluster, plan) in (0u32..).zip(plans.iter()) {
            match kept.next().flatten() {
                Some(_) if pending.contains(&cluster) => drop(self.refresh(cluster, now)),
                Some(selection) => {
                    let as_default = self.defaults.get(cluster as usize).is_some_and(|d| Arc::ptr_eq(d, &selection));
                    if let Some(place) = self.selections.get_mut(cluster as usize).filter(|_| !as_default) {
                        *place = Some(selection);
                    }
                }
                None if self.deviates(plan, now) => drop(self.refresh(cluster, now)),
                None => {}
            }
        }
        if let Some(snapshot) = Arc::get_mut(snapshot) {
            let places = self.selections.iter_mut().zip(&mut self.defaults);
            for (cluster, (selection, default)) in snapshot.clusters.iter_mut().zip(places) {
                if let Some(selection) = selection.take() {
                    cluster.selection = Arc::clone(&selection);
                    *default = selection;
                }
            }
        }
    }

    /// Who takes requests now, for the clusters whose endpoints are the same in `plans`: those need not be worked out again.
    fn kept(&self, plans: &[ClusterPlan]) -> Vec<Option<Arc<Selection>>> {
        let same = |(old, new): (&ClusterPlan, &ClusterPlan)| Arc::ptr_eq(&old.endpoints, &new.endpoints);
        let selections =
            self.selections.iter().zip(&self.defaults).map(|(now, default)| now.as_ref().unwrap_or(default));
        let each = self.plans.iter().zip(plans).zip(selections);
        each.map(|(pair, selection)| same(pair).then(|| Arc::clone(selection))).collect()
    }

    /// What is known of endpoints whose checks are new ones: the same question asked in another rhythm, or with other thresholds, forgets nothing.
    fn verdicts_before<'p>(
        &self,
        plans: &'p [ClusterPlan],
        checks: &[Check],
    ) -> HashMap<(&'p str, EndpointId), (Probe, Health)> {
        if checks.iter().all(|check| self.health.contains_key(&check.id)) {
            return HashMap::new();
        }
        let names: HashMap<&str, &'p str> = plans.iter().map(|plan| (&*plan.name, &*plan.name)).collect();
        let mut found = HashMap::new();
        for plan in self.plans.iter() {
            let (Some(rule), Some(&name)) = (&plan.check, names.get(&*plan.name)) else { continue };
            for planned in plan.endpoints.iter() {
                if let Some(health) = planned.check.and_then(|check| self.health.get(&check)) {
                    let health = Health { streak: 0, ..health.clone() };
                    found.insert((name, planned.endpoint.id), (rule.way.probe.clone(), health));
                }
            }
        }
        found
    }

    /// The table as it is now.
    pub(crate) fn table(&mut self) -> Arc<EndpointTable> {
        self.version += 1;
        let selections = self.selections.clone();
        Arc::new(EndpointTable::new(self.version, self.snapshot, selections, Arc::clone(&self.checks)))
    }

    /// Takes the result of a check.
    pub(crate) fn report(&mut self, report: Report, now: Instant) {
        // A check that no configuration has any more says nothing.
        let Some(health) = self.health.get_mut(&report.check) else { return };
        if !health.take(report.failure, now) {
            return;
        }
        let healthy = health.healthy == Some(true);
        let Some(clusters) = self.of_check.get(&report.check) else { return };
        for &cluster in clusters {
            self.changed.insert(cluster);
            let Some(plan) = self.plans.get(cluster as usize) else { continue };
            for planned in plan.endpoints.iter().filter(|planned| planned.check == Some(report.check)) {
                let address = planned.endpoint.address;
                if healthy {
                    tracing::info!("{}: {address} is healthy", plan.name);
                    if plan.slow_start.is_some() {
                        self.since.entry((Arc::clone(&plan.name), planned.endpoint.id)).and_modify(|at| *at = now);
                    }
                } else if let Some(failure) = report.failure {
                    tracing::warn!("{}: {address} is unhealthy: {failure}", plan.name);
                }
            }
        }
    }

    /// Does as an operator says. `backend` is `namespace/name`; without a port all endpoints of the address are meant.
    ///
    /// # Errors
    /// What there is instead.
    pub(crate) fn set(&mut self, backend: &str, address: Address, setting: Setting) -> Result<usize, String> {
        let plans = self.plans.iter().filter(|plan| *plan.backend == *backend);
        let mut known: BTreeSet<SocketAddr> = BTreeSet::new();
        let mut name = None;
        for plan in plans {
            name = Some(Arc::clone(&plan.backend));
            known.extend(plan.endpoints.iter().map(|planned| planned.endpoint.address));
        }
        let Some(name) = name else {
            let backends: BTreeSet<&str> = self.plans.iter().map(|plan| &*plan.backend).collect();
            return Err(format!("no route uses a backend {backend}; there are {}", list(backends)));
        };
        let meant: Vec<SocketAddr> = known.iter().copied().filter(|endpoint| address.means(*endpoint)).collect();
        if meant.is_empty() {
            return Err(format!("{backend} has no endpoint {address}; its endpoints are {}", list(known)));
        }
        for &endpoint in &meant {
            let key = (Arc::clone(&name), endpoint);
            if self.overrides.len() >= OVERRIDES && !self.overrides.contains_key(&key) {
                return Err(format!("{OVERRIDES} endpoints have been set already; make some ready again"));
            }
            let entry = self.overrides.entry(key.clone()).or_default();
            match setting {
                Setting::Weight(weight) => entry.weight = Some(weight),
                Setting::Drain => entry.drain = true,
                Setting::Ready => {
                    self.overrides.remove(&key);
                }
            }
        }
        self.changed.extend(
            (0u32..).zip(self.plans.iter()).filter(|(_, plan)| *plan.backend == *backend).map(|(cluster, _)| cluster),
        );
        Ok(meant.len())
    }

    /// Works out what has changed. The table, if anything has.
    pub(crate) fn settle(&mut self, now: Instant) -> Option<Arc<EndpointTable>> {
        if now.duration_since(self.ramped) >= RAMP {
            self.ramped = now;
            let slow = (0u32..).zip(self.plans.iter()).filter(|(_, plan)| self.starts(plan, now));
            self.changed.extend(slow.map(|(cluster, _)| cluster).collect::<Vec<_>>());
        }
        let mut any = false;
        for cluster in core::mem::take(&mut self.changed) {
            any |= self.refresh(cluster, now);
        }
        any.then(|| self.table())
    }

    /// Who takes requests now, by cluster.
    pub(crate) fn selections(&self) -> Vec<Arc<Selection>> {
        let now = self.selections.iter().zip(&self.defaults);
        now.map(|(selection, default)| Arc::clone(selection.as_ref().unwrap_or(default))).collect()
    }

    /// All endpoints of all clusters.
    pub(crate) fn list(&self, now: Instant) -> Vec<EndpointStatus> {
        let mut found = Vec::new();
        for (at, plan) in self.plans.iter().enumerate() {
            let selection = self.selections.get(at).and_then(Option::as_ref).or_else(|| self.defaults.get(at));
            let weights: HashMap<EndpointId, u32> = selection
                .map(|selection| selection.members().iter().map(|member| (member.id, member.weight)).collect())
                .unwrap_or_default();
            let total: f64 = weights.values().map(|&weight| f64::from(weight)).sum();
            for planned in plan.endpoints.iter() {
                let weight = weights.get(&planned.endpoint.id).copied().unwrap_or(0);
                let share = if total > 0.0 { f64::from(weight) / total } else { 0.0 };
                found.push(self.status(plan, planned, share, now));
            }
        }
        found
    }

    fn status(&self, plan: &ClusterPlan, planned: &PlannedEndpoint, share: f64, now: Instant) -> EndpointStatus {
        let said = self.said(plan, planned);
        let health = planned.check.and_then(|check| self.health.get(&check));
        EndpointStatus {
            cluster: plan.name.to_string(),
            backend: plan.backend.to_string(),
            address: planned.endpoint.address.to_string(),
            weight: said.weight.unwrap_or(planned.endpoint.weight),
            priority: planned.level,
            zone: planned.zone.to_string(),
            name: planned.name.to_string(),
            state: match (said.drain, planned.readiness) {
                (true, _) => "draining",
                (false, Readiness::Terminating) => "terminating",
                (false, Readiness::Ready) => "ready",
            }
            .to_owned(),
            health: match health {
                None => CheckedState::Unchecked,
                Some(Health { healthy: None, .. }) => CheckedState::Unknown,
                Some(Health { healthy: Some(true), .. }) => CheckedState::Healthy,
                Some(Health { healthy: Some(false), .. }) => CheckedState::Unhealthy,
            },
            set: said.text(),
            share,
            checks_passed: health.map_or(0, |health| health.passed),
            checks_failed: health.map_or(0, |health| health.failed),
            last_failure: health.and_then(|health| health.last_failure).map(|(failure, at)| EndpointFailure {
                reason: failure.to_string(),
                seconds_ago: now.duration_since(at).as_secs(),
            }),
        }
    }

    /// Works the selection of a cluster out. Whether it is another one.
    fn refresh(&mut self, cluster: u32, now: Instant) -> bool {
        let Some(plan) = self.plans.get(cluster as usize) else { return false };
        let states: Vec<State> = plan.endpoints.iter().map(|planned| self.state(plan, planned, now)).collect();
        let selection = select(plan, &states, self.key);
        let (at, default) = (cluster as usize, self.defaults.get(cluster as usize));
        let Some(place) = self.selections.get_mut(at) else { return false };
        let as_default = default.is_some_and(|default| **default == selection);
        if place.as_deref().map_or(as_default, |place| *place == selection) {
            return false;
        }
        *place = (!as_default).then(|| Arc::new(selection));
        true
    }

    /// Whether not all of its endpoints are as its plan says.
    fn deviates(&self, plan: &ClusterPlan, now: Instant) -> bool {
        // Without the first three nothing can be known of an endpoint.
        (!self.overrides.is_empty() || plan.check.is_some() || plan.slow_start.is_some() || plan.sessions)
            && (plan.sessions || plan.endpoints.iter().any(|e| self.state(plan, e, now) != State::READY))
    }

    fn said(&self, plan: &ClusterPlan, planned: &PlannedEndpoint) -> Override {
        if self.overrides.is_empty() {
            return Override::default();
        }
        self.overrides.get(&(Arc::clone(&plan.backend), planned.endpoint.address)).copied().unwrap_or_default()
    }

    fn state(&self, plan: &ClusterPlan, planned: &PlannedEndpoint, now: Instant) -> State {
        let said = self.said(plan, planned);
        let health = planned.check.and_then(|check| self.health.get(&check));
        State {
            weight: said.weight,
            drain: said.drain,
            healthy: health.is_none_or(|health| health.healthy != Some(false)),
            ramp: self.ramp(plan, planned, now),
        }
    }

    /// The part of its weight that an endpoint has come to.
    fn ramp(&self, plan: &ClusterPlan, planned: &PlannedEndpoint, now: Instant) -> f64 {
        let Some(slow) = plan.slow_start else { return 1.0 };
        let since = self.since.get(&(Arc::clone(&plan.name), planned.endpoint.id));
        let Some(age) = since.map(|&since| now.duration_since(since)).filter(|age| *age < slow.window) else {
            return 1.0;
        };
        (age.as_secs_f64() / slow.window.as_secs_f64()).max(f64::from(slow.min_weight_percent) / 100.0)
    }

    /// Whether an endpoint of it is on its way to its full share, or has come there since it was last looked at.
    fn starts(&self, plan: &ClusterPlan, now: Instant) -> bool {
        plan.slow_start.is_some_and(|slow| {
            plan.endpoints.iter().any(|planned| {
                let since = self.since.get(&(Arc::clone(&plan.name), planned.endpoint.id));
                since.is_some_and(|&since| now.duration_since(since) < slow.window + 2 * RAMP)
            })
        })
    }
}

/// An endpoint as an operator names it: with or without its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Address {
    /// All ports.
    Any(IpAddr),
    /// This port.
    One(SocketAddr),
}

impl Address {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        text.parse().map(Self::One).or_else(|_| text.parse().map(Self::Any)).ok()
    }

    fn means(self, endpoint: SocketAddr) -> bool {
        match self {
            Self::Any(ip) => endpoint.ip() == ip,
            Self::One(address) => endpoint == address,
        }
    }
}

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Any(ip) => ip.fmt(f),
            Self::One(address) => address.fmt(f),
        }
    }
}

/// The first of many, for people.
fn list<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    const SHOWN: usize = 8;
    let mut items = items.into_iter().map(|item| item.to_string());
    let shown: Vec<String> = items.by_ref().take(SHOWN).collect();
    let more = if items.next().is_some() { ", …" } else { "" };
    if shown.is_empty() { "none".to_owned() } else { shown.join(", ") + more }
}

/// Which checks there are, over all configurations: the same check of the same address has the same id as long as one configuration after
/// the other has it.
#[derive(Debug, Default)]
pub(crate) struct CheckIds {
    next: u32,
    ids: HashMap<(SocketAddr, plan::HealthRule), CheckId>,
}

impl CheckIds {
    /// Gives every endpoint that is to be checked its check. All checks, in order of their ids.
    pub(crate) fn assign(&mut self, plans: &mut [ClusterPlan]) -> Arc<[Check]> {
        let mut checks = Vec::new();
        let mut used = HashSet::new();
        for plan in plans {
            let Some(rule) = &plan.check else { continue };
            if plan.endpoints.iter().any(|planned| planned.check.is_none()) {
                for planned in Arc::make_mut(&mut plan.endpoints) {
                    planned.check = Some(self.id(planned.endpoint.address, rule));
                }
            }
            for planned in plan.endpoints.iter() {
                let Some(id) = planned.check.filter(|id| used.insert(*id)) else { continue };
                checks.push(Check { id, address: planned.endpoint.address, way: Arc::clone(&rule.way) });
            }
        }
        self.ids.retain(|_, id| used.contains(id));
        checks.sort_by_key(|check| check.id);
        checks.into()
    }

    fn id(&mut self, address: SocketAddr, rule: &plan::HealthRule) -> CheckId {
        let next = &mut self.next;
        *self.ids.entry((address, rule.clone())).or_insert_with(|| {
            *next = next.wrapping_add(1);
            CheckId(*next)
        })
    }
}

#[cfg(test)]
mod tests;
