//! References to backends, and leave to refer across namespaces.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use serde::Serialize;

use crate::located::Located;
use crate::name::{Name, ObjectName};
use crate::resources::Metadata;

/// What a reference leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum BackendKind {
    /// `Backend` of millrace.dev.
    Backend,
    /// `Service` of Kubernetes.
    Service,
    /// Something that requests cannot be sent to: its group and kind. Only with [`super::InvalidReferences::Serve500`].
    Other(Box<str>, Box<str>),
}

impl BackendKind {
    /// Its group and kind.
    #[must_use]
    pub fn group_kind(&self) -> (&str, &str) {
        match self {
            Self::Backend => (crate::MILLRACE_GROUP, "Backend"),
            Self::Service => ("", "Service"),
            Self::Other(group, kind) => (group, kind),
        }
    }
}

/// A reference to a backend (Gateway API `BackendObjectReference`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BackendObject {
    /// What it leads to.
    pub kind: BackendKind,
    /// The object; its namespace is the route's if not given.
    #[serde(flatten)]
    pub object: ObjectName,
    /// The port of endpoints that name none themselves. Present if there are such.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<NonZeroU16>,
}

/// `ReferenceGrant` (gateway.networking.k8s.io): objects of its namespace may be referred to from others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReferenceGrant {
    /// Who it is.
    pub metadata: Metadata,
    /// What it is.
    pub spec: ReferenceGrantSpec,
}

/// `ReferenceGrant.spec`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReferenceGrantSpec {
    /// Who may refer.
    pub from: Vec<Located<GrantFrom>>,
    /// To what.
    pub to: Vec<Located<GrantTo>>,
}

/// `ReferenceGrant.spec.from[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrantFrom {
    /// Group of the referring objects.
    pub group: Box<str>,
    /// Their kind.
    pub kind: Box<str>,
    /// Their namespace.
    pub namespace: Name,
}

/// `ReferenceGrant.spec.to[]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GrantTo {
    /// Group of the objects; empty for the core group.
    pub group: Box<str>,
    /// Their kind.
    pub kind: Box<str>,
    /// Only the one of this name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
}

/// `Namespace` (v1): its labels are what selectors of listeners look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Namespace {
    /// Who it is.
    pub metadata: Metadata,
}

/// A selector of namespaces (Kubernetes `LabelSelector`): all of it has to hold. An empty one selects every namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// Labels and their values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub match_labels: BTreeMap<String, String>,
    /// More of what labels have to be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub match_expressions: Vec<Located<LabelExpression>>,
}

/// `matchExpressions[]` of a selector.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LabelExpression {
    /// The label.
    pub key: Box<str>,
    /// How it is looked at.
    pub operator: LabelOperator,
    /// For `In` and `NotIn`: at least one; empty for the others.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub values: Vec<Located<Box<str>>>,
}

/// `matchExpressions[].operator` of a selector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl ReferenceGrant {
    /// Whether HTTPRoutes of the namespace `from` may refer to `object`.
    #[must_use]
    pub fn permits(&self, from: &Name, kind: &BackendKind, object: &ObjectName) -> bool {
        let (group, kind) = kind.group_kind();
        *self.metadata.namespace() == object.namespace
            && self
                .spec
                .from
                .iter()
                .any(|f| *f.group == *crate::GATEWAY_GROUP && *f.kind == *"HTTPRoute" && f.namespace == *from)
            && self.spec.to.iter().any(|to| {
                *to.group == *group && *to.kind == *kind && to.name.as_ref().is_none_or(|name| *name == object.name)
            })
    }
}

impl LabelSelector {
    /// Whether these labels are selected.
    #[must_use]
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
        self.match_labels.iter().all(equal) && self.match_expressions.iter().all(|expression| expression.holds(labels))
    }
}

impl LabelExpression {
    fn holds(&self, labels: &BTreeMap<String, String>) -> bool {
        let label = labels.get(&*self.key);
        let listed = label.is_some_and(|label| self.values.iter().any(|value| *value.value == **label));
        match self.operator {
            LabelOperator::In => listed,
            LabelOperator::NotIn => !listed,
            LabelOperator::Exists => label.is_some(),
            LabelOperator::DoesNotExist => label.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::located::Location;

    #[test]
    fn selectors_select_what_kubernetes_would() {
        let labels: BTreeMap<String, String> = [("tier".to_owned(), "web".to_owned())].into();
        let holds = |key: &str, operator, values: &[&str]| {
            let at = Location::file("");
            let values = values.iter().map(|v| Located::new((*v).into(), at.clone())).collect();
            let expression = LabelExpression { key: key.into(), operator, values };
            LabelSelector { match_expressions: vec![Located::new(expression, at)], ..LabelSelector::default() }
                .selects(&labels)
        };
        use LabelOperator::{DoesNotExist, Exists, In, NotIn};
        assert!(LabelSelector::default().selects(&labels));
        assert!(LabelSelector { match_labels: labels.clone(), ..LabelSelector::default() }.selects(&labels));
        assert!(!LabelSelector { match_labels: labels.clone(), ..LabelSelector::default() }.selects(&BTreeMap::new()));
        assert!(holds("tier", In, &["db", "web"]) && !holds("tier", In, &["db"]) && !holds("x", In, &["web"]));
        assert!(!holds("tier", NotIn, &["web"]) && holds("tier", NotIn, &["db"]) && holds("x", NotIn, &["web"]));
        assert!(holds("tier", Exists, &[]) && !holds("x", Exists, &[]));
        assert!(holds("x", DoesNotExist, &[]) && !holds("tier", DoesNotExist, &[]));
    }
}
