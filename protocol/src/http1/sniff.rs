//! Owns the guess at what speaks on a port, from the first bytes of a connection. It decides only which error is given.

/// The methods of RFC 9110 and PATCH, and the first token of HTTP/2's preface, each with the space behind it.
const METHOD_TOKENS: &[&[u8]] = &[
    b"GET ",
    b"POST ",
    b"PUT ",
    b"DELETE ",
    b"OPTIONS ",
    b"HEAD ",
    b"PATCH ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI ",
];

/// Whether these bytes start plain HTTP (as sent to a TLS port by mistake). Eight bytes are enough to tell.
pub fn looks_like_http(first: &[u8]) -> bool {
    METHOD_TOKENS.iter().any(|token| first.starts_with(token))
}

/// Whether these bytes start a TLS handshake record (RFC 8446, section 5.1). Three bytes are enough to tell.
pub fn looks_like_tls(first: &[u8]) -> bool {
    matches!(first, [0x16, 0x03, 0x00..=0x04, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_bytes_tell_the_protocols_apart() {
        for (first, http, tls) in [
            (&b"GET / HTTP/1.1\r\n"[..], true, false),
            (b"OPTIONS * HTTP/1.1", true, false),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", true, false),
            (b"GETX /", false, false),
            (b"get / HTTP/1.1", false, false),
            (b"MCPB\0\x01\0\x06", false, false),
            (b"\x16\x03\x01\x02\x00\x01", false, true),
            (b"\x16\x03\x03", false, true),
            (b"\x16\x03", false, false),
            (b"\x16\x03\x05", false, false),
            (b"", false, false),
        ] {
            assert_eq!((looks_like_http(first), looks_like_tls(first)), (http, tls), "{first:?}");
        }
    }
}
