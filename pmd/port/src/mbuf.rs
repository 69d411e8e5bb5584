//! One packet buffer of DPDK, owned.

use std::fmt;
use std::ptr::NonNull;
use std::slice;

use dpdk_sys::rte_mbuf;

use crate::lane::{Frame, RxChecksum};
use crate::offload;
use crate::prefetch;

/// An mbuf of one segment, owned by whoever holds it. As large as a pointer; dropping it gives it back to its pool.
#[repr(transparent)]
pub struct Mbuf {
    raw: NonNull<rte_mbuf>,
}

// SAFETY: an mbuf has one owner, and its pool takes it back from any thread.
unsafe impl Send for Mbuf {}

// Where a field lies in `rte_mbuf`, in this release of DPDK.
const BUF_ADDR: usize = dpdk_sys::SHIM_MBUF_BUF_ADDR as usize;
const BUF_LEN: usize = dpdk_sys::SHIM_MBUF_BUF_LEN as usize;
const DATA_OFF: usize = dpdk_sys::SHIM_MBUF_DATA_OFF as usize;
const NB_SEGS: usize = dpdk_sys::SHIM_MBUF_NB_SEGS as usize;
const OL_FLAGS: usize = dpdk_sys::SHIM_MBUF_OL_FLAGS as usize;
const PKT_LEN: usize = dpdk_sys::SHIM_MBUF_PKT_LEN as usize;
const DATA_LEN: usize = dpdk_sys::SHIM_MBUF_DATA_LEN as usize;
const TX_OFFLOAD: usize = dpdk_sys::SHIM_MBUF_TX_OFFLOAD as usize;

impl Mbuf {
    /// Takes ownership of an mbuf.
    ///
    /// # Safety
    /// `raw` is an allocated mbuf that nobody else owns, and its pool outlives it.
    #[inline]
    pub(crate) unsafe fn from_raw(raw: NonNull<rte_mbuf>) -> Self {
        Self { raw }
    }

    /// The pointer, for a call that leaves the mbuf ours.
    pub(crate) fn as_ptr(&self) -> *mut rte_mbuf {
        self.raw.as_ptr()
    }

    /// Bytes of the frame, over all its segments.
    #[inline]
    pub(crate) fn frame_len(&self) -> u32 {
        self.read(PKT_LEN)
    }

    #[inline]
    pub(crate) fn segments(&self) -> u16 {
        self.read(NB_SEGS)
    }

    #[inline]
    pub(crate) fn flags(&self) -> u64 {
        self.read(OL_FLAGS)
    }

    #[inline]
    pub(crate) fn set_flags(&mut self, flags: u64) {
        self.write(OL_FLAGS, flags);
    }

    /// What the device is told about the headers: their lengths, as DPDK packs them.
    #[inline]
    pub(crate) fn set_tx_offload(&mut self, packed: u64) {
        self.write(TX_OFFLOAD, packed);
    }

    /// Moves all segments' bytes into the first. `false` where they do not fit.
    pub(crate) fn linearize(&mut self) -> bool {
        // SAFETY: the mbuf and its segments are ours.
        unsafe { dpdk_sys::rte_pktmbuf_linearize(self.raw.as_ptr()) == 0 }
    }

    /// Has the CPU fetch the headers and the first bytes of payload, which another core or a device wrote. All that a burst has come with is under
    /// way then while its first frame is looked at.
    #[inline]
    pub(crate) fn prefetch(&self) {
        prefetch::lines(self.data(), 2);
    }

    #[inline]
    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: `offset` is where the field of type T lies (the constants above are its only values), aligned
        // as C aligned it; the mbuf is ours and initialised.
        unsafe { self.raw.as_ptr().byte_add(offset).cast::<T>().read() }
    }

    #[inline]
    fn write<T: Copy>(&mut self, offset: usize, value: T) {
        // SAFETY: as in `read`.
        unsafe { self.raw.as_ptr().byte_add(offset).cast::<T>().write(value) }
    }

    #[inline]
    fn data(&self) -> *mut u8 {
        let start: *mut u8 = self.read(BUF_ADDR);
        // SAFETY: DPDK and `set_len` keep data_off within the buffer.
        unsafe { start.add(usize::from(self.read::<u16>(DATA_OFF))) }
    }
}

impl Frame for Mbuf {
    #[inline]
    fn bytes(&self) -> &[u8] {
        // SAFETY: the segment's data_len bytes lie within its buffer, which is initialised (DPDK zeroes its memory) and ours.
        unsafe { slice::from_raw_parts(self.data(), usize::from(self.read::<u16>(DATA_LEN))) }
    }

    #[inline]
    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.data(), usize::from(self.read::<u16>(DATA_LEN))) }
    }

    #[inline]
    fn set_len(&mut self, len: usize) -> bool {
        let room = self.read::<u16>(BUF_LEN).saturating_sub(self.read::<u16>(DATA_OFF));
        match u16::try_from(len) {
            Ok(len) if len <= room => {
                self.write(DATA_LEN, len);
                self.write(PKT_LEN, u32::from(len));
                true
            }
            _ => false,
        }
    }

    fn trim_front(&mut self, count: usize) -> bool {
        let (offset, len) = (self.read::<u16>(DATA_OFF), self.read::<u16>(DATA_LEN));
        match u16::try_from(count) {
            Ok(count) if count <= len => {
                self.write(DATA_OFF, offset + count);
                self.write(DATA_LEN, len - count);
                self.write(PKT_LEN, self.frame_len() - u32::from(count));
                true
            }
            _ => false,
        }
    }

    fn grow_front(&mut self, count: usize) -> bool {
        let (offset, len) = (self.read::<u16>(DATA_OFF), self.read::<u16>(DATA_LEN));
        match u16::try_from(count) {
            // Within the buffer, lengths of 16 bits do not overflow.
            Ok(count) if count <= offset => {
                self.write(DATA_OFF, offset - count);
                self.write(DATA_LEN, len + count);
                self.write(PKT_LEN, self.frame_len() + u32::from(count));
                true
            }
            _ => false,
        }
    }

    #[inline]
    fn rx_checksum(&self) -> RxChecksum {
        offload::rx_checksum(self.flags(), self.bytes())
    }
}

impl Drop for Mbuf {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the mbuf is ours, and nobody uses it after this.
        unsafe { dpdk_sys::rte_pktmbuf_free(self.raw.as_ptr()) };
    }
}

impl fmt::Debug for Mbuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mbuf").field("len", &self.frame_len()).field("flags", &self.flags()).finish_non_exhaustive()
    }
}
