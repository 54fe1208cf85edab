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
    /// A string of bytes; RESP3's verbatim string (without its format) and big number, too.
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

impl Reply {
    /// The bytes of a string or a status.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Ok => Some(b"OK"),
            Reply::Status(text) => Some(text.as_bytes()),
            Reply::Bulk(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text of a string or a status that is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// A number, also where it is sent as a string of digits, as scripts and `INFO`-like replies do.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Reply::Integer(number) => Some(*number),
            other => other.as_str()?.parse().ok(),
        }
    }

    /// The elements of an array or a push.
    pub fn as_array(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(elements) | Reply::Push(elements) => Some(elements),
            _ => None,
        }
    }

    /// The elements of an array or a push, taken.
    pub fn into_array(self) -> Option<Vec<Reply>> {
        match self {
            Reply::Array(elements) | Reply::Push(elements) => Some(elements),
            _ => None,
        }
    }

    /// The value of the first entry of this name: in a map, or in the array of names and values by turns that RESP2 has in
    /// its place.
    pub fn get(&self, key: &str) -> Option<&Reply> {
        let is_key = |name: &Reply| name.as_bytes() == Some(key.as_bytes());
        match self {
            Reply::Map(pairs) => pairs.iter().find(|(name, _)| is_key(name)).map(|(_, value)| value),
            Reply::Array(elements) => {
                elements.chunks_exact(2).find(|pair| is_key(&pair[0])).map(|pair| &pair[1])
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().into())
    }

    #[test]
    fn strings_and_statuses_have_bytes() {
        assert_eq!(Reply::Ok.as_bytes(), Some(&b"OK"[..]));
        assert_eq!(Reply::Status("PONG".into()).as_str(), Some("PONG"));
        assert_eq!(bulk("ä").as_str(), Some("ä"));
        assert_eq!(Reply::Bulk([0xFF].into()).as_str(), None);
        assert_eq!(Reply::Null.as_bytes(), None);
        assert_eq!(Reply::Error("OK".into()).as_bytes(), None);
    }

    #[test]
    fn numbers_may_be_sent_as_digits() {
        assert_eq!(Reply::Integer(-7).as_integer(), Some(-7));
        assert_eq!(bulk("42").as_integer(), Some(42));
        assert_eq!(bulk("4x").as_integer(), None);
        assert_eq!(Reply::Boolean(true).as_integer(), None);
    }

    #[test]
    fn entries_are_found_in_maps_and_in_flat_arrays() {
        let map = Reply::Map(vec![(bulk("a"), Reply::Integer(1)), (bulk("b"), bulk("a"))]);
        let flat = Reply::Array(vec![bulk("a"), Reply::Integer(1), bulk("b"), bulk("a"), bulk("odd")]);
        for reply in [map, flat] {
            assert_eq!(reply.get("a"), Some(&Reply::Integer(1)));
            assert_eq!(reply.get("b"), Some(&bulk("a")));
            assert_eq!(reply.get("c"), None);
            assert_eq!(reply.get("odd"), None);
        }
        assert_eq!(bulk("a").get("a"), None);
    }

    #[test]
    fn elements_are_lent_and_taken() {
        let elements = vec![Reply::Null, Reply::Ok];
        for reply in [Reply::Array(elements.clone()), Reply::Push(elements.clone())] {
            assert_eq!(reply.as_array(), Some(&elements[..]));
            assert_eq!(reply.into_array(), Some(elements.clone()));
        }
        assert_eq!(Reply::Map(Vec::new()).into_array(), None);
    }
}
