//! `mcp-bench upstream` is an MCP server: it answers each revision's requests as the specification says, passes ids and
//! texts on as received, takes pipelined and chunked requests, and ends at SIGTERM.

mod common;

use std::io::Write;

use common::{Upstream, connect, read_message, response_len};
use serde_json::json;

const MODERN: &str = r#""_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}"#;

#[test]
fn legacy_requests() {
    let upstream = Upstream::start(&[]);
    let ask = |body: &str| upstream.post(&[], body);
    let (status, hello) = ask(
        r#"{"jsonrpc":"2.0","id":"a\"b","method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}"#,
    );
    assert_eq!((status, &hello["id"]), (200, &json!("a\"b")));
    assert_eq!(hello["result"]["protocolVersion"], "2025-03-26");
    let (_, unknown) =
        ask(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"1999-01-01"}}"#);
    assert_eq!(unknown["result"]["protocolVersion"], "2025-11-25");
    assert_eq!(ask(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).0, 202);
    assert_eq!(ask(r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#).1["result"], json!({}));
    let (_, list) = ask(r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#);
    assert_eq!(list["result"]["tools"][0]["name"], "echo");
    let (_, echo) = ask(
        r#"{"params":{"arguments":{"text":"\u00e9\n\"x\""},"name":"echo"},"method":"tools/call","id":-4,"jsonrpc":"2.0"}"#,
    );
    assert_eq!(echo["id"], -4);
    assert_eq!(echo["result"]["content"][0]["text"], "\u{e9}\n\"x\"");
    let (status, wrong) = ask(r#"{"jsonrpc":"2.0","id":5,"method":"nonsense"}"#);
    assert_eq!((status, &wrong["error"]["code"]), (200, &json!(-32601)));
    let (status, broken) = ask(r#"{"jsonrpc":"2.0","id":5"#);
    assert_eq!((status, &broken["error"]["code"]), (400, &json!(-32700)));
    let (status, _) = upstream.exchange(b"GET /mcp HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(status, 405);
}

#[test]
fn modern_requests_must_agree_with_their_headers() {
    let upstream = Upstream::start(&["--sessions"]);
    let version = ("MCP-Protocol-Version", "2026-07-28");
    let call = format!(
        r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{{"name":"echo","arguments":{{"text":"hi"}},{MODERN}}}}}"#
    );
    let (status, right) =
        upstream.post(&[version, ("Mcp-Method", "tools/call"), ("Mcp-Name", "echo")], &call);
    assert_eq!((status, &right["result"]["resultType"]), (200, &json!("complete")));
    assert_eq!(right["result"]["content"][0]["text"], "hi");
    for wrong in [
        &[version][..],
        &[version, ("Mcp-Method", "tools/call")],
        &[version, ("Mcp-Method", "tools/list"), ("Mcp-Name", "echo")],
        &[version, ("Mcp-Method", "tools/call"), ("Mcp-Name", "other")],
    ] {
        let (status, answer) = upstream.post(wrong, &call);
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32020)), "{wrong:?}");
    }
    let (status, answer) = upstream.post(&[("MCP-Protocol-Version", "1999-01-01")], &call);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32022)));
    assert_eq!(answer["error"]["data"]["supported"][3], "2026-07-28");
    let discover = format!(r#"{{"jsonrpc":"2.0","id":2,"method":"server/discover","params":{{{MODERN}}}}}"#);
    let (_, found) = upstream.post(&[version, ("Mcp-Method", "server/discover")], &discover);
    assert_eq!(found["result"]["supportedVersions"][3], "2026-07-28");
    let unknown = discover.replace("server/discover", "ping");
    let (status, answer) = upstream.post(&[version, ("Mcp-Method", "ping")], &unknown);
    assert_eq!((status, &answer["error"]["code"]), (404, &json!(-32601)));
    let bare = r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#;
    let (status, answer) = upstream.post(&[version, ("Mcp-Method", "tools/list")], bare);
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32602)));
}

#[test]
fn sessions_are_demanded_once_minted() {
    let upstream = Upstream::start(&["--sessions"]);
    let list = r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#;
    assert_eq!(upstream.post(&[], list).0, 400);
    assert_eq!(upstream.post(&[("Mcp-Session-Id", "nonsense")], list).0, 404);
}

#[test]
fn a_deleted_session_is_gone() {
    let upstream = Upstream::start(&["--sessions"]);
    let session = |id: &str| format!("Mcp-Session-Id: {id}\r\n");
    let ask = |method: &str, fields: &str| {
        upstream.exchange(format!("{method} /mcp HTTP/1.1\r\nHost: x\r\n{fields}\r\n").as_bytes()).0
    };
    let hello = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let request = format!("POST /mcp HTTP/1.1\r\nContent-Length: {}\r\n\r\n{hello}", hello.len());
    let mut stream = connect(upstream.address());
    stream.write_all(request.as_bytes()).unwrap();
    let answer = read_message(&mut stream, response_len).unwrap();
    let head = mcp_bench::http::parse_response_head(&answer).unwrap().unwrap();
    let id = String::from_utf8(answer[head.session.unwrap()].to_vec()).unwrap();
    let list = r#"{"jsonrpc":"2.0","id":3,"method":"tools/list"}"#;
    assert_eq!(upstream.post(&[("Mcp-Session-Id", &id)], list).0, 200);
    assert_eq!(ask("DELETE", ""), 400);
    assert_eq!(ask("DELETE", &session("nonsense")), 404);
    // The next session, which nobody has begun yet.
    assert_eq!(ask("DELETE", &session(&id.replace("-0", "-1"))), 404);
    assert_eq!(ask("DELETE", &session(&id)), 204);
    assert_eq!(ask("DELETE", &session(&id)), 404);
    assert_eq!(upstream.post(&[("Mcp-Session-Id", &id)], list).0, 404);
    assert_eq!(ask("GET", &session(&id)), 405);
}

#[test]
fn pipelined_and_chunked_requests_are_answered_in_order() {
    let upstream = Upstream::start(&["--delay", "1ms"]);
    let mut stream = connect(upstream.address());
    let body = |id: u8| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"ping"}}"#);
    let (one, two) = (body(1), body(2));
    let (a, b) = two.split_at(7);
    let requests = format!(
        "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{one}POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n{:x}\r\n{a}\r\n{:x}\r\n{b}\r\n0\r\n\r\n",
        one.len(),
        a.len(),
        b.len()
    );
    let (front, back) = requests.as_bytes().split_at(requests.len() - 9);
    stream.write_all(front).unwrap();
    stream.write_all(back).unwrap();
    // One after the other on one connection, which is then closed.
    let mut all = Vec::new();
    std::io::Read::read_to_end(&mut stream, &mut all).unwrap();
    let first = response_len(&all).unwrap();
    let ids: Vec<_> = [&all[..first], &all[first..]]
        .iter()
        .map(|answer| {
            let json = answer.iter().position(|b| *b == b'{').unwrap();
            serde_json::from_slice::<serde_json::Value>(&answer[json..]).unwrap()["id"].clone()
        })
        .collect();
    assert_eq!(ids, [json!(1), json!(2)]);
}

#[test]
fn what_is_no_http_is_refused_and_closed() {
    let upstream = Upstream::start(&[]);
    let (status, _) = upstream.exchange(b"nonsense\r\n\r\n");
    assert_eq!(status, 400);
}

#[test]
fn an_unread_answer_does_not_stop_the_others() {
    let upstream = Upstream::start(&["--result-bytes", "4000000"]);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"fixed"}}"#;
    let request = format!("POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut lazy = connect(upstream.address());
    for _ in 0..4 {
        lazy.write_all(request.as_bytes()).unwrap();
    }
    let ping = r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#;
    assert_eq!(upstream.post(&[], ping).0, 200);
    for _ in 0..4 {
        let answer = read_message(&mut lazy, response_len).unwrap();
        assert!(answer.len() >= 4_000_000);
        // A read may have taken the begin of the next answer, which only this count notices.
        if answer.len() > response_len(&answer).unwrap() {
            break;
        }
    }
}

#[test]
fn sigterm_ends_it_well() {
    assert!(Upstream::start(&["--threads", "3"]).terminate());
}
