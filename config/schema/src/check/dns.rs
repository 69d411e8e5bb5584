//! Names that DNS is asked for: as many as the appliance allows.

use std::collections::HashSet;

use crate::decode::{Decoded, Resource};
use crate::error::Found;
use crate::resources::{DnsName, EndpointPlace};

pub(super) fn check(documents: &[Decoded], found: &mut Found) {
    let limit = documents.iter().find_map(|document| match &document.resource {
        Some(Resource::Appliance(appliance)) => Some(usize::from(appliance.spec.dns.max_names)),
        _ => None,
    });
    let Some(limit) = limit else { return };
    let mut names: HashSet<&DnsName> = HashSet::new();
    for document in documents {
        let Some(Resource::Backend(backend)) = &document.resource else { continue };
        for endpoint in &backend.spec.endpoints {
            let EndpointPlace::Fqdn { fqdn } = &endpoint.place else { continue };
            if names.insert(&fqdn.name) && names.len() == limit + 1 {
                let problem = format!("one name more than the {limit} that the Appliance resolves");
                let hint = "spec.dns.maxNames of the Appliance says how many they may be";
                found.hinted(&document.place(&endpoint.at, "fqdn"), problem, hint);
            }
        }
    }
}
