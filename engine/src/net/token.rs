//! The 64 bits that come back with an event: owns their layout. Kind (8 bits), generation (24 bits), index (32 bits).

/// Whom an event or a timer concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A listener, by its index.
    Listener = 1,
    /// A downstream connection.
    Conn = 2,
    /// A socket that a task waits on.
    Socket = 3,
    /// The shard's mailbox.
    Mailbox = 4,
    /// The timer descriptor.
    Clock = 5,
    /// A task's deadline (timers only).
    Task = 6,
    /// The once-a-second work (timers only).
    Housekeeping = 7,
    /// The probe of the shard's queue.
    Probe = 8,
    /// A listener for other owners, by its place.
    Peer = 9,
    /// The shard's socket to the keeper of stdio processes.
    Keeper = 10,
}

const GENERATION_BITS: u32 = 24;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) generation: u32,
    pub(crate) index: u32,
}

impl Token {
    pub(crate) fn new(kind: Kind, generation: u32, index: usize) -> Self {
        Token { kind, generation: generation & ((1 << GENERATION_BITS) - 1), index: index as u32 }
    }

    pub(crate) fn plain(kind: Kind, index: usize) -> Self {
        Token::new(kind, 0, index)
    }

    pub(crate) fn pack(self) -> u64 {
        (self.kind as u64) << 56 | u64::from(self.generation) << 32 | u64::from(self.index)
    }

    /// `None` for bits that [`Token::pack`] never made.
    pub(crate) fn unpack(bits: u64) -> Option<Self> {
        let kind = match bits >> 56 {
            1 => Kind::Listener,
            2 => Kind::Conn,
            3 => Kind::Socket,
            4 => Kind::Mailbox,
            5 => Kind::Clock,
            6 => Kind::Task,
            7 => Kind::Housekeeping,
            8 => Kind::Probe,
            9 => Kind::Peer,
            10 => Kind::Keeper,
            _ => return None,
        };
        Some(Token::new(kind, (bits >> 32) as u32, (bits & 0xffff_ffff) as usize))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back() {
        for kind in [
            Kind::Listener,
            Kind::Conn,
            Kind::Socket,
            Kind::Mailbox,
            Kind::Clock,
            Kind::Task,
            Kind::Housekeeping,
            Kind::Probe,
            Kind::Peer,
            Kind::Keeper,
        ] {
            let token = Token::new(kind, 0x00ab_cdef, 0xdead_beef);
            assert_eq!(Token::unpack(token.pack()), Some(token));
        }
        assert_eq!(Token::unpack(0), None);
    }
}
