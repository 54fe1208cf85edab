//! Owns the writing of events.

/// A comment that keeps a quiet stream open. It ends with an empty line, so that relays pass it on at once.
pub const KEEP_ALIVE: &[u8] = b":\n\n";

/// Appends an event. Line ends in `data` (LF, CR, CR LF) become several `data` lines, so a reader gets LF for each;
/// line ends in `event` and `id` are left out, they would end the field.
pub fn write_event(out: &mut Vec<u8>, event: Option<&str>, id: Option<&str>, data: &[u8]) {
    let _ = (out, event, id, data);
    unimplemented!()
}
