//! The results: as JSON for programs, as a few lines for people.

use std::collections::BTreeMap;

use crate::host::{Memory, Taken};
use crate::run::{MeasuredPart, Outcome, Stalls};
use blast::Wrong;
use blast::client::{ClientCounters, Measured};
use blast::endpoint::TcpCounters;
use blast::server::ServerCounters;
use hdrhistogram::Histogram;
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
    /// Of a run with idle connections: how they fared.
    pub(crate) idle: Option<Idle>,
    /// Of a run in parts: each, in order. The figures beside them are of all parts together, stalls, what was taken, and the generator's share
    /// of the last one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) parts: Vec<Part>,
    /// What the program between the parts said behind the last one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) said_at_end: String,
    /// Turns of the generator that took long, while measuring; something else on the machine took the time, as a rule.
    pub(crate) stalls: Stalls,
    /// While measuring.
    pub(crate) taken: Taken,
    /// When the measurement ended.
    pub(crate) gateway_memory: Option<Memory>,
    /// Of the clients, when the measurement ended.
    pub(crate) connections_open: usize,
    pub(crate) latency_microseconds: Latency,
    /// Of those requests during which no turn of the generator took long ([`Stalls`]): the gateway's latency, as far as that can be
    /// told apart from the machine's other work. The gateway's own waits for its CPU are in it.
    pub(crate) latency_undisturbed_microseconds: Latency,
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
    pub(crate) direct: bool,
    pub(crate) routes: u32,
    pub(crate) loss: f64,
    pub(crate) retransmission_milliseconds: u32,
    /// Segments of up to 64 KiB, where the wire has them.
    pub(crate) large_frames: bool,
    pub(crate) memory: String,
}

/// Connections that were held idle, and what they did to the others.
#[derive(Debug, Serialize)]
pub(crate) struct Idle {
    pub(crate) wanted: u32,
    /// Opened, and had their reply.
    pub(crate) held: u32,
    /// Answered once more at the end, and rightly.
    pub(crate) answered_at_end: u32,
    pub(crate) seconds_to_open: f64,
    /// Of the busy connections, before there were idle ones, and among them.
    pub(crate) alone_requests_per_second: f64,
    pub(crate) among_requests_per_second: f64,
    pub(crate) alone_latency_microseconds: Latency,
    /// The gateway's, before idle connections, with them, and when the measurement ended.
    pub(crate) memory_before: Option<Memory>,
    pub(crate) memory_with: Option<Memory>,
    pub(crate) memory_at_end: Option<Memory>,
    /// What the process grew by from the first of these to the largest of the others, by connections held.
    pub(crate) bytes_per_connection: Option<f64>,
}

impl Idle {
    /// What came of holding `wanted` connections.
    pub(crate) fn new(
        wanted: u32,
        counters: &ClientCounters,
        alone: &Measured,
        outcome: &Outcome,
        seconds: f64,
    ) -> Self {
        let [before, with, end] = outcome.memory;
        let sum = |memory: Memory| (memory.resident_bytes + memory.hugepage_bytes) as f64;
        let most = with.map(sum).into_iter().chain(end.map(sum)).reduce(f64::max);
        let grown = before.zip(most).map(|(before, most)| most - sum(before));
        Self {
            wanted,
            held: counters.idle,
            answered_at_end: counters.idle_answered,
            seconds_to_open: outcome.opening as f64 / 1e9,
            alone_requests_per_second: alone.replies as f64 / seconds,
            among_requests_per_second: outcome.measured as f64 / seconds,
            alone_latency_microseconds: Latency::new(alone),
            memory_before: before,
            memory_with: with,
            memory_at_end: end,
            bytes_per_connection: grown.map(|grown| grown / f64::from(counters.idle.max(1))),
        }
    }

    /// Whether each was opened, and still answered at the end.
    pub(crate) fn all_there(&self) -> bool {
        self.held == self.wanted && self.answered_at_end == self.wanted
    }

    fn lines(&self) -> String {
        let memory = self.bytes_per_connection.map_or_else(String::new, |bytes| format!(", {bytes:.0} bytes each"));
        let missing = if self.all_there() { "" } else { "ERROR: " };
        format!(
            "{missing}idle connections: {} wanted, {} held (opened in {:.1} s){memory}, {} answered at the end; busy ones \
             {:.0} requests/s alone and {:.0} among them, {:.1} %",
            self.wanted,
            self.held,
            self.seconds_to_open,
            self.answered_at_end,
            self.alone_requests_per_second,
            self.among_requests_per_second,
            100.0 * self.among_requests_per_second / self.alone_requests_per_second.max(1e-9)
        )
    }
}

/// A part of a run.
#[derive(Debug, Serialize)]
pub(crate) struct Part {
    pub(crate) routes: u32,
    /// What the program before it said.
    pub(crate) said: String,
    pub(crate) seconds: f64,
    pub(crate) replies_measured: u64,
    pub(crate) requests_per_second: f64,
    pub(crate) latency_microseconds: Latency,
    pub(crate) latency_undisturbed_microseconds: Latency,
    /// From its beginning to its end, what was not measured included.
    pub(crate) errors: u64,
    pub(crate) stalls: Stalls,
    pub(crate) taken: Taken,
    pub(crate) generator_busy: f64,
}

impl Part {
    /// A part of which so many seconds were measured.
    pub(crate) fn new(part: &MeasuredPart, seconds: f64) -> Self {
        Self {
            routes: part.routes,
            said: part.said.clone(),
            seconds,
            replies_measured: part.measured.replies,
            requests_per_second: part.measured.replies as f64 / seconds,
            latency_microseconds: Latency::new(&part.measured),
            latency_undisturbed_microseconds: Latency::of(&part.measured.undisturbed),
            errors: part.errors,
            stalls: part.stalls,
            taken: part.taken.clone(),
            generator_busy: part.busy,
        }
    }
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
    count: u64,
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
        Self::of(&measured.latency)
    }

    /// Of a histogram in nanoseconds.
    pub(crate) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max() as f64 / 1000.0,
            mean: histogram.mean() / 1000.0,
            count: histogram.len(),
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
    fn taken_away(&self) -> String {
        let milliseconds = |nanoseconds: u64| format!("{:.1} ms", nanoseconds as f64 / 1e6);
        let (stalls, taken) = (&self.stalls, &self.taken);
        let stolen: Vec<String> = taken.stolen_nanoseconds.iter().map(|stolen| milliseconds(*stolen)).collect();
        format!(
            "taken away: {} turns over 50 µs ({} in all, longest {}); waited for a CPU: generator {}, gateway {}; stolen by the \
             hypervisor, of each CPU: {}",
            stalls.turns_over_50_microseconds,
            milliseconds(stalls.sum_nanoseconds),
            milliseconds(stalls.longest_nanoseconds),
            milliseconds(taken.generator_waited_nanoseconds),
            taken.gateway_waited_nanoseconds.map_or_else(|| "unknown".to_owned(), milliseconds),
            stolen.join(", ")
        )
    }

    /// A few lines for people.
    pub(crate) fn summary(&self) -> String {
        let (l, u) = (&self.latency_microseconds, &self.latency_undisturbed_microseconds);
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
        if u.count * 2 > l.count {
            let undisturbed = format!(
                "the same of the {:.2} % in which nothing took the generator's CPU away: p50 {:.1}, p90 {:.1}, p99 {:.1}, p99.9 {:.1}, \
                 max {:.1}",
                100.0 * u.count as f64 / l.count.max(1) as f64,
                u.p50,
                u.p90,
                u.p99,
                u.p999,
                u.max
            );
            lines.insert(2, undisturbed);
        }
        if self.limited_by == "generator" {
            lines.push("THE GENERATOR WAS THE LIMIT: the gateway can do more than this".to_owned());
        }
        if let Some(problem) = &self.gateway_problem {
            lines.push(format!("the gateway's busy time could not be read: {problem}"));
        }
        lines.extend(self.idle.as_ref().map(Idle::lines));
        lines.extend(self.parts.iter().map(|part| {
            let (routes, busy) = (part.routes, percent(part.generator_busy));
            format!("{routes} routes: {:.0} requests/s, generator {busy} busy", part.requests_per_second)
        }));
        lines.push(self.taken_away());
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
            if t.lost_in + t.lost_out > 0 {
                lines.push(format!("{name}: {} frames in and {} out vanished on purpose", t.lost_in, t.lost_out));
            }
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
