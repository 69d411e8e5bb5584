//! What policies are attached to.

use super::{Known, Unique};
use crate::decode::{Decoded, Kind, Resource, closest};
use crate::error::Found;
use crate::located::Location;
use crate::name::{Name, ObjectName};
use crate::resources::{RoutePolicy, RouteTargetKind};

pub(super) fn check_route_policy<'a>(
    document: &Decoded,
    policy: &'a RoutePolicy,
    known: &Known<'a>,
    found: &mut Found,
) {
    let mut targets = Unique::default();
    for target in &policy.spec.target_refs {
        let at = document.place(&target.at, "name");
        targets.add(&target.value, &at, found, || format!("reference to the same part of {}", target.object));
        let kind = match target.kind {
            RouteTargetKind::HttpRoute => Kind::HttpRoute,
            RouteTargetKind::Gateway => Kind::Gateway,
        };
        let Some(other) = known.get(kind, &target.object) else {
            known.dangling(kind, &target.object, &at, found);
            continue;
        };
        if let Some(section) = &target.section_name {
            let at = document.place(&target.at, "sectionName");
            check_section(kind, &target.object, other, section, &at, found);
        }
    }
}

/// Whether `other` has a part named `section`.
fn check_section(kind: Kind, name: &ObjectName, other: &Decoded, section: &Name, at: &Location, found: &mut Found) {
    let (part, names): (_, Vec<&str>) = match &other.resource {
        Some(Resource::Gateway(gateway)) if other.is_sound("spec.listeners") => {
            ("listener", gateway.spec.listeners.iter().map(|l| l.name.as_str()).collect())
        }
        Some(Resource::Route(route)) if other.is_sound("spec.rules") => {
            ("rule", route.spec.rules.iter().filter_map(|r| r.name.as_ref()).map(Name::as_str).collect())
        }
        _ => return,
    };
    if names.contains(&section.as_str()) {
        return;
    }
    let hint = match closest(section.as_str(), names.iter().copied()) {
        Some(name) => format!("did you mean {name}?"),
        None if names.is_empty() => format!("give its {part}s names"),
        None => format!("its {part}s are {}", names.join(", ")),
    };
    found.hinted(at, format!("{} {name} has no {part} named {section}", kind.name()), hint);
}

/// Checks all SecurityPolicies against each other, too: two that name the same Gateway would contradict each other unseen.
pub(super) fn check_security_policies(documents: &[Decoded], known: &Known<'_>, found: &mut Found) {
    let mut gateways = Unique::default();
    for document in documents {
        let Some(Resource::SecurityPolicy(policy)) = &document.resource else { continue };
        for target in &policy.spec.target_refs {
            let at = document.place(&target.at, "name");
            gateways.add(&target.value, &at, found, || format!("SecurityPolicy of Gateway {}", target.value));
            if known.get(Kind::Gateway, target).is_none() {
                known.dangling(Kind::Gateway, target, &at, found);
            }
        }
    }
}
