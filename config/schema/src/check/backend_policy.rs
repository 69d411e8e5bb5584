//! Policies of backends: they lead somewhere, and to each backend one.

use std::collections::HashMap;

use super::Known;
use crate::decode::{Decoded, Kind, Resource};
use crate::error::Found;
use crate::located::Location;
use crate::name::ObjectName;

pub(super) fn check<'a>(documents: &'a [Decoded], known: &Known<'a>, found: &mut Found) {
    let mut first: HashMap<&ObjectName, Location> = HashMap::new();
    for document in documents {
        let Some(Resource::BackendPolicy(policy)) = &document.resource else { continue };
        for target in &policy.spec.target_refs {
            let at = document.place(&target.at, "name");
            if known.get(Kind::Backend, &target.value).is_none() {
                known.dangling(Kind::Backend, &target.value, &at, found);
            } else if let Some(other) = first.get(&target.value) {
                let problem = format!("a second policy for Backend {}", target.value);
                found.hinted(&at, problem, format!("the first is at {other}: put both into one"));
            } else {
                first.insert(&target.value, at);
            }
        }
    }
}
