//! What is compiled where endpoints alone are others than before: the clusters concerned, while routes, rules and all the other clusters stay
//! the ones that run.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use schema::{BackendKind, Configuration, EndpointSlice, Located, ObjectName};
use tables::Cluster;

use super::clusters::{ClusterKey, Places};
use super::{Compiled, Compiler, KEPT_ENDPOINTS};
use crate::endpoints::plan::ClusterPlan;

/// Backends whose endpoints differ between two configurations that are the same otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Touched {
    backends: HashSet<ObjectName>,
    services: HashSet<ObjectName>,
}

impl Touched {
    /// What has to be compiled again to come from `old` to `new`; `None` where that is more than endpoints.
    #[must_use]
    pub fn between(old: &Configuration, new: &Configuration) -> Option<Self> {
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
        let same = old.appliance == *appliance
            && old.gateways == *gateways
            && old.grants == *grants
            && old.namespaces == *namespaces
            && old.services == *services
            && old.backend_policies == *backend_policies
            && old.route_policies == *route_policies
            && old.security_policies == *security_policies
            && old.routes == *routes;
        let named = || old.backends.iter().zip(backends).all(|(a, b)| a.metadata.object == b.metadata.object);
        if !same || old.backends.len() != backends.len() || !named() {
            return None;
        }
        let differing = old.backends.iter().zip(backends).filter(|(a, b)| a != b);
        Some(Self {
            backends: differing.map(|(_, backend)| backend.metadata.object.clone()).collect(),
            services: touched_services(&old.slices, slices),
        })
    }

    /// With the backends that have a part of the endpoints of one of these.
    fn with_subsets(mut self, configuration: &Configuration) -> Self {
        let of = |backend: &schema::Backend| backend.spec.subset.as_ref().map(|subset| subset.of.clone());
        let parts = configuration.backends.iter().filter(|b| of(b).is_some_and(|whole| self.backends.contains(&whole)));
        let parts: Vec<ObjectName> = parts.map(|backend| backend.metadata.object.clone()).collect();
        self.backends.extend(parts);
        self
    }

    fn has(&self, (target, ..): &ClusterKey) -> bool {
        match target.kind {
            BackendKind::Service => self.services.contains(&target.object),
            _ => self.backends.contains(&target.object),
        }
    }
}

/// The Services of slices that are new, others or gone.
fn touched_services(old: &[Located<EndpointSlice>], new: &[Located<EndpointSlice>]) -> HashSet<ObjectName> {
    let mut before: HashMap<&ObjectName, &EndpointSlice> =
        old.iter().map(|slice| (&slice.metadata.object, &slice.value)).collect();
    let mut touched = HashSet::new();
    for slice in new {
        match before.remove(&slice.metadata.object) {
            Some(same) if *same == slice.value => {}
            other => touched.extend(other.into_iter().chain([&slice.value]).map(|slice| slice.service.clone())),
        }
    }
    touched.extend(before.into_values().map(|slice| slice.service.clone()));
    touched
}

impl Compiler {
    /// Compiles under the next epoch what endpoints decide alone: `running`, which is what was compiled last, with the clusters of backends that are
    /// `touched` or that have names with other addresses.
    pub fn compile_endpoints(
        &mut self,
        running: &Compiled,
        configuration: &Arc<Configuration>,
        touched: Touched,
    ) -> Compiled {
        if running.snapshot.epoch != self.epoch {
            return self.compile(configuration);
        }
        self.epoch += 1;
        let touched = self.with_renamed(touched, configuration).with_subsets(configuration);
        let places = Places::of(configuration);
        let parts = running.snapshot.clusters.iter().zip(running.clusters.iter()).zip(running.keys.iter());
        let parts = parts.map(|((cluster, plan), key)| {
            if touched.has(key) { places.cluster(self, key, cluster.cursor) } else { (cluster.clone(), plan.clone()) }
        });
        let (clusters, mut plans): (Vec<Cluster>, Vec<ClusterPlan>) = parts.collect();
        // None of those that stay may be taken for gone.
        for plan in &plans {
            for planned in plan.endpoints.iter() {
                self.endpoint_id(planned.endpoint.address);
            }
        }
        self.endpoint_ids.retire(self.epoch, KEPT_ENDPOINTS, self.swept);
        let checks = self.check_ids.assign(&mut plans);
        Compiled {
            snapshot: Arc::new(running.snapshot.with_clusters(self.epoch, clusters)),
            configuration: Arc::clone(configuration),
            clusters: plans.into(),
            checks,
            ..running.clone()
        }
    }

    /// Also the backends with names that have other addresses.
    fn with_renamed(&mut self, mut touched: Touched, configuration: &Configuration) -> Touched {
        let renamed = core::mem::take(&mut self.renamed);
        let named = configuration.backends.iter().filter(|backend| {
            backend.spec.endpoints.iter().any(|endpoint| endpoint.name().is_some_and(|name| renamed.contains(name)))
        });
        touched.backends.extend(named.map(|backend| backend.metadata.object.clone()));
        touched
    }
}

#[cfg(test)]
mod tests;
