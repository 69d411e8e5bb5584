//! Pools of mbufs.
//!
//! One for each lane, on its port's socket. A pool is freed only when DPDK ends, since its mbufs may travel to any port.

use std::ffi::CString;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use dpdk_sys::{rte_mempool, rte_pktmbuf_pool_create};

use crate::error::Errno;
use crate::mbuf::Mbuf;

/// Mbufs that a polling thread keeps at hand: a few bursts, so that most bursts touch no shared ring.
const CACHE: u32 = 256;

/// A pool of mbufs, held by a port or a lane.
#[derive(Debug)]
pub struct Mempool {
    raw: RawPool,
}

impl Mempool {
    /// Makes a pool of `mbufs` buffers whose frames may be `data_room` bytes long.
    pub(crate) fn create(mbufs: u32, data_room: u16, socket: i32) -> Result<Self, Errno> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("millrace-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).map_err(|_| Errno(libc::EINVAL))?;
        let headroom = u16::try_from(dpdk_sys::SHIM_PKTMBUF_HEADROOM).map_err(|_| Errno(libc::EINVAL))?;
        let room = data_room.checked_add(headroom).ok_or(Errno(libc::EINVAL))?;
        // DPDK refuses a cache of more than two thirds of the pool; an eighth leaves little stranded in caches.
        let cache = CACHE.min(mbufs / 8).min(dpdk_sys::SHIM_MEMPOOL_CACHE_MAX);
        // SAFETY: the name is a C string, which is copied. A port exists (its caller has one), so EAL is running.
        let raw = unsafe { rte_pktmbuf_pool_create(name.as_ptr(), mbufs, cache, 0, room, socket) };
        let raw = NonNull::new(raw).ok_or_else(Errno::last)?;
        Ok(Self { raw: RawPool { raw, mbufs } })
    }

    /// Another handle on the same pool.
    pub(crate) fn share(&self) -> Self {
        Self { raw: self.raw }
    }

    pub(crate) fn raw(&self) -> RawPool {
        self.raw
    }

    pub(crate) fn as_ptr(&self) -> *mut rte_mempool {
        self.raw.raw.as_ptr()
    }

    /// Mbufs in this pool, free or not.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.raw.mbufs
    }

    /// Mbufs that are held by someone: the device's rings, the core, another port. Exact only while nobody
    /// allocates or frees.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.raw.in_use()
    }

    #[inline]
    pub(crate) fn allocate(&self) -> Option<Mbuf> {
        // SAFETY: the pool lives as long as the runtime, which the holder of this handle holds. A pointer that is not
        // null is an mbuf with one reference, which is ours.
        unsafe { NonNull::new(dpdk_sys::rte_pktmbuf_alloc(self.as_ptr())).map(|raw| Mbuf::from_raw(raw)) }
    }
}

/// A pool as the runtime keeps it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawPool {
    raw: NonNull<rte_mempool>,
    mbufs: u32,
}

// SAFETY: DPDK's pools may be used from any thread; they are made with multi-producer, multi-consumer rings.
unsafe impl Send for RawPool {}
// SAFETY: as above.
unsafe impl Sync for RawPool {}

impl RawPool {
    pub(crate) fn in_use(self) -> u32 {
        // SAFETY: the pool is not freed before the runtime ends; the count only reads it.
        unsafe { dpdk_sys::rte_mempool_in_use_count(self.raw.as_ptr()) }
    }

    /// Gives the pool's memory back. For the end of the runtime only.
    pub(crate) fn free(self) {
        // SAFETY: the runtime calls this once, when no port, lane or mbuf of the pool is left.
        unsafe { dpdk_sys::rte_mempool_free(self.raw.as_ptr()) };
    }
}
