//! Owns the modern era (2026-07-28) for messages that come without headers: the rules that are left for the body alone,
//! and the header lines that mirror it (streamable-http.mdx, "Request Metadata").

use super::modern::{ModernError, shortened};
use super::value::encode_value;
use super::{Revision, ToolHeaders};
use crate::StrSpan;
use crate::http1::write_field;
use crate::jsonrpc::{Kind, Scan};

/// Checks a message that has no headers: the revision, where the message names one (requests must), and the other
/// required `_meta` fields of a request.
///
/// # Errors
/// The first rule that is broken.
pub fn check_modern_body(body: &[u8], scan: &Scan, supported: &[Revision]) -> Result<(), ModernError> {
    if scan.kind == Kind::Response {
        return Err(ModernError::ResponseFromClient);
    }
    let is_request = scan.kind == Kind::Request;
    match scan.meta_protocol_version {
        Some(version) => {
            let version = version.decode(body);
            if !Revision::parse(version.as_bytes()).is_some_and(|revision| supported.contains(&revision)) {
                let requested = shortened(version.as_bytes());
                return Err(ModernError::UnsupportedVersion { requested, supported: supported.to_vec() });
            }
        }
        None if is_request => {
            return Err(ModernError::MissingMeta { key: "io.modelcontextprotocol/protocolVersion" });
        }
        None => {}
    }
    if is_request && scan.meta_client_capabilities.is_none() {
        return Err(ModernError::MissingMeta { key: "io.modelcontextprotocol/clientCapabilities" });
    }
    Ok(())
}

/// Appends the lines `MCP-Protocol-Version`, `Mcp-Method` and, where the method asks for it, `Mcp-Name`. The method must
/// be header-safe; the name is encoded where it is not.
pub fn write_mirrored(out: &mut Vec<u8>, body: &[u8], scan: &Scan, revision: Revision) {
    write_field(out, b"MCP-Protocol-Version", revision.as_str().as_bytes());
    let Some(method) = scan.method else { return };
    write_field(out, b"Mcp-Method", method.decode(body).as_bytes());
    let is = |name| method.eq_str(body, name);
    let name: Option<StrSpan> = if is("tools/call") || is("prompts/get") {
        scan.name
    } else if is("resources/read") {
        scan.uri
    } else {
        None
    };
    if let Some(name) = name {
        write_field(out, b"Mcp-Name", &encode_value(name.decode(body).as_bytes()));
    }
}

/// Appends the `Mcp-Param-*` lines that a tool asks for. `arguments` is the raw `params.arguments`; what is absent or null
/// has no line.
///
/// # Errors
/// [`ModernError::HeaderMismatch`] where the arguments have a key twice: two readers could see two values.
pub fn write_params(
    out: &mut Vec<u8>,
    tool: &ToolHeaders,
    arguments: Option<&[u8]>,
) -> Result<(), ModernError> {
    for param in &tool.params {
        if let Some(value) = param.value_in(arguments)? {
            write_field(out, param.header_name().as_bytes(), &encode_value(&value));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jsonrpc::{Payload, ScanLimits, scan};
    use crate::mcp::{ParamHeader, check_params};

    const META: &str = concat!(
        r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
        r#""io.modelcontextprotocol/clientCapabilities":{}}"#
    );

    fn scanned(body: &str) -> Scan {
        match scan(body.as_bytes(), &ScanLimits::default()) {
            Ok(Payload::Single(scan)) => scan,
            other => panic!("{other:?}"),
        }
    }

    fn request(method: &str, params: &str) -> String {
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}","params":{{{params}}}}}"#)
    }

    fn check(body: &str) -> Result<(), ModernError> {
        check_modern_body(body.as_bytes(), &scanned(body), Revision::MODERN)
    }

    #[test]
    fn the_body_alone_is_held_to_its_meta() {
        let good = request("tools/list", META);
        assert_eq!(check(&good), Ok(()));
        assert_eq!(check(&good.replace("protocolVersion", "x")).unwrap_err().code(), -32602);
        assert_eq!(check(&good.replace("clientCapabilities", "x")).unwrap_err().code(), -32602);
        let future = check(&good.replace("2026-07-28", "2027-01-01")).unwrap_err();
        assert_eq!(
            (future.code(), future.message().as_str()),
            (-32022, "Unsupported protocol version: 2027-01-01")
        );
        assert_eq!(check(r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{}}"#), Ok(()));
        assert_eq!(check(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#), Err(ModernError::ResponseFromClient));
    }

    #[test]
    fn the_lines_mirror_the_body_and_encode_what_a_header_cannot_hold() {
        for (method, params, name) in [
            ("tools/call", r#""name":"echo""#, "Mcp-Name: echo\r\n"),
            ("prompts/get", r#""name":"世界""#, "Mcp-Name: =?base64?5LiW55WM?=\r\n"),
            ("resources/read", r#""uri":"file:///a","name":"b""#, "Mcp-Name: file:///a\r\n"),
            ("tools/list", r#""name":"b""#, ""),
        ] {
            let body = request(method, params);
            let mut out = Vec::new();
            write_mirrored(&mut out, body.as_bytes(), &scanned(&body), Revision::V2026_07_28);
            let expected = format!("MCP-Protocol-Version: 2026-07-28\r\nMcp-Method: {method}\r\n{name}");
            assert_eq!(String::from_utf8(out).unwrap(), expected);
        }
    }

    #[test]
    fn written_parameters_pass_the_check_of_a_server() {
        let param =
            |header: &str, key: &str| ParamHeader { header: header.to_owned(), path: vec![key.to_owned()] };
        let tool =
            ToolHeaders { tool: "t".to_owned(), params: vec![param("Region", "region"), param("N", "n")] };
        for (arguments, expected) in [
            (r#"{"region":" é\n","n":42}"#, "Mcp-Param-Region: =?base64?IMOpCg==?=\r\nMcp-Param-N: 42\r\n"),
            (r#"{"region":null,"n":-7}"#, "Mcp-Param-N: -7\r\n"),
            (r#"{}"#, ""),
        ] {
            let mut out = Vec::new();
            write_params(&mut out, &tool, Some(arguments.as_bytes())).unwrap();
            let text = String::from_utf8(out).unwrap();
            assert_eq!(text, expected);
            let lines = text.lines().filter_map(|line| line.split_once(": "));
            let headers = lines.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
            assert_eq!(check_params(&tool, headers, Some(arguments.as_bytes())), Ok(()));
        }
        let twice = br#"{"region":"a","region":"b"}"#;
        assert_eq!(write_params(&mut Vec::new(), &tool, Some(twice)).unwrap_err().code(), -32020);
    }
}
