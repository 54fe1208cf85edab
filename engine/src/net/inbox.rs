//! What the ring received for a socket before its task asked for it: at most one receive's worth. It never asks the kernel
//! for more.
//!
//! Invariant: at the end of a turn nothing of the kernel's buffers is held here ([`Inbox::spill`]), so that a task that
//! does not read cannot take them from everybody else.

use super::buffers::Piece;

#[derive(Default)]
pub(super) struct Inbox {
    place: Place,
    read: usize,
}

#[derive(Default)]
enum Place {
    #[default]
    Empty,
    Piece(Piece),
    Spilled(Vec<u8>),
}

impl Inbox {
    /// Puts in what came; the inbox must be empty, because receiving is only asked for then.
    pub(super) fn put(&mut self, piece: Piece) {
        debug_assert!(self.is_empty());
        *self = Inbox { place: Place::Piece(piece), read: 0 };
    }

    pub(super) fn is_empty(&self) -> bool {
        matches!(self.place, Place::Empty)
    }

    /// Copies out as much as fits.
    pub(super) fn read(&mut self, out: &mut [u8]) -> usize {
        let bytes = match &self.place {
            Place::Empty => return 0,
            Place::Piece(piece) => piece.bytes(),
            Place::Spilled(bytes) => bytes,
        };
        let unread = &bytes[self.read..];
        let count = unread.len().min(out.len());
        out[..count].copy_from_slice(&unread[..count]);
        self.read += count;
        if self.read == bytes.len() {
            *self = Inbox::default();
        }
        count
    }

    /// Moves what is unread to memory of our own and gives the kernel's buffer back.
    pub(super) fn spill(&mut self) {
        if let Place::Piece(piece) = &self.place {
            let unread = piece.bytes()[self.read..].to_vec();
            *self = Inbox { place: Place::Spilled(unread), read: 0 };
        }
    }
}
