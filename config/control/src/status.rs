//! What `status` shows: plain data that the admin endpoint writes as JSON and the command line reads back.
//!
//! Conditions have the Gateway API's types and reasons. The compiler makes those of Gateways and routes; [`crate::runtime`]
//! adds what only the running appliance knows.

mod endpoints;
mod names;

use serde::{Deserialize, Serialize};

pub use endpoints::{CheckedState, EndpointFailure, EndpointStatus, Endpoints};
pub use names::{NameFailure, NameState, NameStatus, Names};

use crate::reload::Origin;

/// One condition of a Gateway, a listener or a route's parent (Kubernetes `metav1.Condition`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `Accepted`, `Programmed`, `ResolvedRefs` or `Conflicted`.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// Whether it holds.
    pub status: ConditionStatus,
    /// Why, as one word of the Gateway API.
    pub reason: String,
    /// Why, for people; empty where the reason says it all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// Types of conditions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionKind {
    /// It is valid and attached to something.
    Accepted,
    /// The cores serve it.
    Programmed,
    /// What it refers to exists.
    ResolvedRefs,
    /// Another listener has its address, port and hostname.
    Conflicted,
}

/// Whether a condition holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConditionStatus {
    /// It does.
    True,
    /// It does not.
    False,
}

impl Condition {
    /// A condition that holds, for the usual reason: its own name.
    #[must_use]
    pub fn holds(kind: ConditionKind) -> Self {
        Self { kind, status: ConditionStatus::True, reason: format!("{kind:?}"), message: String::new() }
    }

    /// Whether an operator should look at it. A conflict is bad where it holds, everything else where it does not.
    #[must_use]
    pub fn is_bad(&self) -> bool {
        (self.kind == ConditionKind::Conflicted) == (self.status == ConditionStatus::True)
    }

    /// One that holds or does not, for this reason.
    #[must_use]
    pub fn new(kind: ConditionKind, status: ConditionStatus, reason: &str, message: impl Into<String>) -> Self {
        Self { kind, status, reason: reason.to_owned(), message: message.into() }
    }
}

/// One Gateway and its listeners.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GatewayStatus {
    /// `namespace/name`.
    pub name: String,
    /// Where it listens.
    pub addresses: Vec<String>,
    /// Accepted and Programmed.
    pub conditions: Vec<Condition>,
    /// Its listeners.
    pub listeners: Vec<ListenerStatus>,
}

/// One listener of a Gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name in the Gateway.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// `HTTP`.
    pub protocol: String,
    /// The hosts it serves; `*` for all.
    pub hostname: String,
    /// How many routes are attached.
    pub attached_routes: usize,
    /// Accepted, Programmed, ResolvedRefs, Conflicted.
    pub conditions: Vec<Condition>,
}

/// One HTTPRoute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RouteStatus {
    /// `namespace/name`.
    pub name: String,
    /// Its hosts; empty for those of its listeners.
    pub hostnames: Vec<String>,
    /// One per `parentRef`.
    pub parents: Vec<ParentStatus>,
}

/// How a route stands with one of its parents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// `namespace/gateway`, with `/section` and `:port` where the reference has them.
    pub parent: String,
    /// Accepted and ResolvedRefs.
    pub conditions: Vec<Condition>,
}

/// One polling core.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoreStatus {
    /// Its number among the appliance's cores, from 0.
    pub index: u16,
    /// The CPU it is pinned to.
    pub cpu: u16,
    /// `running`, `draining`, `stopping` or `stopped`.
    pub stage: String,
    /// Whether its heartbeat moves.
    pub alive: bool,
    /// The epoch it runs.
    pub epoch: u64,
    /// Share of the last second's time that went into turns with something to do, 0 to 1.
    pub busy: f64,
    /// Client connections open now.
    pub connections: u64,
    /// Requests being served now.
    pub requests: u64,
}

/// All polling cores, with how packets find them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cores {
    /// In the order of the appliance's list.
    pub cores: Vec<CoreDetail>,
}

/// One polling core, more closely.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CoreDetail {
    /// What `status` shows of it.
    #[serde(flatten)]
    pub core: CoreStatus,
    /// Its share of all cores' client connections, 0 to 1; 0 where there are none. Far from even where few clients hold long connections.
    pub share: f64,
    /// What it does while there is nothing to do: `polling`, `naps` (of microseconds) or `interrupts` (it sleeps until a device wakes it).
    pub when_idle: String,
    /// Connections to backends open now.
    pub upstream: u64,
    /// Of those, the ones that wait for a request.
    pub upstream_idle: u64,
    /// Received packets dropped because the ring to their core was full.
    pub ring_full: u64,
    /// Its end of each port.
    pub ports: Vec<CorePort>,
}

/// One core's end of a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CorePort {
    /// The appliance's name for the port.
    pub name: String,
    /// How received frames find their core: `alone` (there is one), `rss` (by a hash of the device that is known), `queues` (as the device has
    /// it, and replies of backends by their port) or `hash` (by a hash of ours, since the device has too few queues).
    pub way: String,
    /// Frames received from the core's own queue.
    pub rx_packets: u64,
    /// Frames sent by the core's own queue.
    pub tx_packets: u64,
    /// Received frames that other cores handed to this one.
    pub handed_in: u64,
    /// Received frames that this core handed to others.
    pub handed_out: u64,
    /// Of those, the ones whose connection no core was known to have.
    pub strays: u64,
}

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortStatus {
    /// The appliance's name for it.
    pub name: String,
    /// The DPDK device as configured.
    pub device: String,
    /// The PMD that drives it.
    pub driver: String,
    /// Its Ethernet address.
    pub mac: String,
    /// The largest IP packet, in bytes.
    pub mtu: u16,
    /// Our addresses.
    pub addresses: Vec<String>,
    /// What the device does for us.
    pub offloads: Vec<String>,
    /// Carrier present.
    pub link_up: bool,
    /// Frames received by all cores.
    pub rx_packets: u64,
    /// Frames sent by all cores.
    pub tx_packets: u64,
}

/// Where the running configuration comes from, and what became of changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigurationStatus {
    /// Files, a posted one, or the last good one.
    pub origin: Origin,
    /// The paths that are watched.
    pub paths: Vec<String>,
    /// When it was accepted, in seconds since 1970-01-01T00:00:00Z.
    pub accepted: u64,
    /// When a change was looked at last, whatever became of it.
    pub attempted: u64,
    /// What was refused since, if that is not mended.
    pub refused: Option<Refused>,
    /// Where it is kept for a restart with bad files.
    pub kept: Option<String>,
    /// Why it is not kept.
    pub not_kept: Option<String>,
    /// Changes so far.
    pub reloads: Reloads,
}

impl Default for ConfigurationStatus {
    fn default() -> Self {
        Self {
            origin: Origin::Files,
            paths: Vec::new(),
            accepted: 0,
            attempted: 0,
            refused: None,
            kept: None,
            not_kept: None,
            reloads: Reloads::default(),
        }
    }
}

impl ConfigurationStatus {
    /// What the operator should know, though it stops no traffic; a line each.
    #[must_use]
    pub fn remarks(&self, epoch: u64) -> Vec<String> {
        let mut remarks = Vec::new();
        if let Some(refused) = &self.refused {
            let runs = match self.origin {
                Origin::LastGood => "the last good one runs, from before the restart",
                Origin::Files | Origin::Posted => "the one before it runs on",
            };
            let errors = match refused.errors.len() {
                1 => "1 error".to_owned(),
                n => format!("{n} errors"),
            };
            remarks.push(format!("configuration refused, {errors}; {runs} as epoch {epoch}"));
            remarks.extend(refused.errors.iter().map(Problem::line));
        }
        if let Some(problem) = &self.not_kept {
            remarks.push(format!("the configuration cannot be kept for a restart: {problem}"));
        }
        remarks
    }
}

impl Problem {
    /// In one line.
    #[must_use]
    pub fn line(&self) -> String {
        self.text.lines().next().unwrap_or_default().to_owned()
    }
}

/// Changes by what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloads {
    /// They run.
    pub accepted: u64,
    /// They were what ran already.
    pub unchanged: u64,
    /// They changed nothing.
    pub refused: u64,
}

/// A change that was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Refused {
    /// When, in seconds since 1970-01-01T00:00:00Z.
    pub at: u64,
    /// Everything that is wrong with it.
    pub errors: Vec<Problem>,
}

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// The file; `<body>` for what was posted.
    pub file: String,
    /// Line, from 1; 0 where it belongs to none.
    pub line: u32,
    /// Column, from 1; 0 where it belongs to none.
    pub column: u32,
    /// The field.
    pub field: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// All of it for people, with the line of the file.
    pub text: String,
}

/// The whole appliance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Name of the Appliance resource.
    pub name: String,
    /// Millrace's version.
    pub version: String,
    /// Seconds since the start.
    pub uptime_seconds: u64,
    /// Whether it takes traffic.
    pub ready: bool,
    /// Why it does not; empty where it does.
    pub reasons: Vec<String>,
    /// The newest epoch.
    pub epoch: u64,
    /// Where DPDK's memory lies, for people.
    pub memory: String,
    /// Where the configuration comes from, and what became of changes.
    pub configuration: ConfigurationStatus,
    /// Polling cores.
    pub cores: Vec<CoreStatus>,
    /// Ports.
    pub ports: Vec<PortStatus>,
    /// Gateways.
    pub gateways: Vec<GatewayStatus>,
    /// Routes.
    pub routes: Vec<RouteStatus>,
    /// Names that DNS is asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameStatus>,
}
