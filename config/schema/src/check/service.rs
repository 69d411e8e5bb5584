//! Services and their slices: a slice belongs to a Service that there is, and its endpoints can be reached.

use super::{Host, Known, Unique, check_server};
use crate::decode::{Decoded, Kind};
use crate::error::Found;
use crate::resources::{EndpointSlice, Service};

pub(super) fn check_service(document: &Decoded, service: &Service, found: &mut Found) {
    let mut numbers = Unique::default();
    let mut names = Unique::default();
    for port in &service.ports {
        numbers.add(port.port, &document.place(&port.at, "port"), found, || format!("port {}", port.port));
        names.add(&port.name, &document.place(&port.at, "name"), found, || format!("port named {:?}", port.name));
    }
}

pub(super) fn check_slice<'a>(
    document: &Decoded,
    slice: &'a EndpointSlice,
    known: &Known<'a>,
    host: &Host,
    found: &mut Found,
) {
    if known.get(Kind::Service, &slice.service).is_none()
        && let Some(name) = &document.name
    {
        known.dangling(Kind::Service, &slice.service, &name.at, found);
    }
    for endpoint in &slice.endpoints {
        check_server(endpoint.address, &document.place(&endpoint.at, "addresses"), host, found);
    }
}
