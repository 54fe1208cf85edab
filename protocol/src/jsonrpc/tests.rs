//! Claims about whole messages: what is found, what is refused and with which reason and `id`.

use super::*;

const RICH: &str = concat!(
    r#" {"jsonrpc":"2.0","id":"a\u0062\n😀","method":"tools/call","params":{"name":"get_weather","uri":"file:///x","#,
    r#""cursor":"c","arguments":{"city":"Zürich","deep":[[{"x":[1.5e-3,true,false,null,-0]}]],"s":"\"\\\/\b\f\n\r\t\ud83d\ude00"},"#,
    r#""_meta":{"progressToken":7,"io.modelcontextprotocol/protocolVersion":"2026-07-28","#,
    r#""io.modelcontextprotocol/clientCapabilities":{"sampling":{}},"io.modelcontextprotocol/clientInfo":{"name":"c"},"#,
    r#""traceparent":"00-0af7"},"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"n"},"#,
    r#""requestId":12,"unknown":[]}}"#,
);

fn scan_one(text: &str) -> Result<Scan, ScanFailure> {
    match scan(text.as_bytes(), &ScanLimits::default())? {
        Payload::Single(scan) => Ok(scan),
        Payload::Batch(_) => panic!("a batch: {text}"),
    }
}

fn refusal(text: &str) -> ScanError {
    scan_one(text).expect_err(text).error
}

fn raw(text: &str, span: Option<Span>) -> Option<&str> {
    span.map(|span| std::str::from_utf8(span.of(text.as_bytes())).unwrap())
}

fn value(text: &str, found: Option<StrSpan>) -> Option<String> {
    found.map(|found| found.decode(text.as_bytes()).into_owned())
}

#[test]
fn everything_that_decides_is_found() {
    let found = scan_one(RICH).unwrap();
    assert_eq!(found.kind, Kind::Request);
    assert_eq!(raw(RICH, found.id), Some(r#""a\u0062\n😀""#));
    assert_eq!(value(RICH, found.method).as_deref(), Some("tools/call"));
    assert_eq!(value(RICH, found.name).as_deref(), Some("get_weather"));
    assert_eq!(value(RICH, found.uri).as_deref(), Some("file:///x"));
    assert_eq!(value(RICH, found.cursor).as_deref(), Some("c"));
    assert_eq!(value(RICH, found.meta_protocol_version).as_deref(), Some("2026-07-28"));
    assert_eq!(value(RICH, found.init_protocol_version).as_deref(), Some("2025-11-25"));
    assert_eq!(raw(RICH, found.meta_client_capabilities), Some(r#"{"sampling":{}}"#));
    assert_eq!(raw(RICH, found.meta_client_info), Some(r#"{"name":"c"}"#));
    assert_eq!(raw(RICH, found.progress_token), Some("7"));
    assert_eq!(raw(RICH, found.init_capabilities), Some("{}"));
    assert_eq!(raw(RICH, found.init_client_info), Some(r#"{"name":"n"}"#));
    assert_eq!(raw(RICH, found.request_id), Some("12"));
    for (span, first, last) in [(found.params, "{\"name\"", "[]}"), (found.meta, "{\"progress", "0af7\"}")] {
        let text = raw(RICH, span).unwrap();
        assert!(text.starts_with(first) && text.ends_with(last), "{text}");
        assert!(serde_json::from_str::<serde_json::Value>(text).is_ok());
    }
    let arguments: serde_json::Value = serde_json::from_str(raw(RICH, found.arguments).unwrap()).unwrap();
    assert_eq!(arguments["s"], "\"\\/\u{8}\u{C}\n\r\t😀");
}

#[test]
fn every_truncation_is_an_unexpected_end() {
    let whole = RICH.as_bytes();
    for len in 0..whole.len() {
        let error = scan(&whole[..len], &ScanLimits::default()).unwrap_err().error;
        // A cut inside a character is no UTF-8; any other cut ends inside a value.
        match std::str::from_utf8(&whole[..len]) {
            Ok(_) => assert_eq!(error, ScanError::UnexpectedEnd { offset: len }),
            Err(_) => assert!(matches!(error, ScanError::NotUtf8 { .. }), "{len}: {error}"),
        }
        assert_eq!(error.json_rpc_code(), PARSE_ERROR);
    }
}

#[test]
fn kinds_follow_from_the_keys() {
    for (text, kind, id) in [
        (r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, Kind::Request, Some("1")),
        (r#"{"method":"ping","id":-3,"jsonrpc":"2.0"}"#, Kind::Request, Some("-3")),
        (r#"{"jsonrpc":"2.0","id":"","method":"ping","params":{}}"#, Kind::Request, Some(r#""""#)),
        (r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#, Kind::Notification, None),
        (r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, Kind::Response, Some("1")),
        (r#"{"jsonrpc":"2.0","id":1,"result":null}"#, Kind::Response, Some("1")),
        (r#"{"jsonrpc":"2.0","id":"x","error":{"code":-1,"message":""}}"#, Kind::Response, Some(r#""x""#)),
        (r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":""}}"#, Kind::Response, None),
        (r#"{"jsonrpc":"2.0","error":{"code":-32700,"message":""}}"#, Kind::Response, None),
        (
            "\u{20}\r\n\t{ \"jsonrpc\" : \"2.0\" , \"id\" : 5 , \"method\" : \"m\" } \n",
            Kind::Request,
            Some("5"),
        ),
        (r#"{"json\u0072pc":"2\u002e0","\u0069d":1,"m\u0065thod":"m"}"#, Kind::Request, Some("1")),
    ] {
        let found = scan_one(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((found.kind, raw(text, found.id)), (kind, id), "{text}");
    }
}

#[test]
fn responses_tell_their_error_or_version() {
    for (text, is_error, code, version) in [
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"no"}}"#, true, Some(-32601), None),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"message":"no","code":1.5}}"#, true, None, None),
        (r#"{"jsonrpc":"2.0","id":1,"error":{"code":99999999999999999999}}"#, true, None, None),
        (r#"{"jsonrpc":"2.0","id":1,"error":{}}"#, true, None, None),
        (
            r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-06-18"}}"#,
            false,
            None,
            Some("2025-06-18"),
        ),
        (r#"{"jsonrpc":"2.0","id":1,"result":{"x":{"protocolVersion":"1"}}}"#, false, None, None),
        (r#"{"jsonrpc":"2.0","id":1,"result":["protocolVersion"]}"#, false, None, None),
    ] {
        let found = scan_one(text).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!((found.is_error, found.error_code), (is_error, code), "{text}");
        assert_eq!(value(text, found.result_protocol_version).as_deref(), version, "{text}");
        assert_eq!(found.result.is_some(), !is_error, "{text}");
    }
}

#[test]
fn values_of_another_type_are_not_taken_for_strings() {
    let text = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":1,"uri":null,"cursor":{},"_meta":[],"#,
        r#""protocolVersion":2}}"#
    );
    let found = scan_one(text).unwrap();
    assert_eq!((found.name, found.uri, found.cursor, found.meta), (None, None, None, None));
    assert_eq!(found.init_protocol_version, None);
    let text = concat!(
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{"#,
        r#""io.modelcontextprotocol/protocolVersion":1,"io.modelcontextprotocol/clientCapabilities":[]}}}"#
    );
    let found = scan_one(text).unwrap();
    assert!(found.meta.is_some());
    assert_eq!((found.meta_protocol_version, found.meta_client_capabilities), (None, None));
}

#[test]
fn text_that_is_not_json_is_a_parse_error() {
    for text in [
        "",
        " ",
        "{",
        "}",
        "nul",
        "truex",
        "{]",
        "[}",
        r#"{"a"}"#,
        r#"{"a":}"#,
        r#"{"a":1,}"#,
        r#"{,"a":1}"#,
        r#"{"a":1 "b":2}"#,
        r#"{"a":1;"b":2}"#,
        "{a:1}",
        "{'a':1}",
        "[1,]",
        "[,1]",
        "[1 2]",
        "01",
        "-",
        "-a",
        "+1",
        "1.",
        ".5",
        "1e",
        "1e+",
        "1.e1",
        "0x1",
        "NaN",
        "Infinity",
        "tru",
        "True",
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12g4"}"#,
        r#"{"a":"\u12"}"#,
        "{\"a\":\"\n\"}",
        "{\"a\":\"\u{0}\"}",
        "{\"a\":\"\t\"}",
        "{} {}",
        "{}x",
        "[] []",
        "\u{FEFF}{}",
        "// c\n{}",
        "{}\u{A0}",
        r#"{"jsonrpc":"2.0","id":1,"method":"m"}]"#,
        r#"{"a":[1,{"b":2]}}"#,
        r#"{"a":[1,2}}"#,
        r#"[{"a":1},]"#,
    ] {
        let failure = scan(text.as_bytes(), &ScanLimits::default()).expect_err(text);
        assert_eq!(failure.error.json_rpc_code(), PARSE_ERROR, "{text}: {failure}");
        assert!(serde_json::from_str::<serde_json::Value>(text).is_err(), "serde_json takes {text}");
    }
}

#[test]
fn bytes_that_are_not_utf8_are_refused_wherever_they_stand() {
    for (bytes, offset) in [
        (&b"\xff"[..], 0),
        (b"{\"a\":\"\xc3\"}", 6),
        (b"{\"a\":\"\xed\xa0\x80\"}", 6),
        (b"{\"a\":\"\xc0\xaf\"}", 6),
        (b"{} \x80", 3),
    ] {
        let error = scan(bytes, &ScanLimits::default()).unwrap_err().error;
        assert_eq!(error, ScanError::NotUtf8 { offset });
    }
}

#[test]
fn messages_that_are_not_json_rpc_are_invalid_requests() {
    for (text, error) in [
        ("1", ScanError::NotAnObject { offset: 0 }),
        (" \"x\"", ScanError::NotAnObject { offset: 1 }),
        ("[]", ScanError::EmptyBatch),
        ("[1]", ScanError::NotAnObject { offset: 1 }),
        ("{}", ScanError::WrongVersion { offset: 0 }),
        (r#"{"jsonrpc":"1.0","id":1,"method":"m"}"#, ScanError::WrongVersion { offset: 11 }),
        (r#"{"jsonrpc":2.0,"id":1,"method":"m"}"#, ScanError::WrongVersion { offset: 11 }),
        (r#"{"id":1,"method":"m"}"#, ScanError::WrongVersion { offset: 0 }),
        (r#"{"jsonrpc":"2.0","id":1}"#, ScanError::NoMethodNorResult { offset: 0 }),
        (r#"{"jsonrpc":"2.0","id":1,"result":1,"error":{}}"#, ScanError::BothResultAndError { offset: 0 }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","result":1}"#, ScanError::BothMethodAndResult { offset: 0 }),
        (r#"{"jsonrpc":"2.0","id":null,"method":"m"}"#, ScanError::InvalidId { offset: 0 }),
        (r#"{"jsonrpc":"2.0","id":null,"result":{}}"#, ScanError::InvalidId { offset: 0 }),
        (r#"{"jsonrpc":"2.0","result":{}}"#, ScanError::InvalidId { offset: 0 }),
        (r#"{"jsonrpc":"2.0","id":1.5,"method":"m"}"#, ScanError::InvalidId { offset: 22 }),
        (r#"{"jsonrpc":"2.0","id":1e3,"method":"m"}"#, ScanError::InvalidId { offset: 22 }),
        (r#"{"jsonrpc":"2.0","id":true,"method":"m"}"#, ScanError::InvalidId { offset: 22 }),
        (r#"{"jsonrpc":"2.0","id":{},"method":"m"}"#, ScanError::InvalidId { offset: 22 }),
        (r#"{"jsonrpc":"2.0","id":[1],"method":"m"}"#, ScanError::InvalidId { offset: 22 }),
        (r#"{"jsonrpc":"2.0","id":1,"method":1}"#, ScanError::InvalidMethod { offset: 33 }),
        (r#"{"jsonrpc":"2.0","id":1,"method":""}"#, ScanError::InvalidMethod { offset: 33 }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a b"}"#, ScanError::InvalidMethod { offset: 33 }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"a\u000a"}"#, ScanError::InvalidMethod { offset: 33 }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":[]}"#, ScanError::InvalidParams { offset: 46 }),
        (r#"{"jsonrpc":"2.0","id":1,"method":"m","params":null}"#, ScanError::InvalidParams { offset: 46 }),
        (r#"{"jsonrpc":"2.0","id":1,"error":"no"}"#, ScanError::InvalidError { offset: 32 }),
    ] {
        assert_eq!(refusal(text), error, "{text}");
        assert_eq!(error.json_rpc_code(), INVALID_REQUEST, "{text}");
    }
}

#[test]
fn a_duplicate_of_a_deciding_key_is_refused_in_any_spelling() {
    let duplicates = [
        ("jsonrpc", r#"{"jsonrpc":"2.0","id":1,"method":"m",$KEY:"2.0"}"#),
        ("id", r#"{"jsonrpc":"2.0","id":1,"method":"m",$KEY:1}"#),
        ("method", r#"{"jsonrpc":"2.0","id":1,"method":"m",$KEY:"m"}"#),
        ("params", r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{},$KEY:{}}"#),
        ("result", r#"{"jsonrpc":"2.0","id":1,"result":{},$KEY:{}}"#),
        ("error", r#"{"jsonrpc":"2.0","id":1,"error":{},$KEY:{}}"#),
        ("code", r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,$KEY:2}}"#),
        ("protocolVersion", r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"a",$KEY:"b"}}"#),
        ("name", r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"a",$KEY:"b"}}"#),
        ("uri", r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"uri":"a",$KEY:"b"}}"#),
        ("cursor", r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"cursor":"a",$KEY:"b"}}"#),
        ("arguments", r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{},$KEY:{}}}"#),
        ("_meta", r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"_meta":{},$KEY:{}}}"#),
        ("protocolVersion", r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"protocolVersion":1,$KEY:2}}"#),
        ("requestId", r#"{"jsonrpc":"2.0","method":"m","params":{"requestId":1,$KEY:2}}"#),
        ("progressToken", r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"progressToken":1,$KEY:2}}}"#),
    ];
    for (key, template) in duplicates {
        let first = key.chars().next().unwrap();
        let spellings = [format!("\"{key}\""), format!("\"\\u{:04x}{}\"", first as u32, &key[1..])];
        for spelling in spellings {
            let text = template.replace("$KEY", &spelling);
            match refusal(&text) {
                ScanError::DuplicateKey { key: found, .. } => assert_eq!(found, key, "{text}"),
                other => panic!("{text}: {other}"),
            }
        }
    }
}

#[test]
fn keys_that_decide_nothing_are_free() {
    for text in [
        r#"{"jsonrpc":"2.0","id":1,"method":"m","x":1,"x":2}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"x":1,"x":2,"id":1,"method":1,"jsonrpc":1}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"arguments":{"name":1,"name":2},"_meta":{"name":1}}}"#,
        r#"{"jsonrpc":"2.0","id":1,"method":"m","params":{"name":"a"},"name":"b"}"#,
        r#"{"jsonrpc":"2.0","id":1,"result":{"name":1,"name":2}}"#,
    ] {
        assert!(scan_one(text).is_ok(), "{text}");
    }
}

#[test]
fn the_failure_carries_an_unambiguous_id() {
    for (text, id) in [
        (r#"{"id":7,"method":"m"}"#, Some("7")),
        (r#"{"jsonrpc":"1.0","method":"m","id":"x"}"#, Some(r#""x""#)),
        (r#"{"jsonrpc":"2.0","id":7,"method":"m","params":[]}"#, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"m","#, Some("7")),
        (r#"{"jsonrpc":"2.0","id":7,"method":"m","id":8}"#, None),
        (r#"{"method":1,"id":7,"id":8}"#, None),
        (r#"{"jsonrpc":"2.0","id":7.5,"method":"m"}"#, None),
        (r#"{"id":7,"result":{}}"#, None),
        (r#"[{"id":7,"method":"m"}]"#, None),
        (r#"{"id":7"#, Some("7")),
        ("nonsense", None),
    ] {
        let failure = scan(text.as_bytes(), &ScanLimits::default()).expect_err(text);
        assert_eq!(raw(text, failure.id), id, "{text}: {failure}");
    }
}

#[test]
fn limits_hold_at_their_edge() {
    let limits = ScanLimits::default();
    let with_id = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"m"}}"#);
    let with_method = |method: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"{method}"}}"#);
    let quoted = |text: String| format!("\"{text}\"");
    for (text, fits) in [
        (with_id(&quoted("x".repeat(255))), true),
        (with_id(&quoted("x".repeat(256))), false),
        (with_id(&quoted("é".repeat(255))), true),
        (with_id(&quoted(r"\ud83d\ude00".repeat(255))), true),
        (with_id(&quoted(r"\ud83d\ude00".repeat(256))), false),
        (with_id(&"9".repeat(255)), true),
        (with_id(&"9".repeat(256)), false),
        (with_method(&"m".repeat(255)), true),
        (with_method(&"m".repeat(256)), false),
    ] {
        assert_eq!(scan(text.as_bytes(), &limits).is_ok(), fits, "{text}");
    }
    let nested = |levels: usize| {
        let (open, close) = ("[".repeat(levels), "]".repeat(levels));
        format!(r#"{{"jsonrpc":"2.0","id":1,"method":"m","params":{{"x":{open}{close}}}}}"#)
    };
    assert!(scan_one(&nested(126)).is_ok());
    for levels in [127, 200, 100_000] {
        assert_eq!(
            refusal(&nested(levels)),
            ScanError::TooDeep { offset: 46 + 5 + 126, limit: 128 },
            "{levels}"
        );
    }
    let message = r#"{"jsonrpc":"2.0","method":"m"}"#;
    let batch = |count: usize| format!("[{}]", vec![message; count].join(","));
    assert!(scan(batch(100).as_bytes(), &limits).is_ok());
    let error = scan(batch(101).as_bytes(), &limits).unwrap_err().error;
    assert_eq!(error, ScanError::BatchTooLarge { limit: 100 });
}

#[test]
fn the_spans_of_a_batch_are_offsets_into_the_whole() {
    let text = r#" [ {"jsonrpc":"2.0","id":1,"method":"a"} , {"jsonrpc":"2.0","id":"2","result":{}} ] "#;
    let Ok(Payload::Batch(scans)) = scan(text.as_bytes(), &ScanLimits::default()) else { panic!() };
    assert_eq!(scans.len(), 2);
    assert_eq!(raw(text, scans[0].id), Some("1"));
    assert_eq!(value(text, scans[0].method).as_deref(), Some("a"));
    assert_eq!(raw(text, scans[1].id), Some(r#""2""#));
    assert_eq!(raw(text, scans[1].result), Some("{}"));
}

#[test]
fn a_batch_with_one_bad_message_is_refused_whole() {
    let text = r#"[{"jsonrpc":"2.0","method":"a"},{"jsonrpc":"2.0"},7]"#;
    let error = scan(text.as_bytes(), &ScanLimits::default()).unwrap_err().error;
    assert_eq!(error, ScanError::NoMethodNorResult { offset: 32 });
    // A batch inside a batch is a message that is no object.
    let error = scan(b"[[]]", &ScanLimits::default()).unwrap_err().error;
    assert_eq!(error, ScanError::NotAnObject { offset: 1 });
}

#[test]
fn every_single_byte_change_is_judged_as_serde_json_judges_it() {
    for at in 0..RICH.len() {
        for byte in [b'"', b'\\', b'{', b'}', b'[', b']', b',', b':', b'0', b' ', b'\n', b'u', 0, 0xFF] {
            let mut bytes = RICH.as_bytes().to_vec();
            bytes[at] = byte;
            let ours = match scan(&bytes, &ScanLimits::default()) {
                Ok(_) => true,
                Err(failure) => failure.error.json_rpc_code() != PARSE_ERROR,
            };
            // `IgnoredAny` builds no strings, so that lone surrogates pass there as they do here.
            let theirs = std::str::from_utf8(&bytes)
                .is_ok_and(|text| serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok());
            assert_eq!(ours, theirs, "{byte:#x} at {at}");
        }
    }
}
