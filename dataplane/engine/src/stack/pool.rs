//! Sockets with their buffers, used again and again.

use core::time::Duration;
use std::sync::{Mutex, PoisonError};

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{CongestionControl, Socket, SocketBuffer};
use smoltcp::time::Duration as StackDuration;

/// Sockets whose buffers are allocated at once: with the default buffers 4 MiB, which the kernel backs page by page as they are written.
const BLOCK: usize = 32;

/// Where buffers begin. An idle connection has written the beginning of each of its two, and so costs two pages; an allocator that puts
/// a header in front of each makes it four.
const PAGE: usize = 4096;

/// Bytes of a cache line, by which buffers begin further on in their pages than the ones before them.
const LINE: usize = 64;

/// Lines of a page in which buffers begin. Nearly every message lies at its buffer's beginning, and lines at the same place of their pages share a few
/// places in the caches: the beginnings of all buffers together would find room for a handful. What is left of the page is enough for a head.
const BEGINNINGS: usize = 32;

/// Sockets of stacks that ended. Their buffers live as long as the process, so that a core which starts again does not need new ones.
static LEFT: Mutex<Vec<Pooled>> = Mutex::new(Vec::new());

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

impl Drop for Pooled {
    fn drop(&mut self) {
        let sockets = core::mem::replace(&mut self.sockets, SocketSet::new(Vec::new()));
        if sockets.iter().next().is_some() {
            let left = Self { sockets, handle: self.handle };
            LEFT.lock().unwrap_or_else(PoisonError::into_inner).push(left);
        }
    }
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
    /// What is left of the last block of buffers.
    block: &'static mut [u8],
    /// Buffers made.
    carved: usize,
}

impl SocketPool {
    /// An empty pool of sockets with buffers of these sizes, in bytes.
    #[must_use]
    pub(super) fn new(receive_buffer: usize, send_buffer: usize) -> Self {
        Self { free: Vec::new(), in_use: 0, receive_buffer, send_buffer, block: &mut [], carved: 0 }
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
        pooled.socket_mut().abort();
        self.free.push(pooled);
    }

    /// Sockets that are out.
    #[must_use]
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    #[cold]
    fn make(&mut self) -> Pooled {
        if let Some(left) = self.left_behind() {
            return left;
        }
        let receive = SocketBuffer::new(self.carve(self.receive_buffer));
        let send = SocketBuffer::new(self.carve(self.send_buffer));
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(Socket::new(receive, send));
        Pooled { sockets, handle }
    }

    /// A socket of a stack that ended, with buffers of these sizes.
    fn left_behind(&self) -> Option<Pooled> {
        let mut left = LEFT.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |socket: &Socket<'_>| {
            socket.recv_capacity() == self.receive_buffer && socket.send_capacity() == self.send_buffer
        };
        let at = left.iter().position(|pooled| fits(pooled.socket()))?;
        let mut pooled = left.swap_remove(at);
        drop(left);
        pooled.socket_mut().abort();
        Some(pooled)
    }

    /// A buffer of `size` bytes that begins in the first half of a page.
    fn carve(&mut self, size: usize) -> &'static mut [u8] {
        // An odd step visits all of them before it comes back.
        let beginning = self.carved * 5 % BEGINNINGS * LINE;
        self.carved += 1;
        let pages = |size: usize| (size + BEGINNINGS * LINE).next_multiple_of(PAGE);
        let room = pages(size);
        if self.block.len() < room {
            let both = pages(self.receive_buffer) + pages(self.send_buffer);
            let block = vec![0; BLOCK * both + PAGE].leak();
            let skipped = block.as_ptr().align_offset(PAGE).min(PAGE);
            self.block = block.get_mut(skipped..).unwrap_or_default();
        }
        let (taken, rest) = core::mem::take(&mut self.block).split_at_mut(room);
        self.block = rest;
        taken.get_mut(beginning..beginning + size).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMERS: SocketTimers =
        SocketTimers { keepalive: Duration::from_secs(60), timeout: Duration::from_secs(60), scale: 1 };

    /// Where a socket keeps what it received and what it is to send, by what can be learned from outside.
    fn sizes(pooled: &Pooled) -> (usize, usize) {
        (pooled.socket().recv_capacity(), pooled.socket().send_capacity())
    }

    #[test]
    fn buffers_begin_all_over_half_a_page_and_do_not_overlap() {
        let mut pool = SocketPool::new(5000, 9000);
        let mut buffers: Vec<&mut [u8]> =
            (0..3 * BLOCK).map(|n| pool.carve(if n % 2 == 0 { 5000 } else { 9000 })).collect();
        let mut beginnings = std::collections::BTreeSet::new();
        for (n, buffer) in buffers.iter_mut().enumerate() {
            assert_eq!(buffer.len(), if n % 2 == 0 { 5000 } else { 9000 });
            // Backwards from the end of the page.
            let beginning = (PAGE - buffer.as_ptr().align_offset(PAGE)) % PAGE;
            assert!(beginning.is_multiple_of(LINE) && beginning < PAGE / 2, "{beginning}");
            beginnings.insert(beginning);
            assert!(buffer.iter().all(|byte| *byte == 0), "somebody else wrote into buffer {n}");
            buffer.fill(1);
        }
        assert_eq!(beginnings.len(), BEGINNINGS);
    }

    #[test]
    fn the_next_stack_takes_what_the_last_one_left() {
        // Sizes that no other test of this process has.
        let mut first = SocketPool::new(12_345, 23_456);
        let sockets: Vec<Pooled> = (0..10).map(|_| first.take(&TIMERS)).collect();
        let free = sockets.len() / 2;
        for pooled in sockets.into_iter().take(free) {
            // The rest is dropped with the iterator, as with a stack that ends.
            first.put(pooled);
        }
        drop(first);
        let mut second = SocketPool::new(12_345, 23_456);
        let again: Vec<Pooled> = (0..10).map(|_| second.take(&TIMERS)).collect();
        assert!(again.iter().all(|pooled| sizes(pooled) == (12_345, 23_456)));
        assert!(second.block.is_empty(), "new buffers, though ten sockets were left");
        let _eleventh = second.take(&TIMERS);
        assert!(!second.block.is_empty());
    }
}
