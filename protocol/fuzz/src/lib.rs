//! Owns what the fuzz targets share: cutting an input into a stream and a list of piece lengths.

/// Bytes at the start of an input that say how the rest is split.
const SPLIT_BYTES: usize = 4;

/// Splits an input into the stream and the pieces in which it arrives: the first bytes are piece lengths (at least 1),
/// repeated for as long as the stream lasts.
pub fn split_stream(input: &[u8]) -> Option<(&[u8], Vec<&[u8]>)> {
    let (lengths, stream) = input.split_at_checked(SPLIT_BYTES)?;
    let mut pieces = Vec::new();
    let mut rest = stream;
    for &length in lengths.iter().cycle() {
        if rest.is_empty() {
            break;
        }
        let (piece, after) = rest.split_at(usize::from(length).clamp(1, rest.len()));
        pieces.push(piece);
        rest = after;
    }
    Some((stream, pieces))
}
