//! Policies of backends: they lead somewhere, and to each backend one.

use std::collections::HashMap;

use super::Known;
use crate::decode::{Decoded, Kind, Resource};
use crate::error::Found;
use crate::located::Location;
use crate::name::ObjectName;
use crate::resources::{
    Backend, BackendKind, BackendPolicySpec, BackendTarget, HashTable, LoadBalancerType, MAGLEV_ENDPOINTS,
};

pub(super) fn check<'a>(documents: &'a [Decoded], known: &Known<'a>, found: &mut Found) {
    let mut first: HashMap<&BackendTarget, Location> = HashMap::new();
    let mut counts = None;
    for document in documents {
        let Some(Resource::BackendPolicy(policy)) = &document.resource else { continue };
        for target in &policy.spec.target_refs {
            let at = document.place(&target.at, "name");
            let (kind, name) = match target.kind {
                BackendKind::Service => (Kind::Service, &target.object),
                _ => (Kind::Backend, &target.object),
            };
            if known.get(kind, name).is_none() {
                known.dangling(kind, name, &at, found);
            } else if let Some(other) = first.get(&target.value) {
                let problem = format!("a second policy for {} {name}", kind.name());
                found.hinted(&at, problem, format!("the first is at {other}: put both into one"));
            } else {
                if is_maglev(&policy.spec) {
                    let counts = counts.get_or_insert_with(|| count(documents, known));
                    let endpoints = counts.get(&target.value).copied().unwrap_or(0);
                    if endpoints > MAGLEV_ENDPOINTS {
                        let problem = format!(
                            "{} {name} has {endpoints} endpoints, and Maglev's table takes {MAGLEV_ENDPOINTS}",
                            kind.name()
                        );
                        found.hinted(&at, problem, "balance by ringHash, or give the backend fewer endpoints");
                    }
                }
                first.insert(&target.value, at);
            }
        }
    }
}

fn is_maglev(policy: &BackendPolicySpec) -> bool {
    matches!(policy.load_balancer.method, LoadBalancerType::ConsistentHash { table: HashTable::Maglev, .. })
}

/// How many endpoints each backend has. Of a Service all slices count, as long as some name a port of it.
fn count<'a>(documents: &'a [Decoded], known: &Known<'a>) -> HashMap<BackendTarget, usize> {
    let mut counts = HashMap::new();
    let mut add = |kind, object: &ObjectName, more| {
        *counts.entry(BackendTarget { kind, object: object.clone() }).or_insert(0) += more;
    };
    for document in documents {
        match &document.resource {
            Some(Resource::Backend(backend)) => {
                let own = match &backend.spec.subset {
                    None => backend.spec.endpoints.len(),
                    Some(subset) => {
                        match known.get(Kind::Backend, &subset.of).and_then(|whole| whole.resource.as_ref()) {
                            Some(Resource::Backend(of)) => of.spec.endpoints.iter().filter(|e| e.is_in(subset)).count(),
                            _ => 0,
                        }
                    }
                };
                add(BackendKind::Backend, &backend.metadata.object, own);
            }
            Some(Resource::EndpointSlice(slice)) => add(BackendKind::Service, &slice.service, slice.endpoints.len()),
            _ => {}
        }
    }
    counts
}

/// A subset is a part of a Backend that is whole, and not empty.
pub(super) fn check_subset<'a>(document: &Decoded, backend: &'a Backend, known: &Known<'a>, found: &mut Found) {
    let Some(subset) = &backend.spec.subset else { return };
    let at = document.place(&subset.at, "of");
    let Some(whole) = known.get(Kind::Backend, &subset.of) else {
        return known.dangling(Kind::Backend, &subset.of, &at, found);
    };
    let Some(Resource::Backend(of)) = &whole.resource else { return };
    if of.spec.subset.is_some() {
        found.hinted(&at, format!("{} is a subset itself", subset.of), "name the Backend that has the endpoints");
    } else if whole.is_sound("spec.endpoints") && !of.spec.endpoints.iter().any(|endpoint| endpoint.is_in(subset)) {
        let problem = format!("no endpoint of {} has these labels", subset.of);
        found.hinted(
            &document.place(&subset.at, "matchLabels"),
            problem,
            "give endpoints there labels, or other labels here",
        );
    }
}
