//! The appliance's numbers in Prometheus' text format, version 0.0.4.
//!
//! Label sets are bounded by the configuration: cores, ports, verdicts, and the series that the compiler made; of the latter those
//! of earlier configurations, and those that count what no backend served, appear only if they have counted something. Nothing that a client sends becomes a label.

use core::fmt::{self, Display, Write};
use hashbrown::HashSet;
use std::sync::Arc;

use crate::reload::Origin;
use crate::status::{CheckedState, ConfigurationStatus, EndpointStatus, NameStatus};
use tables::counters::{
    LATENCY_BOUNDS_US, NAP_BOUNDS_US, PortCounters, STATUS_SLOTS, ScalarKind, SeriesCore, WAYS, status_label,
};
use tables::limit::LimitCounts;
use tables::{CoreCounters, Counter, Limit, Series, SeriesId, Verdict};

/// What [`render`] is made from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Millrace's version.
    pub version: &'a str,
    /// Each core's counters, by the core's index.
    pub cores: &'a [Arc<CoreCounters>],
    /// The ports' names, in the appliance's order.
    pub ports: &'a [Arc<str>],
    /// All series so far.
    pub series: &'a [Arc<Series>],
    /// Those of the running configuration.
    pub in_use: &'a HashSet<SeriesId>,
    /// Rate limits of the running configuration.
    pub limits: &'a [Limit],
    /// Endpoints, as they are now.
    pub endpoints: &'a [EndpointStatus],
    /// Names that DNS is asked for, as they are now.
    pub dns: &'a [NameStatus],
    /// What the devices counted themselves: port, counter, value.
    pub devices: &'a [(Arc<str>, String, u64)],
    /// Where the configuration comes from, and what became of changes.
    pub configuration: &'a ConfigurationStatus,
    /// The newest epoch.
    pub epoch: u64,
    /// How often control's threads started over after a panic.
    pub restarts: &'a [(&'static str, u64)],
    /// Access log records that could not be written.
    pub access_log_lost: u64,
    /// The families that are wanted, by name; all of them where it is empty. With many routes, all of them are megabytes.
    pub names: &'a [String],
}

/// Content type of [`render`]'s text.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All numbers now.
#[must_use]
pub fn render(sources: &Sources<'_>) -> String {
    let mut text = Exposition { text: String::new(), names: sources.names };
    if text.family("millrace_build_info", "gauge", "Version of Millrace.") {
        text.sample("millrace_build_info", &[("version", &sources.version)], 1);
    }
    configuration(&mut text, sources);
    cores(&mut text, sources);
    ports(&mut text, sources);
    series(&mut text, sources);
    limits(&mut text, sources.limits);
    endpoints(&mut text, sources.endpoints);
    names(&mut text, sources.dns);
    if !sources.devices.is_empty() {
        let name = "millrace_device_statistic_total";
        if text.family(name, "counter", "Counters that the port's device keeps, by their DPDK name.") {
            for (port, counter, value) in sources.devices {
                text.sample(name, &[("port", port), ("name", counter)], value);
            }
        }
    }
    text.text
}

fn configuration(text: &mut Exposition<'_>, sources: &Sources<'_>) {
    let status = sources.configuration;
    let gauges = [
        ("successful", "1 unless the last change was refused and is not mended.", u64::from(status.refused.is_none())),
        ("success_timestamp_seconds", "When the running configuration was accepted.", status.accepted),
        ("timestamp_seconds", "When a change was looked at last.", status.attempted),
    ];
    for (name, help, value) in gauges {
        let name = format!("millrace_config_last_reload_{name}");
        if text.family(&name, "gauge", help) {
            text.sample(&name, &[], value);
        }
    }
    if text.family("millrace_config_reloads_total", "counter", "Changes by what became of them.") {
        let reloads = status.reloads;
        for (outcome, count) in
            [("accepted", reloads.accepted), ("unchanged", reloads.unchanged), ("refused", reloads.refused)]
        {
            text.sample("millrace_config_reloads_total", &[("outcome", &outcome)], count);
        }
    }
    let help = "1 while the last good configuration on disk runs, because the files are bad.";
    if text.family("millrace_config_last_good", "gauge", help) {
        text.sample("millrace_config_last_good", &[], u64::from(status.origin == Origin::LastGood));
    }
    if text.family("millrace_config_kept", "gauge", "1 where the running configuration is on disk for a restart.") {
        text.sample("millrace_config_kept", &[], u64::from(status.kept.is_some()));
    }
    if text.family("millrace_config_epoch", "gauge", "The newest epoch.") {
        text.sample("millrace_config_epoch", &[], sources.epoch);
    }
    let name = "millrace_control_restarts_total";
    if text.family(name, "counter", "How often a thread of the control plane started over after a panic.") {
        for (thread, count) in sources.restarts {
            text.sample(name, &[("thread", thread)], count);
        }
    }
}

fn limits(text: &mut Exposition<'_>, limits: &[Limit]) {
    let name = "millrace_rate_limit_requests_total";
    if limits.is_empty() || !text.family(name, "counter", "Requests that met a rate limit, by outcome.") {
        return;
    }
    for limit in limits {
        let count = |of: fn(&LimitCounts) -> &Counter| limit.keys.counts().iter().map(|c| of(c).read()).sum::<u64>();
        for (outcome, value) in [("admitted", count(|c| &c.admitted)), ("limited", count(|c| &c.limited))] {
            text.sample(name, &[("limit", &limit.name), ("target", &limit.target), ("outcome", &outcome)], value);
        }
    }
}

/// Endpoints that are checked.
fn endpoints(text: &mut Exposition<'_>, endpoints: &[EndpointStatus]) {
    let checked = || endpoints.iter().filter(|e| e.health != CheckedState::Unchecked);
    if checked().next().is_none() {
        return;
    }
    let name = "millrace_endpoint_healthy";
    if text.family(name, "gauge", "1 while the endpoint passes its health checks, or nothing is known yet.") {
        for endpoint in checked() {
            let healthy = u64::from(endpoint.health != CheckedState::Unhealthy);
            text.sample(name, &[("cluster", &endpoint.cluster), ("endpoint", &endpoint.address)], healthy);
        }
    }
    let name = "millrace_endpoint_checks_total";
    if text.family(name, "counter", "Health checks by result.") {
        for endpoint in checked() {
            for (result, count) in [("passed", endpoint.checks_passed), ("failed", endpoint.checks_failed)] {
                let labels: [(&str, &dyn Display); 3] =
                    [("cluster", &endpoint.cluster), ("endpoint", &endpoint.address), ("result", &result)];
                text.sample(name, &labels, count);
            }
        }
    }
}

/// Names that stand for endpoints.
fn names(text: &mut Exposition<'_>, names: &[NameStatus]) {
    type Family = (&'static str, &'static str, fn(&NameStatus) -> Option<f64>);
    const GAUGES: [Family; 5] = [
        ("answer_age_seconds", "Since the last good answer for a name was given or confirmed.", |name| {
            name.age_seconds
        }),
        ("answer_ttl_seconds", "How long that answer was to be kept, within the configured bounds.", |name| {
            name.ttl_seconds.map(|seconds| seconds as f64)
        }),
        ("addresses", "Addresses of a name that count.", |name| Some(name.addresses.len() as f64)),
        ("refused_addresses", "Addresses of the last answer that cannot be used.", |name| {
            Some(name.refused_count as f64)
        }),
        ("surplus_addresses", "Addresses of the last answer beyond the limit.", |name| Some(name.surplus as f64)),
    ];
    if names.is_empty() {
        return;
    }
    // The same name may be asked for in several ways.
    let labels = |name: &NameStatus| {
        [("name", name.name.clone()), ("type", name.kind.clone()), ("family", name.lookup_family.clone())]
    };
    for (metric, help, read) in GAUGES {
        let metric = format!("millrace_dns_{metric}");
        if text.family(&metric, "gauge", help) {
            for name in names {
                let own = labels(name);
                let own: Vec<(&str, &dyn Display)> =
                    own.iter().map(|(label, value)| (*label, value as &dyn Display)).collect();
                if let Some(value) = read(name) {
                    text.sample(&metric, &own, value);
                }
            }
        }
    }
    let metric = "millrace_dns_lookups_total";
    if text.family(metric, "counter", "Questions about a name by result.") {
        for name in names {
            let own = labels(name);
            for (result, count) in &name.lookups {
                let mut all: Vec<(&str, &dyn Display)> =
                    own.iter().map(|(label, value)| (*label, value as &dyn Display)).collect();
                all.push(("result", result));
                text.sample(metric, &all, count);
            }
        }
    }
}

fn cores(text: &mut Exposition<'_>, sources: &Sources<'_>) {
    let Some(first) = sources.cores.first() else {
        return;
    };
    for (position, scalar) in first.scalars().enumerate() {
        let kind = match scalar.kind {
            ScalarKind::Counter => "counter",
            ScalarKind::Gauge => "gauge",
        };
        if !text.family(scalar.metric, kind, scalar.help) {
            continue;
        }
        for (index, core) in sources.cores.iter().enumerate() {
            if let Some(own) = core.scalars().nth(position) {
                text.sample(scalar.metric, &[("core", &index)], own.value.read());
            }
        }
        if scalar.metric == "millrace_access_log_lost_total" {
            // Lost by the writer, not by a core.
            text.sample(scalar.metric, &[], sources.access_log_lost);
        }
    }
    naps(text, sources);
    sleeps(text, sources);
    let drops = "millrace_packets_dropped_total";
    if text.family(drops, "counter", "Packets that went no further, by reason.") {
        for (index, core) in sources.cores.iter().enumerate() {
            for (verdict, counter) in Verdict::ALL.iter().zip(&core.drops) {
                text.sample(drops, &[("core", &index), ("reason", &verdict.token())], counter.read());
            }
        }
    }
}

fn naps(text: &mut Exposition<'_>, sources: &Sources<'_>) {
    let name = "millrace_core_nap_seconds";
    let help = "How long an idle core slept at a time (idle: adaptive); what arrived meanwhile waited no longer.";
    if !text.family(name, "histogram", help) {
        return;
    }
    for (index, core) in sources.cores.iter().enumerate() {
        let mut cumulative = 0;
        for (bucket, counter) in core.rests.naps.iter().enumerate() {
            cumulative += counter.read();
            let bound = match NAP_BOUNDS_US.get(bucket) {
                Some(&microseconds) => (microseconds as f64 / 1e6).to_string(),
                None => "+Inf".to_owned(),
            };
            text.sample("millrace_core_nap_seconds_bucket", &[("core", &index), ("le", &bound)], cumulative);
        }
        let seconds = core.rests.nap_nanoseconds.read() as f64 / 1e9;
        text.sample("millrace_core_nap_seconds_sum", &[("core", &index)], seconds);
        text.sample("millrace_core_nap_seconds_count", &[("core", &index)], cumulative);
    }
}

fn sleeps(text: &mut Exposition<'_>, sources: &Sources<'_>) {
    let name = "millrace_core_sleeps_total";
    if text.family(
        name,
        "counter",
        "Times that an idle core slept until it was woken (idle: adaptive), by what woke it.",
    ) {
        for (index, core) in sources.cores.iter().enumerate() {
            let rests = &core.rests;
            for (by, counter) in
                [("device", &rests.woken_by_device), ("call", &rests.woken_by_call), ("time", &rests.woken_by_time)]
            {
                text.sample(name, &[("core", &index), ("woken_by", &by)], counter.read());
            }
        }
    }
    let name = "millrace_core_asleep_seconds_total";
    if text.family(name, "counter", "Time that those sleeps took.") {
        for (index, core) in sources.cores.iter().enumerate() {
            text.sample(name, &[("core", &index)], core.rests.asleep_nanoseconds.read() as f64 / 1e9);
        }
    }
}

/// Name, kind and help of a port's numbers, and where they are.
type PortFamily = (&'static str, &'static str, &'static str, fn(&PortCounters) -> &Counter);

const PORT_FAMILIES: &[PortFamily] = &[
    ("millrace_port_rx_packets_total", "counter", "Frames received.", |p| &p.rx_packets),
    ("millrace_port_rx_bytes_total", "counter", "Bytes received.", |p| &p.rx_bytes),
    (
        "millrace_port_rx_scattered_total",
        "counter",
        "Received frames dropped because they came in several buffers and fit into none.",
        |p| &p.rx_scattered,
    ),
    ("millrace_port_tx_packets_total", "counter", "Frames sent.", |p| &p.tx_packets),
    ("millrace_port_tx_bytes_total", "counter", "Bytes sent.", |p| &p.tx_bytes),
    ("millrace_port_tx_full_total", "counter", "Frames dropped because the tx ring was full.", |p| &p.tx_full),
    ("millrace_port_tx_refused_total", "counter", "Frames dropped because the device could not cut them.", |p| {
        &p.tx_refused
    }),
    ("millrace_port_pool_empty_total", "counter", "Frames not sent because the pool was empty.", |p| &p.pool_empty),
    ("millrace_port_mbufs_in_use", "gauge", "Mbufs held by the core or by the device's rings.", |p| &p.frames_in_use),
    ("millrace_port_handed_in_packets_total", "counter", "Received frames that other cores handed to this one.", |p| {
        &p.handed_in
    }),
    ("millrace_port_handed_out_packets_total", "counter", "Received frames that this core handed to others.", |p| {
        &p.handed_out
    }),
    (
        "millrace_port_stray_packets_total",
        "counter",
        "Received frames handed to the next core, because this one did not know their connection.",
        |p| &p.strays,
    ),
    (
        "millrace_port_copied_packets_total",
        "counter",
        "Frames made because several cores want to see the same one.",
        |p| &p.copies,
    ),
    ("millrace_port_exception_to_host_total", "counter", "Frames handed to the host's kernel.", |p| {
        &p.exception_to_host
    }),
    ("millrace_port_exception_from_host_total", "counter", "Frames sent for the host's kernel.", |p| {
        &p.exception_from_host
    }),
    ("millrace_port_exception_lost_total", "counter", "Frames that the host's interface did not take.", |p| {
        &p.exception_lost
    }),
    ("millrace_port_link_up", "gauge", "1 while the link is up.", |p| &p.link_up),
    ("millrace_port_addresses_tentative", "gauge", "IPv6 addresses being checked for duplicates.", |p| {
        &p.addresses_tentative
    }),
    ("millrace_port_addresses_duplicate", "gauge", "IPv6 addresses that somebody else has; not used.", |p| {
        &p.addresses_duplicate
    }),
];

fn ports(text: &mut Exposition<'_>, sources: &Sources<'_>) {
    const STEERING: &str = "millrace_port_steering";
    if text.family(STEERING, "gauge", "1 for the way in which received frames find their core.") {
        for (index, core) in sources.cores.iter().enumerate() {
            for (port, counters) in sources.ports.iter().zip(&core.ports) {
                let way = usize::try_from(counters.way.read()).ok().and_then(|way| WAYS.get(way)).unwrap_or(&"");
                text.sample(STEERING, &[("core", &index), ("port", port), ("way", way)], 1);
            }
        }
    }
    for (name, kind, help, read) in PORT_FAMILIES {
        if !text.family(name, kind, help) {
            continue;
        }
        for (index, core) in sources.cores.iter().enumerate() {
            for (port, counters) in sources.ports.iter().zip(&core.ports) {
                text.sample(name, &[("core", &index), ("port", port)], read(counters).read());
            }
        }
    }
}

fn series(text: &mut Exposition<'_>, sources: &Sources<'_>) {
    // Looking through all series for nothing takes longer than all the rest.
    if !sources.names.is_empty() && !sources.names.iter().any(|name| name.starts_with("millrace_request")) {
        return;
    }
    let shown: Vec<(&Series, bool)> = (0u32..)
        .zip(sources.series)
        .map(|(id, series)| (series.as_ref(), sources.in_use.contains(&SeriesId(id))))
        .filter(|(series, in_use)| (*in_use && !series.backend.is_empty()) || finished(series) > 0)
        .collect();
    if text.family("millrace_requests_total", "counter", "Finished requests; code 000 for those that got no response.")
    {
        for (series, in_use) in &shown {
            requests(text, series, *in_use);
        }
    }
    let help = "From the first byte of a request to the last of its response.";
    if text.family("millrace_request_duration_seconds", "histogram", help) {
        for (series, _) in &shown {
            durations(text, series);
        }
    }
    let name = "millrace_request_bytes_total";
    if text.family(name, "counter", "Bytes of requests, heads and bodies.") {
        for (series, _) in &shown {
            text.sample(name, &labels(series), sum(series, &|core| core.request_bytes()));
        }
    }
    let name = "millrace_response_bytes_total";
    if text.family(name, "counter", "Bytes of responses, heads and bodies.") {
        for (series, _) in &shown {
            text.sample(name, &labels(series), sum(series, &|core| core.response_bytes()));
        }
    }
}

fn requests(text: &mut Exposition<'_>, series: &Series, in_use: bool) {
    let cores: Vec<_> = series.cores.iter().map(SeriesCore::by_status).collect();
    for slot in 0..STATUS_SLOTS {
        let count = cores.iter().filter_map(|counts| counts.get(slot)).sum::<u64>();
        let code = status_label(slot);
        // Routes that have served nothing yet show a 0, so that rates have something to start from.
        if count > 0 || (code == "200" && in_use) {
            text.sample("millrace_requests_total", &[&labels(series)[..], &[("code", &code)]].concat(), count);
        }
    }
}

fn durations(text: &mut Exposition<'_>, series: &Series) {
    let mut cumulative = 0;
    let cores: Vec<_> = series.cores.iter().map(SeriesCore::latency).collect();
    for bucket in 0..=LATENCY_BOUNDS_US.len() {
        cumulative += cores.iter().filter_map(|counts| counts.get(bucket)).sum::<u64>();
        let bound = match LATENCY_BOUNDS_US.get(bucket) {
            Some(&microseconds) => (microseconds as f64 / 1e6).to_string(),
            None => "+Inf".to_owned(),
        };
        let labels = [&labels(series)[..], &[("le", &bound)]].concat();
        text.sample("millrace_request_duration_seconds_bucket", &labels, cumulative);
    }
    let nanoseconds = sum(series, &|core| core.latency_sum_ns());
    text.sample("millrace_request_duration_seconds_sum", &labels(series), nanoseconds as f64 / 1e9);
    text.sample("millrace_request_duration_seconds_count", &labels(series), cumulative);
}

fn sum(series: &Series, read: &dyn Fn(&SeriesCore) -> u64) -> u64 {
    series.cores.iter().map(read).sum()
}

fn finished(series: &Series) -> u64 {
    series.cores.iter().flat_map(SeriesCore::by_status).sum()
}

type Label<'a> = (&'static str, &'a dyn Display);

fn labels(series: &Series) -> [Label<'_>; 3] {
    [("listener", &series.listener), ("route", &series.route), ("backend", &series.backend)]
}

/// Text in the making.
struct Exposition<'a> {
    text: String,
    names: &'a [String],
}

impl Exposition<'_> {
    /// Begins a family, if it is wanted.
    #[must_use]
    fn family(&mut self, name: &str, kind: &str, help: &str) -> bool {
        let wanted = self.names.is_empty() || self.names.iter().any(|wanted| wanted == name);
        if wanted {
            // Writing to a String cannot fail, here and below.
            let _ = writeln!(self.text, "# HELP {name} {}", Escaped { text: help, quotes: false });
            let _ = writeln!(self.text, "# TYPE {name} {kind}");
        }
        wanted
    }

    fn sample(&mut self, name: &str, labels: &[Label<'_>], value: impl Display) {
        self.text.push_str(name);
        for (position, (label, text)) in labels.iter().enumerate() {
            let text = text.to_string();
            let before = if position == 0 { '{' } else { ',' };
            let _ = write!(self.text, "{before}{label}=\"{}\"", Escaped { text: &text, quotes: true });
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

/// Text in which backslashes, line feeds and, in label values, quotes are escaped.
struct Escaped<'a> {
    text: &'a str,
    quotes: bool,
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.chars().try_for_each(|c| match c {
            '\\' => f.write_str("\\\\"),
            '\n' => f.write_str("\\n"),
            '"' if self.quotes => f.write_str("\\\""),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests;
