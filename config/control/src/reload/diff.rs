//! What a change changes, and what of it cannot be changed while the cores run.

use std::collections::HashMap;
use std::slice;

use schema::{
    Appliance, Backend, BackendPolicy, Configuration, EndpointSlice, Gateway, HttpRoute, Located, Namespace,
    ObjectName, ReferenceGrant, RoutePolicy, SecurityPolicy, Service,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Fields of `Appliance.spec` that a reload may change. All others are what the process was started with: EAL arguments, threads,
/// pools, tables of fixed size, sockets.
const CHANGEABLE: &[&str] =
    &["spec.http", "spec.upstream", "spec.dns", "spec.accessLog.requests", "spec.invalidReferences", "metadata"];

/// Fields named of one changed resource at most.
const FIELDS: usize = 20;

/// What differs between two configurations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    /// Resources that are new: `HTTPRoute default/shop`.
    pub added: Vec<String>,
    /// Resources that differ.
    pub changed: Vec<Changed>,
    /// Resources that are gone.
    pub removed: Vec<String>,
}

/// One resource that differs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Changed {
    /// Kind, namespace and name.
    pub resource: String,
    /// The first of its fields that differ.
    pub fields: Vec<String>,
}

impl Changes {
    /// Whether nothing differs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

/// A field that a reload cannot change, with its values as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Fixed {
    pub(super) field: String,
    pub(super) now: String,
    pub(super) wanted: String,
}

/// What differs between `old` and `new`, of whatever kinds there are.
pub(super) fn changes(old: &Configuration, new: &Configuration) -> Changes {
    let mut found = Changes::default();
    if old == new {
        return found;
    }
    // All fields by their names, so that a kind that is new cannot be forgotten here.
    let Configuration {
        appliance,
        gateways,
        routes,
        backends,
        grants,
        namespaces,
        services,
        slices,
        backend_policies,
        route_policies,
        security_policies,
    } = new;
    compare("Appliance", slice::from_ref(&old.appliance), slice::from_ref(appliance), &mut found);
    compare("Gateway", &old.gateways, gateways, &mut found);
    compare("HTTPRoute", &old.routes, routes, &mut found);
    compare("Backend", &old.backends, backends, &mut found);
    compare("ReferenceGrant", &old.grants, grants, &mut found);
    compare("Namespace", &old.namespaces, namespaces, &mut found);
    compare("Service", &old.services, services, &mut found);
    compare("EndpointSlice", &old.slices, slices, &mut found);
    compare("BackendPolicy", &old.backend_policies, backend_policies, &mut found);
    compare("RoutePolicy", &old.route_policies, route_policies, &mut found);
    compare("SecurityPolicy", &old.security_policies, security_policies, &mut found);
    found.added.sort_unstable();
    found.changed.sort_unstable_by(|a, b| a.resource.cmp(&b.resource));
    found.removed.sort_unstable();
    found
}

/// A resource with its name.
trait Named {
    fn object(&self) -> &ObjectName;
}

macro_rules! named {
    ($($kind:ty),*) => {
        $(impl Named for $kind {
            fn object(&self) -> &ObjectName {
                &self.metadata.object
            }
        })*
    };
}

named!(
    Appliance,
    Gateway,
    HttpRoute,
    Backend,
    ReferenceGrant,
    Namespace,
    Service,
    EndpointSlice,
    BackendPolicy,
    RoutePolicy,
    SecurityPolicy
);

/// What differs among resources of one kind. Only those that do are looked at field by field: ten thousand others are as good as free.
fn compare<R: Named + PartialEq + Serialize>(kind: &str, old: &[Located<R>], new: &[Located<R>], found: &mut Changes) {
    let mut before: HashMap<&ObjectName, &Located<R>> =
        old.iter().map(|resource| (resource.object(), resource)).collect();
    for resource in new {
        let name = resource.object();
        match before.remove(name) {
            None => found.added.push(format!("{kind} {name}")),
            Some(earlier) if earlier != resource => {
                let mut fields = Vec::new();
                differences("", &json(earlier), &json(resource), &mut fields);
                // What is not shown is no difference for anybody.
                if !fields.is_empty() {
                    let fields = fields.into_iter().take(FIELDS).map(|difference| difference.field).collect();
                    found.changed.push(Changed { resource: format!("{kind} {name}"), fields });
                }
            }
            Some(_) => {}
        }
    }
    found.removed.extend(before.into_keys().map(|name| format!("{kind} {name}")));
}

/// What `new` wants of the appliance that it cannot have without a restart.
pub(super) fn fixed(old: &Configuration, new: &Configuration) -> Vec<Fixed> {
    if old.appliance == new.appliance {
        return Vec::new();
    }
    let (before, after) = (json(&old.appliance), json(&new.appliance));
    let mut found = Vec::new();
    differences("", &before, &after, &mut found);
    found.retain(|difference| !CHANGEABLE.iter().any(|field| is_within(field, &difference.field)));
    if old.appliance.metadata.object != new.appliance.metadata.object {
        let name = |c: &Configuration| c.appliance.metadata.object.to_string();
        found.push(Fixed { field: "metadata.name".to_owned(), now: name(old), wanted: name(new) });
    }
    found
}

fn is_within(whole: &str, part: &str) -> bool {
    part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The innermost fields in which two values differ. Recursion is as deep as the resources.
fn differences(path: &str, before: &Value, after: &Value, found: &mut Vec<Fixed>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let keys = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key)));
            for key in keys {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                differences(&path, old.get(key).unwrap_or(&Value::Null), new.get(key).unwrap_or(&Value::Null), found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                differences(&format!("{path}[{index}]"), old, new, found);
            }
        }
        _ if before == after => {}
        _ => found.push(Fixed { field: path.to_owned(), now: before.to_string(), wanted: after.to_string() }),
    }
}

fn json(value: &impl Serialize) -> Value {
    // The resources are plain data.
    serde_json::to_value(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configuration(appliance: &str, rest: &str) -> Configuration {
        let text = format!(
            "apiVersion: millrace.dev/v1alpha1\nkind: Appliance\nmetadata: {{ name: edge }}\nspec:\n  cores: [0]\n  \
             ports: [{{ name: north, device: net_null0, addresses: [10.9.1.1/24] }}]\n{appliance}{rest}"
        );
        schema::load_str("test", &text).unwrap()
    }

    fn backend(name: &str, address: &str) -> String {
        format!(
            "---\napiVersion: millrace.dev/v1alpha1\nkind: Backend\nmetadata: {{ name: {name} }}\nspec: {{ endpoints: \
             [{{ address: {address}, port: 80 }}] }}\n"
        )
    }

    #[test]
    fn resources_are_added_changed_and_removed_by_name() {
        let old = configuration("", &[backend("a", "10.9.1.2"), backend("b", "10.9.1.3")].concat());
        let new = configuration("", &[backend("b", "10.9.1.4"), backend("c", "10.9.1.2")].concat());
        let found = changes(&old, &new);
        assert_eq!(found.added, ["Backend default/c"]);
        assert_eq!(found.removed, ["Backend default/a"]);
        let fields = vec!["spec.endpoints[0].address".to_owned()];
        assert_eq!(found.changed, [Changed { resource: "Backend default/b".into(), fields }]);
        assert!(changes(&old, &old.clone()).is_empty());
        // Where things stand, and in which order, is no difference.
        let moved = configuration("", &[backend("b", "10.9.1.3"), backend("a", "10.9.1.2")].concat());
        assert!(changes(&old, &moved).is_empty());
    }

    #[test]
    fn what_the_process_was_started_with_is_fixed() {
        let old = configuration("", "");
        let field = |appliance: &str| {
            let found = fixed(&old, &configuration(appliance, ""));
            found.into_iter().map(|fixed| fixed.field).collect::<Vec<_>>()
        };
        assert_eq!(field("  memory: { mebibytes: 128 }\n"), ["spec.memory.mebibytes"]);
        assert_eq!(field("  tcp: { keepalive: 7s }\n"), ["spec.tcp.keepalive"]);
        assert_eq!(field("  accessLog: { path: /tmp/x, requests: all }\n"), ["spec.accessLog.path"]);
        assert!(field("  http: { timeouts: { idle: 7s } }\n  upstream: { idlePerEndpoint: 3 }\n").is_empty());
        let text = fixed(&old, &configuration("  memory: { mebibytes: 128 }\n", ""));
        assert_eq!((text[0].now.as_str(), text[0].wanted.as_str()), ("512", "128"));
    }
}
