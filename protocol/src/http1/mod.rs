//! Owns HTTP/1.1 message heads and framing (RFC 9112), strictly: what two readers could read differently is refused.
//!
//! It never reads a socket and never keeps bytes: a head is parsed from the caller's buffer into [`Span`](crate::Span)s,
//! a body is decoded in place. Grammar comes from `httparse`; every rule about framing, duplicates and targets is here.

mod chunked;
mod encode;
mod error;
mod fields;
mod head;
mod media;
mod request;
mod response;
mod sniff;

pub use chunked::{Chunk, ChunkError, ChunkedDecoder, MAX_SIZE_LINE, MAX_TRAILERS};
pub use encode::{LAST_CHUNK, write_chunk_header, write_field};
pub use error::HeadError;
pub use head::{HEADER_CEILING, HeadLimits, HeaderList, is_named_by};
pub use media::{MediaKind, accepts, is_event_stream, is_json};
pub use request::{Body, Method, RequestHead, parse_request, parse_request_into};
pub use response::{ResponseBody, ResponseHead, parse_response, parse_response_into};
pub use sniff::{looks_like_http, looks_like_tls};
