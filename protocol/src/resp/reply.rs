//! A reply of Redis, read whole: owns its shape, the same for RESP2 and RESP3.

/// What Redis answered, or pushed.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+OK`, by far the most frequent status.
    Ok,
    /// Any other status.
    Status(Box<str>),
    /// Nothing: RESP3's null, RESP2's null string and null array.
    Null,
    /// A number.
    Integer(i64),
    /// RESP3's double.
    Double(f64),
    /// RESP3's boolean.
    Boolean(bool),
    /// A string of bytes; RESP3's verbatim string and big number, too.
    Bulk(Box<[u8]>),
    /// An array, or RESP3's set.
    Array(Vec<Reply>),
    /// RESP3's map, in the order sent.
    Map(Vec<(Reply, Reply)>),
    /// Out of band: an invalidation, a message of a subscription. Never an answer to a command.
    Push(Vec<Reply>),
    /// A refusal, in the server's words ("WRONGTYPE Operation …").
    Error(Box<str>),
}
