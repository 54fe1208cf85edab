//! The question to Redis: owns the script, the name of a key's record, and what the answer means. Never when it is asked.

use aws_lc_rs::digest;
use mcp_protocol::resp::Reply;

use super::Limit;
use crate::StoreError;
use crate::error::ServerCode;
use crate::redis::{Command, Commands};

const SOURCE: &str = include_str!("take.lua");
/// What a record's name begins with. Not `mcp:{`: nobody keeps copies of these records.
const PREFIX: &str = "mcp-rate:";
const DIGEST_BYTES: usize = 16;
const NAME_BYTES: usize = PREFIX.len() + 2 * DIGEST_BYTES + 2;

/// What stands for a key: the first half of its SHA-256, the same on every pod. Neither length nor text of a key reach
/// Redis, though who can guess a key can recognise it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Digest([u8; DIGEST_BYTES]);

impl Digest {
    pub(super) fn of(key: &[u8]) -> Self {
        let mut first = [0; DIGEST_BYTES];
        first.copy_from_slice(&digest::digest(&digest::SHA256, key).as_ref()[..DIGEST_BYTES]);
        Digest(first)
    }

    /// The record's name: `mcp-rate:{<32 hexadecimal digits>}`.
    fn name(&self) -> [u8; NAME_BYTES] {
        let mut name = [b'}'; NAME_BYTES];
        name[..PREFIX.len()].copy_from_slice(PREFIX.as_bytes());
        name[PREFIX.len()] = b'{';
        hex(&self.0, &mut name[PREFIX.len() + 1..NAME_BYTES - 1]);
        name
    }
}

/// What Redis granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Grant {
    /// Tokens charged to the key; at most as many as were wanted.
    pub(super) tokens: u32,
    /// Until the next token is to be had, in microseconds.
    pub(super) next_us: u64,
}

/// The script with the limit that it is run with.
pub(super) struct Script {
    sha1: [u8; 40],
    per_second: String,
    burst: String,
}

impl Script {
    pub(super) fn new(limit: &Limit) -> Self {
        let mut sha1 = [0; 40];
        // Redis names scripts so; nothing is protected by it.
        hex(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, SOURCE.as_bytes()).as_ref(), &mut sha1);
        Script { sha1, per_second: limit.per_second.to_string(), burst: limit.burst.to_string() }
    }

    /// Asks for up to `asked` tokens: one round trip, two where the node does not know the script yet.
    ///
    /// # Errors
    /// What the client reports; the tokens may have been charged all the same.
    pub(super) async fn run(
        &self,
        commands: &impl Commands,
        key: &Digest,
        asked: u32,
    ) -> Result<Grant, StoreError> {
        let name = key.name();
        let wanted = asked.to_string();
        let args = |verb: &'static [u8], script| -> [&[u8]; 7] {
            [verb, script, b"1", &name, self.per_second.as_bytes(), self.burst.as_bytes(), wanted.as_bytes()]
        };
        let by_name = args(b"EVALSHA", &self.sha1);
        let reply = match commands.call(&Command::write("evalsha", &name, &by_name)).await {
            Err(StoreError::Refused { code: ServerCode::NoScript, .. }) => {
                let in_full = args(b"EVAL", SOURCE.as_bytes());
                commands.call(&Command::write("eval", &name, &in_full)).await?
            }
            reply => reply?,
        };
        read(&reply)
            .filter(|grant| grant.tokens <= asked && (grant.tokens > 0 || grant.next_us > 0))
            .ok_or(StoreError::Malformed("no grant and no denial to a script that gives either"))
    }
}

fn read(reply: &Reply) -> Option<Grant> {
    let Reply::Array(numbers) = reply else { return None };
    let [Reply::Integer(tokens), Reply::Integer(next_us)] = numbers[..] else { return None };
    Some(Grant { tokens: tokens.try_into().ok()?, next_us: next_us.try_into().ok()? })
}

fn hex(bytes: &[u8], to: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(to.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}
