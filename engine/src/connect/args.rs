//! The options of `connect`: owns their grammar and their check, before anything is opened. Never a connection.

use std::path::PathBuf;

use super::target::Target;
use super::token::Token;

/// The smallest `--max-message`, in bytes: errors must fit.
const MIN_MAX_MESSAGE: u64 = 4 << 10;
/// The greatest, in bytes. Worst-case memory: some fifteen of them (see the limits in `stdio.rs` and `front.rs`).
const MAX_MAX_MESSAGE: u64 = 256 << 20;
/// Headers that `--header` may add.
const MAX_HEADERS: usize = 32;
/// Headers that the transport writes itself, in lower case.
const RESERVED: &[&str] = &[
    "accept",
    "accept-encoding",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "last-event-id",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// The command line of `connect`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// The gateway: https://host/mcp[/server], wss://host/ws[/server] or mcpb://host[:9443]; http:// and ws:// for loopback
    /// hosts only.
    url: String,
    /// Environment variable that holds the bearer token.
    #[arg(long, value_name = "NAME", conflicts_with = "token_file")]
    token_env: Option<String>,
    /// File that holds the bearer token; read again when it changes.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// CA certificates (PEM) to trust instead of the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// A header to send with each HTTP request, as "Name: value"; may be given again. Not over mcpb://.
    #[arg(long, value_name = "HEADER")]
    header: Vec<String>,
    /// The longest message in either direction, such as 10MiB.
    #[arg(long, value_name = "SIZE", default_value = "10MiB")]
    max_message: String,
    /// Say on standard error what happens, not only what goes wrong.
    #[arg(long)]
    verbose: bool,
}

/// What `connect` is to do: checked.
pub(super) struct Plan {
    pub(super) target: Target,
    pub(super) token: Token,
    pub(super) ca_file: Option<PathBuf>,
    /// Header lines, each with its CR LF.
    pub(super) headers: Vec<u8>,
    pub(super) max_message: usize,
    pub(super) verbose: bool,
}

impl ConnectArgs {
    /// # Errors
    /// What is wrong with the first option that is, as a sentence for the user.
    pub(super) fn check(self) -> Result<Plan, String> {
        let target = Target::parse(&self.url)?;
        let max_message = mcp_config::parse_size(&self.max_message)
            .filter(|size| (MIN_MAX_MESSAGE..=MAX_MAX_MESSAGE).contains(size))
            .and_then(|size| usize::try_from(size).ok())
            .ok_or_else(|| {
                format!("--max-message {:?}: a size from 4KiB to 256MiB is allowed", self.max_message)
            })?;
        if self.header.len() > MAX_HEADERS {
            return Err(format!("--header may be given {MAX_HEADERS} times"));
        }
        let mut headers = Vec::new();
        for line in &self.header {
            write_header(&mut headers, line)?;
        }
        let token = match (&self.token_env, self.token_file) {
            (Some(name), _) => Token::from_env(name)?,
            (None, Some(file)) => Token::from_file(file)?,
            (None, None) => Token::none(),
        };
        Ok(Plan { target, token, ca_file: self.ca_file, headers, max_message, verbose: self.verbose })
    }
}

/// Checks `Name: value` and appends it as a header line.
fn write_header(out: &mut Vec<u8>, line: &str) -> Result<(), String> {
    let wrong =
        |what: &str| Err(format!("--header {:?}: {what}", line.split(':').next().unwrap_or_default()));
    let Some((name, value)) = line.split_once(':') else { return wrong("expected \"Name: value\"") };
    let value = value.trim();
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || !name.bytes().all(is_token) {
        return wrong("this is no header's name");
    }
    let lower = name.to_ascii_lowercase();
    if RESERVED.contains(&&*lower) || lower.starts_with("mcp-") {
        return wrong("the transport sets this header itself");
    }
    if !value.bytes().all(|byte| byte == b'\t' || (0x20..=0x7e).contains(&byte)) {
        return wrong("its value has characters that no header can hold");
    }
    out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_written_as_a_line_or_refused_without_its_value() {
        let mut out = Vec::new();
        write_header(&mut out, "X-Team:  blue ").unwrap();
        write_header(&mut out, "authorization: Basic eDp5").unwrap();
        assert_eq!(out, b"X-Team: blue\r\nauthorization: Basic eDp5\r\n");
        for (line, told) in [
            ("X-Team", "Name: value"),
            (": secret", "no header's name"),
            ("X Team: secret", "no header's name"),
            ("Host: secret", "itself"),
            ("Mcp-Session-Id: secret", "itself"),
            ("X: secret\r\nY: z", "no header can hold"),
        ] {
            let error = write_header(&mut Vec::new(), line).expect_err(line);
            assert!(error.contains(told) && !error.contains("secret"), "{line}: {error}");
        }
    }
}
