//! The buffers that the kernel receives into: owns a shard's memory for them and the ring by which they are given back.
//! It never submits anything.
//!
//! Invariant: a buffer belongs either to the kernel (its entry is in the ring) or to exactly one [`Piece`].

use std::cell::Cell;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};

/// Buffers per shard, a power of two. A turn handles at most [`super::event::EVENTS_PER_WAIT`] completions and gives
/// every buffer back, and the kernel stops a receive that finds none, so this bounds memory and not connections.
pub(super) const BUFFERS: u16 = 256;
/// Bytes of each: a whole TLS record of 16 KiB fits, so that it is decrypted where it lies. 256 × 20 KiB = 5 MiB per
/// shard at the very most; pages that no message was long enough to reach are never touched.
pub(super) const BUFFER_BYTES: usize = 20 << 10;
/// The only group of buffers in the ring.
pub(super) const GROUP: u16 = 0;

const MASK: u16 = BUFFERS - 1;

pub(super) struct Buffers {
    entries: NonNull<BufRingEntry>,
    memory: NonNull<u8>,
    tail: Cell<u16>,
}

impl Buffers {
    /// Maps the memory and registers it. It is never unmapped: the kernel may still write to it while a closed ring winds
    /// up, and a shard lives as long as its process.
    pub(super) fn register(submitter: &Submitter<'_>) -> io::Result<Rc<Self>> {
        let map = |bytes| -> io::Result<NonNull<u8>> {
            // SAFETY: a new private mapping; nothing else refers to it.
            let start = unsafe {
                mmap_anonymous(
                    std::ptr::null_mut(),
                    bytes,
                    ProtFlags::READ | ProtFlags::WRITE,
                    MapFlags::PRIVATE,
                )
            }?;
            NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mmap answered zero"))
        };
        let entries = map(usize::from(BUFFERS) * size_of::<BufRingEntry>())?.cast();
        let memory = map(usize::from(BUFFERS) * BUFFER_BYTES)?;
        // SAFETY: the mapping holds BUFFERS entries, is aligned to a page and stays for ever.
        unsafe { submitter.register_buf_ring_with_flags(entries.as_ptr() as u64, BUFFERS, GROUP, 0) }?;
        let buffers = Buffers { entries, memory, tail: Cell::new(0) };
        (0..BUFFERS).for_each(|id| buffers.give_back(id));
        Ok(Rc::new(buffers))
    }

    /// Takes what the kernel says it wrote.
    pub(super) fn piece(self: &Rc<Self>, id: u16, length: usize) -> Piece {
        assert!(id < BUFFERS && length <= BUFFER_BYTES, "the kernel names buffer {id} with {length} bytes");
        Piece { buffers: self.clone(), id, length }
    }

    fn start(&self, id: u16) -> *mut u8 {
        // SAFETY: `id` is below BUFFERS (checked in `piece`, or ours), so the offset lies within the mapping.
        unsafe { self.memory.as_ptr().add(usize::from(id) * BUFFER_BYTES) }
    }

    fn give_back(&self, id: u16) {
        let tail = self.tail.get();
        // SAFETY: the masked index lies within the mapping, and the kernel does not read this entry before the tail has
        // moved past it. The tail is a naturally aligned u16 in the first entry, which `set_*` never writes.
        unsafe {
            let entry = &mut *self.entries.as_ptr().add(usize::from(tail & MASK));
            entry.set_addr(self.start(id) as u64);
            entry.set_len(BUFFER_BYTES as u32);
            entry.set_bid(id);
            let shared = BufRingEntry::tail(self.entries.as_ptr()).cast::<AtomicU16>();
            (*shared).store(tail.wrapping_add(1), Ordering::Release);
        }
        self.tail.set(tail.wrapping_add(1));
    }
}

/// Bytes that were received. The buffer goes back to the kernel when this is dropped.
pub(crate) struct Piece {
    buffers: Rc<Buffers>,
    id: u16,
    length: usize,
}

impl Piece {
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the buffer is this piece's alone until it is dropped, `self` is borrowed exclusively, and the kernel
        // wrote `length` bytes of it.
        unsafe { std::slice::from_raw_parts_mut(self.buffers.start(self.id), self.length) }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.buffers.give_back(self.id);
    }
}
