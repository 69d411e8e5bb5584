//! Sockets with their buffers, used again and again.

use core::time::Duration;

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};
use smoltcp::time::Duration as StackDuration;

/// Free sockets that are kept. Above it, what a burst of connections needed goes back to the allocator.
const KEPT: usize = 4096;

/// Longest that an acknowledgement waits for data to ride on, in real time: RFC 9293 §3.8.6.3 allows 500 ms, and peers' retransmission
/// timers begin at 200 ms. Long enough for a backend to answer, so that most requests and responses cost no bare ACK.
const ACK_DELAY: Duration = Duration::from_millis(25);

/// The window scale that smoltcp announces for a receive buffer of so many bytes.
pub(super) fn window_shift(receive_buffer: usize) -> u32 {
    (usize::BITS - receive_buffer.leading_zeros()).saturating_sub(16)
}

/// One socket in a set of its own, so that the stack never scans.
pub(super) struct Pooled {
    /// The set.
    pub sockets: SocketSet<'static>,
    handle: SocketHandle,
}

impl Pooled {
    /// The socket.
    #[inline]
    pub(super) fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    /// The socket, to be changed.
    #[inline]
    pub(super) fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }
}

/// How a socket is to behave.
#[derive(Debug, Clone, Copy)]
pub(super) struct SocketTimers {
    /// Probe a silent peer this often, in real time.
    pub keepalive: Duration,
    /// Give up a silent peer after this, in real time.
    pub timeout: Duration,
    /// Stack time over real time.
    pub scale: u32,
}

impl SocketTimers {
    fn scaled(&self, duration: Duration) -> StackDuration {
        StackDuration::from_micros(
            u64::try_from(duration.as_micros()).unwrap_or(u64::MAX).saturating_mul(u64::from(self.scale)),
        )
    }

    /// Makes `socket` wait for a silent peer as these timers say.
    pub(super) fn apply(&self, socket: &mut Socket<'_>) {
        socket.set_keep_alive(Some(self.scaled(self.keepalive)));
        socket.set_timeout(Some(self.scaled(self.timeout)));
    }

    /// Makes `socket` give up after `timeout`. Its keep-alive stays: set once the connection is idle, smoltcp would probe at once.
    pub(super) fn apply_timeout(&self, socket: &mut Socket<'_>, timeout: Duration) {
        socket.set_timeout(Some(self.scaled(timeout)));
    }
}

/// The free sockets of a core.
pub(super) struct SocketPool {
    free: Vec<Pooled>,
    in_use: usize,
    receive_buffer: usize,
    send_buffer: usize,
}

impl SocketPool {
    /// An empty pool of sockets with buffers of these sizes, in bytes.
    #[must_use]
    pub(super) fn new(receive_buffer: usize, send_buffer: usize) -> Self {
        Self { free: Vec::with_capacity(KEPT), in_use: 0, receive_buffer, send_buffer }
    }

    /// A closed socket.
    pub(super) fn take(&mut self, timers: &SocketTimers) -> Pooled {
        self.in_use += 1;
        let mut pooled = self.free.pop().unwrap_or_else(|| self.make());
        let socket = pooled.socket_mut();
        // What smoltcp's own reset leaves behind from the last connection.
        socket.set_congestion_control(CongestionControl::Cubic);
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(timers.scaled(ACK_DELAY)));
        timers.apply(socket);
        pooled
    }

    /// Takes a socket back, in whatever state.
    pub(super) fn put(&mut self, mut pooled: Pooled) {
        self.in_use -= 1;
        if self.free.len() < KEPT {
            pooled.socket_mut().abort();
            self.free.push(pooled);
        }
    }

    /// Sockets that are out.
    #[must_use]
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    fn make(&self) -> Pooled {
        let receive = SocketBuffer::new(vec![0; self.receive_buffer]);
        let send = SocketBuffer::new(vec![0; self.send_buffer]);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(Socket::new(receive, send));
        Pooled { sockets, handle }
    }
}
