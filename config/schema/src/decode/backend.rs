//! `Backend.spec`.

use std::collections::BTreeMap;

use super::metadata::strings;
use super::object::Object;
use super::scalar::{address, choice, integer, port, text, weight};
use super::{At, Decoder};
use crate::resources::{BackendProtocol, BackendSpec, Endpoint};

pub(super) fn spec(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<BackendSpec> {
    let mut object = Object::open(decoder, at)?;
    let spec = BackendSpec {
        protocol: object
            .or(decoder, "protocol", BackendProtocol::Http, |d, at| choice(d, at, &[("http", BackendProtocol::Http)])),
        endpoints: object.required_list(decoder, "endpoints", endpoint),
    };
    object.close(decoder);
    Some(spec)
}

fn endpoint(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Endpoint> {
    let mut object = Object::open(decoder, at)?;
    let address = object.required(decoder, "address", address);
    let port = object.optional(decoder, "port", port);
    let weight = object.or(decoder, "weight", 1, weight);
    let priority = object.or(decoder, "priority", 0, integer(0..=127));
    let zone = object.optional(decoder, "zone", text).map(|zone| (*zone).into());
    let labels = object.or(decoder, "labels", BTreeMap::new(), strings);
    object.close(decoder);
    Some(Endpoint { address: address?, port, weight, priority, zone, labels })
}
