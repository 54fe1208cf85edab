//! What a client's bytes can be wrong by: owns the errors, their close codes and their labels.

/// A frame or message that ends the connection. Offsets make no sense here: what is wrong is a frame as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// A reserved bit is set, though no extension was agreed on.
    #[error("a reserved bit is set, and no extension was agreed on")]
    ReservedBit,
    /// The opcode has no meaning.
    #[error("opcode {opcode} is reserved")]
    ReservedOpcode {
        /// 3 to 7 or 11 to 15.
        opcode: u8,
    },
    /// A client's frame without a mask.
    #[error("the frame is not masked")]
    Unmasked,
    /// A length in more bytes than it needs (section 5.2 demands the shortest form).
    #[error("the length is not in its shortest form")]
    LongForm,
    /// A control frame that is not final.
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame with more than [`MAX_CONTROL_BYTES`](super::MAX_CONTROL_BYTES).
    #[error("a control frame of {len} bytes; 125 may be")]
    LongControl {
        /// What the head announces, in bytes.
        len: u64,
    },
    /// A continuation, and nothing to continue.
    #[error("a continuation without a message that it continues")]
    UnexpectedContinuation,
    /// A new message before the one before was complete.
    #[error("a new message before the last one was complete")]
    UnfinishedMessage,
    /// A close frame's payload is one byte, or its code is not for sending.
    #[error("the close frame's payload is malformed")]
    MalformedClose,
    /// A binary message: JSON-RPC is text.
    #[error("messages must be text")]
    Binary,
    /// A text message or a close reason is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// The message is longer than is taken.
    #[error("the message is longer than {limit} bytes")]
    TooLong {
        /// The limit, in bytes.
        limit: usize,
    },
}

impl FrameError {
    /// The code that the connection closes with (section 7.4.1).
    #[must_use]
    pub fn close_code(self) -> u16 {
        match self {
            Self::ReservedBit
            | Self::ReservedOpcode { .. }
            | Self::Unmasked
            | Self::LongForm
            | Self::FragmentedControl
            | Self::LongControl { .. }
            | Self::UnexpectedContinuation
            | Self::UnfinishedMessage
            | Self::MalformedClose => 1002,
            Self::Binary => 1003,
            Self::NotUtf8 => 1007,
            Self::TooLong { .. } => 1009,
        }
    }

    /// A label of a closed set, for metrics.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::ReservedBit => "reserved_bit",
            Self::ReservedOpcode { .. } => "reserved_opcode",
            Self::Unmasked => "unmasked",
            Self::LongForm => "long_form",
            Self::FragmentedControl => "fragmented_control",
            Self::LongControl { .. } => "long_control",
            Self::UnexpectedContinuation => "unexpected_continuation",
            Self::UnfinishedMessage => "unfinished_message",
            Self::MalformedClose => "malformed_close",
            Self::Binary => "binary",
            Self::NotUtf8 => "not_utf8",
            Self::TooLong { .. } => "too_long",
        }
    }
}
