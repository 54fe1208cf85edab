//! Claims: the scanner takes for JSON what serde_json takes for JSON, and finds the values that serde_json finds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::jsonrpc::{
    Kind, PARSE_ERROR, Payload, Scan, ScanError, ScanLimits, scan, write_json_string,
};
use mcp_protocol::mcp::{MirroredHeaders, Revision, check_modern, learn_from_tools_list};
use mcp_protocol::{Span, StrSpan};
use serde_json::Value;
use serde_json::value::RawValue;

fuzz_target!(|input: &[u8]| {
    let limits = ScanLimits::default();
    // serde_json skips values without a depth limit and without looking at surrogates, just as the grammar says.
    let is_json = serde_json::from_slice::<&RawValue>(input).is_ok() && std::str::from_utf8(input).is_ok();
    match scan(input, &limits) {
        Ok(payload) => {
            assert!(is_json);
            let tree = serde_json::from_slice::<Value>(input).ok();
            match payload {
                Payload::Single(scan) => check(input, &scan, tree.as_ref()),
                Payload::Batch(scans) => {
                    assert!(!scans.is_empty() && scans.len() <= limits.max_batch);
                    for (index, scan) in scans.iter().enumerate() {
                        check(input, scan, tree.as_ref().map(|tree| &tree[index]));
                    }
                }
            }
        }
        Err(failure) => {
            if let Some(id) = failure.id {
                let id = id.of(input);
                assert!(matches!(id, [b'"' | b'-' | b'0'..=b'9', ..]));
                assert!(serde_json::from_slice::<&RawValue>(id).is_ok());
            }
            match failure.error {
                // Both give up before the end of the text.
                ScanError::TooDeep { .. } | ScanError::BatchTooLarge { .. } => {}
                error => assert_eq!(error.json_rpc_code() == PARSE_ERROR, !is_json, "{error}"),
            }
        }
    }
    let _ = learn_from_tools_list(input);
});

fn check(input: &[u8], scan: &Scan, tree: Option<&Value>) {
    assert_eq!(scan.method.is_some(), scan.kind != Kind::Response);
    assert_eq!(scan.id.is_some() || scan.is_error, scan.kind != Kind::Notification);
    let spans =
        [scan.id, scan.params, scan.arguments, scan.meta, scan.result, scan.progress_token, scan.request_id];
    for span in spans.into_iter().flatten() {
        let raw = span.of(input);
        assert!(!raw.is_empty() && raw.len() == span.len());
        assert!(serde_json::from_slice::<&RawValue>(raw).is_ok());
    }
    let headers =
        MirroredHeaders { protocol_version: Some(b"2026-07-28"), method: Some(b"m"), name: Some(b"n") };
    if let Err(error) = check_modern(&headers, input, scan, Revision::MODERN) {
        assert!(error.data().is_none_or(|data| serde_json::from_str::<Value>(&data).is_ok()));
    }
    // A tree can't be made of lone surrogates or of numbers beyond a double.
    let Some(tree) = tree else { return };
    let params = &tree["params"];
    let meta = &params["_meta"];
    for (found, expected) in [
        (scan.method, &tree["method"]),
        (scan.name, &params["name"]),
        (scan.uri, &params["uri"]),
        (scan.cursor, &params["cursor"]),
        (scan.init_protocol_version, &params["protocolVersion"]),
        (scan.meta_protocol_version, &meta["io.modelcontextprotocol/protocolVersion"]),
        (scan.result_protocol_version, &tree["result"]["protocolVersion"]),
    ] {
        check_string(input, found, expected);
    }
    for (found, expected) in [
        (scan.params, tree.get("params")),
        (scan.arguments, params.get("arguments")),
        (scan.meta, params.get("_meta").filter(|meta| meta.is_object())),
        (scan.result, tree.get("result")),
        (scan.progress_token, meta.get("progressToken")),
        (scan.request_id, params.get("requestId")),
    ] {
        check_raw(input, found, expected);
    }
    // To serde_json `-0` is a double; here it is an integer, as the grammar says.
    let code = &tree["error"]["code"];
    let is_minus_zero = code.as_f64().is_some_and(|code| code == 0.0);
    assert!(scan.error_code == code.as_i64() || (scan.error_code == Some(0) && is_minus_zero));
}

fn check_string(input: &[u8], found: Option<StrSpan>, expected: &Value) {
    let decoded = found.map(|found| found.decode(input));
    assert_eq!(decoded.as_deref(), expected.as_str());
    if let (Some(found), Some(text)) = (found, expected.as_str()) {
        assert!(found.eq_str(input, text));
        assert!(!found.eq_str(input, &format!("{text}x")));
        let mut written = Vec::new();
        write_json_string(&mut written, text);
        assert_eq!(serde_json::from_slice::<String>(&written).ok().as_deref(), Some(text));
    }
}

fn check_raw(input: &[u8], found: Option<Span>, expected: Option<&Value>) {
    let parsed =
        found.map(|found| serde_json::from_slice::<Value>(found.of(input)).expect("raw values are JSON"));
    assert_eq!(parsed.as_ref(), expected);
}
