//! `Backend.spec`.

use std::collections::BTreeMap;

use super::metadata::strings;
use super::object::Object;
use super::scalar::{address, choice, integer, name, port, text, weight};
use super::{At, Decoder};
use crate::name::{Name, ObjectName};
use crate::resources::{BackendProtocol, BackendSpec, BackendSubset, Endpoint};

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
