//! What is for the kernel must not be Millrace's as well.

use std::collections::HashMap;
use std::num::NonZeroU16;

use super::Unique;
use crate::decode::{Decoded, Resource, quote};
use crate::error::Found;
use crate::located::Location;
use crate::resources::{ApplianceSpec, BackendKind};

/// Checks the exceptions of all ports against each other and against everything that Millrace serves.
pub(super) fn check(documents: &[Decoded], found: &mut Found) {
    for document in documents {
        if let Some(Resource::Appliance(appliance)) = &document.resource {
            check_appliance(document, &appliance.spec, found);
            check_ports(documents, &appliance.spec, found);
        }
    }
}

fn check_appliance(document: &Decoded, spec: &ApplianceSpec, found: &mut Found) {
    let mut interfaces: Unique<&str> = Unique::default();
    for port in &spec.ports {
        let at = document.place(&port.at, "device");
        for interface in port.device.split(',').filter_map(|part| part.strip_prefix("iface=")) {
            // Two devices on one interface are reported elsewhere.
            interfaces.first.entry(interface).or_insert_with(|| at.clone());
        }
    }
    for port in &spec.ports {
        let Some(exception) = &port.exception else { continue };
        let name = &*exception.interface;
        interfaces.add(name, &document.place(&exception.at, "interface"), found, || format!("use of {}", quote(name)));
        for address in &exception.addresses {
            if spec.addresses().any(|own| own == address.value) {
                let problem = format!("{} is Millrace's own address", address.value);
                let hint = "the kernel may have it on its interface without it being listed; list ports instead";
                found.hinted(&address.at, problem, hint);
            }
        }
    }
}

/// No listener and no backend has a TCP port that is the kernel's: it could not be told whose a segment is.
fn check_ports(documents: &[Decoded], spec: &ApplianceSpec, found: &mut Found) {
    let mut kernels: HashMap<NonZeroU16, &Location> = HashMap::new();
    for exception in spec.ports.iter().filter_map(|port| port.exception.as_ref()) {
        for port in &exception.tcp {
            kernels.entry(port.value).or_insert(&port.at);
        }
    }
    if kernels.is_empty() {
        return;
    }
    let mut complain = |port: NonZeroU16, at: &Location| {
        if let Some(first) = kernels.get(&port) {
            let problem = format!("port {port} is the kernel's by the exception at {first}");
            found.hinted(at, problem, "another port here, or take it out of the exception");
        }
    };
    for document in documents {
        match &document.resource {
            Some(Resource::Gateway(gateway)) => {
                for listener in &gateway.spec.listeners {
                    complain(listener.port, &document.place(&listener.at, "port"));
                }
            }
            Some(Resource::Backend(backend)) => {
                for endpoint in &backend.spec.endpoints {
                    if let Some(port) = endpoint.port() {
                        complain(port, &document.place(&endpoint.at, "port"));
                    }
                }
            }
            Some(Resource::EndpointSlice(slice)) => {
                for port in &slice.ports {
                    complain(port.port, &document.place(&port.at, "port"));
                }
            }
            Some(Resource::Route(route)) => {
                // A Service's port is nobody's but its own: those of its slices count.
                let mut of_reference = |kind: &BackendKind, port: Option<NonZeroU16>, at: &Location| {
                    if let (BackendKind::Backend, Some(port)) = (kind, port) {
                        complain(port, &document.place(at, "port"));
                    }
                };
                for rule in &route.spec.rules {
                    for reference in &rule.backend_refs {
                        of_reference(&reference.kind, reference.port, &reference.at);
                    }
                    for mirror in rule.mirrors() {
                        of_reference(&mirror.kind, mirror.port, &mirror.at);
                    }
                }
            }
            _ => {}
        }
    }
}
