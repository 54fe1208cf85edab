//! What the ring received for a socket before its task asked for it: owns the order of those bytes. It never asks the
//! kernel for more.
//!
//! Invariant: at the end of a turn nothing of the kernel's buffers is held here ([`Inbox::spill`]), so that a task that
//! does not read cannot take them from everybody else.

use std::collections::VecDeque;

use super::buffers::Piece;

/// Bytes after which receiving is stopped until the task has read them. What the kernel had received by then comes on
/// top.
pub(super) const INBOX_HIGH_BYTES: usize = 64 << 10;

#[derive(Default)]
pub(super) struct Inbox {
    spilled: Vec<u8>,
    pieces: VecDeque<Piece>,
    /// Bytes read of `spilled`, or of the first piece when nothing is spilled.
    read: usize,
    length: usize,
}

impl Inbox {
    pub(super) fn push(&mut self, piece: Piece) {
        self.length += piece.bytes().len();
        self.pieces.push_back(piece);
    }

    /// Bytes not read yet.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Copies out as much as fits.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let mut filled = 0;
        while filled < out.len() && self.length > 0 {
            let front = match self.pieces.front() {
                Some(piece) if self.spilled.is_empty() => piece.bytes(),
                _ => &self.spilled,
            };
            let count = (front.len() - self.read).min(out.len() - filled);
            out[filled..filled + count].copy_from_slice(&front[self.read..self.read + count]);
            filled += count;
            self.read += count;
            self.length -= count;
            if self.read == front.len() {
                self.read = 0;
                if self.spilled.is_empty() {
                    self.pieces.pop_front();
                } else {
                    self.spilled = Vec::new();
                }
            }
        }
        filled
    }

    /// Moves what is unread to memory of our own and gives the kernel's buffers back.
    pub(super) fn spill(&mut self) {
        for piece in self.pieces.drain(..) {
            let unread = if self.spilled.is_empty() { std::mem::take(&mut self.read) } else { 0 };
            self.spilled.extend_from_slice(&piece.bytes()[unread..]);
        }
    }
}
