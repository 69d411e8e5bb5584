//! How many connections there may be, on all cores together.

use tables::TcpSettings;
use tables::lease::{Budget, Lease};

/// The limits of an appliance, which its cores share.
#[derive(Debug, Clone)]
pub struct Limits {
    connections: Budget,
    clients: Budget,
    half_open: Budget,
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
}

impl Limits {
    /// What `settings` allow `cores` cores together.
    #[must_use]
    pub fn new(settings: &TcpSettings, cores: u16) -> Self {
        let sockets = sockets(settings);
        Self {
            connections: Budget::new(sockets.min(u64::from(settings.max_connections)), cores),
            clients: Budget::new(sockets - sockets / 8, cores),
            half_open: Budget::new(settings.half_open.into(), cores),
        }
    }

    pub(super) fn lease(&self) -> Leases {
        Leases {
            connections: self.connections.lease(),
            clients: self.clients.lease(),
            half_open: self.half_open.lease(),
        }
    }
}

/// How many sockets the memory for buffers is enough for; one at least.
fn sockets(settings: &TcpSettings) -> u64 {
    let each = u64::from(settings.receive_buffer) + u64::from(settings.send_buffer);
    (settings.buffer_memory / each.max(1)).max(1)
}
