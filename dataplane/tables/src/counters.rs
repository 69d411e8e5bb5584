//! What cores count, laid out so that each line of memory has one writer.
//!
//! A core adds to its own counters with a plain load and store; control reads them whenever it likes
//! and sees a value that was true a moment ago. Sums that always hold, once a core is at rest:
//!
//! - `rx_packets + handed_in = delivered + handed_out + syn_cookies_sent + Σ exception_to_host + Σ drops of received packets` (see [`CoreCounters`]); with one core,
//!   nothing is handed over
//! - over all cores, `handed_in = handed_out + copies`
//! - `connections_opened = connections_closed + connections_open`
//! - `requests_started = requests_finished + requests_active`

mod series;

use core::sync::atomic::{AtomicU64, Ordering};

use crate::verdict::Verdict;

pub(crate) use series::Places;
pub use series::{Finished, Series, SeriesCore, SeriesId, SeriesLine, SeriesLines};

/// A number that one core writes and anybody reads.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`. Only the owning core may call it: it is a load and a store, not an atomic addition, because
    /// nobody else writes.
    #[inline]
    pub fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
    }

    /// Takes `n` away: for gauges. The same rule as for [`Counter::add`].
    #[inline]
    pub fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_sub(n), Ordering::Relaxed);
    }

    /// Replaces the value: for gauges and for counters kept elsewhere. The same rule as for [`Counter::add`].
    #[inline]
    pub fn set(&self, n: u64) {
        self.0.store(n, Ordering::Relaxed);
    }

    /// The value now.
    #[inline]
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! core_counters {
    ($($(#[doc = $doc:literal])+ $kind:ident $name:ident $metric:literal,)+) => {
        /// Everything one core counts that belongs to no route.
        #[derive(Debug)]
        #[repr(align(64))]
        pub struct CoreCounters {
            $($(#[doc = $doc])+ pub $name: Counter,)+
            /// Dropped packets by reason, indexed by `Verdict as usize`.
            pub drops: [Counter; Verdict::COUNT],
            /// How it slept.
            pub rests: Box<Rests>,
            /// Per port, in the order of the appliance's ports.
            pub ports: Box<[PortCounters]>,
        }

        impl CoreCounters {
            /// Counters at zero for a core with `ports` ports.
            #[must_use]
            pub fn new(ports: usize) -> Self {
                Self {
                    $($name: Counter::default(),)+
                    drops: core::array::from_fn(|_| Counter::default()),
                    rests: Box::default(),
                    ports: (0..ports).map(|_| PortCounters::default()).collect(),
                }
            }

            /// Each scalar with its metric name, kind and help text, for exporters.
            pub fn scalars(&self) -> impl Iterator<Item = Scalar<'_>> {
                [$(Scalar {
                    metric: $metric,
                    kind: ScalarKind::$kind,
                    help: concat!($($doc),+).trim_ascii_start(),
                    value: &self.$name,
                },)+].into_iter()
            }
        }
    };
}

/// How a core rests while there is nothing to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Resting {
    /// Not at all: it polls.
    #[default]
    Polling = 0,
    /// It naps for microseconds, and looks.
    Naps = 1,
    /// It sleeps until a device or another thread wakes it, or something is due.
    Interrupts = 2,
}

/// What listings call each [`Resting`], by its number.
pub const RESTINGS: [&str; 3] = ["polling", "naps", "interrupts"];

/// Upper bounds of the buckets of [`Rests::naps`], in microseconds; the last bucket has none.
pub const NAP_BOUNDS_US: [u64; 10] = [10, 15, 20, 30, 50, 75, 100, 200, 500, 1_000];

/// How an idle core slept.
#[derive(Debug, Default)]
pub struct Rests {
    /// The way, a [`Resting`].
    pub way: Counter,
    /// Naps by [`NAP_BOUNDS_US`], from falling asleep until it looked again: no packet waited longer for it.
    pub naps: [Counter; NAP_BOUNDS_US.len() + 1],
    /// All naps together.
    pub nap_nanoseconds: Counter,
    /// Sleeps that a device ended: it had a frame.
    pub woken_by_device: Counter,
    /// Sleeps that another thread ended: a core that handed packets over, or control.
    pub woken_by_call: Counter,
    /// Sleeps that ended because something was due, or the longest of them was over.
    pub woken_by_time: Counter,
    /// All those sleeps together.
    pub asleep_nanoseconds: Counter,
}

impl Rests {
    /// Counts a nap.
    pub fn napped(&self, nanoseconds: u64) {
        let bucket = NAP_BOUNDS_US.partition_point(|&bound| bound * 1_000 < nanoseconds);
        if let Some(bucket) = self.naps.get(bucket) {
            bucket.add(1);
        }
        self.nap_nanoseconds.add(nanoseconds);
    }
}

/// One number of a core, as exporters see it.
#[derive(Debug, Clone, Copy)]
pub struct Scalar<'a> {
    /// Prometheus name, without a `core` label.
    pub metric: &'static str,
    /// Whether it only grows.
    pub kind: ScalarKind,
    /// What it counts.
    pub help: &'static str,
    /// The number.
    pub value: &'a Counter,
}

/// Whether a number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
}

core_counters! {
    /// Turns of the polling loop.
    Counter turns "millrace_core_turns_total",
    /// Turns that found at least one packet or timer.
    Counter busy_turns "millrace_core_busy_turns_total",
    /// Nanoseconds in turns that found something to do.
    Counter busy_nanoseconds "millrace_core_busy_nanoseconds_total",
    /// Turns that took more than a millisecond, which no work does: something else had the core's CPU meanwhile.
    Counter slow_turns "millrace_core_slow_turns_total",
    /// Nanoseconds in turns that took more than a millisecond.
    Counter slow_nanoseconds "millrace_core_slow_turn_nanoseconds_total",
    /// Nanoseconds in all turns.
    Counter nanoseconds "millrace_core_nanoseconds_total",
    /// Epoch of the snapshot that the core runs.
    Gauge epoch "millrace_core_epoch",
    /// Client connections accepted: handshakes completed.
    Counter connections_opened "millrace_connections_opened_total",
    /// Client connections that ended.
    Counter connections_closed "millrace_connections_closed_total",
    /// Client connections open now.
    Gauge connections_open "millrace_connections_open",
    /// Client handshakes that are not complete.
    Gauge half_open "millrace_connections_half_open",
    /// SYNs answered with a cookie, of which nothing was kept (RFC 4987).
    Counter syn_cookies_sent "millrace_syn_cookies_sent_total",
    /// Client connections opened by a cookie that came back.
    Counter syn_cookies_accepted "millrace_syn_cookies_accepted_total",
    /// Connections to backends opened.
    Counter upstream_opened "millrace_upstream_connections_opened_total",
    /// Connections to backends that failed before they were established.
    Counter upstream_failed "millrace_upstream_connections_failed_total",
    /// Connections to backends open now.
    Gauge upstream_open "millrace_upstream_connections_open",
    /// Connections to backends that wait for a request.
    Gauge upstream_idle "millrace_upstream_connections_idle",
    /// Requests sent on a backend connection that had served one before.
    Counter upstream_reused "millrace_upstream_connections_reused_total",
    /// Requests sent again because a reused connection ended before its response began.
    Counter upstream_replayed "millrace_upstream_requests_replayed_total",
    /// Requests sent again by their route's `retry`.
    Counter upstream_retried "millrace_upstream_requests_retried_total",
    /// Copies of requests made for mirrors.
    Counter mirrors "millrace_mirror_requests_total",
    /// Copies given up: no connection, no answer in time, or a mirror too slow for the body.
    Counter mirrors_lost "millrace_mirror_requests_lost_total",
    /// Connections in TIME-WAIT.
    Gauge time_wait "millrace_tcp_time_wait",
    /// TCP segments handed to the stack.
    Counter segments_received "millrace_tcp_segments_received_total",
    /// TCP segments sent.
    Counter segments_sent "millrace_tcp_segments_sent_total",
    /// TCP segments sent again.
    Counter retransmissions "millrace_tcp_retransmissions_total",
    /// Losses noticed by duplicate or partial acknowledgments (RFC 6582).
    Counter losses "millrace_tcp_losses_total",
    /// Segments sent again because nobody answered for two round trips (RFC 8985 §7).
    Counter loss_probes "millrace_tcp_loss_probes_total",
    /// RST segments sent.
    Counter resets_sent "millrace_tcp_resets_sent_total",
    /// RST segments not sent, because too many were sent lately.
    Counter resets_withheld "millrace_tcp_resets_withheld_total",
    /// Challenge ACKs sent (RFC 5961).
    Counter challenge_acks "millrace_tcp_challenge_acks_total",
    /// Challenge ACKs not sent, because the connection had sent too many lately (RFC 5961 §7).
    Counter challenge_acks_withheld "millrace_tcp_challenge_acks_withheld_total",
    /// Connections that the peer reset.
    Counter resets_received "millrace_tcp_resets_received_total",
    /// Connections ended because the peer fell silent, kept its window shut, or did not close in time.
    Counter tcp_timeouts "millrace_tcp_timeouts_total",
    /// Flow table entries in use.
    Gauge flows "millrace_flows",
    /// Timers armed.
    Gauge timers "millrace_timers",
    /// Socket buffer pairs in use.
    Gauge sockets "millrace_sockets",
    /// Requests whose head was read.
    Counter requests_started "millrace_requests_started_total",
    /// Requests answered or given up.
    Counter requests_finished "millrace_requests_finished_total",
    /// Requests being served now.
    Gauge requests_active "millrace_requests_active",
    /// Tunnels (Upgrade) open now.
    Gauge tunnels_open "millrace_tunnels_open",
    /// ARP requests sent.
    Counter arp_requests "millrace_arp_requests_total",
    /// ARP replies sent.
    Counter arp_replies "millrace_arp_replies_total",
    /// Neighbor solicitations sent.
    Counter nd_solicitations "millrace_nd_solicitations_total",
    /// Neighbor advertisements sent.
    Counter nd_advertisements "millrace_nd_advertisements_total",
    /// ICMP echo replies sent.
    Counter icmp_echo_replies "millrace_icmp_echo_replies_total",
    /// ICMP errors not sent, because the port had sent too many ICMP messages lately.
    Counter icmp_errors_withheld "millrace_icmp_errors_withheld_total",
    /// ICMP errors sent.
    Counter icmp_errors "millrace_icmp_errors_total",
    /// Access log records lost because the log did not keep up.
    Counter access_log_lost "millrace_access_log_lost_total",
}

/// The ways in which received frames find their core, as people and metrics see them.
pub const WAYS: [&str; 5] = ["alone", "rss", "queues", "hash", "rte_flow"];

/// What one core counts on one port.
#[derive(Debug, Default)]
pub struct PortCounters {
    /// Frames received.
    pub rx_packets: Counter,
    /// Bytes received.
    pub rx_bytes: Counter,
    /// Received frames dropped because they came in several mbufs and do not fit into one. They are in none of the numbers above.
    pub rx_scattered: Counter,
    /// Frames sent.
    pub tx_packets: Counter,
    /// Bytes sent.
    pub tx_bytes: Counter,
    /// Frames dropped because the tx ring was full.
    pub tx_full: Counter,
    /// Frames dropped because the device could not cut them into segments.
    pub tx_refused: Counter,
    /// Frames not sent because the pool was empty.
    pub pool_empty: Counter,
    /// How received frames find their core: a position in [`WAYS`].
    pub way: Counter,
    /// Received frames that other cores handed to this one.
    pub handed_in: Counter,
    /// Received frames that this core handed to others.
    pub handed_out: Counter,
    /// Of those, the ones whose connection no core was known to have.
    pub strays: Counter,
    /// Frames made because several cores want to see the same one.
    pub copies: Counter,
    /// Frames received that went to the host's kernel by the exception path.
    pub exception_to_host: Counter,
    /// Frames sent for the host's kernel.
    pub exception_from_host: Counter,
    /// Frames for the host's kernel that its interface did not take.
    pub exception_lost: Counter,
    /// 1 while the link is up.
    pub link_up: Counter,
    /// IPv6 addresses of ours that are being checked for duplicates.
    pub addresses_tentative: Counter,
    /// IPv6 addresses of ours that somebody else has, so that they are not used.
    pub addresses_duplicate: Counter,
    /// Mbufs of the pool that are held by the core or by the device's rings.
    pub frames_in_use: Counter,
}

/// Status codes that have a counter of their own, the most frequent one first and the others by size; others count with their class (`2xx`).
pub const STATUS_CODES: &[u16] = &[
    200, 101, 201, 202, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412,
    413, 414, 415, 416, 417, 421, 422, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 507, 511,
];

/// Slots of a status table: the known codes, then the five classes, then `000` (no response at all).
pub const STATUS_SLOTS: usize = STATUS_CODES.len() + 6;

/// The label of a status slot.
#[must_use]
pub fn status_label(slot: usize) -> String {
    match STATUS_CODES.get(slot) {
        Some(code) => code.to_string(),
        None if slot < STATUS_SLOTS - 1 => format!("{}xx", slot - STATUS_CODES.len() + 1),
        None => "000".to_owned(),
    }
}

/// The slot of a status code; 0 stands for a request that got no response.
#[must_use]
pub fn status_slot(status: u16) -> usize {
    let [most, others @ ..] = STATUS_CODES else { return STATUS_SLOTS - 1 };
    if status == *most {
        return 0;
    }
    match others.binary_search(&status) {
        Ok(slot) => 1 + slot,
        Err(_) if (100..600).contains(&status) => STATUS_CODES.len() + usize::from(status / 100) - 1,
        Err(_) => STATUS_SLOTS - 1,
    }
}

/// Upper bounds of the latency buckets, in microseconds; one more bucket takes the rest.
pub const LATENCY_BOUNDS_US: &[u64] = &[
    25, 50, 75, 100, 150, 200, 300, 500, 750, 1_000, 1_500, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_slot_and_a_label() {
        assert!(STATUS_CODES[1..].is_sorted());
        assert!((0..STATUS_CODES.len()).all(|slot| status_slot(STATUS_CODES[slot]) == slot));
        for status in 0..=u16::MAX {
            assert!(status_slot(status) < STATUS_SLOTS);
        }
        assert_eq!(status_label(status_slot(200)), "200");
        assert_eq!(status_label(status_slot(418)), "4xx");
        assert_eq!(status_label(status_slot(599)), "5xx");
        assert_eq!(status_label(status_slot(103)), "1xx");
        assert_eq!(status_label(status_slot(0)), "000");
        assert_eq!(status_label(status_slot(700)), "000");
    }

    #[test]
    fn a_nap_lands_in_the_bucket_whose_bound_it_does_not_exceed() {
        let rests = Rests::default();
        for nanoseconds in [10_000, 10_001, 1_000_000, 1_000_001] {
            rests.napped(nanoseconds);
        }
        let counted = rests.naps.each_ref().map(Counter::read);
        assert_eq!(counted, [1, 1, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(rests.nap_nanoseconds.read(), 2_020_002);
    }
}
