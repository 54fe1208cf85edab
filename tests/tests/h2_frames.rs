//! Setup: clients of HTTP/2 that break its rules frame by frame (RFC 9113), and clients that keep every rule and flood.
//! Claim: each broken rule ends the stream or the connection with the error code that the RFC names for it, nothing that is
//! malformed reaches a server, and other connections are served all the while; a flood is cut with ENHANCE_YOUR_CALM
//! and counted, whatever frames it is made of.

use std::time::Duration;

use mcp_system_tests::fixtures::Fixture;
use mcp_system_tests::h2::{
    ACK, END_HEADERS, END_STREAM, Frame, H2Connection, Outcome, PADDED, PREFACE, PRIORITY_FLAG, block, code,
    kind,
};
use mcp_system_tests::mcp::{POST_HEADERS, mirrored, modern_call};
use mcp_system_tests::upstream::After;
use mcp_system_tests::{Gateway, GatewayConfig, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

/// Header fields that make a request malformed: RST_STREAM with PROTOCOL_ERROR (RFC 9113, section 8.1.1).
#[test]
fn malformed_requests_end_their_stream() {
    let (fixture, gateway) = start();
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let good = connection.fields("POST", "/mcp/fixture", &POST_HEADERS);
    let with = |name: &str, value: &str| {
        let mut fields = good.clone();
        fields.push((name.to_owned(), value.to_owned()));
        fields
    };
    let without = |name: &str| good.iter().filter(|(found, _)| found != name).cloned().collect::<Vec<_>>();
    let replaced = |name: &str, value: &str| {
        let value = |(found, held): &(String, String)| {
            (found.clone(), if found == name { value.to_owned() } else { held.clone() })
        };
        good.iter().map(value).collect::<Vec<_>>()
    };
    let late: Vec<_> = good[1..].iter().chain(&good[..1]).cloned().collect();
    let cases = [
        ("no :method", without(":method")),
        ("no :scheme", without(":scheme")),
        ("no :path", without(":path")),
        ("an empty :path", replaced(":path", "")),
        ("a path that is none", replaced(":path", "mcp fixture")),
        ("an unknown pseudo-header field", with(":unknown", "x")),
        ("a response's pseudo-header field", with(":status", "200")),
        ("two :method", [&good[..1], &good].concat()),
        ("two :path", [&good[2..3], &good].concat()),
        ("two :authority", [&good[3..4], &good].concat()),
        ("a pseudo-header field after others", late),
        (
            ":protocol without extended CONNECT",
            [vec![(":protocol".into(), "x".into())], good.clone()].concat(),
        ),
        ("a name in upper case", with("X-Upper", "1")),
        ("a name with a space", with("x y", "1")),
        ("a value with CR LF", with("x", "1\r\ny: 2")),
        ("a value with NUL", with("x", "1\0")),
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "timeout=5")),
        ("proxy-connection", with("proxy-connection", "close")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "websocket")),
        ("te other than trailers", with("te", "gzip")),
        ("content-length that is no number", with("content-length", "x")),
    ];
    let mut wrong = Vec::new();
    for (name, fields) in &cases {
        let stream = connection.next_stream();
        let head = Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, stream, &block(fields));
        connection.send_all(&[head]).unwrap_or_else(|error| panic!("{name}: {error}"));
        let outcome = connection.outcome(stream).unwrap_or_else(|error| panic!("{name}: {error}"));
        let strict = STRICT.contains(name);
        let told = match outcome {
            Outcome::Reset(code::PROTOCOL_ERROR) => !strict,
            Outcome::GoneAway(Some((_, code::PROTOCOL_ERROR))) => strict,
            _ => false,
        };
        if !told {
            wrong.push(format!("{name}: {outcome:?}"));
        }
        if matches!(outcome, Outcome::GoneAway(_)) {
            connection = H2Connection::open(&gateway).expect("a connection");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    for (length, body) in [("5", "{}"), ("1", "{}")] {
        let stream = connection.next_stream();
        let frames = [
            Frame::new(kind::HEADERS, END_HEADERS, stream, &block(&with("content-length", length))),
            Frame::new(kind::DATA, END_STREAM, stream, body.as_bytes()),
        ];
        connection.send_all(&frames).expect("sent");
        let outcome = connection.outcome(stream).expect("an outcome");
        assert!(matches!(outcome, Outcome::Reset(code::PROTOCOL_ERROR)), "length {length}: {outcome:?}");
    }
    connection.ping().expect("the connection goes on");
    let stream = connection.request("GET", "/health", &[("te", "trailers")], b"").expect("sent");
    assert_eq!(connection.answer(stream).expect("an answer").status, 200);
    assert!(fixture.seen().is_empty(), "something malformed reached the server");
}

/// What our library refuses with the header block and so with the connection, which the RFC allows (section 5.4.1).
const STRICT: &[&str] = &[
    "an unknown pseudo-header field",
    "a name in upper case",
    "a name with a space",
    "a value with CR LF",
    "a value with NUL",
];

/// What breaks the connection: GOAWAY, with the code that section 6 names for the frame.
#[test]
fn broken_frames_end_the_connection() {
    let (fixture, gateway) = start();
    let fields = |connection: &H2Connection| block(&connection.fields("GET", "/health", &[]));
    let plain = |frame: Frame| move |_: &H2Connection| vec![frame.clone()];
    type Make = Box<dyn Fn(&H2Connection) -> Vec<Frame>>;
    let cases: Vec<(&str, u32, Make)> = vec![
        ("DATA on stream 0", code::PROTOCOL_ERROR, Box::new(plain(Frame::new(kind::DATA, 0, 0, b"x")))),
        ("DATA on an idle stream", code::PROTOCOL_ERROR, Box::new(plain(Frame::new(kind::DATA, 0, 5, b"x")))),
        (
            "DATA padded beyond its end",
            code::PROTOCOL_ERROR,
            Box::new(move |connection| {
                vec![
                    Frame::new(kind::HEADERS, END_HEADERS, 1, &fields(connection)),
                    Frame::new(kind::DATA, PADDED, 1, &[9, b'x']),
                ]
            }),
        ),
        (
            "HEADERS on stream 0",
            code::PROTOCOL_ERROR,
            Box::new(move |connection| {
                vec![Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 0, &fields(connection))]
            }),
        ),
        (
            "HEADERS on an even stream",
            code::PROTOCOL_ERROR,
            Box::new(move |connection| {
                vec![Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, 2, &fields(connection))]
            }),
        ),
        (
            "HEADERS on a stream below the last",
            code::PROTOCOL_ERROR,
            Box::new(move |connection| {
                let head =
                    |stream| Frame::new(kind::HEADERS, END_HEADERS | END_STREAM, stream, &fields(connection));
                vec![head(5), head(3)]
            }),
        ),
        (
            "HEADERS padded beyond its end",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::HEADERS, END_HEADERS | PADDED, 1, &[200, 0]))),
        ),
        (
            "a header block that is no HPACK",
            code::COMPRESSION_ERROR,
            Box::new(plain(Frame::new(
                kind::HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[0xff, 0xff, 0xff, 0xff, 0xff],
            ))),
        ),
        (
            "another frame within a header block",
            code::PROTOCOL_ERROR,
            Box::new(move |connection| {
                vec![
                    Frame::new(kind::HEADERS, END_STREAM, 1, &fields(connection)),
                    Frame::new(kind::PING, 0, 0, &[0; 8]),
                ]
            }),
        ),
        (
            "CONTINUATION of another stream",
            code::PROTOCOL_ERROR,
            Box::new(move |connection| {
                vec![
                    Frame::new(kind::HEADERS, END_STREAM, 1, &fields(connection)),
                    Frame::new(kind::CONTINUATION, END_HEADERS, 3, b""),
                ]
            }),
        ),
        (
            "CONTINUATION without HEADERS",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::CONTINUATION, END_HEADERS, 1, b""))),
        ),
        (
            "PRIORITY on stream 0",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::PRIORITY, 0, 0, &[0; 5]))),
        ),
        (
            "RST_STREAM on stream 0",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::RST_STREAM, 0, 0, &[0; 4]))),
        ),
        (
            "RST_STREAM on an idle stream",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::RST_STREAM, 0, 7, &[0; 4]))),
        ),
        (
            "RST_STREAM of another size",
            code::FRAME_SIZE_ERROR,
            Box::new(plain(Frame::new(kind::RST_STREAM, 0, 1, &[0; 3]))),
        ),
        (
            "SETTINGS on a stream",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::SETTINGS, 0, 1, b""))),
        ),
        (
            "SETTINGS of another size",
            code::FRAME_SIZE_ERROR,
            Box::new(plain(Frame::new(kind::SETTINGS, 0, 0, &[0; 5]))),
        ),
        (
            "an acknowledgement of SETTINGS with settings",
            code::FRAME_SIZE_ERROR,
            Box::new(plain(Frame::new(kind::SETTINGS, ACK, 0, &[0; 6]))),
        ),
        ("ENABLE_PUSH of 2", code::PROTOCOL_ERROR, Box::new(plain(setting(2, 2)))),
        ("a window of 2^31", code::FLOW_CONTROL_ERROR, Box::new(plain(setting(4, 1 << 31)))),
        ("MAX_FRAME_SIZE below the least", code::PROTOCOL_ERROR, Box::new(plain(setting(5, 16_383)))),
        ("MAX_FRAME_SIZE above the most", code::PROTOCOL_ERROR, Box::new(plain(setting(5, 1 << 24)))),
        (
            "PUSH_PROMISE",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]))),
        ),
        ("PING on a stream", code::PROTOCOL_ERROR, Box::new(plain(Frame::new(kind::PING, 0, 1, &[0; 8])))),
        (
            "PING of another size",
            code::FRAME_SIZE_ERROR,
            Box::new(plain(Frame::new(kind::PING, 0, 0, &[0; 6]))),
        ),
        (
            "GOAWAY on a stream",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::GOAWAY, 0, 1, &[0; 8]))),
        ),
        (
            "WINDOW_UPDATE of another size",
            code::FRAME_SIZE_ERROR,
            Box::new(plain(Frame::new(kind::WINDOW_UPDATE, 0, 0, &[0; 3]))),
        ),
        (
            "WINDOW_UPDATE by 0",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::WINDOW_UPDATE, 0, 0, &[0; 4]))),
        ),
        (
            "WINDOW_UPDATE on an idle stream",
            code::PROTOCOL_ERROR,
            Box::new(plain(Frame::new(kind::WINDOW_UPDATE, 0, 9, &[0, 0, 0, 1]))),
        ),
        (
            "WINDOW_UPDATE beyond 2^31-1",
            code::FLOW_CONTROL_ERROR,
            Box::new(plain(Frame::new(kind::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()))),
        ),
        (
            "a frame above the size that was told",
            code::FRAME_SIZE_ERROR,
            Box::new(plain(Frame::new(kind::DATA, 0, 1, &[0; 16_385]))),
        ),
    ];
    let before = errors(&gateway);
    let (mut told, mut wrong) = (0.0, Vec::new());
    for (name, expected, make) in &cases {
        let mut connection = H2Connection::open(&gateway).expect("a connection");
        let frames = make(&connection);
        connection.send_all(&frames).unwrap_or_else(|error| panic!("{name}: {error}"));
        let end = connection.end().unwrap_or_else(|error| panic!("{name}: {error}"));
        let lenient = LENIENT.iter().find(|(found, _)| found == name).map(|(_, code)| *code);
        if end != Some(lenient.unwrap_or(*expected)) {
            wrong.push(format!("{name}: {end:?}"));
        }
        told += 1.0;
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(errors(&gateway) - before, told);
    assert!(fixture.seen().is_empty(), "something malformed reached the server");
    assert_eq!(gateway.get("/health").expect("others are served").status, 200);
}

/// Where our library names another code than the RFC; the connection ends all the same.
const LENIENT: &[(&str, u32)] =
    &[("a header block that is no HPACK", code::PROTOCOL_ERROR), ("a window of 2^31", code::PROTOCOL_ERROR)];

/// What concerns one stream: RST_STREAM, and the connection goes on.
#[test]
fn broken_streams_end_alone() {
    let (_fixture, gateway) = start();
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let stream = connection.next_stream();
    connection.send(kind::PRIORITY, 0, stream, &[0, 0, 0, stream as u8, 1]).expect("sent");
    let outcome = connection.outcome(stream).expect("an outcome");
    assert!(matches!(outcome, Outcome::Reset(code::PROTOCOL_ERROR)), "PRIORITY on itself: {outcome:?}");

    let stream = connection.next_stream();
    let mut block = vec![0, 0, 0, stream as u8, 1];
    block.extend_from_slice(&mcp_system_tests::h2::block(&connection.fields("GET", "/health", &[])));
    connection.send(kind::HEADERS, END_HEADERS | END_STREAM | PRIORITY_FLAG, stream, &block).expect("sent");
    let outcome = connection.outcome(stream).expect("an outcome");
    assert!(matches!(outcome, Outcome::Reset(code::PROTOCOL_ERROR)), "HEADERS on itself: {outcome:?}");

    for (name, frame, expected) in [
        ("WINDOW_UPDATE by 0", Frame::new(kind::WINDOW_UPDATE, 0, 0, &[0; 4]), code::PROTOCOL_ERROR),
        (
            "WINDOW_UPDATE beyond 2^31-1",
            Frame::new(kind::WINDOW_UPDATE, 0, 0, &0x7fff_ffff_u32.to_be_bytes()),
            code::FLOW_CONTROL_ERROR,
        ),
    ] {
        let stream = mute(&mut connection);
        connection.send_all(&[Frame { stream, ..frame }]).expect("sent");
        let outcome = connection.outcome(stream).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            matches!(outcome, Outcome::Reset(found) if found == expected) || is_goaway(&outcome, expected),
            "{name}: {outcome:?}"
        );
        if is_goaway(&outcome, expected) {
            connection = H2Connection::open(&gateway).expect("a connection");
        }
    }
    // What comes for a stream that the client itself has ended (RFC 9113, section 5.1).
    let stream = connection.request("GET", "/health", &[], b"").expect("sent");
    assert_eq!(connection.answer(stream).expect("an answer").status, 200);
    connection.send(kind::DATA, END_STREAM, stream, b"more").expect("sent");
    let outcome = connection.outcome(stream).expect("an outcome");
    assert!(
        matches!(outcome, Outcome::Reset(code::STREAM_CLOSED)) || is_goaway(&outcome, code::STREAM_CLOSED),
        "{outcome:?}"
    );
    // Frames of types that nobody knows are ignored (RFC 9113, section 4.1), and so is a late WINDOW_UPDATE.
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let stream = connection.request("GET", "/health", &[], b"").expect("sent");
    assert_eq!(connection.answer(stream).expect("an answer").status, 200);
    connection.send(0xbe, 0xff, 0, b"whatever").expect("sent");
    connection.send(kind::WINDOW_UPDATE, 0, stream, &[0, 0, 0, 1]).expect("sent");
    connection.ping().expect("the connection goes on");
}

#[test]
fn what_is_no_preface_is_not_answered_as_http_2() {
    let (_fixture, gateway) = start();
    for said in ["GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"] {
        let mut connection = H2Connection::open_silent(&gateway).expect("a connection");
        connection.send_raw(said.as_bytes()).expect("sent");
        assert_eq!(connection.end().expect("closed in order"), None);
    }
    // The preface must be followed by SETTINGS; h2 takes any frame there, which harms nobody.
    let mut connection = H2Connection::open_silent(&gateway).expect("a connection");
    for byte in PREFACE.chunks(1) {
        connection.send_raw(byte).expect("sent");
    }
    connection.send(kind::SETTINGS, 0, 0, b"").expect("sent");
    connection.ping().expect("a preface byte by byte is one");
}

#[test]
fn a_header_list_that_is_too_large_is_told_so() {
    let fixture = Fixture::modern(json!([]), |_, _| None);
    let gateway = Gateway::start(
        &GatewayConfig::new()
            .server("fixture", &[&fixture.url()])
            .set("gateway.server", "max_header_bytes = \"8KiB\""),
    );
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    // Above our own limit, above the one that is told to clients, and too many fields.
    for (count, bytes) in [(1, 9000), (2, 7000), (101, 1)] {
        let value = "x".repeat(bytes);
        let mut fields = connection.fields("GET", "/health", &[]);
        fields.extend((0..count).map(|n| (format!("x-{n}"), value.clone())));
        let stream = connection.next_stream();
        send_block(&mut connection, stream, &block(&fields), 8000);
        assert_eq!(connection.answer(stream).expect("an answer").status, 431, "{count} of {bytes} bytes");
    }
    let stream = connection.request("GET", "/health", &[], b"").expect("sent");
    assert_eq!(connection.answer(stream).expect("an answer").status, 200);
    // A list without an end is not read to its end.
    let stream = connection.next_stream();
    let mut fields = connection.fields("GET", "/health", &[]);
    fields.push(("x".into(), "y".repeat(1 << 20)));
    let frames = block(&fields);
    let cut = send_all_of(&mut connection, stream, &frames);
    let end = connection.end();
    assert!(cut || matches!(end, Ok(Some(code::ENHANCE_YOUR_CALM | code::COMPRESSION_ERROR))), "{end:?}");
}

/// Each flood keeps every rule of the protocol; what is wrong is how many frames there are.
#[test]
fn floods_are_cut() {
    const FRAMES: usize = 20_000;
    let (_fixture, gateway) = start();
    type Make = fn(usize, &[u8]) -> Vec<Frame>;
    let floods: [(&str, Make); 10] = [
        ("PING", |_, _| vec![Frame::new(kind::PING, 0, 0, &[7; 8])]),
        ("answers to no PING", |_, _| vec![Frame::new(kind::PING, ACK, 0, &[7; 8])]),
        ("SETTINGS", |_, _| vec![Frame::new(kind::SETTINGS, 0, 0, b"")]),
        ("PRIORITY", |_, _| vec![Frame::new(kind::PRIORITY, 0, 1, &[0, 0, 0, 3, 1])]),
        ("WINDOW_UPDATE", |_, _| vec![Frame::new(kind::WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])]),
        ("unknown frames", |_, _| vec![Frame::new(0xbe, 0, 0, b"")]),
        ("empty DATA", |n, head| {
            let first = (n == 0).then(|| Frame::new(kind::HEADERS, END_HEADERS, 1, head));
            first.into_iter().chain([Frame::new(kind::DATA, 0, 1, b"")]).collect()
        }),
        ("CONTINUATION", |n, head| {
            let first = (n == 0).then(|| Frame::new(kind::HEADERS, 0, 1, head));
            first.into_iter().chain([Frame::new(kind::CONTINUATION, 0, 1, b"")]).collect()
        }),
        ("rapid reset", |n, head| {
            let stream = 2 * n as u32 + 1;
            vec![
                Frame::new(kind::HEADERS, END_HEADERS, stream, head),
                Frame::new(kind::RST_STREAM, 0, stream, &code::CANCEL.to_be_bytes()),
            ]
        }),
        ("made to be reset", |n, head| {
            let stream = 2 * n as u32 + 1;
            vec![
                Frame::new(kind::HEADERS, END_HEADERS, stream, head),
                Frame::new(kind::WINDOW_UPDATE, 0, stream, &0x7fff_ffff_u32.to_be_bytes()),
            ]
        }),
    ];
    for (name, make) in floods {
        let mut connection = H2Connection::open(&gateway).expect("a connection");
        let head = block(&connection.fields("POST", "/mcp/fixture", &POST_HEADERS));
        let mut sent = 0;
        for chunk in 0..FRAMES / 50 {
            let frames: Vec<Frame> = (chunk * 50..chunk * 50 + 50).flat_map(|n| make(n, &head)).collect();
            // Whoever is cut may find the connection closed while still sending.
            if connection.send_all(&frames).is_err() {
                break;
            }
            sent += frames.len();
        }
        let end = connection.end();
        assert!(!matches!(end, Ok(None)), "{name}: closed without a word after {sent} frames");
        assert!(!matches!(end, Ok(Some(told)) if told != code::ENHANCE_YOUR_CALM), "{name}: {end:?}");
        assert_eq!(gateway.get("/health").expect("others are served").status, 200, "{name}");
    }
    let count = gateway.metrics().count("mcp_gateway_h2_errors_total", &[("reason", "enhance_your_calm")]);
    assert_eq!(count, floods.len() as f64);
    assert!(gateway.metrics().count("mcp_gateway_connections_rejected_total", &[("reason", "flood")]) >= 6.0);
    eventually("nothing is left of them", LIMIT, || {
        let metrics = gateway.metrics();
        let active = metrics.count("mcp_gateway_connections_active", &[("protocol", "h2")]);
        let in_flight = metrics.count("mcp_gateway_requests_in_flight", &[]);
        (active == 0.0 && in_flight == 0.0).then_some(())
    });
}

/// Rapid reset (CVE-2023-44487) at the pace of a client that lets each request be taken first.
#[test]
fn requests_that_are_given_up_one_by_one_are_bounded() {
    let (fixture, gateway) = start();
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let mut given_up = 0;
    let told = loop {
        let stream = mute(&mut connection);
        let sent = connection
            .send(kind::RST_STREAM, 0, stream, &code::CANCEL.to_be_bytes())
            .and_then(|()| connection.ping());
        given_up += 1;
        assert!(given_up < 20_000, "nobody minded {given_up} requests that were given up");
        if sent.is_err() {
            break given_up;
        }
    };
    assert!(told > 200, "a client may give up some requests: only {told}");
    assert!(fixture.seen().len() <= told);
    assert_eq!(
        gateway.metrics().count("mcp_gateway_connections_rejected_total", &[("reason", "flood")]),
        1.0
    );
}

/// A client that reads events one by one, and answers each with two WINDOW_UPDATEs, floods nobody.
#[test]
fn a_client_that_acknowledges_everything_is_none() {
    const EVENTS: usize = 3000;
    let fixture = Fixture::modern(json!([]), |request, stream| {
        use std::io::Write;
        let message = request.json();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("taken");
        for n in 0..EVENTS {
            let params = json!({"progressToken": 1, "progress": n});
            let event = json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params});
            stream.write_all(format!("data: {event}\n\n").as_bytes()).expect("taken");
        }
        let last = json!({"jsonrpc": "2.0", "id": message["id"], "result": {}});
        stream.write_all(format!("data: {last}\n\n").as_bytes()).expect("taken");
        Some(After::Close)
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    let mut connection = H2Connection::open(&gateway).expect("a connection");
    let stream = mute(&mut connection);
    for n in 0..EVENTS {
        let event = connection.next_event(stream).expect("an event").expect("more events");
        assert_eq!(event["params"]["progress"], n);
    }
    assert_eq!(connection.next_event(stream).expect("an event").expect("the answer")["id"], 1);
    // Many small uploads by a client that ends each with an empty frame.
    for _ in 0..600 {
        let stream = connection.next_stream();
        let fields = block(&connection.fields("POST", "/mcp/fixture", &[]));
        let frames = [
            Frame::new(kind::HEADERS, END_HEADERS, stream, &fields),
            Frame::new(kind::DATA, 0, stream, b"{}"),
            Frame::new(kind::DATA, END_STREAM, stream, b""),
        ];
        connection.send_all(&frames).expect("sent");
        assert_eq!(connection.answer(stream).expect("an answer").status, 415);
    }
}

fn start() -> (Fixture, Gateway) {
    let fixture = Fixture::modern(json!([]), |request, stream| {
        (request.json()["params"]["name"] == "mute").then(|| {
            use std::io::Read;
            // Until the gateway closes.
            let _ = stream.read(&mut [0; 1]);
            After::Close
        })
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("fixture", &[&fixture.url()]));
    (fixture, gateway)
}

fn mute(connection: &mut H2Connection) -> u32 {
    let headers = mirrored("tools/call", Some("mute"));
    connection.post("/mcp/fixture", &headers, &modern_call(1, "mute", json!({}))).expect("sent")
}

fn setting(number: u16, value: u32) -> Frame {
    let payload = [&number.to_be_bytes()[..], &value.to_be_bytes()].concat();
    Frame::new(kind::SETTINGS, 0, 0, &payload)
}

fn is_goaway(outcome: &Outcome, code: u32) -> bool {
    matches!(outcome, Outcome::GoneAway(Some((_, found))) if *found == code)
}

/// Sends a header block that ends its stream, in frames of `size`.
fn send_block(connection: &mut H2Connection, stream: u32, block: &[u8], size: usize) {
    let pieces: Vec<&[u8]> = block.chunks(size).collect();
    let frames: Vec<Frame> = pieces
        .iter()
        .enumerate()
        .map(|(at, piece)| {
            let ends = if at + 1 == pieces.len() { END_HEADERS } else { 0 };
            match at {
                0 => Frame::new(kind::HEADERS, END_STREAM | ends, stream, piece),
                _ => Frame::new(kind::CONTINUATION, ends, stream, piece),
            }
        })
        .collect();
    connection.send_all(&frames).expect("sent");
}

/// Sends a header block frame by frame; whether the connection broke meanwhile.
fn send_all_of(connection: &mut H2Connection, stream: u32, block: &[u8]) -> bool {
    block.chunks(16_000).enumerate().any(|(at, piece)| {
        let kind = if at == 0 { kind::HEADERS } else { kind::CONTINUATION };
        connection.send(kind, 0, stream, piece).is_err()
    })
}

fn errors(gateway: &Gateway) -> f64 {
    gateway.metrics().count("mcp_gateway_h2_errors_total", &[])
}
