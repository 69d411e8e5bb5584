//! What is counted and logged of a request when it ends.

use pmd::Lane;
use tables::Finished;
use tables::access::{AccessLevel, AccessRecord, Flag};

use super::client::{Client, Phase, Words};
use super::{Context, Proxy, SPARE_CLIENTS};

impl Proxy {
    /// Counts the request as finished, and reports it to the access log.
    pub(super) fn finish<L: Lane>(
        &mut self,
        cx: &mut Context<'_, L>,
        client: &mut Client,
        flag: Flag,
        detail: &'static str,
    ) {
        self.unpin(client);
        self.drop_copies(cx, client);
        let words = client.words.take();
        if let Some(mut changed) = client.changed.take()
            && self.spare_changed.len() < SPARE_CLIENTS
        {
            changed.clear();
            self.spare_changed.push(changed);
        }
        let exchange = &client.exchange;
        self.active -= 1;
        if client.phase == Phase::Tunnel {
            self.tunnels -= 1;
        }
        cx.net.counters.requests_finished.add(1);
        let duration_ns = cx.net.now.since(client.started);
        let began = exchange.epoch().unwrap_or(cx.snapshot.epoch);
        let finished = Finished {
            status: exchange.status,
            latency_ns: duration_ns,
            request_bytes: exchange.request_bytes,
            response_bytes: exchange.response_bytes,
        };
        cx.snapshot.finished(exchange.series, began, cx.core, &finished);
        let wanted = match cx.snapshot.http.access {
            AccessLevel::None => false,
            AccessLevel::Errors => !matches!(flag, Flag::None | Flag::Filter | Flag::Tunnel) || exchange.status >= 500,
            AccessLevel::All => true,
        };
        if wanted {
            report(cx, client, words.as_deref().unwrap_or(&Words::default()), flag, detail, duration_ns);
        }
        if let Some(words) = words
            && self.spare_words.len() < SPARE_CLIENTS
        {
            self.spare_words.push(words);
        }
    }
}

/// Hands the request to the access log, or counts that it had no room.
fn report<L: Lane>(
    cx: &Context<'_, L>,
    client: &Client,
    words: &Words,
    flag: Flag,
    detail: &'static str,
    duration_ns: u64,
) {
    let exchange = &client.exchange;
    let record = AccessRecord {
        core: cx.core,
        series: exchange.series,
        epoch: exchange.epoch().unwrap_or(cx.snapshot.epoch),
        client: client.remote,
        endpoint: exchange.endpoint,
        method: words.method.clone(),
        authority: words.authority.clone(),
        target: words.target.clone(),
        status: exchange.status,
        flag,
        detail,
        request_bytes: exchange.request_bytes,
        response_bytes: exchange.response_bytes,
        duration_ns,
        backend_ns: exchange.backend_ns,
        attempt: exchange.attempt,
    };
    if cx.access.push(record).is_err() {
        cx.net.counters.access_log_lost.add(1);
    }
}
