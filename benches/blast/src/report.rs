//! The results: as JSON for programs, as a few lines for people.

use std::collections::BTreeMap;

use blast::Wrong;
use blast::client::{ClientCounters, Measured};
use blast::endpoint::TcpCounters;
use blast::server::ServerCounters;
use serde::Serialize;

/// Above this share of its core, the generator is at its end.
const AT_ITS_END: f64 = 0.95;

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) workload: String,
    pub(crate) settings: Settings,
    pub(crate) versions: BTreeMap<&'static str, String>,
    pub(crate) seconds: f64,
    pub(crate) requests: u64,
    pub(crate) replies: u64,
    pub(crate) replies_measured: u64,
    pub(crate) requests_per_second: f64,
    /// In each second of the measurement.
    pub(crate) seconds_requests: Vec<u64>,
    pub(crate) reply_gigabits_per_second: f64,
    pub(crate) request_gigabits_per_second: f64,
    /// Of an open loop: due and not begun when the measurement ended.
    pub(crate) backlog: u64,
    pub(crate) idle_connections: u32,
    /// Of the clients, when the measurement ended.
    pub(crate) connections_open: usize,
    pub(crate) latency_microseconds: Latency,
    pub(crate) errors: u64,
    pub(crate) errors_by_kind: BTreeMap<&'static str, u64>,
    pub(crate) closed_early: u64,
    pub(crate) backends: ServerCounters,
    pub(crate) north: Side,
    pub(crate) south: Option<Side>,
    /// Shares of the two cores, from 0 to 1.
    pub(crate) generator_busy: f64,
    pub(crate) gateway_busy: Option<f64>,
    pub(crate) gateway_problem: Option<String>,
    pub(crate) limited_by: &'static str,
}

/// How it was run.
#[derive(Debug, Serialize)]
pub(crate) struct Settings {
    pub(crate) arguments: Vec<String>,
    pub(crate) north: String,
    pub(crate) south: Option<String>,
    pub(crate) core: u16,
    pub(crate) connections: u32,
    pub(crate) idle: u32,
    pub(crate) rate: Option<f64>,
    pub(crate) reply_bytes: u32,
    pub(crate) request_bytes: u32,
    pub(crate) memory: String,
}

/// Latencies. Of a closed loop from the first byte sent to the last one received; of an open loop from when it was due; where each
/// request has a connection of its own, from its SYN.
#[derive(Debug, Serialize)]
pub(crate) struct Latency {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
    mean: f64,
}

/// One port.
#[derive(Debug, Serialize)]
pub(crate) struct Side {
    pub(crate) driver: String,
    pub(crate) offloads: Vec<&'static str>,
    pub(crate) rx_packets: u64,
    pub(crate) rx_bytes: u64,
    pub(crate) tx_packets: u64,
    pub(crate) tx_bytes: u64,
    pub(crate) tx_full: u64,
    pub(crate) pool_empty: u64,
    pub(crate) tcp: TcpCounters,
}

impl Latency {
    /// Of what was measured.
    pub(crate) fn new(measured: &Measured) -> Self {
        let histogram = &measured.latency;
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
        }
    }
}

/// The errors, by name.
pub(crate) fn by_kind(counters: &ClientCounters) -> BTreeMap<&'static str, u64> {
    Wrong::ALL.iter().map(|(wrong, name)| (*name, counters.of(*wrong))).collect()
}

/// Who could not do more.
pub(crate) fn limited_by(generator: f64, gateway: Option<f64>) -> &'static str {
    match gateway {
        _ if generator > AT_ITS_END && gateway.is_none_or(|gateway| gateway < generator) => "generator",
        Some(gateway) if gateway > AT_ITS_END => "gateway",
        Some(_) => "neither",
        None => "unknown",
    }
}

impl Report {
    /// A few lines for people.
    pub(crate) fn summary(&self) -> String {
        let l = &self.latency_microseconds;
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        let mut lines = vec![
            format!(
                "{}: {:.0} requests/s, {:.2} Gbit/s of replies, {:.2} Gbit/s of requests, {} connections, {:.1} s",
                self.workload,
                self.requests_per_second,
                self.reply_gigabits_per_second,
                self.request_gigabits_per_second,
                self.settings.connections,
                self.seconds
            ),
            format!(
                "latency µs: p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, max {:.1}",
                l.p50, l.p90, l.p99, l.p999, l.max
            ),
            format!(
                "busy: generator {}, gateway {}; limited by: {}",
                percent(self.generator_busy),
                self.gateway_busy.map_or_else(|| "unknown".to_owned(), percent),
                self.limited_by
            ),
        ];
        if self.limited_by == "generator" {
            lines.push("THE GENERATOR WAS THE LIMIT: the gateway can do more than this".to_owned());
        }
        if let Some(problem) = &self.gateway_problem {
            lines.push(format!("the gateway's busy time could not be read: {problem}"));
        }
        if self.idle_connections > 0 {
            lines.push(format!("idle connections held: {}", self.idle_connections));
        }
        if self.backlog > 0 {
            lines.push(format!("{} requests were due and not begun: the rate is more than was done", self.backlog));
        }
        let kinds: Vec<String> =
            self.errors_by_kind.iter().filter(|(_, n)| **n > 0).map(|(name, n)| format!("{n} {name}")).collect();
        lines.push(match self.errors {
            0 => format!("errors: none in {} replies, all of which were checked", self.replies),
            errors => format!("ERRORS: {errors} ({}), beside {} right replies", kinds.join(", "), self.replies),
        });
        if self.backends.errors() > 0 {
            lines.push(format!("ERRORS at the backends: {:?}", self.backends));
        }
        let sides = [Some(("north", &self.north)), self.south.as_ref().map(|south| ("south", south))];
        for (name, side) in sides.into_iter().flatten() {
            let t = &side.tcp;
            lines.push(format!(
                "{name}: {} frames in, {} out, {} lost to a full ring, {} + {} segments sent again, {} out of order, {} connections",
                side.rx_packets, side.tx_packets, side.tx_full, t.retransmissions, t.fast_retransmissions, t.out_of_order, t.opened
            ));
        }
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_named() {
        assert_eq!(limited_by(0.99, Some(0.8)), "generator");
        assert_eq!(limited_by(0.99, None), "generator");
        assert_eq!(limited_by(0.97, Some(1.0)), "gateway");
        assert_eq!(limited_by(0.5, Some(0.99)), "gateway");
        assert_eq!(limited_by(0.5, Some(0.5)), "neither");
        assert_eq!(limited_by(0.5, None), "unknown");
    }
}
