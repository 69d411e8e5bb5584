//! Addresses and routes of a port, on untagged frames and in VLANs.

use std::net::IpAddr;

use ipnet::IpNet;

use super::object::{Object, at_most, list};
use super::scalar::{address, boolean, integer, network, text};
use super::{At, Decoder, quote};
use crate::located::Located;
use crate::resources::{Interface, Port, Route, Vlan};
use crate::yaml::Value;

/// The fields of `object` that are an interface's. A port without VLANs has addresses; `needed` says whether they have to be there.
pub(super) fn interface(decoder: &mut Decoder<'_>, object: &mut Object<'_>, needed: bool) -> Interface {
    let before = decoder.found.len();
    let addresses = if needed {
        object.required_list(decoder, "addresses", network)
    } else {
        object.list(decoder, "addresses", network)
    };
    // Not while some of the subnets are unknown.
    let subnets = (decoder.found.len() == before).then_some(addresses.as_slice());
    let gateway = object.or(decoder, "gateway", Vec::new(), |d, at| gateways(d, at, subnets));
    let mut routes = object.list(decoder, "routes", |d, at| route(d, at, subnets));
    at_most(decoder, Interface::MAX_ROUTES, &mut routes);
    once(decoder, &routes, |route| route.destination, "destination");
    for router in &gateway {
        let default = |net: &IpNet| net.prefix_len() == 0 && net.addr().is_ipv4() == router.value.is_ipv4();
        if let Some(route) = routes.iter().find(|route| default(&route.destination)) {
            let hint = format!("the gateway at {} is one, too: leave out one of them", router.at);
            decoder.found.hinted(&route.at, "a second default route", hint);
        }
    }
    let interface = Interface {
        addresses,
        gateway,
        routes,
        mtu: object.optional(decoder, "mtu", integer(576..=9_216)),
        router_discovery: object.or(decoder, "routerDiscovery", false, boolean),
    };
    if let Some(mtu) = interface.mtu.filter(|mtu| *mtu < 1280 && interface.speaks_ipv6()) {
        let at = object.at();
        decoder.error(at, format!("mtu, {mtu}, is too small for IPv6"), "1280 at least");
    }
    interface
}

/// The VLANs of a port.
pub(super) fn vlans(decoder: &mut Decoder<'_>, object: &mut Object<'_>, port: Option<u16>) -> Vec<Located<Vlan>> {
    let mut vlans = object.list(decoder, "vlans", |decoder, at| {
        let mut object = Object::open(decoder, at)?;
        let id = object.required(decoder, "id", integer(1..=4_094));
        let interface = interface(decoder, &mut object, true);
        object.close(decoder);
        if let (Some(mtu), Some(port)) = (interface.mtu, port)
            && mtu > port
        {
            decoder.error(at, format!("mtu, {mtu}, is above the port's, {port}"), "give the port the larger one");
        }
        Some(Vlan { id: id?, interface })
    });
    at_most(decoder, Port::MAX_VLANS, &mut vlans);
    once(decoder, &vlans, |vlan| vlan.id, "VLAN");
    vlans
}

/// Reports what is there more than once.
fn once<T, K: PartialEq + std::fmt::Display>(
    decoder: &mut Decoder<'_>,
    items: &[Located<T>],
    key: impl Fn(&T) -> K,
    what: &str,
) {
    for (index, item) in items.iter().enumerate() {
        let first = items.iter().take(index).find(|other| key(&other.value) == key(&item.value));
        if let Some(first) = first {
            let problem = format!("a second {what} {}", key(&item.value));
            decoder.found.hinted(&item.at, problem, format!("the first is at {}", first.at));
        }
    }
}

/// One address, or one a family.
fn gateways(decoder: &mut Decoder<'_>, at: At<'_>, subnets: Option<&[Located<IpNet>]>) -> Option<Vec<Located<IpAddr>>> {
    let routers = hops(decoder, at, subnets)?;
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        if let [_, second, ..] = routers.iter().filter(|router| family(&router.value)).collect::<Vec<_>>().as_slice() {
            let hint = "one of each family; several of one are a route: { destination: 0.0.0.0/0, via: [ … ] }";
            decoder.found.hinted(&second.at, "a second gateway", hint);
        }
    }
    Some(routers)
}

fn route(decoder: &mut Decoder<'_>, at: At<'_>, subnets: Option<&[Located<IpNet>]>) -> Option<Route> {
    let mut object = Object::open(decoder, at)?;
    let destination = object.required(decoder, "destination", destination);
    let via = object.required(decoder, "via", |decoder, at| {
        let mut via = hops(decoder, at, subnets)?;
        at_most(decoder, Route::MAX_HOPS, &mut via);
        once(decoder, &via, |hop| *hop, "next hop");
        if via.is_empty() {
            decoder.error(at, "is empty", "at least one next hop is needed");
        }
        if let Some(destination) = destination {
            for hop in via.iter().filter(|hop| hop.is_ipv4() != destination.addr().is_ipv4()) {
                let problem = format!("{} is not of the destination's family", hop.value);
                decoder.found.hinted(&hop.at, problem, format!("{destination} needs a router of its own kind"));
            }
        }
        Some(via)
    });
    object.close(decoder);
    Some(Route { destination: destination?, via: via? })
}

/// One router, or a list of them.
fn hops(decoder: &mut Decoder<'_>, at: At<'_>, subnets: Option<&[Located<IpNet>]>) -> Option<Vec<Located<IpAddr>>> {
    let hop = |decoder: &mut Decoder<'_>, at: At<'_>| {
        let hop = address(decoder, at)?;
        let local = matches!(hop, IpAddr::V6(hop) if hop.is_unicast_link_local());
        if let Some(subnets) = subnets
            && !local
            && !subnets.iter().any(|net| net.contains(&hop))
        {
            let known: Vec<String> = subnets.iter().map(|net| net.trunc().to_string()).collect();
            let hint = if known.is_empty() { "it has none".to_owned() } else { known.join(" or ") };
            decoder.error(at, format!("{hop} is not in a subnet of this port"), format!("an address in {hint}"));
        }
        Some(hop)
    };
    match &at.node.value {
        Value::Sequence(_) => list(decoder, at, hop),
        _ => Some(vec![decoder.located(at, hop)?]),
    }
}

/// A prefix.
fn destination(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<IpNet> {
    let given = text(decoder, at)?;
    let Ok(net) = given.parse::<IpNet>() else {
        let problem = format!("{} is not a prefix", quote(&given));
        decoder.error(at, problem, "such as 10.0.0.0/8, 2001:db8::/32 or 0.0.0.0/0");
        return None;
    };
    if net.trunc() != net {
        decoder.error(at, format!("{given} has bits behind its prefix"), format!("perhaps {}", net.trunc()));
        return None;
    }
    let group = match net {
        IpNet::V4(net) => net.addr().is_multicast(),
        IpNet::V6(net) => net.addr().is_multicast() || net.addr().is_unicast_link_local(),
    };
    if group {
        decoder.error(at, format!("{given} has no router"), "multicast and link-local addresses stay on their link");
        return None;
    }
    Some(net)
}
