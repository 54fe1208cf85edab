//! Claims: no head makes the parsers panic; spans lie in the head; a head that is complete is partial in every prefix and
//! does not depend on what follows it; no value holds what could end a line.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::http1::{
    Body, HeadLimits, HeaderList, MediaKind, Method, accepts, is_event_stream, is_json, looks_like_http,
    looks_like_tls, parse_request, parse_response,
};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 4096, max_headers: 40 };

fuzz_target!(|input: &[u8]| {
    request(input);
    for method in [Method::Post, Method::Head] {
        response(input, method);
    }
    let (_, _) = (looks_like_http(input), looks_like_tls(input));
    let (_, _) = (is_json(input), is_event_stream(input));
});

fn request(input: &[u8]) {
    let Ok(Some(head)) = parse_request(input, &LIMITS) else { return };
    assert!(head.head_len <= input.len().min(LIMITS.max_bytes));
    let own = &input[..head.head_len];
    check_lines(&head.headers, own);
    assert!(head.http10 || head.host.is_some());
    let path = head.path.of(own);
    assert!(path.is_empty() || path == b"*" || path.starts_with(b"/"));
    assert!(!path.contains(&b'?') && !path.contains(&b'#') && !path.contains(&b' '));
    let has = |name| head.headers.all(own, name).next().is_some();
    match head.body {
        Body::None => assert!(!has("Content-Length") && !has("Transfer-Encoding")),
        Body::Length(_) => assert!(!has("Transfer-Encoding")),
        Body::Chunked => assert!(!has("Content-Length") && !head.http10),
    }
    for kind in [MediaKind::Json, MediaKind::EventStream] {
        let alone = accepts(&head, own, kind);
        assert_eq!(alone, accepts(&head, input, kind));
        assert!(alone || head.accept.is_some());
    }
    for len in prefixes(own.len()) {
        assert!(parse_request(&own[..len], &LIMITS).is_ok_and(|head| head.is_none()), "prefix of {len}");
    }
    assert_eq!(parse_request(own, &LIMITS).map(|head| head.map(|head| head.head_len)), Ok(Some(own.len())));
}

fn response(input: &[u8], method: Method) {
    let Ok(Some(head)) = parse_response(input, method, &LIMITS) else { return };
    assert!((100..1000).contains(&head.status));
    let own = &input[..head.head_len];
    check_lines(&head.headers, own);
    for len in prefixes(own.len()) {
        assert!(
            parse_response(&own[..len], method, &LIMITS).is_ok_and(|head| head.is_none()),
            "prefix of {len}"
        );
    }
}

fn check_lines(headers: &HeaderList, own: &[u8]) {
    assert!(headers.len() <= LIMITS.max_headers);
    assert_eq!(headers.iter(own).count(), headers.len());
    for ((name_span, value_span), (name, value)) in headers.spans().zip(headers.iter(own)) {
        assert!(!name.is_empty() && name_span.len() == name.len() && value_span.len() == value.len());
        assert!(!name.iter().any(|b| b" \t:\r\n\0".contains(b)));
        assert!(!value.iter().any(|b| b"\r\n\0".contains(b)));
        assert_eq!(value.trim_ascii(), value);
    }
}

/// A few lengths below `len`, the last ones among them.
fn prefixes(len: usize) -> impl Iterator<Item = usize> {
    let step = (len / 16).max(1);
    (0..len).step_by(step).chain(len.saturating_sub(4)..len)
}
