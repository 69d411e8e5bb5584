//! What operators said of endpoints, on disk beside the last good configuration: it holds until it is taken back, also over restarts, and goes with the
//! endpoint from the configuration.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use schema::{Configuration, EndpointPlace};
use serde::{Deserialize, Serialize};

use super::{Endpoints, OVERRIDES, Override};

/// One endpoint that was set.
#[derive(Serialize, Deserialize)]
struct Stored {
    backend: String,
    address: SocketAddr,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    #[serde(default)]
    drain: bool,
}

impl Endpoints {
    /// All that was said, to be kept.
    ///
    /// # Errors
    /// None that could happen: these are plain values.
    pub(crate) fn text(&self) -> io::Result<Vec<u8>> {
        let mut all: Vec<_> = self.overrides.iter().collect();
        all.sort_unstable_by_key(|(key, _)| *key);
        let all = all.into_iter().map(|((backend, address), said)| Stored {
            backend: backend.to_string(),
            address: *address,
            weight: said.weight,
            drain: said.drain,
        });
        Ok(serde_json::to_vec(&all.collect::<Vec<_>>())?)
    }

    /// Takes what was kept.
    ///
    /// # Errors
    /// It is not what [`Endpoints::text`] gives.
    pub(crate) fn recall(&mut self, text: &[u8]) -> io::Result<()> {
        let all: Vec<Stored> = serde_json::from_slice(text)?;
        let all = all.into_iter().take(OVERRIDES).map(|stored| {
            let said = Override { weight: stored.weight, drain: stored.drain };
            ((Arc::from(stored.backend), stored.address), said)
        });
        self.overrides.extend(all);
        Ok(())
    }

    /// Forgets what was said of endpoints that a configuration does not have. What a name or a Service stands for may come back: that goes with its
    /// backend. Returns what was forgotten.
    pub(crate) fn forget(&mut self, configuration: &Configuration) -> Vec<String> {
        if self.overrides.is_empty() {
            return Vec::new();
        }
        let mut gone = Vec::new();
        self.overrides.retain(|(backend, address), _| {
            let stays = has(configuration, backend, address.ip());
            if !stays {
                gone.push(format!("{address} of {backend}"));
            }
            stays
        });
        gone
    }
}

/// Whether a backend has an endpoint there, or may have.
fn has(configuration: &Configuration, backend: &str, address: IpAddr) -> bool {
    if let Some(service) = backend.strip_prefix("service/") {
        return configuration.services.iter().any(|candidate| candidate.metadata.object.to_string() == service);
    }
    let named = configuration.backends.iter().find(|candidate| candidate.metadata.object.to_string() == backend);
    let Some(backend) = named else { return false };
    let whole = backend.spec.subset.as_ref().and_then(|subset| configuration.backend(&subset.of)).unwrap_or(backend);
    whole.spec.endpoints.iter().any(|endpoint| match &endpoint.place {
        EndpointPlace::Address { address: own, .. } => *own == address,
        EndpointPlace::Fqdn { .. } => true,
    })
}
