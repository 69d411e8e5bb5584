//! What routes refer to.

use std::num::NonZeroU16;

use super::{Known, Unique};
use crate::MILLRACE_GROUP;
use crate::decode::reference::wrong_kind;
use crate::decode::{Decoded, Kind, Resource, closest};
use crate::error::Found;
use crate::located::Location;
use crate::name::{Name, ObjectName};
use crate::resources::{BackendKind, BackendObject, Endpoint, HttpRoute, InvalidReferences, ReferenceGrant};

/// Checks what a route refers to.
pub(super) fn check<'a>(document: &Decoded, route: &'a HttpRoute, references: &References<'a>, found: &mut Found) {
    let known = references.known;
    let mut parents = Unique::default();
    for parent in &route.spec.parent_refs {
        let key = (&parent.gateway, &parent.section_name, parent.port);
        let name_at = document.place(&parent.at, "name");
        parents.add(key, &name_at, found, || format!("reference to the same part of Gateway {}", parent.gateway));
        let Some(target) = known.get(Kind::Gateway, &parent.gateway) else {
            known.dangling(Kind::Gateway, &parent.gateway, &name_at, found);
            continue;
        };
        let Some(Resource::Gateway(gateway)) = &target.resource else {
            continue;
        };
        // Where references may be invalid, the route's conditions say that it attaches to nothing (NoMatchingParent).
        if references.tolerant || !target.is_sound("spec.listeners") {
            continue;
        }
        let listeners = &gateway.spec.listeners;
        if let Some(section) = &parent.section_name
            && !listeners.iter().any(|listener| listener.name == *section)
        {
            let names: Vec<&str> = listeners.iter().map(|l| l.name.as_str()).collect();
            let hint = match closest(section.as_str(), names.iter().copied()) {
                Some(name) => format!("did you mean {name}?"),
                None => format!("its listeners are {}", names.join(", ")),
            };
            let problem = format!("Gateway {} has no listener {section}", parent.gateway);
            found.hinted(&document.place(&parent.at, "sectionName"), problem, hint);
        }
        if let Some(port) = parent.port
            && !listeners.iter().any(|listener| listener.port == port)
        {
            let mut ports: Vec<NonZeroU16> = listeners.iter().map(|l| l.port).collect();
            ports.sort();
            ports.dedup();
            let ports: Vec<String> = ports.iter().map(NonZeroU16::to_string).collect();
            let problem = format!("Gateway {} has no listener on port {port}", parent.gateway);
            let hint = format!("its ports are {}", ports.join(", "));
            found.hinted(&document.place(&parent.at, "port"), problem, hint);
        } else if let (Some(section), Some(port)) = (&parent.section_name, parent.port)
            && let Some(listener) = listeners.iter().find(|listener| listener.name == *section)
            && listener.port != port
        {
            let problem = format!("listener {section} of Gateway {} is not on port {port}", parent.gateway);
            let hint = format!("port: {}; or leave it out, since the listener has a name", listener.port);
            found.hinted(&document.place(&parent.at, "port"), problem, hint);
        }
    }
    let mut names: Unique<&Name> = Unique::default();
    for rule in &route.spec.rules {
        if let Some(name) = &rule.name {
            names.add(name, &document.place(&rule.at, "name"), found, || format!("rule named {name}"));
        }
        for reference in &rule.backend_refs {
            let target = Target { kind: &reference.kind, object: &reference.backend, port: reference.port };
            references.check(document, route, &target, &reference.at, found);
        }
        for mirror in rule.mirrors() {
            let BackendObject { kind, object, port } = &mirror.value;
            references.check(document, route, &Target { kind, object, port: *port }, &mirror.at, found);
        }
    }
}

/// What routes may refer to.
pub(super) struct References<'a> {
    known: &'a Known<'a>,
    grants: Vec<&'a ReferenceGrant>,
    /// Invalid references are nothing to complain about.
    tolerant: bool,
    /// A grant is wrong, so what it permits is not known.
    blind: bool,
}

/// What one reference leads to.
struct Target<'a> {
    kind: &'a BackendKind,
    object: &'a ObjectName,
    port: Option<NonZeroU16>,
}

impl<'a> References<'a> {
    pub(super) fn collect(documents: &'a [Decoded], known: &'a Known<'a>) -> Self {
        let mut references = References { known, grants: Vec::new(), tolerant: false, blind: known.blind };
        for document in documents {
            match &document.resource {
                Some(Resource::ReferenceGrant(grant)) => {
                    references.grants.push(grant);
                    references.blind |= !document.is_sound("");
                }
                Some(Resource::Appliance(appliance)) => {
                    references.tolerant |= appliance.spec.invalid_references == InvalidReferences::Serve500;
                }
                None => references.blind |= document.kind == Some(Kind::ReferenceGrant),
                Some(_) => {}
            }
        }
        references
    }

    fn check(&self, document: &Decoded, route: &HttpRoute, target: &Target<'a>, at: &Location, found: &mut Found) {
        let name = target.object;
        if let BackendKind::Other(group, kind) = target.kind {
            if !self.tolerant {
                let (problem, hint) = wrong_kind((group, kind), (MILLRACE_GROUP, "Backend"));
                found.hinted(at, problem, hint);
            }
            return;
        }
        let from = route.metadata.namespace();
        let granted = *from == name.namespace || self.grants.iter().any(|grant| grant.permits(from, target.kind, name));
        if !granted {
            if !self.tolerant && !self.blind {
                found.hinted(
                    &document.place(at, "namespace"),
                    format!(
                        "no ReferenceGrant lets routes of the namespace {from} refer to {} {name}",
                        target.kind.group_kind().1
                    ),
                    format!("define one in the namespace {}, or put both into one namespace", name.namespace),
                );
            }
            return;
        }
        let wanted = if *target.kind == BackendKind::Service { Kind::Service } else { Kind::Backend };
        let Some(defined) = self.known.get(wanted, name) else {
            if !self.tolerant {
                self.known.dangling(wanted, name, &document.place(at, "name"), found);
            }
            return;
        };
        if let Some(Resource::Service(service)) = &defined.resource
            && defined.is_sound("spec.ports")
            && !service.ports.iter().any(|port| Some(port.port) == target.port)
        {
            let ports: Vec<String> = service.ports.iter().map(|port| port.port.to_string()).collect();
            let problem = match target.port {
                Some(port) => format!("Service {name} has no TCP port {port}"),
                None => "is missing: a reference to a Service names one of its ports".to_owned(),
            };
            found.hinted(&document.place(at, "port"), problem, format!("its ports are {}", ports.join(", ")));
        }
        if target.port.is_none()
            && let Some(without) = self.without_port(defined)
        {
            let problem = format!("is missing: endpoint {} of {name} has no port of its own", without.place);
            let hint = "give a port here, or to every endpoint of the Backend";
            found.hinted(&document.place(at, "port"), problem, hint);
        }
    }

    /// An endpoint of a Backend that references have to name a port for. A subset's are those of its whole.
    fn without_port(&self, defined: &'a Decoded) -> Option<&'a Endpoint> {
        let Some(Resource::Backend(backend)) = &defined.resource else { return None };
        let subset = backend.spec.subset.as_ref();
        let whole = match subset {
            None => defined,
            Some(subset) => self.known.get(Kind::Backend, &subset.of)?,
        };
        let Some(Resource::Backend(backend)) = &whole.resource else { return None };
        let mut endpoints = backend.spec.endpoints.iter().filter(|_| whole.is_sound("spec.endpoints"));
        endpoints
            .find(|e| e.needs_port() && subset.is_none_or(|subset| e.is_in(subset)))
            .map(|endpoint| &endpoint.value)
    }
}
