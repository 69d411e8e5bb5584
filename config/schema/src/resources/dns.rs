//! `Appliance.spec.dns`: how names of backends are resolved, over the kernel's network.

use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::located::Located;
use crate::quantity::serialize_duration;

/// `Appliance.spec.dns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// Who is asked: 1..=8. Without any, those of /etc/resolv.conf, which is read again when it changes.
    pub servers: Vec<Located<SocketAddr>>,
    /// For one server to answer one question; 100 ms..=30 s, default 2 s.
    #[serde(serialize_with = "serialize_duration")]
    pub timeout: Duration,
    /// How often a question is asked that nobody answers, before that is a failure; 1..=10, default 2.
    pub attempts: u8,
    /// After a failure until the next try, twice as long after each further one, and up to a quarter less by chance; 100 ms..=1 min, default 1 s.
    #[serde(serialize_with = "serialize_duration")]
    pub retry_interval: Duration,
    /// The longest that this comes to; `retry_interval`..=1 h, default 30 s.
    #[serde(serialize_with = "serialize_duration")]
    pub max_retry_interval: Duration,
    /// An answer that may be kept for less is kept for so long; 1 s..=1 h, default 5 s.
    #[serde(serialize_with = "serialize_duration")]
    pub min_ttl: Duration,
    /// An answer that may be kept for longer is asked for again; `min_ttl`..=24 h, default 1 h.
    #[serde(serialize_with = "serialize_duration")]
    pub max_ttl: Duration,
    /// The longest that an answer is believed which says that there is nothing (RFC 2308); 1 s..=1 h, default 30 s.
    #[serde(serialize_with = "serialize_duration")]
    pub negative_ttl: Duration,
    /// How long the last good answer counts on once servers say that the name has no addresses; 0 s..=24 h, default 30 s. Servers that fail or
    /// do not answer never end it.
    #[serde(serialize_with = "serialize_duration")]
    pub hold_absent: Duration,
    /// How long readiness waits for the first answers after the start; 0 s..=5 min, default 5 s.
    #[serde(serialize_with = "serialize_duration")]
    pub startup_wait: Duration,
    /// Different names in a configuration; 1..=4,096, default 1,024.
    pub max_names: u16,
    /// Addresses taken of a name, and targets of an SRV name; 1..=1,024, default 64.
    pub max_addresses: u16,
}

impl Default for Dns {
    fn default() -> Self {
        Dns {
            servers: Vec::new(),
            timeout: Duration::from_secs(2),
            attempts: 2,
            retry_interval: Duration::from_secs(1),
            max_retry_interval: Duration::from_secs(30),
            min_ttl: Duration::from_secs(5),
            max_ttl: Duration::from_secs(3_600),
            negative_ttl: Duration::from_secs(30),
            hold_absent: Duration::from_secs(30),
            startup_wait: Duration::from_secs(5),
            max_names: 1_024,
            max_addresses: 64,
        }
    }
}
