//! `metadata`.

use std::collections::BTreeMap;

use super::object::{Object, wrong_type};
use super::scalar::{name, namespace, text};
use super::{At, Decoder, Path, quote};
use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::{Metadata, Timestamp};
use crate::yaml::Value;

/// What only a cluster writes.
const OF_THE_CLUSTER: [&str; 9] = [
    "deletionGracePeriodSeconds",
    "deletionTimestamp",
    "finalizers",
    "generateName",
    "generation",
    "managedFields",
    "ownerReferences",
    "resourceVersion",
    "uid",
];

/// The object's name, `None` if it is wrong, and its metadata with whatever stands in for a wrong name.
pub(super) fn metadata(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<(Option<Located<ObjectName>>, Metadata)> {
    let mut object = Object::open(decoder, at)?;
    let name = object.required(decoder, "name", |d, at| d.located(at, name));
    let (named, namespace) = object
        .optional(decoder, "namespace", |d, at| Some(namespace(d, at)))
        .map_or((true, Name::default_namespace()), |namespace| {
            (namespace.is_some(), namespace.unwrap_or_else(Name::default_namespace))
        });
    let mut metadata = placeholder();
    metadata.labels = object.or(decoder, "labels", BTreeMap::new(), strings);
    metadata.annotations = object.or(decoder, "annotations", BTreeMap::new(), strings);
    metadata.creation_timestamp = object.optional(decoder, "creationTimestamp", timestamp);
    for field in OF_THE_CLUSTER {
        object.ignored(field);
    }
    object.close(decoder);
    metadata.object.namespace = namespace;
    if let Some(name) = &name {
        metadata.object.name = name.value.clone();
    }
    let name = name.filter(|_| named).map(|name| Located::new(metadata.object.clone(), name.at));
    Some((name, metadata))
}

/// Stands in for metadata that is wrong, so that the rest of the document is looked at.
pub(super) fn placeholder() -> Metadata {
    let name = Name::default_namespace();
    Metadata {
        object: ObjectName { namespace: name.clone(), name },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        creation_timestamp: None,
    }
}

pub(super) fn strings(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<BTreeMap<String, String>> {
    let Value::Mapping(entries) = &at.node.value else {
        wrong_type(decoder, at, &at.node.value, "a mapping");
        return None;
    };
    let mut strings = BTreeMap::new();
    for entry in entries {
        let path = Path::Field(at.path, &entry.key);
        let value = At { node: &entry.value, path: &path };
        if let Some(value) = text(decoder, value) {
            strings.insert(entry.key.clone().into(), value.to_string());
        }
    }
    Some(strings)
}

fn timestamp(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<Timestamp> {
    let given = text(decoder, at)?;
    let parsed = Timestamp::parse(&given);
    if parsed.is_none() {
        let problem = format!("{} is not a time", quote(&given));
        decoder.error(at, problem, "such as 2026-01-31T12:00:00Z");
    }
    parsed
}
