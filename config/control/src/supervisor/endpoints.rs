//! Between what is known of endpoints and the cores.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use schema::Configuration;
use tables::{EndpointTable, Selection};

use super::{Supervisor, lock};
use crate::compile::Compiled;
use crate::endpoints::{Address, Endpoints, Setting};
use crate::reload::replace;
use crate::status;

/// What is known of endpoints, and the table that cores have of it.
pub(super) struct EndpointBooks {
    pub(super) known: Endpoints,
    pub(super) table: Arc<EndpointTable>,
}

/// Takes what operators said before the start, as far as it concerns this configuration.
pub(super) fn recall(known: &mut Endpoints, path: Option<&Path>, configuration: &Configuration) {
    let Some(path) = path else { return };
    match fs::read(path).and_then(|text| known.recall(&text)) {
        Ok(()) => drop(known.forget(configuration)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => {
            tracing::warn!("what was set of endpoints before the start cannot be read: {}: {error}", path.display());
        }
    }
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

    /// Does as an operator says of endpoints, at once. How many endpoints it concerns, and why it is not kept for a restart, where it should be.
    pub(crate) fn set_endpoint(
        &self,
        backend: &str,
        address: Address,
        setting: Setting,
    ) -> Result<(usize, Option<String>), String> {
        let mut books = lock(&self.endpoints);
        let meant = books.known.set(backend, address, setting)?;
        if let Some(table) = books.known.settle(Instant::now()) {
            self.publish_endpoints(&mut books, table);
        }
        drop(books);
        Ok((meant, self.keep_endpoints().err().map(|error| error.to_string())))
    }

    /// Keeps on disk what operators said.
    fn keep_endpoints(&self) -> io::Result<()> {
        let path = lock(&self.endpoints_kept);
        let Some(path) = &*path else { return Ok(()) };
        // Whoever comes here later knows more, and waits for `path`.
        let text = lock(&self.endpoints).known.text()?;
        replace(path, &text).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
    }

    /// Keeps on disk that there is nothing to keep any more of endpoints that are gone.
    pub(super) fn keep_forgotten(&self, forgotten: &[String]) {
        if forgotten.is_empty() {
            return;
        }
        tracing::info!("what was set of endpoints that are gone is forgotten: {}", forgotten.join(", "));
        if let Err(error) = self.keep_endpoints() {
            tracing::warn!("what was set of endpoints cannot be kept for a restart: {error}");
        }
    }

    /// What runs, and who takes requests of each of its clusters now.
    pub(crate) fn selections(&self) -> (Arc<Compiled>, Vec<Arc<Selection>>) {
        let compiled = lock(&self.compiled);
        let selections = lock(&self.endpoints).known.selections();
        (Arc::clone(&compiled), selections)
    }

    pub(crate) fn endpoints(&self) -> status::Endpoints {
        let endpoints = lock(&self.endpoints).known.list(Instant::now());
        status::Endpoints { endpoints }
    }
}
