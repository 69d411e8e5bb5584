//! What `get listeners|routes|backends|limits` shows: the parts of the running configuration, each with what it has counted.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tables::counters::{LATENCY_BOUNDS_US, SeriesCore, status_label};
use tables::inspect::ConnectionRow;
use tables::limit::LimitCounts;
use tables::{Counter, Series};

use crate::compile::Compiled;
use crate::status::Condition;

/// Requests that ended, since the start of the process or since their series is there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Traffic {
    /// All of them.
    pub requests: u64,
    /// Answered 4xx.
    pub client_errors: u64,
    /// Answered 5xx.
    pub server_errors: u64,
    /// Mean time to the end of the response, in seconds; 0 where there was none.
    pub mean_seconds: f64,
    /// No more than this for half of them, in seconds: the bound of a histogram's bucket. `None` where it lies beyond the last, or there was none.
    pub p50_seconds: Option<f64>,
    /// The same for 99 of 100.
    pub p99_seconds: Option<f64>,
}

/// A listener.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerRow {
    /// `namespace/gateway/listener`.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// TCP port.
    pub port: u16,
    /// What is spoken.
    pub protocol: String,
    /// The hosts it serves; `*` for all.
    pub hostname: String,
    /// Routes that are attached.
    pub attached_routes: usize,
    /// How it stands.
    pub conditions: Vec<Condition>,
    /// What it has counted.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// A route.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteRow {
    /// `namespace/route`.
    pub name: String,
    /// Its hosts; empty for those of its listeners.
    pub hostnames: Vec<String>,
    /// Rules that it has.
    pub rules: usize,
    /// The listeners that it is attached to.
    pub listeners: Vec<String>,
    /// What does not hold of it; empty where all is well.
    pub problems: Vec<Condition>,
    /// What it has counted.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendRow {
    /// `namespace/name:port`.
    pub name: String,
    /// Endpoints that it has.
    pub endpoints: usize,
    /// The DNS names that endpoints come from.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Rules that name it, on all listeners.
    pub rules: usize,
    /// What it has counted, over all ports.
    #[serde(flatten)]
    pub traffic: Traffic,
}

/// A rate limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitRow {
    /// `namespace/policy/rule`.
    pub name: String,
    /// What it is attached to.
    pub target: String,
    /// Requests (`q`) in seconds (`w`), as clients are told.
    pub policy: String,
    /// Keys that are kept at most.
    pub keys: usize,
    /// Requests that passed.
    pub admitted: u64,
    /// Requests that did not.
    pub limited: u64,
}

/// A connection of a core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectionListed {
    /// The core that has it.
    pub core: u16,
    /// `client`, `upstream`, `mirror` or `check`; `closing` where only TCP has still to do with it.
    pub role: String,
    /// Our end.
    pub local: String,
    /// The other end.
    pub remote: String,
    /// RFC 9293's name of its state.
    pub state: String,
    /// `idle`, `head`, `request`, `response`, `tunnel`, `connecting`, `serving`, `copying`, `checking` or `closing`.
    pub doing: String,
    /// The other leg: a client's endpoint, or an upstream connection's client.
    pub other: Option<String>,
    /// Since it was opened; `None` where that is not noted.
    pub age_seconds: Option<f64>,
    /// Since its request began.
    pub request_seconds: Option<f64>,
    /// Bytes received and not read yet.
    pub unread: u32,
    /// Bytes to be sent, or sent and not acknowledged.
    pub unacknowledged: u32,
}

/// The connections of all cores, as far as they are listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Connections {
    /// Each with its core.
    pub connections: Vec<ConnectionListed>,
    /// There are more than were asked for, or a core did not answer in time.
    pub more: bool,
}

impl ConnectionListed {
    /// A row of that core.
    #[must_use]
    pub fn new(core: u16, row: &ConnectionRow) -> Self {
        let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
        Self {
            core,
            role: row.role.to_owned(),
            local: row.local.to_string(),
            remote: row.remote.to_string(),
            state: row.state.to_owned(),
            doing: row.doing.to_owned(),
            other: row.other.map(|address| address.to_string()),
            age_seconds: row.age.map(seconds),
            request_seconds: row.request_age.map(seconds),
            unread: row.unread,
            unacknowledged: row.unacknowledged,
        }
    }
}

/// All listeners.
#[must_use]
pub fn listeners(compiled: &Compiled) -> Vec<ListenerRow> {
    let counted = by(compiled, |series| &series.listener);
    let rows = compiled.gateways.iter().flat_map(|gateway| {
        gateway.listeners.iter().map(|listener| {
            let name = format!("{}/{}", gateway.name, listener.name);
            ListenerRow {
                traffic: counted.get(name.as_str()).map(Sum::traffic).unwrap_or_default(),
                name,
                addresses: gateway.addresses.clone(),
                port: listener.port,
                protocol: listener.protocol.clone(),
                hostname: listener.hostname.clone(),
                attached_routes: listener.attached_routes,
                conditions: listener.conditions.clone(),
            }
        })
    });
    rows.collect()
}

/// All routes.
#[must_use]
pub fn routes(compiled: &Compiled) -> Vec<RouteRow> {
    let counted = by(compiled, |series| &series.route);
    let rows = compiled.routes.iter().zip(&compiled.configuration.routes).map(|(status, route)| RouteRow {
        name: status.name.clone(),
        hostnames: status.hostnames.clone(),
        rules: route.spec.rules.len(),
        listeners: compiled.attached.get(&status.name).into_iter().flatten().map(ToString::to_string).collect(),
        problems: status.parents.iter().flat_map(|p| &p.conditions).filter(|c| c.is_bad()).cloned().collect(),
        traffic: counted.get(status.name.as_str()).map(Sum::traffic).unwrap_or_default(),
    });
    rows.collect()
}

/// All backends that rules name.
#[must_use]
pub fn backends(compiled: &Compiled) -> Vec<BackendRow> {
    let counted = by(compiled, |series| &series.backend);
    let snapshot = &compiled.snapshot;
    let mut rules: BTreeMap<u32, usize> = BTreeMap::new();
    for target in snapshot.rules.iter().flat_map(|rule| rule.targets.iter()) {
        *rules.entry(target.cluster.0).or_default() += 1;
    }
    let names: BTreeMap<String, Vec<String>> =
        compiled.configuration.backends.iter().map(|backend| names_of(compiled, backend)).collect();
    let rows = (0u32..).zip(&snapshot.clusters).zip(compiled.clusters.iter()).map(|((id, cluster), plan)| {
        // Requests are counted by backend, whatever the port.
        let backend = cluster.name.rsplit_once(':').map_or(&*cluster.name, |(name, _)| name);
        BackendRow {
            name: cluster.name.to_string(),
            endpoints: plan.endpoints.len(),
            names: names.get(&*plan.backend).cloned().unwrap_or_default(),
            rules: rules.get(&id).copied().unwrap_or_default(),
            traffic: counted.get(backend).map(Sum::traffic).unwrap_or_default(),
        }
    });
    rows.collect()
}

/// A backend and the DNS names that its endpoints come from.
fn names_of(compiled: &Compiled, backend: &schema::Backend) -> (String, Vec<String>) {
    let subset = backend.spec.subset.as_ref().and_then(|subset| compiled.configuration.backend(&subset.of));
    let whole = subset.map_or(backend, |whole| &whole.value);
    let names = whole.spec.endpoints.iter().filter_map(|endpoint| endpoint.name());
    (backend.metadata.object.to_string(), names.map(|name| name.hostname.to_string()).collect())
}

/// All rate limits.
#[must_use]
pub fn limits(compiled: &Compiled) -> Vec<LimitRow> {
    let rows = compiled.snapshot.limits.iter().map(|limit| {
        let sum = |of: fn(&LimitCounts) -> &Counter| limit.keys.counts().iter().map(|c| of(c).read()).sum();
        LimitRow {
            name: limit.name.to_string(),
            target: limit.target.to_string(),
            policy: limit.policy_field.to_string(),
            keys: limit.keys.capacity(),
            admitted: sum(|c| &c.admitted),
            limited: sum(|c| &c.limited),
        }
    });
    rows.collect()
}

/// Several series on several cores, taken together.
#[derive(Default)]
struct Sum {
    classes: [u64; 6],
    nanoseconds: u64,
    latency: [u64; LATENCY_BOUNDS_US.len() + 1],
}

/// The series of the process by one of their labels.
fn by(compiled: &Compiled, label: fn(&Series) -> &str) -> BTreeMap<&str, Sum> {
    let mut sums: BTreeMap<&str, Sum> = BTreeMap::new();
    for series in compiled.snapshot.series.iter() {
        let sum = sums.entry(label(series)).or_default();
        series.cores.iter().for_each(|core| sum.add(core));
    }
    sums
}

impl Sum {
    fn add(&mut self, core: &SeriesCore) {
        for (slot, count) in core.by_status().into_iter().enumerate() {
            let class = status_label(slot).bytes().next().map_or(0, |digit| usize::from(digit.saturating_sub(b'0')));
            if let Some(sum) = self.classes.get_mut(class) {
                *sum += count;
            }
        }
        self.nanoseconds += core.latency_sum_ns();
        for (sum, count) in self.latency.iter_mut().zip(core.latency()) {
            *sum += count;
        }
    }

    fn traffic(&self) -> Traffic {
        let requests: u64 = self.classes.iter().sum();
        let class = |class: usize| self.classes.get(class).copied().unwrap_or_default();
        Traffic {
            requests,
            client_errors: class(4),
            server_errors: class(5),
            mean_seconds: if requests == 0 { 0.0 } else { self.nanoseconds as f64 / requests as f64 / 1e9 },
            p50_seconds: self.quantile(0.5),
            p99_seconds: self.quantile(0.99),
        }
    }

    /// The bound of the bucket in which that part of the requests is complete.
    fn quantile(&self, part: f64) -> Option<f64> {
        let all: u64 = self.latency.iter().sum();
        let wanted = (all as f64 * part).ceil() as u64;
        let mut so_far = 0;
        let bounds = self.latency.iter().zip(LATENCY_BOUNDS_US).map(|(count, bound)| {
            so_far += count;
            (so_far, bound)
        });
        let mut bounds = bounds.filter(|_| all > 0);
        bounds.find(|(so_far, _)| *so_far >= wanted).map(|(_, bound)| *bound as f64 / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let series = Series::new("l".into(), "r".into(), "b".into(), 1);
        let core = &series.cores[0];
        assert_eq!(Sum::default().traffic(), Traffic::default());
        for _ in 0..98 {
            core.finished(200, 40_000, 1, 1);
        }
        core.finished(404, 40_000, 1, 1);
        core.finished(503, 3_000_000_000, 1, 1);
        let mut sum = Sum::default();
        sum.add(core);
        let traffic = sum.traffic();
        assert_eq!((traffic.requests, traffic.client_errors, traffic.server_errors), (100, 1, 1));
        let bound = LATENCY_BOUNDS_US.iter().copied().find(|&b| b >= 40).map(|b| b as f64 / 1e6);
        assert_eq!((traffic.p50_seconds, traffic.p99_seconds), (bound, bound));
        assert!((traffic.mean_seconds - 0.030_039_6).abs() < 1e-6, "{}", traffic.mean_seconds);
    }
}
