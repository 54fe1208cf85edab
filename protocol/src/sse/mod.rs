//! Owns Server-Sent Events (WHATWG HTML, section 9.2): finding where events end, reading them, writing them.
//!
//! A relay needs [`Boundary`] and, where it must know an event's message, [`raw_events`]: whole events pass byte for byte.
//! [`Decoder`] is for those who consume a stream.

mod boundary;
mod decoder;
mod encode;
mod raw;

pub use boundary::Boundary;
pub use decoder::{Decoder, Event, SseError};
pub use encode::{KEEP_ALIVE, write_event};
pub use raw::{RawEvent, raw_events};
