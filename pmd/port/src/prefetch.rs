//! Hints to the CPU: what will be read soon, and is likely to be in no cache near.

/// Bytes of a cache line.
const LINE: usize = 64;

/// Has the CPU fetch the cache line in which `value` begins.
#[inline]
pub fn prefetch<T>(value: &T) {
    lines(core::ptr::from_ref(value).cast(), 1);
}

/// Has the CPU fetch all cache lines that `value` lies in.
#[inline]
pub fn prefetch_whole<T>(value: &T) {
    lines(core::ptr::from_ref(value).cast(), size_of::<T>().div_ceil(LINE));
}

/// Has the CPU fetch `count` cache lines from `start` on.
#[inline]
pub(crate) fn lines(start: *const u8, count: usize) {
    #[cfg(target_arch = "x86_64")]
    for line in 0..count {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, which does nothing where the address is nobody's.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(start.wrapping_add(line * LINE).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (start, count);
}
