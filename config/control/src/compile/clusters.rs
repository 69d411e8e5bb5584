//! Backends and their endpoints.

use std::net::SocketAddr;
use std::num::NonZeroU16;

use schema::ObjectName;
use tables::{Cluster, ClusterId, Endpoint};

use super::Run;

impl Run<'_> {
    pub(super) fn cluster(&mut self, backend: &ObjectName, port: Option<NonZeroU16>) -> ClusterId {
        if let Some(&id) = self.cluster_ids.get(&(backend.clone(), port)) {
            return id;
        }
        let name = match port {
            Some(port) => format!("{backend}:{port}"),
            None => backend.to_string(),
        };
        // `schema` lets no reference dangle, and no endpoint be without a port; a cluster without endpoints answers 503.
        let endpoints = self.backends.get(backend).map(|b| b.spec.endpoints.as_slice()).unwrap_or_default();
        let endpoints = endpoints
            .iter()
            .filter_map(|endpoint| {
                let address = SocketAddr::new(endpoint.address, endpoint.port.or(port)?.get());
                Some(Endpoint { id: self.compiler.endpoint_id(address), address, weight: endpoint.weight })
            })
            .collect();
        let id = ClusterId(self.clusters.len() as u32);
        self.clusters.push(Cluster::new(name.into(), endpoints));
        self.cluster_ids.insert((backend.clone(), port), id);
        id
    }
}
