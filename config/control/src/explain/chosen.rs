//! What the chosen rule does with the request.

use std::net::{IpAddr, Ipv4Addr};

use schema::{HttpRouteRule, Located};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tables::cluster::HashOn;
use tables::inspect::Turn;
use tables::matching::Fields;
use tables::{Chooser, Cluster, Request, Rule, affinity};

use super::Present;
use super::pick::{Known, Pick, pick, turn};
use crate::compile::Compiled;
use crate::names::{named, of_backend};
use crate::status::{CheckedState, NameStatus};

/// Endpoints that are shown of a backend, at most.
const SHOWN: usize = 50;

/// Of names, where no Millrace runs.
const NOT_HERE: &str = "not resolved here; a running Millrace knows its addresses";

/// The rule that takes a request, and what it does with it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Chosen {
    /// `namespace/route`.
    pub route: String,
    /// Position of the rule, from 0.
    pub rule: u32,
    /// Where it stands: file and line.
    pub source: String,
    /// Its filters, as they are configured.
    pub filters: Vec<String>,
    /// Rate limits that the request has to pass: names, and what they are attached to.
    pub limits: Vec<String>,
    /// From the head's arrival to the end of the response.
    pub request_timeout: Option<String>,
    /// One try at a backend.
    pub backend_timeout: Option<String>,
    /// Its backends.
    pub backends: Vec<BackendChoice>,
    /// Where there are several, the one that takes this request now: a session's, or the one whose turn it is on the first core of those that were asked.
    /// `None` where nobody knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Whose turn it is on each core, where that is each core's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cores: Vec<CoreTurn>,
    /// Where a redirect answers instead of a backend.
    pub redirect: Option<u16>,
}

/// Where the request goes if it comes to this core now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoreTurn {
    /// Position among the appliance's cores.
    pub core: u16,
    /// The backend.
    pub backend: String,
    /// Its endpoint; `None` where chance decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

/// One backend of the chosen rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BackendChoice {
    /// `namespace/name:port`.
    pub name: String,
    /// Its weight in the rule.
    pub weight: u32,
    /// Its share of the rule's requests, 0 to 1.
    pub share: f64,
    /// How an endpoint is picked.
    pub policy: String,
    /// The DNS names that endpoints come from, each with how it stands.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointShare>,
    /// Endpoints that are not shown.
    pub more_endpoints: usize,
    /// The endpoint that is picked, if this backend takes the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pick: Option<Pick>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointShare {
    /// Address and port.
    pub address: String,
    /// Its weight in the backend.
    pub weight: u32,
    /// Its share of the backend's requests, 0 to 1: as weights have it, or, of a running Millrace, as it is at present.
    pub share: f64,
    /// How a running Millrace has it: `ready`, `draining`, `unhealthy` …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
}

pub(super) fn describe(compiled: &Compiled, rule: &Rule, source: &HttpRouteRule) -> Chosen {
    let snapshot = &compiled.snapshot;
    let limits = rule.limits.iter().flatten().filter_map(|id| snapshot.limits.get(id.0 as usize));
    let total: u64 = rule.targets.iter().map(|t| u64::from(t.weight)).sum();
    let backends = rule.targets.iter().map(|target| match snapshot.cluster(target.cluster) {
        Some(cluster) => backend(cluster, target.weight, total),
        None => BackendChoice {
            name: "a 500, because the reference is invalid".to_owned(),
            weight: target.weight,
            share: share(target.weight, total),
            policy: String::new(),
            names: Vec::new(),
            endpoints: Vec::new(),
            more_endpoints: 0,
            pick: None,
        },
    });
    let place = source.matches.first().map(|matched| matched.at.to_string());
    Chosen {
        route: rule.route.to_string(),
        rule: rule.index,
        source: place.unwrap_or_default(),
        filters: source.filters.iter().map(filter).collect(),
        limits: limits.map(|limit| format!("{} of {}: {}", limit.name, limit.target, limit.policy_field)).collect(),
        request_timeout: rule.request_timeout.map(|t| format!("{t:?}")),
        backend_timeout: rule.backend_timeout.map(|t| format!("{t:?}")),
        backends: backends.collect(),
        next: None,
        cores: Vec::new(),
        redirect: rule.filters.as_ref().and_then(|filters| filters.rule.redirect.as_ref()).map(|r| r.status),
    }
}

fn backend(cluster: &Cluster, weight: u32, total: u64) -> BackendChoice {
    let sum: u64 = cluster.selection.members().iter().map(|e| u64::from(e.weight)).sum();
    let endpoints = cluster.selection.members().iter().take(SHOWN).map(|endpoint| EndpointShare {
        address: endpoint.address.to_string(),
        weight: endpoint.weight,
        share: share(endpoint.weight, sum),
        state: None,
    });
    BackendChoice {
        name: cluster.name.to_string(),
        weight,
        share: share(weight, total),
        policy: policy(cluster),
        names: Vec::new(),
        endpoints: endpoints.collect(),
        more_endpoints: cluster.selection.members().len().saturating_sub(SHOWN),
        pick: None,
    }
}

/// How an endpoint is picked, in words.
fn policy(cluster: &Cluster) -> String {
    let text = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
    let by = cluster.affinity.as_ref().and_then(|affinity| affinity.hash_on.as_ref()).map(|hash_on| match hash_on {
        HashOn::SourceIp => " by the client's address".to_owned(),
        HashOn::Header(name) => format!(" by header {}", text(name)),
        HashOn::Cookie(name) => format!(" by cookie {}", text(name)),
        HashOn::QueryParam(name) => format!(" by query parameter {}", text(name)),
    });
    let session = cluster.affinity.as_ref().and_then(|affinity| affinity.session.as_ref());
    let session = session.map(|cookie| format!(", and where cookie {} says", text(&cookie.name)));
    format!("{}{}{}", cluster.selection.policy_name(), by.unwrap_or_default(), session.unwrap_or_default())
}

fn share(part: u32, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { f64::from(part) / whole as f64 }
}

/// A filter as it was written: `requestHeaderModifier {"set": …}`.
fn filter(filter: &Located<schema::HttpRouteFilter>) -> String {
    match serde_json::to_value(&filter.value).unwrap_or_default() {
        Value::Object(fields) if fields.len() == 1 => fields.into_iter().map(|(k, v)| format!("{k} {v}")).collect(),
        other => other.to_string(),
    }
}

impl Chosen {
    /// Puts in how endpoints are at present.
    pub(super) fn as_they_are(&mut self, compiled: &Compiled, present: &Present<'_>) {
        let endpoints = present.endpoints;
        for backend in &mut self.backends {
            let plan = compiled.clusters.iter().find(|plan| *plan.name == *backend.name);
            let Some(plan) = plan else { continue };
            let known = of_backend(&compiled.configuration, &plan.backend, present.names);
            backend.names = known.into_iter().map(NameStatus::summary).collect();
            if present.names.is_empty() {
                let names = named(&compiled.configuration, &plan.backend).into_iter();
                backend.names.extend(names.map(|name| format!("{}: {NOT_HERE}", name.hostname)));
            }
            for shown in &mut backend.endpoints {
                let now = endpoints.iter().find(|e| e.cluster == backend.name && e.address == shown.address);
                let Some(now) = now else { continue };
                (shown.weight, shown.share) = (now.weight, now.share);
                let unhealthy = now.health == CheckedState::Unhealthy;
                shown.state = Some(if unhealthy { "unhealthy".to_owned() } else { now.state.clone() });
            }
        }
    }

    /// Puts in which backend's turn it is, and which endpoint each of them would pick.
    pub(super) fn pick<'b, F: Fields<'b>>(
        &mut self,
        compiled: &Compiled,
        present: &Present<'_>,
        (position, rule): (u32, &Rule),
        request: &Request<'b, F>,
        client: Option<IpAddr>,
    ) {
        if self.redirect.is_some() {
            return;
        }
        let snapshot = &compiled.snapshot;
        // Of other tables it says nothing about these.
        let mut told = present.turns.map(|ask| ask(position)).unwrap_or_default();
        told.retain(|(_, turn)| turn.epoch == snapshot.epoch);
        let (mut kept, mut takes_turns) = (None, false);
        // What each core picks of each backend.
        let mut picks: Vec<Vec<Option<String>>> = Vec::new();
        for (at, (choice, target)) in self.backends.iter_mut().zip(rule.targets.iter()).enumerate() {
            let Some(cluster) = snapshot.cluster(target.cluster) else {
                picks.push(Vec::new());
                continue;
            };
            let selection = present.selections.get(target.cluster.0 as usize).unwrap_or(&cluster.selection);
            let from = client.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
            let wish = cluster.affinity.as_deref();
            let wish = wish.map(|affinity| affinity::wish(affinity, from, request.query, &request.fields));
            let wish = wish.unwrap_or_default();
            let session = wish.session != 0 && selection.sessions().is_some_and(|s| s.find(wish.session).is_some());
            if session && kept.is_none() {
                kept = Some(at);
            }
            takes_turns |= !session && matches!(selection.chooser(), Chooser::RoundRobin(_));
            let of = |place| pick(cluster, selection, &Known { wish, no_client: client.is_none(), place });
            let places = told.iter().map(|(core, turn)| Some((*core, turn.targets.get(at).copied()?)));
            let mut each: Vec<Pick> = places.map(of).collect();
            picks.push(each.iter_mut().map(|pick| pick.endpoint.clone()).collect());
            choice.pick = Some(if each.is_empty() { of(None) } else { each.swap_remove(0) });
        }
        let several = self.backends.len() > 1;
        let takes = |turns: Option<&Turn>| {
            let by_turn = || if several { Some(turn(rule.schedule.as_ref()?, turns?.rule)) } else { Some(0) };
            kept.or_else(by_turn)
        };
        if several {
            let next = takes(told.first().map(|(_, turn)| turn)).and_then(|at| self.backends.get(at));
            self.next = next.map(|backend| backend.name.clone());
        }
        if !takes_turns && (!several || kept.is_some()) {
            return;
        }
        let of_core = |(order, (core, turns)): (usize, &(u16, Turn))| {
            let at = takes(Some(turns))?;
            let endpoint = picks.get(at).and_then(|of_backend| of_backend.get(order)).cloned().flatten();
            Some(CoreTurn { core: *core, backend: self.backends.get(at)?.name.clone(), endpoint })
        };
        self.cores = told.iter().enumerate().filter_map(of_core).collect();
    }

    /// What becomes of the request, in a sentence.
    pub(super) fn outcome(&self) -> String {
        if let Some(status) = self.redirect {
            return format!("answered here with {status}, a redirect");
        }
        let taking: Vec<&BackendChoice> = self.backends.iter().filter(|b| b.share > 0.0).collect();
        match taking.as_slice() {
            [] => "500: the rule has no backend that takes requests".to_owned(),
            [one] if one.endpoints.iter().all(|e| e.share == 0.0) => {
                match one.names.first().filter(|name| name.ends_with(NOT_HERE)) {
                    Some(_) => format!("goes to {}, whose endpoints DNS knows", one.name),
                    None => format!("503: {} has no endpoint that takes requests", one.name),
                }
            }
            [one] => format!("goes to {}", one.name),
            several => {
                let parts: Vec<_> = several.iter().map(|b| format!("{:.1} % to {}", b.share * 100.0, b.name)).collect();
                parts.join(", ")
            }
        }
    }
}
