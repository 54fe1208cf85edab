//! Owns the bytes of a header line, and those that frame a chunked body (RFC 9112, sections 5 and 7.1).

/// Ends a chunked body, without trailers.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Appends a header line, with its CR LF. Neither part is checked: what comes from others was read as a field before.
pub fn write_field(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the line that stands before a chunk of `len` bytes; after the chunk comes CR LF. A chunk of length 0 would
/// end the body, so `len` 0 appends nothing.
pub fn write_chunk_header(out: &mut Vec<u8>, len: usize) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let digits = (usize::BITS - len.leading_zeros()).div_ceil(4);
    for place in (0..digits).rev() {
        out.push(HEX[len >> (place * 4) & 15]);
    }
    if digits > 0 {
        out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_hexadecimal() {
        for len in [1, 9, 15, 16, 255, 256, 4096, 10_485_760, usize::MAX] {
            let mut out = Vec::new();
            write_chunk_header(&mut out, len);
            assert_eq!(out, format!("{len:x}\r\n").into_bytes());
        }
    }

    #[test]
    fn an_empty_chunk_cannot_end_the_body_by_accident() {
        let mut out = Vec::new();
        write_chunk_header(&mut out, 0);
        assert_eq!(out, b"");
    }
}
