//! References to objects, `ReferenceGrant.spec` and selectors of labels.

use std::collections::BTreeMap;

use super::object::{Object, list};
use super::scalar::{choice, name, namespace, port, text};
use super::{At, Decoder, metadata, quote};
use crate::GATEWAY_GROUP;
use crate::MILLRACE_GROUP;
use crate::name::{Name, ObjectName};
use crate::resources::{
    BackendKind, BackendObject, GrantFrom, GrantTo, LabelExpression, LabelOperator, LabelSelector, ReferenceGrantSpec,
};

/// The fields `group`, `kind`, `namespace` and `name` of a reference to a Gateway; the namespace is `own` if it names none.
pub(super) fn gateway(
    decoder: &mut Decoder<'_>,
    object: &mut Object<'_>,
    at: At<'_>,
    own: &Name,
) -> Option<ObjectName> {
    let (group, kind, name) = fields(decoder, object, (GATEWAY_GROUP, "Gateway"), own)?;
    if (&*group, &*kind) != (GATEWAY_GROUP, "Gateway") {
        not_here(decoder, at, (&group, &kind), (GATEWAY_GROUP, "Gateway"));
        return None;
    }
    name
}

/// The same of a reference to a backend. Whether its kind is one that requests can be sent to is looked at when all is read.
pub(super) fn backend(
    decoder: &mut Decoder<'_>,
    object: &mut Object<'_>,
    own: &Name,
) -> Option<(BackendKind, ObjectName)> {
    let (group, kind, name) = fields(decoder, object, ("", "Service"), own)?;
    let kind = match (&*group, &*kind) {
        (MILLRACE_GROUP, "Backend") => BackendKind::Backend,
        ("", "Service") => BackendKind::Service,
        (group, kind) => BackendKind::Other(group.into(), kind.into()),
    };
    Some((kind, name?))
}

/// A reference to a backend and nothing else.
pub(super) fn backend_object(decoder: &mut Decoder<'_>, at: At<'_>, own: &Name) -> Option<BackendObject> {
    let mut object = Object::open(decoder, at)?;
    let target = backend(decoder, &mut object, own);
    let port = object.optional(decoder, "port", |d, at| Some(port(d, at)));
    object.close(decoder);
    let (kind, object) = target?;
    let port = match port {
        Some(port) => Some(port?),
        None => None,
    };
    Some(BackendObject { kind, object, port })
}

/// Why a reference to something of another kind than `wanted` is wrong: the problem and what would be right.
pub(crate) fn wrong_kind((group, kind): (&str, &str), wanted: (&str, &str)) -> (String, String) {
    let group_text = if group.is_empty() { "the core group" } else { group };
    let known = matches!((group, kind), ("multicluster.x-k8s.io", "ServiceImport"));
    let problem = if known {
        format!("not supported yet: references to a {kind}")
    } else {
        format!("{} of {} cannot be referred to here", quote(kind), quote(group_text))
    };
    (problem, format!("group: {}, kind: {}", wanted.0, wanted.1))
}

fn not_here(decoder: &mut Decoder<'_>, at: At<'_>, given: (&str, &str), wanted: (&str, &str)) {
    let (problem, hint) = wrong_kind(given, wanted);
    decoder.error(at, problem, hint);
}

type Fields = (std::sync::Arc<str>, std::sync::Arc<str>, Option<ObjectName>);

/// `default` is what the Gateway API says for a group and kind that are not given.
fn fields(decoder: &mut Decoder<'_>, object: &mut Object<'_>, default: (&str, &str), own: &Name) -> Option<Fields> {
    let group = object.or(decoder, "group", Some(default.0.into()), |d, at| Some(text(d, at)));
    let kind = object.or(decoder, "kind", Some(default.1.into()), |d, at| Some(text(d, at)));
    let namespace = object.or(decoder, "namespace", Some(own.clone()), |d, at| Some(namespace(d, at)));
    let name = object.required(decoder, "name", name);
    let whole = namespace.zip(name).map(|(namespace, name)| ObjectName { namespace, name });
    Some((group?, kind?, whole))
}

/// `ReferenceGrant.spec`.
pub(super) fn grant(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<ReferenceGrantSpec> {
    let mut object = Object::open(decoder, at)?;
    let spec = ReferenceGrantSpec {
        from: object.required_list(decoder, "from", |decoder, at| {
            let mut object = Object::open(decoder, at)?;
            let group = object.required(decoder, "group", text);
            let kind = object.required(decoder, "kind", text);
            let namespace = object.required(decoder, "namespace", namespace);
            object.close(decoder);
            Some(GrantFrom { group: (*group?).into(), kind: (*kind?).into(), namespace: namespace? })
        }),
        to: object.required_list(decoder, "to", |decoder, at| {
            let mut object = Object::open(decoder, at)?;
            let group = object.required(decoder, "group", text);
            let kind = object.required(decoder, "kind", text);
            let name = object.optional(decoder, "name", |d, at| Some(name(d, at)));
            object.close(decoder);
            let name = match name {
                // A name that is wrong must not grant everything.
                Some(name) => Some(name?),
                None => None,
            };
            Some(GrantTo { group: (*group?).into(), kind: (*kind?).into(), name })
        }),
    };
    object.close(decoder);
    Some(spec)
}

/// A selector.
pub(super) fn selector(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<LabelSelector> {
    let mut object = Object::open(decoder, at)?;
    let selector = LabelSelector {
        match_labels: object.or(decoder, "matchLabels", BTreeMap::new(), metadata::strings),
        match_expressions: object.list(decoder, "matchExpressions", label_expression),
    };
    object.close(decoder);
    Some(selector)
}

fn label_expression(decoder: &mut Decoder<'_>, at: At<'_>) -> Option<LabelExpression> {
    use LabelOperator::{DoesNotExist, Exists, In, NotIn};
    const OPERATORS: [(&str, LabelOperator); 4] =
        [("In", In), ("NotIn", NotIn), ("Exists", Exists), ("DoesNotExist", DoesNotExist)];
    let mut object = Object::open(decoder, at)?;
    let key = object.required(decoder, "key", text);
    let operator = object.required(decoder, "operator", |d, at| choice(d, at, &OPERATORS));
    let values = object.optional(decoder, "values", |d, at| list(d, at, |d, at| text(d, at).map(|t| (*t).into())));
    let values = values.unwrap_or_default();
    object.close(decoder);
    if let Some(operator) = operator
        && matches!(operator, In | NotIn) == values.is_empty()
    {
        let hint = "In and NotIn need values, Exists and DoesNotExist have none";
        decoder.error(at, "the values do not fit the operator", hint);
    }
    Some(LabelExpression { key: (*key?).into(), operator: operator?, values })
}
