//! Writes commands: owns their bytes on the wire. Never what they mean.

/// Appends a command: an array of its name and arguments, each a string of bytes. The same in RESP2 and RESP3.
///
/// The `redis-protocol` crate's encoder wants a list of frames and a buffer filled with zeros first, and takes six times as
/// long for a `SET` of 512 bytes.
pub fn write_command(out: &mut Vec<u8>, args: &[&[u8]]) {
    /// Of a header: the type, up to 20 digits, CR LF.
    const HEADER_BYTES: usize = 23;
    let size = args.iter().map(|arg| arg.len() + HEADER_BYTES + 2).sum::<usize>() + HEADER_BYTES;
    out.reserve(size);
    write_header(out, b'*', args.len());
    for arg in args {
        write_header(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn write_header(out: &mut Vec<u8>, kind: u8, number: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_strings() {
        let mut out = b"before".to_vec();
        write_command(&mut out, &[b"SET", b"key", b"a\r\nb\0", b""]);
        write_command(&mut out, &[b"PING"]);
        let set = b"*4\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\na\r\nb\0\r\n$0\r\n\r\n";
        assert_eq!(out, [&b"before"[..], set, b"*1\r\n$4\r\nPING\r\n"].concat());
    }

    #[test]
    fn long_arguments_have_their_length() {
        let value = vec![b'x'; 1_234_567];
        let mut out = Vec::new();
        write_command(&mut out, &[b"GET", &value]);
        assert!(out.starts_with(b"*2\r\n$3\r\nGET\r\n$1234567\r\nxxx"));
        assert_eq!(out.len(), 13 + 10 + 1_234_567 + 2);
    }
}
