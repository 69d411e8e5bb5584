//! From what a cluster's endpoints are supposed to be, and how they are, to who takes requests.
//!
//! Priorities follow Envoy's rules: a level counts for 1.4 times the share of its endpoints that are well, up to all; what a level cannot
//! take goes to the next; and where all levels together cannot take everything, those in which too few are well take it with all of
//! theirs, well or not (panic). With one exception, which BEHAVIOUR.md asks for: where no endpoint is well, nobody takes requests.

use std::collections::BTreeMap;

use tables::{Endpoint, Selection};

use super::plan::{ClusterPlan, Readiness};

/// How much more than its share a level of endpoints can carry, in percent.
const OVERPROVISIONING: u64 = 140;

/// What endpoints' weights add up to where they are not as configured.
const SCALE: f64 = 1_000_000.0;

/// How an endpoint is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct State {
    /// In place of its weight.
    pub(crate) weight: Option<u32>,
    /// It takes no new requests, and keeps its sessions.
    pub(crate) drain: bool,
    /// Checks say that it is well, or do not say anything.
    pub(crate) healthy: bool,
    /// The part of its weight that it has come to: more than 0, up to 1.
    pub(crate) ramp: f64,
}

impl State {
    /// Nothing is known of it, and so it is well.
    pub(crate) const READY: Self = Self { weight: None, drain: false, healthy: true, ramp: 1.0 };
}

/// The secret by which session cookies name endpoints.
pub(crate) type SessionKey = [u64; 2];

/// Who takes requests. `states` are those of the plan's endpoints, in their order.
pub(crate) fn select(plan: &ClusterPlan, states: &[State], key: SessionKey) -> Selection {
    let all: Vec<(Endpoint, State, u32, Readiness)> = plan
        .endpoints
        .iter()
        .zip(states)
        .map(|(planned, state)| {
            let weight = state.weight.unwrap_or(planned.endpoint.weight);
            (Endpoint { weight, ..planned.endpoint }, *state, planned.level, planned.readiness)
        })
        .collect();
    let wanted = |(endpoint, state, ..): &&(Endpoint, State, u32, Readiness)| endpoint.weight > 0 && !state.drain;
    let ready = all.iter().any(|entry| wanted(&entry) && entry.3 == Readiness::Ready);
    let mut levels: BTreeMap<u32, Level> = BTreeMap::new();
    for (endpoint, state, level, _) in all.iter().filter(wanted).filter(|e| !ready || e.3 == Readiness::Ready) {
        levels.entry(*level).or_default().endpoints.push((*endpoint, *state));
    }
    let members = members(levels.into_values().collect(), plan.panic_threshold);
    let selection = Selection::new(plan.method, members);
    if !plan.sessions {
        return selection;
    }
    let taken: std::collections::HashSet<_> = selection.members().iter().map(|member| member.id).collect();
    let others = all.iter().filter(|(endpoint, state, ..)| state.healthy && !taken.contains(&endpoint.id));
    let others = others.map(|(endpoint, ..)| Endpoint { weight: 0, ..*endpoint }).collect();
    selection.with_sessions(key, &plan.backend, others)
}

/// Who takes requests as long as nothing is known of any endpoint. Without sessions: their key is not known here.
pub(crate) fn select_ready(plan: &ClusterPlan) -> Selection {
    let first = plan.endpoints.first().map(|planned| planned.level);
    if plan.endpoints.iter().all(|planned| Some(planned.level) == first && planned.readiness == Readiness::Ready) {
        // As nearly always: all of them, as they are.
        return Selection::new(plan.method, plan.endpoints.iter().map(|planned| planned.endpoint).collect());
    }
    let ready = vec![State::READY; plan.endpoints.len()];
    select(&ClusterPlan { sessions: false, ..plan.clone() }, &ready, [0; 2])
}

/// Endpoints of one priority.
#[derive(Default)]
struct Level {
    endpoints: Vec<(Endpoint, State)>,
}

impl Level {
    fn healthy(&self) -> u64 {
        self.endpoints.iter().filter(|(_, state)| state.healthy).count() as u64
    }

    /// What it can take, in percent of all requests.
    fn capacity(&self) -> u64 {
        (self.healthy() * OVERPROVISIONING / self.endpoints.len().max(1) as u64).min(100)
    }
}

/// Who takes requests, with weights that hold over all levels.
fn members(levels: Vec<Level>, panic_threshold: u8) -> Vec<Endpoint> {
    if levels.iter().all(|level| level.healthy() == 0) {
        return Vec::new();
    }
    let capacities: u64 = levels.iter().map(Level::capacity).sum();
    let mut left = 100.0;
    let mut shares = Vec::new();
    for level in levels {
        let capacity = level.capacity() as f64;
        // Where not all can be taken, each takes of it what it can take of all.
        let share = if capacities >= 100 { capacity.min(left) } else { capacity * 100.0 / capacities as f64 };
        left -= share;
        if share <= 0.0 {
            continue;
        }
        let panics =
            capacities < 100 && level.healthy() * 100 < u64::from(panic_threshold) * level.endpoints.len() as u64;
        let taken: Vec<_> = level.endpoints.into_iter().filter(|(_, state)| panics || state.healthy).collect();
        shares.push((share, taken));
    }
    let plain = shares.len() == 1 && shares.iter().flat_map(|(_, taken)| taken).all(|(_, state)| state.ramp >= 1.0);
    let mut members = Vec::new();
    for (share, taken) in shares {
        let total: f64 = taken.iter().map(|(endpoint, state)| f64::from(endpoint.weight) * state.ramp).sum();
        members.extend(taken.into_iter().map(|(endpoint, state)| {
            if plain {
                return endpoint;
            }
            let part = f64::from(endpoint.weight) * state.ramp / total * share / 100.0;
            Endpoint { weight: ((part * SCALE).round() as u32).max(1), ..endpoint }
        }));
    }
    members
}
