//! Claims: a chunked body decodes alike however it is split, to its last byte or to the same error; what is written reads
//! back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::http1::{ChunkError, ChunkedDecoder, LAST_CHUNK, write_chunk_header};
use mcp_protocol_fuzz::split_stream;

/// The body, the length of the coded bytes, and whether the end was reached or which error.
type Decoded = (Vec<u8>, usize, Result<bool, ChunkError>);

fuzz_target!(|input: &[u8]| {
    let Some((stream, pieces)) = split_stream(input) else { return };
    let whole = decode(&[stream]);
    let split = decode(&pieces);
    assert_eq!((&split.0, &split.2), (&whole.0, &whole.2));
    if whole.2.is_ok() {
        assert_eq!(split.1, whole.1);
    }

    let mut coded = Vec::new();
    for piece in &pieces {
        write_chunk_header(&mut coded, piece.len());
        coded.extend_from_slice(piece);
        coded.extend_from_slice(b"\r\n");
    }
    coded.extend_from_slice(LAST_CHUNK);
    assert_eq!(decode(&[&coded]), (stream.to_vec(), coded.len(), Ok(true)));
});

fn decode(pieces: &[&[u8]]) -> Decoded {
    let mut decoder = ChunkedDecoder::new();
    let mut body = Vec::new();
    let mut used = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let chunk = match decoder.decode(rest) {
                Ok(chunk) => chunk,
                Err(error) => {
                    assert_eq!(decoder.decode(b"0\r\n\r\n"), Err(error));
                    return (body, used, Err(error));
                }
            };
            assert!(chunk.data.end <= chunk.consumed && (chunk.consumed > 0 || chunk.done));
            body.extend_from_slice(&rest[chunk.data]);
            used += chunk.consumed;
            rest = &rest[chunk.consumed..];
            if chunk.done {
                return (body, used, Ok(true));
            }
        }
    }
    (body, used, Ok(false))
}
