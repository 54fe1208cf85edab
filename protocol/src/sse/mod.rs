//! Owns Server-Sent Events (WHATWG HTML, section 9.2): finding where events end, reading them, writing them.
//!
//! A relay needs only [`Boundary`]: whole events pass byte for byte. [`Decoder`] is for those who read an event.

mod boundary;
mod decoder;
mod encode;

pub use boundary::Boundary;
pub use decoder::{Decoder, Event, SseError};
pub use encode::{KEEP_ALIVE, write_event};
