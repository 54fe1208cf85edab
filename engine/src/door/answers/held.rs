//! Bytes of a message that is not whole or not done: owns their place in the shard's account. Never the bytes.

use std::rc::Rc;

use crate::shard::Shard;

/// Bytes that are counted in [`Shard::buffered`] for as long as they are held.
pub(crate) struct Held {
    shard: Rc<Shard>,
    pub(crate) bytes: usize,
}

impl Held {
    pub(crate) fn new(shard: &Rc<Shard>, bytes: usize) -> Self {
        shard.buffered.set(shard.buffered.get() + bytes);
        Held { shard: shard.clone(), bytes }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.shard.buffered.set(self.shard.buffered.get() - self.bytes);
    }
}
