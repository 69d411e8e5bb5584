//! What `get names` shows.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All names that DNS is asked for.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Names {
    /// In order.
    pub names: Vec<NameStatus>,
}

/// A name that stands for endpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// `Address` or `SRV`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `IPv4AndIPv6`, `IPv4`, `IPv6`, `IPv4Preferred` or `IPv6Preferred`.
    pub lookup_family: String,
    /// How it stands.
    pub state: NameState,
    /// The addresses that count, with their ports where SRV records give them.
    pub addresses: Vec<String>,
    /// Since the last good answer was given or confirmed; `None` where there was none.
    pub age_seconds: Option<f64>,
    /// How long that answer was to be kept, within the configured bounds.
    pub ttl_seconds: Option<u64>,
    /// Until it is asked for again.
    pub next_seconds: f64,
    /// Failures in a row.
    pub failures: u32,
    /// The last time that it was not answered, or answered with nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<NameFailure>,
    /// The first of the last answer's addresses that cannot be used, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<String>,
    /// How many there are of those.
    pub refused_count: usize,
    /// Addresses of the last answer beyond the limit.
    pub surplus: usize,
    /// Questions by result: `answer`, `nxdomain`, `nodata`, `timeout`, `servfail`, `refused`, `unusable`, `error`.
    pub lookups: BTreeMap<String, u64>,
}

/// How a name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameState {
    /// The last question was answered well.
    Resolved,
    /// It was not; the last good answer counts on.
    Kept,
    /// It has not been answered yet.
    Pending,
    /// There is no answer that counts: no endpoints.
    Unresolved,
}

/// A question that was not answered well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameFailure {
    /// Why.
    pub reason: String,
    /// When.
    pub seconds_ago: u64,
}

impl NameStatus {
    /// How it stands, in a line.
    #[must_use]
    pub fn summary(&self) -> String {
        let count = match self.addresses.len() {
            1 => "1 address".to_owned(),
            n => format!("{n} addresses"),
        };
        let age = self.age_seconds.map(|age| format!(", {age:.0} s old")).unwrap_or_default();
        let ttl = self.ttl_seconds.map(|ttl| format!(", TTL {ttl} s")).unwrap_or_default();
        let state = match self.state {
            NameState::Resolved => format!("{count}{age}{ttl}"),
            NameState::Kept => format!("{count} of the last good answer{age}"),
            NameState::Pending => "no answer yet".to_owned(),
            NameState::Unresolved => "no addresses".to_owned(),
        };
        let failure = self.last_failure.as_ref();
        let failure = failure.map(|f| format!("; {} s ago: {}", f.seconds_ago, f.reason)).unwrap_or_default();
        format!("{} ({}): {state}{failure}", self.name, self.kind)
    }
}
