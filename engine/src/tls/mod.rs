//! TLS: owns the process's server configuration (certificate, tickets, suites) and each connection's unbuffered session.
//! It never reads or writes a socket: ciphertext and plaintext go in and out as bytes.

pub(crate) mod certificate;
pub(crate) mod config;
pub(crate) mod rotating;
pub(crate) mod session;
