//! `Gateway.spec`.

use std::net::IpAddr;

use super::object::{Object, at_most, list};
use super::reference::selector;
use super::scalar::{address, choice, hostname, name, port, text};
use super::{At, Decoder, quote};
use crate::resources::{GatewaySpec, Listener, Protocol, RouteNamespaces};
use crate::{GATEWAY_CLASS, GATEWAY_GROUP};

/// What the Gateway API takes. It also bounds how many pairs of the two there are to be checked.
const MAX_ADDRESSES: usize = 16;
const MAX_LISTENERS: usize = 64;

pub(super) fn spec(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<GatewaySpec> {
    let mut object = Object::open(decoder, at)?;
    object.required(decoder, "gatewayClassName", class);
    let mut spec = GatewaySpec {
        addresses: object.list(decoder, "addresses", gateway_address),
        listeners: object.required_list(decoder, "listeners", listener),
    };
    at_most(decoder, MAX_ADDRESSES, &mut spec.addresses);
    at_most(decoder, MAX_LISTENERS, &mut spec.listeners);
    for field in ["allowedListeners", "backendTLS", "defaultScope", "infrastructure", "tls"] {
        object.later(decoder, field);
    }
    object.close(decoder);
    Some(spec)
}

fn class(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<()> {
    choice(decoder, at, &[(GATEWAY_CLASS, ())])
}

fn gateway_address(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<IpAddr> {
    let mut object = Object::open(decoder, at)?;
    let kind = object.or(decoder, "type", Some(()), |decoder, at| {
        let given = text(decoder, at)?;
        match &*given {
            "IPAddress" => Some(Some(())),
            "Hostname" => {
                decoder.unsupported(at, "addresses of type Hostname");
                Some(None)
            }
            _ => {
                let problem = format!("unknown value {}; it must be IPAddress", quote(&given));
                decoder.error(at, problem, "type: IPAddress, which is also the default");
                Some(None)
            }
        }
    });
    // The value of another type is not an address that could be judged.
    let address = if kind.is_some() {
        object.required(decoder, "value", address)
    } else {
        object.ignored("value");
        None
    };
    object.close(decoder);
    address
}

fn listener(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Listener> {
    let mut object = Object::open(decoder, at)?;
    let name = object.required(decoder, "name", name);
    let hostname = object.optional(decoder, "hostname", |d, at| d.located(at, hostname));
    let port = object.required(decoder, "port", port);
    let protocol = object.required(decoder, "protocol", protocol);
    let allowed_routes = object.or(decoder, "allowedRoutes", RouteNamespaces::Same, allowed_routes);
    object.later(decoder, "tls");
    object.close(decoder);
    Some(Listener { name: name?, hostname, port: port?, protocol: protocol.unwrap_or(Protocol::Http), allowed_routes })
}

fn protocol(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Protocol> {
    let given = text(decoder, at)?;
    if matches!(&*given, "HTTPS" | "TLS" | "TCP" | "UDP") {
        decoder.error(
            at,
            format!("not supported yet: protocol {given}"),
            "protocol: HTTP; the others come with a later release",
        );
        return None;
    }
    choice(decoder, at, &[("HTTP", Protocol::Http)])
}

fn allowed_routes(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<RouteNamespaces> {
    let mut object = Object::open(decoder, at)?;
    let from = object.or(decoder, "namespaces", RouteNamespaces::Same, namespaces);
    object.optional(decoder, "kinds", |decoder, at| list(decoder, at, route_kind));
    object.close(decoder);
    Some(from)
}

fn namespaces(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<RouteNamespaces> {
    const SELECTOR: &str = "Selector";
    const FROM: [(&str, &str); 4] = [("Same", "Same"), ("All", "All"), (SELECTOR, SELECTOR), ("None", "None")];
    let mut object = Object::open(decoder, at)?;
    let from = object.or(decoder, "from", "Same", |d, at| choice(d, at, &FROM));
    let selector = object.optional(decoder, "selector", |d, at| Some((d.location(at), selector(d, at)?)));
    if from == SELECTOR {
        object.required(decoder, "selector", |_, _| Some(()));
    }
    object.close(decoder);
    if let Some((at, _)) = &selector
        && from != SELECTOR
    {
        decoder.found.hinted(at, format!("there is a selector, but routes are taken from {from}"), "from: Selector");
    }
    Some(match from {
        "All" => RouteNamespaces::All,
        "None" => RouteNamespaces::None,
        SELECTOR => RouteNamespaces::Selector(selector.map(|(_, selector)| selector).unwrap_or_default()),
        _ => RouteNamespaces::Same,
    })
}

/// HTTPRoute is all that a listener of protocol HTTP can take, so that there is nothing to keep.
fn route_kind(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<()> {
    let mut object = Object::open(decoder, at)?;
    object.optional(decoder, "group", |d, at| choice(d, at, &[(GATEWAY_GROUP, ())]));
    object.required(decoder, "kind", |decoder, at| {
        let given = text(decoder, at)?;
        if matches!(&*given, "GRPCRoute" | "TLSRoute" | "TCPRoute" | "UDPRoute") {
            decoder.unsupported(at, &given);
            return None;
        }
        choice(decoder, at, &[("HTTPRoute", ())])
    });
    object.close(decoder);
    Some(())
}
