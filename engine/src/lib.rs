//! The gateway's engine.

pub mod demo;
