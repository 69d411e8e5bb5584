//! What no resource can show alone: references that lead nowhere, things defined twice, addresses
//! that do not fit.
//!
//! Nothing is said about what cannot be judged because the other side is itself wrong: that would
//! send the reader to the wrong place.

mod backend_policy;
mod dns;
mod exception;
mod policy;
mod route;
mod service;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU16;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use crate::decode::{Decoded, Kind, Resource, closest, quote};
use crate::error::Found;
use crate::hostname::Hostname;
use crate::located::{Located, Location};
use crate::name::ObjectName;
use crate::resources::{ApplianceSpec, Backend, EndpointPlace, Gateway};

/// Checks all documents. `blind` says that there are more, which could not be read.
pub(crate) fn check(documents: &[Decoded], blind: bool, found: &mut Found) {
    let known = Known::collect(documents, blind, found);
    let mut host = Host::default();
    for document in documents {
        if let Some(Resource::Appliance(appliance)) = &document.resource {
            host = Host::of(document, &appliance.spec, found);
        }
    }
    exception::check(documents, found);
    let references = route::References::collect(documents, &known);
    let mut sockets = Sockets::default();
    for document in documents {
        match &document.resource {
            Some(Resource::Gateway(gateway)) => {
                check_gateway(document, gateway, &host, &mut sockets, found);
            }
            Some(Resource::Route(route)) => route::check(document, route, &references, found),
            Some(Resource::Backend(backend)) => {
                backend_policy::check_subset(document, backend, &known, found);
                check_backend(document, backend, &host, found);
            }
            Some(Resource::RoutePolicy(policy)) => policy::check_route_policy(document, policy, &known, found),
            Some(Resource::EndpointSlice(slice)) => service::check_slice(document, slice, &known, &host, found),
            Some(Resource::Service(service)) => service::check_service(document, service, found),
            Some(
                Resource::Appliance(_)
                | Resource::BackendPolicy(_)
                | Resource::Namespace(_)
                | Resource::ReferenceGrant(_)
                | Resource::SecurityPolicy(_),
            )
            | None => {}
        }
    }
    dns::check(documents, found);
    backend_policy::check(documents, &known, found);
    policy::check_security_policies(documents, &known, found);
}

/// The names that there are, and those that there may be.
struct Known<'a> {
    objects: HashMap<(Kind, &'a ObjectName), &'a Decoded>,
    /// Names whose kind is wrong.
    of_some_kind: HashSet<&'a ObjectName>,
    /// Kinds of which one has a wrong name.
    nameless: HashSet<Kind>,
    /// All names in order, for hints.
    names: HashMap<Kind, Vec<&'a ObjectName>>,
    /// Something may have any name and kind.
    blind: bool,
}

impl<'a> Known<'a> {
    fn collect(documents: &'a [Decoded], blind: bool, found: &mut Found) -> Self {
        let mut known = Known {
            objects: HashMap::new(),
            of_some_kind: HashSet::new(),
            nameless: HashSet::new(),
            names: HashMap::new(),
            blind,
        };
        let mut appliance: Option<&Location> = None;
        for document in documents {
            match (document.kind, &document.name) {
                (Some(kind), Some(name)) => match known.objects.entry((kind, &name.value)) {
                    Entry::Vacant(vacant) => {
                        vacant.insert(document);
                    }
                    Entry::Occupied(first) => {
                        let at = first.get().name.as_ref().map_or(&name.at, |name| &name.at);
                        found.hinted(
                            &name.at,
                            format!("a second {} {}", kind.name(), name.value),
                            format!("the first is at {at}: rename or remove one"),
                        );
                        continue;
                    }
                },
                (None, Some(name)) => {
                    known.of_some_kind.insert(&name.value);
                }
                (Some(kind), None) => {
                    known.nameless.insert(kind);
                }
                (None, None) => known.blind = true,
            }
            if document.kind == Some(Kind::Appliance)
                && let Some(name) = &document.name
            {
                match appliance {
                    None => appliance = Some(&name.at),
                    Some(first) => found.hinted(
                        &name.at,
                        "a second Appliance",
                        format!("the first is at {first}: a configuration has one"),
                    ),
                }
            }
        }
        for (kind, name) in known.objects.keys() {
            known.names.entry(*kind).or_default().push(name);
        }
        for names in known.names.values_mut() {
            names.sort();
        }
        let may_be_one = known.blind || !known.of_some_kind.is_empty() || known.nameless.contains(&Kind::Appliance);
        if appliance.is_none() && !may_be_one {
            found.hinted(
                &Location::file(""),
                "there is no Appliance",
                "a configuration has one resource of kind Appliance, with the host's cores and ports",
            );
        }
        known
    }

    /// The document that defines it.
    fn get(&self, kind: Kind, name: &'a ObjectName) -> Option<&'a Decoded> {
        self.objects.get(&(kind, name)).copied()
    }

    /// Whether it may be defined by something that is itself wrong.
    fn may_exist(&self, kind: Kind, name: &ObjectName) -> bool {
        self.blind || self.nameless.contains(&kind) || self.of_some_kind.contains(name)
    }

    /// Reports that `name` is not defined.
    fn dangling(&self, kind: Kind, name: &ObjectName, at: &Location, found: &mut Found) {
        if self.may_exist(kind, name) {
            return;
        }
        let problem = format!("there is no {} {name}", kind.name());
        // Enough for any human's configuration, and a bound for the others.
        const COMPARED: usize = 1_000;
        let names = self.names.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let compared = || names.iter().take(COMPARED);
        let elsewhere = compared().find(|n| n.name == name.name);
        let alike =
            closest(name.name.as_str(), compared().filter(|n| n.namespace == name.namespace).map(|n| n.name.as_str()));
        let hint = match (alike, elsewhere) {
            (Some(alike), _) => format!("did you mean {alike}?"),
            (None, Some(elsewhere)) => format!("there is one in another namespace: {elsewhere}"),
            (None, None) if names.is_empty() => format!("define a {}", kind.name()),
            (None, None) => {
                const SHOWN: usize = 8;
                let more = if names.len() > SHOWN { ", …" } else { "" };
                let shown: Vec<String> = names.iter().take(SHOWN).map(|n| n.to_string()).collect();
                format!("there are {}{more}", shown.join(", "))
            }
        };
        found.hinted(at, problem, hint);
    }
}

/// The appliance's addresses. Without an appliance, or while they are wrong, nothing is known.
#[derive(Default)]
struct Host {
    /// `None` if they are not known.
    addresses: Option<HashMap<IpAddr, Location>>,
    /// The first of them, for hints.
    list: String,
    /// Ranges of the ports' subnets, in order and disjoint.
    subnets: Vec<(IpAddr, IpAddr)>,
    /// Where routes lead.
    routed: Vec<IpNet>,
}

impl Host {
    fn of(document: &Decoded, spec: &ApplianceSpec, found: &mut Found) -> Self {
        let mut names = Unique::default();
        let mut devices = Unique::default();
        let mut interfaces = Unique::default();
        let mut addresses = HashMap::new();
        for port in &spec.ports {
            names.add(&port.name, &document.place(&port.at, "name"), found, || format!("port named {}", port.name));
            let device_at = document.place(&port.at, "device");
            let mut parts = port.device.split(',');
            let device = parts.next().unwrap_or_default();
            if devices.add(device, &device_at, found, || format!("port on the device {}", quote(device))) {
                for interface in parts.filter_map(|part| part.strip_prefix("iface=")) {
                    interfaces
                        .add(interface, &device_at, found, || format!("port on the interface {}", quote(interface)));
                }
            }
            for net in port.interfaces().flat_map(|(_, interface)| &interface.addresses) {
                if let Some(first) = addresses.insert(net.addr(), net.at.clone()) {
                    let hint = format!("the first is at {first}");
                    found.hinted(&net.at, format!("a second {}", net.addr()), hint);
                }
            }
        }
        let mut routed = Vec::new();
        for (_, interface) in spec.ports.iter().flat_map(|port| port.interfaces()) {
            let hops = interface.routes.iter().flat_map(|route| &route.via);
            for router in interface.gateway.iter().chain(hops) {
                if addresses.contains_key(&router.value) {
                    let problem = format!("{} is the appliance's own address", router.value);
                    found.hinted(&router.at, problem, "give the address of the next router");
                }
            }
            routed.extend(interface.routes.iter().map(|route| route.destination));
            routed.extend(interface.gateway.iter().map(|router| default_route(router.value)));
            // Whatever an advertisement may say.
            routed.extend(interface.router_discovery.then(|| default_route(Ipv6Addr::UNSPECIFIED.into())));
        }
        let list: Vec<String> = spec.addresses().take(8).map(|a| a.to_string()).collect();
        Host {
            list: list.join(", "),
            addresses: document.is_sound("spec.ports").then_some(addresses),
            subnets: subnets(spec, found),
            routed,
        }
    }

    fn reaches(&self, address: IpAddr) -> bool {
        let after = self.subnets.partition_point(|(start, _)| *start <= address);
        let subnet = after.checked_sub(1).and_then(|index| self.subnets.get(index));
        subnet.is_some_and(|(_, end)| address <= *end) || self.routed.iter().any(|net| net.contains(&address))
    }
}

/// All addresses of a router's family.
pub(crate) fn default_route(router: IpAddr) -> IpNet {
    match router {
        IpAddr::V4(_) => IpNet::V4(Ipv4Net::default()),
        IpAddr::V6(_) => IpNet::V6(Ipv6Net::default()),
    }
}

/// The ranges of all subnets. Reports those that two ports, or VLANs, share: which one an address is behind
/// would be left to chance.
fn subnets(spec: &ApplianceSpec, found: &mut Found) -> Vec<(IpAddr, IpAddr)> {
    let interfaces = spec.ports.iter().flat_map(|port| port.interfaces()).enumerate();
    let mut all: Vec<_> = interfaces
        .flat_map(|(index, (_, interface))| interface.addresses.iter().map(move |net| (net, index)))
        // Each link has its own of those.
        .filter(|(net, _)| !is_link_local(net.addr()))
        .collect();
    all.sort_by_key(|(net, index)| (net.network(), net.prefix_len(), *index));
    let mut merged: Vec<(IpAddr, IpAddr)> = Vec::new();
    let mut reach: Option<(&Located<ipnet::IpNet>, usize)> = None;
    for (net, index) in all {
        match reach {
            Some((wide, other)) if net.network() <= wide.broadcast() => {
                if other != index && net.addr() != wide.addr() {
                    let hint = format!("{} is at {}: give each subnets of its own", wide.value, wide.at);
                    let problem = format!("the subnet of {} overlaps with that of another port or VLAN", net.value);
                    found.hinted(&net.at, problem, hint);
                }
            }
            _ => {
                merged.push((net.network(), net.broadcast()));
                reach = Some((net, index));
            }
        }
    }
    merged
}

/// Who listens where, over all Gateways.
#[derive(Default)]
struct Sockets<'a> {
    by_port: HashMap<(NonZeroU16, Option<&'a Hostname>), Holders<'a>>,
}

/// The listeners of one port and hostname.
#[derive(Default)]
struct Holders<'a> {
    any: Option<&'a Location>,
    on_all_addresses: Option<&'a Location>,
    by_address: HashMap<IpAddr, &'a Location>,
}

fn check_gateway<'a>(
    document: &Decoded,
    gateway: &'a Gateway,
    host: &Host,
    sockets: &mut Sockets<'a>,
    found: &mut Found,
) {
    let mut addresses = Unique::default();
    for address in &gateway.spec.addresses {
        let at = document.place(&address.at, "value");
        addresses.add(address.value, &at, found, || format!("{}", address.value));
        if let Some(own) = &host.addresses
            && !own.contains_key(&address.value)
        {
            let problem = format!("{} is on no port of the Appliance", address.value);
            found.hinted(&at, problem, format!("its addresses are {}", host.list));
        }
    }
    let mut names = Unique::default();
    for listener in &gateway.spec.listeners {
        names.add(&listener.name, &document.place(&listener.at, "name"), found, || {
            format!("listener named {}", listener.name)
        });
        let hostname = listener.hostname.as_ref().map(|hostname| &hostname.value);
        let holders = sockets.by_port.entry((listener.port, hostname)).or_default();
        let first = if !document.is_sound("spec.addresses") {
            None
        } else if gateway.spec.addresses.is_empty() {
            holders.on_all_addresses = holders.on_all_addresses.or(Some(&listener.at));
            holders.any
        } else {
            gateway.spec.addresses.iter().fold(holders.on_all_addresses, |first, address| {
                match holders.by_address.entry(address.value) {
                    // The same address twice, which has been reported.
                    Entry::Occupied(holder) if **holder.get() == listener.at => first,
                    Entry::Occupied(holder) => first.or(Some(holder.get())),
                    Entry::Vacant(free) => {
                        free.insert(&listener.at);
                        first
                    }
                }
            })
        };
        if let Some(first) = first {
            let host = hostname.map_or("all hostnames".to_owned(), Hostname::to_string);
            found.hinted(
                &listener.at,
                format!("a second listener for port {} and {host} on the same address", listener.port),
                format!("the first is at {first}: each needs a port or a hostname of its own"),
            );
        }
        holders.any = holders.any.or(Some(&listener.at));
    }
}

pub(crate) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

fn check_backend(document: &Decoded, backend: &Backend, host: &Host, found: &mut Found) {
    let mut endpoints = Unique::default();
    for endpoint in &backend.spec.endpoints {
        let what = if endpoint.name().is_some() { "fqdn" } else { "address" };
        let at = document.place(&endpoint.at, what);
        endpoints.add(&endpoint.place, &at, found, || {
            let kind = if endpoint.name().is_some() { "name" } else { "address" };
            format!("endpoint with the {kind} {} and the same port", endpoint.place)
        });
        if let EndpointPlace::Address { address, .. } = endpoint.place {
            check_server(address, &at, host, found);
        }
    }
}

/// An address that requests are sent to.
fn check_server(address: IpAddr, at: &Location, host: &Host, found: &mut Found) {
    let Some(own) = &host.addresses else { return };
    if let Some(port) = own.get(&address) {
        let problem = format!("{address} is the appliance's own address");
        found.hinted(at, problem, format!("it stands at {port}; give the address of the server"));
    } else if is_link_local(address) {
        let problem = format!("{address} is a link-local address");
        found.hinted(at, problem, "each link has its own of those: give an address that says which link it is on");
    } else if !host.reaches(address) {
        let problem = format!("no port reaches {address}");
        found.hinted(at, problem, "give a port of the Appliance an address in its subnet, a route or a gateway");
    }
}

/// Values of which there may be only one each, and where they were seen first.
struct Unique<T> {
    first: HashMap<T, Location>,
}

impl<T> Default for Unique<T> {
    fn default() -> Self {
        Unique { first: HashMap::new() }
    }
}

impl<T: Eq + Hash> Unique<T> {
    /// Reports `value`, which `describe` puts into words, if it was seen before; whether it was not.
    fn add(&mut self, value: T, at: &Location, found: &mut Found, describe: impl FnOnce() -> String) -> bool {
        match self.first.entry(value) {
            Entry::Vacant(vacant) => {
                vacant.insert(at.clone());
                true
            }
            Entry::Occupied(first) => {
                let hint = format!("the first is at {}", first.get());
                found.hinted(at, format!("a second {}", describe()), hint);
                false
            }
        }
    }
}
