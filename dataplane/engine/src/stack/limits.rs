//! How many connections there may be, and how fast each source may open them, on all cores together.

use std::sync::Arc;

use tables::TcpSettings;
use tables::lease::{Budget, Lease};
use tables::quota::Quotas;
use tables::source_rate::SourceRates;

/// The limits of an appliance, which its cores share.
#[derive(Debug, Clone)]
pub struct Limits {
    connections: Budget,
    clients: Budget,
    half_open: Budget,
    sources: Option<Arc<SourceRates>>,
    endpoints: Quotas,
}

/// One core's leases of them.
#[derive(Debug)]
pub(super) struct Leases {
    /// Connections of both legs, as many as are allowed and as there is memory for their buffers.
    pub connections: Lease,
    /// Clients' among them: an eighth of the memory is for the backend connections of those who are in.
    pub clients: Lease,
    /// Handshakes begun by clients and not yet complete.
    pub half_open: Lease,
    /// What sources have opened, where that is limited.
    pub sources: Option<Arc<SourceRates>>,
}

impl Limits {
    /// What `settings` allow `cores` cores together. `secret` keys the table of sources.
    #[must_use]
    pub fn new(settings: &TcpSettings, cores: u16, secret: [u64; 2]) -> Self {
        let sockets = sockets(settings);
        Self {
            connections: Budget::new(sockets.min(u64::from(settings.max_connections)), cores),
            clients: Budget::new(sockets - sockets / 8, cores),
            half_open: Budget::new(settings.half_open.into(), cores),
            sources: settings.source_limit.as_ref().map(|limit| Arc::new(SourceRates::new(limit, secret))),
            endpoints: Quotas::new(),
        }
    }

    /// What the cores have borrowed of each endpoint's connections.
    #[must_use]
    pub fn endpoints(&self) -> Quotas {
        self.endpoints.clone()
    }

    pub(super) fn lease(&self) -> Leases {
        Leases {
            connections: self.connections.lease(),
            clients: self.clients.lease(),
            half_open: self.half_open.lease(),
            sources: self.sources.clone(),
        }
    }
}

/// How many sockets the memory for buffers is enough for; one at least.
fn sockets(settings: &TcpSettings) -> u64 {
    let each = u64::from(settings.receive_buffer) + u64::from(settings.send_buffer);
    (settings.buffer_memory / each.max(1)).max(1)
}
