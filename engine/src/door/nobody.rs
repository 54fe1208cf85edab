//! An answer whose client is gone: owns how much of it is thrown away before it is too much. Never keeps any of it.

use crate::shard::conn::Gone;

/// Bytes of an answer that nobody waits for, as they come from the server. They cost no memory; this is for a stream that
/// would otherwise go on for as long as it may.
const MAX_BYTES: usize = 64 << 20;

pub(crate) struct Nobody {
    status: u16,
    thrown_away: usize,
}

impl Nobody {
    /// Takes the place of whoever was told `status`, or nothing yet.
    pub(super) fn new(status: u16) -> Self {
        Nobody { status, thrown_away: 0 }
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn begin(&mut self, status: u16) {
        self.status = status;
    }

    /// # Errors
    /// [`Gone`] when it was too much.
    pub(crate) fn data(&mut self, data: &[u8]) -> Result<(), Gone> {
        self.thrown_away += data.len();
        if self.thrown_away > MAX_BYTES { Err(Gone) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_as_the_limit_is_thrown_away() {
        let mut nobody = Nobody::new(200);
        assert!(nobody.data(&vec![0; MAX_BYTES]).is_ok());
        assert!(nobody.data(b"").is_ok());
        assert!(nobody.data(b"x").is_err());
    }
}
