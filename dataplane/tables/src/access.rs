//! What a core tells the access log about one request.

use arrayvec::ArrayVec;
use crossbeam_queue::ArrayQueue;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::cluster::EndpointId;
use crate::counters::SeriesId;

/// Bytes of the request target that a record keeps.
pub const TARGET_BYTES: usize = 160;

/// Bytes of the method and of the authority that a record keeps.
pub const WORD_BYTES: usize = 64;

/// One finished request. Plain data, so that writing it neither allocates nor formats.
#[derive(Debug, Clone)]
pub struct AccessRecord {
    /// Index of the core that served it.
    pub core: u16,
    /// Which listener, route and backend.
    pub series: SeriesId,
    /// The epoch that decided about it.
    pub epoch: u64,
    /// The client.
    pub client: SocketAddr,
    /// The endpoint that was chosen last, if any.
    pub endpoint: Option<(EndpointId, SocketAddr)>,
    /// Method as sent, cut at [`WORD_BYTES`]; empty where the head could not be read.
    pub method: ArrayVec<u8, WORD_BYTES>,
    /// Host as sent, cut at [`WORD_BYTES`].
    pub authority: ArrayVec<u8, WORD_BYTES>,
    /// Target as sent, cut at [`TARGET_BYTES`].
    pub target: ArrayVec<u8, TARGET_BYTES>,
    /// Status sent to the client; 0 for none.
    pub status: u16,
    /// Why the response is what it is, where Millrace made it or cut it short.
    pub flag: Flag,
    /// A short token that says more about `flag`, such as `content_length_repeated`; or empty.
    pub detail: &'static str,
    /// Bytes of the request, head and body.
    pub request_bytes: u64,
    /// Bytes of the response, head and body.
    pub response_bytes: u64,
    /// From the first byte of the request to the last of the response, in nanoseconds.
    pub duration_ns: u64,
    /// From the request's being sent to the first byte of the backend's response, in nanoseconds; 0 where there was none.
    pub backend_ns: u64,
    /// Which try this was: 0 for the first.
    pub attempt: u8,
}

/// Why a response is what it is, where it is not simply the backend's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flag {
    /// The backend's response, whole.
    None,
    /// The request was refused as malformed or over a limit.
    Rejected,
    /// No listener or route for it.
    NoRoute,
    /// The route has no backend that may serve it.
    NoBackend,
    /// The backend has no endpoint that may serve it.
    NoEndpoint,
    /// No connection to an endpoint could be made.
    ConnectFailed,
    /// Connecting took too long.
    ConnectTimeout,
    /// The backend closed or reset before a whole head came.
    BackendReset,
    /// The backend's head or body framing was invalid.
    BackendInvalid,
    /// The backend took too long.
    BackendTimeout,
    /// The backend ended in the middle of the body.
    BackendTruncated,
    /// The client went away before the response was complete.
    ClientGone,
    /// The client took too long to send or to read.
    ClientTimeout,
    /// A rate limit of the route.
    RateLimited,
    /// A limit of this appliance.
    Overloaded,
    /// The appliance stopped.
    Stopped,
    /// A filter of the route answered: a redirect, or a preflight's answer; or it was about Millrace itself (`OPTIONS *`, or one that may not be forwarded).
    Filter,
    /// A tunnel (Upgrade), which ended.
    Tunnel,
}

impl Flag {
    /// As logs show it; `-` for none.
    #[must_use]
    pub const fn token(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Rejected => "rejected",
            Self::NoRoute => "no_route",
            Self::NoBackend => "no_backend",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::BackendReset => "backend_reset",
            Self::BackendInvalid => "backend_invalid",
            Self::BackendTimeout => "backend_timeout",
            Self::BackendTruncated => "backend_truncated",
            Self::ClientGone => "client_gone",
            Self::ClientTimeout => "client_timeout",
            Self::RateLimited => "rate_limited",
            Self::Overloaded => "overloaded",
            Self::Stopped => "stopped",
            Self::Filter => "filter",
            Self::Tunnel => "tunnel",
        }
    }
}

/// Which requests a core records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessLevel {
    /// None.
    None,
    /// Those with a flag other than [`Flag::None`], [`Flag::Filter`] or [`Flag::Tunnel`], and those answered 5xx.
    Errors,
    /// All.
    All,
}

/// The way of records from a core to the log: bounded; what does not fit is lost and counted.
pub type AccessQueue = Arc<ArrayQueue<AccessRecord>>;

/// Cuts `bytes` to what fits.
#[must_use]
pub fn cut<const N: usize>(bytes: &[u8]) -> ArrayVec<u8, N> {
    let mut kept = ArrayVec::new();
    // It fits: it was cut.
    let _ = kept.try_extend_from_slice(bytes.get(..N).unwrap_or(bytes));
    kept
}
