//! The counting allocator: owns the number of allocations that the thread `shard-0` makes while counting is on. Other
//! threads are never counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the kernel calls the one shard's thread.
const SHARD_THREAD: &[u8] = b"shard-0\0";

static ON: AtomicBool = AtomicBool::new(false);
static COUNT: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Asked of the kernel once per thread, at its first allocation while counting is on.
    static IS_SHARD: Cell<Option<bool>> = const { Cell::new(None) };
}

/// Counts, and lets the system's allocator do the work.
pub(crate) struct Counting;

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(memory, layout, new_size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(memory, layout) }
    }
}

fn count() {
    if !ON.load(Ordering::Relaxed) {
        return;
    }
    let is_shard = IS_SHARD.get().unwrap_or_else(|| {
        let mut name = [0_u8; 16];
        // SAFETY: PR_GET_NAME writes at most 16 bytes, its end included, and allocates nothing.
        unsafe { libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr()) };
        let is_shard = name.starts_with(SHARD_THREAD);
        IS_SHARD.set(Some(is_shard));
        is_shard
    });
    if is_shard {
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

/// The shard's allocations while `work` ran.
pub(crate) fn allocations_during(work: impl FnOnce()) -> u64 {
    COUNT.store(0, Ordering::Relaxed);
    ON.store(true, Ordering::SeqCst);
    work();
    ON.store(false, Ordering::SeqCst);
    COUNT.load(Ordering::Relaxed)
}
