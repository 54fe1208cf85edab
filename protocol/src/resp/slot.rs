//! Owns which of a cluster's slots a key belongs to. Never which node serves it.

/// The slots of a cluster.
pub const SLOTS: u16 = 16_384;

/// The slot of a key, below [`SLOTS`]. Where the key has a part in braces that is not empty, the first such part decides
/// alone, so that keys can be kept together.
pub fn key_slot(key: &[u8]) -> u16 {
    redis_protocol::redis_keyslot(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_the_cluster_specification() {
        assert_eq!(key_slot(b"123456789"), 0x31C3);
        assert_eq!(key_slot(b""), 0);
        assert_eq!(key_slot(b"foo"), 12_182);
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"{user1000}.followers"));
        assert_eq!(key_slot(b"{user1000}.following"), key_slot(b"user1000"));
        assert_eq!(key_slot(b"foo{{bar}}zap"), key_slot(b"{bar"));
        assert_eq!(key_slot(b"foo{bar}{zap}"), key_slot(b"bar"));
    }

    #[test]
    fn without_a_part_in_braces_the_whole_key_counts() {
        // Each differs from the slot of what a wrong reading would hash.
        assert_eq!(key_slot(b"foo{}{bar}"), 8_363);
        assert_ne!(key_slot(b"foo{}{bar}"), key_slot(b"bar"));
        assert_ne!(key_slot(b"foo{bar"), key_slot(b"bar"));
        assert_ne!(key_slot(b"foo}bar{"), key_slot(b"foo"));
        assert_ne!(key_slot(b"{}"), key_slot(b""));
        assert_ne!(key_slot(b"{"), key_slot(b""));
        assert_ne!(key_slot(b"}{"), key_slot(b""));
    }

    #[test]
    fn every_slot_is_below_the_number_of_slots() {
        assert!((0..100_000_u32).all(|number| key_slot(&number.to_le_bytes()) < SLOTS));
    }
}
