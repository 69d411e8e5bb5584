//! Between what is known of endpoints and the cores.

use std::sync::Arc;
use std::time::Instant;

use tables::EndpointTable;

use super::{Supervisor, lock};
use crate::endpoints::{Address, Endpoints, Setting};
use crate::status;

/// What is known of endpoints, and the table that cores have of it.
pub(super) struct EndpointBooks {
    pub(super) known: Endpoints,
    pub(super) table: Arc<EndpointTable>,
}

impl Supervisor {
    pub(super) fn publish_endpoints(&self, books: &mut EndpointBooks, table: Arc<EndpointTable>) {
        for core in &self.cores {
            lock(&core.endpoints).publish(Arc::clone(&table));
        }
        (self.facts.wake)();
        books.table = table;
    }

    /// Takes what cores found out about endpoints, and tells all of them what follows.
    pub(super) fn tend_endpoints(&self) {
        let now = Instant::now();
        let mut books = lock(&self.endpoints);
        for core in &self.cores {
            lock(&core.endpoints).reclaim();
            // As many as the queue holds, so that a core that reports all the time keeps nobody here.
            for _ in 0..core.reports.capacity() {
                let Some(report) = core.reports.pop() else { break };
                books.known.report(report, now);
            }
        }
        if let Some(table) = books.known.settle(now) {
            self.publish_endpoints(&mut books, table);
        }
    }

    /// Does as an operator says of endpoints, at once. How many endpoints it concerns.
    pub(crate) fn set_endpoint(&self, backend: &str, address: Address, setting: Setting) -> Result<usize, String> {
        let mut books = lock(&self.endpoints);
        let meant = books.known.set(backend, address, setting)?;
        if let Some(table) = books.known.settle(Instant::now()) {
            self.publish_endpoints(&mut books, table);
        }
        Ok(meant)
    }

    pub(crate) fn endpoints(&self) -> status::Endpoints {
        let endpoints = lock(&self.endpoints).known.list(Instant::now());
        status::Endpoints { endpoints }
    }
}
