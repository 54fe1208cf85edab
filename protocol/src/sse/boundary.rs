//! Owns the search for event boundaries in a stream that is relayed. It never looks at fields.

/// Finds the ends of events, incrementally. An event ends at an empty line; lines end with LF, CR or CR LF, which may be
/// split anywhere.
#[derive(Clone, Debug, Default)]
pub struct Boundary {}

impl Boundary {
    /// A finder at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the stream's next bytes; returns the offset just after the last event that is complete in them.
    pub fn push(&mut self, bytes: &[u8]) -> Option<usize> {
        let _ = bytes;
        unimplemented!()
    }
}
