//! Owns the names of the header lines that mean something to the gateway.
