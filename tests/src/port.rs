//! Owns the choice of ports for servers that cannot tell which free one they took.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// The first port that is given out. All are below the range from which the kernel takes ports for outgoing connections, so
/// that none is taken between its choice and its use.
const FIRST: u16 = 20_000;
/// How many ports are given out before the first comes again.
const COUNT: u16 = 10_000;

/// A port on 127.0.0.1 that nobody listens on and that no other call in this process was given lately.
///
/// # Panics
/// When none is free.
#[must_use]
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin at different places.
    let start = u16::try_from(std::process::id() * 97 % u32::from(COUNT)).unwrap_or(0);
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + start.wrapping_add(step) % COUNT;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port from {FIRST} to {} is free", FIRST + COUNT - 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_calls_give_two_ports() {
        let first = free_port();
        let second = free_port();
        assert_ne!(first, second);
        TcpListener::bind(("127.0.0.1", first)).expect("the first port is free");
    }
}
