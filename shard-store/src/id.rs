//! Session ids: owns their form. An id is 24 visible ASCII characters: base64url of 16 random bytes and the two bytes of
//! the partition that minted it, so that any shard knows where the record lives without asking.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::StoreError;

const RANDOM_BYTES: usize = 16;
const BYTES: usize = RANDOM_BYTES + 2;
/// Characters of an id.
pub const ID_CHARS: usize = 24;

/// The id that a client sees. 128 bits of it are random; comparing uses all of them, hashing the first 64.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SessionId([u8; BYTES]);

impl SessionId {
    /// Mints an id for a session of `partition`.
    ///
    /// # Errors
    /// [`StoreError::NoRandom`] when the system gives no random bytes.
    pub fn mint(partition: u16) -> Result<Self, StoreError> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes[..RANDOM_BYTES]).map_err(|_| StoreError::NoRandom)?;
        bytes[RANDOM_BYTES..].copy_from_slice(&partition.to_be_bytes());
        Ok(SessionId(bytes))
    }

    /// Reads an id as a client sent it; `None` for anything that we cannot have minted.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut bytes = [0; BYTES];
        if text.len() != ID_CHARS {
            return None;
        }
        (URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()? == BYTES).then_some(SessionId(bytes))
    }

    /// The partition that holds the record.
    pub fn partition(&self) -> u16 {
        u16::from_be_bytes([self.0[RANDOM_BYTES], self.0[RANDOM_BYTES + 1]])
    }

    /// The id's random bytes.
    pub fn random(&self) -> [u8; RANDOM_BYTES] {
        let mut random = [0; RANDOM_BYTES];
        random.copy_from_slice(&self.0[..RANDOM_BYTES]);
        random
    }

    /// The id's text.
    pub fn text(&self) -> [u8; ID_CHARS] {
        let mut text = [0; ID_CHARS];
        let written = URL_SAFE_NO_PAD.encode_slice(self.0, &mut text);
        debug_assert_eq!(written, Ok(ID_CHARS));
        text
    }
}

impl Hash for SessionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        state.write_u64(u64::from_ne_bytes([a, b, c, d, e, f, g, h]));
    }
}

/// Hashes session ids for maps: their random bytes are a hash already. Only ids that we minted are ever keys, so nobody can
/// choose keys that collide.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A map by session id.
pub(crate) type IdMap<T> = HashMap<SessionId, T, BuildHasherDefault<IdHasher>>;

impl std::fmt::Debug for SessionId {
    /// A session id is a secret: only its partition is shown.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SessionId(partition {})", self.partition())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_is_visible_ascii() {
        for partition in [0, 1, 255, u16::MAX] {
            let id = SessionId::mint(partition).unwrap();
            assert_eq!(SessionId::parse(&id.text()), Some(id));
            assert_eq!(id.partition(), partition);
            assert!(id.text().iter().all(|byte| (0x21..=0x7e).contains(byte)));
        }
    }

    #[test]
    fn what_we_cannot_have_minted_is_no_id() {
        for text in [
            &b""[..],
            b"short",
            b"0123456789012345678901234",
            b"0123456789012345678901 =",
            b"\xff23456789012345678901234",
        ] {
            assert_eq!(SessionId::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn ids_differ_and_debug_hides_them() {
        let (a, b) = (SessionId::mint(3).unwrap(), SessionId::mint(3).unwrap());
        assert_ne!(a, b);
        assert_eq!(format!("{a:?}"), "SessionId(partition 3)");
    }
}
