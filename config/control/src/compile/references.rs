//! Which references of routes lead to something that requests can be sent to.

use hashbrown::HashSet;
use schema::{BackendKind, Configuration, HttpRoute, Name, ObjectName};

/// Why a reference leads nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Invalid {
    /// To something of another kind.
    Kind,
    /// To another namespace, without a grant.
    NotPermitted,
    /// To what does not exist.
    NotFound,
}

impl Invalid {
    /// The Gateway API's reason for a route's condition ResolvedRefs.
    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Kind => "InvalidKind",
            Self::NotPermitted => "RefNotPermitted",
            Self::NotFound => "BackendNotFound",
        }
    }
}

/// Looks references up.
pub(super) struct References<'c> {
    configuration: &'c Configuration,
    backends: HashSet<&'c ObjectName>,
    services: HashSet<&'c ObjectName>,
}

impl<'c> References<'c> {
    pub(super) fn of(configuration: &'c Configuration) -> Self {
        let backends = configuration.backends.iter().map(|backend| &backend.metadata.object).collect();
        let services = configuration.services.iter().map(|service| &service.metadata.object).collect();
        Self { configuration, backends, services }
    }

    /// Whether routes of the namespace `from` may send requests to an object.
    pub(super) fn resolve(&self, from: &Name, kind: &BackendKind, object: &ObjectName) -> Result<(), Invalid> {
        match kind {
            BackendKind::Other(..) => Err(Invalid::Kind),
            _ if !self.configuration.permits(from, kind, object) => Err(Invalid::NotPermitted),
            BackendKind::Backend if !self.backends.contains(object) => Err(Invalid::NotFound),
            BackendKind::Service if !self.services.contains(object) => Err(Invalid::NotFound),
            BackendKind::Backend | BackendKind::Service => Ok(()),
        }
    }

    /// All references of a route that are invalid, with what they say.
    pub(super) fn invalid(&self, route: &HttpRoute) -> Vec<(Invalid, String)> {
        let mut invalid = Vec::new();
        let mut look = |kind: &BackendKind, object: &ObjectName| {
            if let Err(why) = self.resolve(route.metadata.namespace(), kind, object) {
                let (group, kind) = kind.group_kind();
                let group = if group.is_empty() { "core" } else { group };
                invalid.push((why, format!("{kind}.{group} {object}")));
            }
        };
        for rule in &route.spec.rules {
            for reference in &rule.backend_refs {
                look(&reference.kind, &reference.backend);
            }
            rule.mirrors().for_each(|mirror| look(&mirror.kind, &mirror.object));
        }
        invalid
    }
}
