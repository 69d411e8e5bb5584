//! `Backend.spec`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::metadata::strings;
use super::object::Object;
use super::scalar::{address, choice, integer, name, port, text, weight};
use super::{At, Decoder, quote};
use crate::hostname::Hostname;
use crate::name::{Name, ObjectName};
use crate::resources::{BackendProtocol, BackendSpec, BackendSubset, DnsType, Endpoint, EndpointPlace};
use crate::yaml::Value;

/// `namespace` is the Backend's.
pub(super) fn spec(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<BackendSpec> {
    let mut object = Object::open(decoder, at)?;
    let spec = BackendSpec {
        protocol: object
            .or(decoder, "protocol", BackendProtocol::Http, |d, at| choice(d, at, &[("http", BackendProtocol::Http)])),
        subset: object.optional(decoder, "subset", |d, at| d.located(at, |d, at| subset(d, at, namespace))),
        endpoints: Vec::new(),
    };
    let given = object.has("subset");
    let endpoints = if given {
        object.optional(decoder, "endpoints", |decoder, at| {
            decoder.error(at, "goes with subset not", "a subset has the endpoints of its whole");
            Some(())
        });
        Vec::new()
    } else {
        object.required_list(decoder, "endpoints", endpoint)
    };
    let spec = BackendSpec { endpoints, ..spec };
    object.close(decoder);
    Some(spec)
}

fn subset(decoder: &mut Decoder<'_>, at: At<'_>, namespace: &Name) -> Option<BackendSubset> {
    let mut object = Object::open(decoder, at)?;
    let of = object.required(decoder, "of", name);
    let match_labels = object.required(decoder, "matchLabels", |decoder, at| {
        let labels = strings(decoder, at)?;
        if labels.is_empty() {
            decoder.error(at, "is empty", "at least one label is needed");
        }
        Some(labels)
    });
    object.close(decoder);
    Some(BackendSubset { of: ObjectName { namespace: namespace.clone(), name: of? }, match_labels: match_labels? })
}

/// An address; who gives a name there learns where names go.
fn server_address(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<IpAddr> {
    if let Value::String(given) = &at.node.value
        && matches!(Hostname::parse(given), Ok(Hostname::Exact(_)))
    {
        let hint = format!("for a name that DNS knows: fqdn: {{ hostname: {given} }}");
        decoder.error(at, format!("{} is not an IP address", quote(given)), hint);
        return None;
    }
    address(decoder, at)
}

fn endpoint(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Endpoint> {
    let mut object = Object::open(decoder, at)?;
    let named = object.has("fqdn");
    let fqdn = object.optional(decoder, "fqdn", super::dns::fqdn);
    let not_with_fqdn = |decoder: &mut Decoder<'_>, at: At<'_>, hint: &str| {
        if named {
            decoder.error(at, "goes with fqdn not", hint);
        }
    };
    let port = object.optional(decoder, "port", |decoder, at| {
        not_with_fqdn(decoder, at, "give it as fqdn.port");
        port(decoder, at)
    });
    let place = if named {
        object.optional(decoder, "address", |decoder, at| {
            not_with_fqdn(decoder, at, "an endpoint is an address or a name; make it two");
            Some(())
        });
        fqdn.map(|fqdn| EndpointPlace::Fqdn { fqdn })
    } else {
        object.required(decoder, "address", server_address).map(|address| EndpointPlace::Address { address, port })
    };
    let is_srv = matches!(&place, Some(EndpointPlace::Fqdn { fqdn }) if fqdn.name.kind == DnsType::Srv);
    let weight = object.or(decoder, "weight", 1, |decoder, at| {
        if is_srv {
            decoder.error(at, "goes with SRV not", "SRV records have the weights of their targets");
        }
        weight(decoder, at)
    });
    let priority = object.or(decoder, "priority", 0, integer(0..=127));
    let zone = object.optional(decoder, "zone", text).map(|zone| (*zone).into());
    let labels = object.or(decoder, "labels", BTreeMap::new(), strings);
    object.close(decoder);
    Some(Endpoint { place: place?, weight, priority, zone, labels })
}
