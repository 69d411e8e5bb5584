//! Policies of backends: they lead somewhere, and to each backend one.

use std::collections::HashMap;

use super::Known;
use crate::decode::{Decoded, Kind, Resource};
use crate::error::Found;
use crate::located::Location;
use crate::resources::{Backend, BackendKind, BackendTarget};

pub(super) fn check<'a>(documents: &'a [Decoded], known: &Known<'a>, found: &mut Found) {
    let mut first: HashMap<&BackendTarget, Location> = HashMap::new();
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
                first.insert(&target.value, at);
            }
        }
    }
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
