//! Setup: TLS clients of every kind, files that do not fit, and upstream servers with certificates of their own.
//! Claim: 1.3 unless 1.2 is configured, HTTP/2 or HTTP/1.1 by ALPN, tickets that any shard accepts; what is no TLS is told so; a gateway
//! that cannot serve ends with a message; upstream certificates are verified.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mcp_system_tests::mcp::call;
use mcp_system_tests::{Gateway, GatewayConfig, Response, TempDir, TestCert, tls};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, ProtocolVersion};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn only_tls_1_3_by_default() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let stream = tls::connect(gateway.addr, &gateway.cert.client_config()).expect("TLS 1.3");
    assert_eq!(stream.conn.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let old = Arc::new(tls::client_of(&gateway.cert, &[&TLS12]));
    let error = tls::connect(gateway.addr, &old).expect_err("TLS 1.2 was accepted");
    assert!(error.to_string().contains("ProtocolVersion"), "{error}");
    assert_eq!(handshakes(&gateway, "failed"), 1.0);
}

#[test]
fn tls_1_2_when_configured() {
    let config = GatewayConfig::new().set("gateway.server.tls", "min_version = \"1.2\"");
    let gateway = Gateway::start(&config);
    for (versions, spoken) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let client = Arc::new(tls::client_of(&gateway.cert, &[versions]));
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let stream = tls::connect(gateway.addr, &client).expect("a connection");
            assert_eq!(stream.conn.protocol_version(), Some(spoken));
            let resumed = stream.conn.handshake_kind() == Some(HandshakeKind::Resumed);
            assert_eq!(resumed, kind == HandshakeKind::Resumed, "{spoken:?}");
            let mut connection = tls::http_over(stream, gateway.addr);
            let answer = connection.request("GET", "/health", &[], b"").expect("an answer");
            assert_eq!(answer.status, 200);
        }
    }
}

#[test]
fn alpn_says_which_http() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let offering = |protocols: &[&[u8]]| {
        let mut client = tls::client_of(&gateway.cert, &[&TLS13]);
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        tls::connect(gateway.addr, &Arc::new(client))
    };
    let offers: [(&[&[u8]], &[u8]); 3] =
        [(&[b"http/1.1"], b"http/1.1"), (&[b"h2"], b"h2"), (&[b"http/1.1", b"h2"], b"h2")];
    for (offered, chosen) in offers {
        let stream = offering(offered).expect("a connection");
        assert_eq!(stream.conn.alpn_protocol(), Some(chosen));
    }
    assert_eq!(offering(&[]).expect("a connection").conn.alpn_protocol(), None);
    // RFC 7301, 3.2: no protocol in common is an error, not a guess.
    let error = offering(&[b"spdy/3"]).expect_err("an unknown protocol was accepted");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
}

#[test]
fn a_ticket_is_good_at_every_shard() {
    let gateway = Gateway::start(&GatewayConfig::new().env("MCP_GATEWAY__RUNTIME__SHARDS", "4"));
    let client = gateway.cert.client_config();
    let full = handshakes(&gateway, "full");
    // Each answer brings the ticket for the next connection, which the kernel gives to any of the shards.
    for number in 0..40 {
        let stream = tls::connect(gateway.addr, &client).expect("a connection");
        let kind = stream.conn.handshake_kind();
        let mut connection = tls::http_over(stream, gateway.addr);
        assert_eq!(connection.request("GET", "/health", &[], b"").expect("an answer").status, 200);
        assert_eq!(kind == Some(HandshakeKind::Resumed), number > 0, "connection {number}: {kind:?}");
    }
    assert_eq!(handshakes(&gateway, "resumed"), 39.0);
    assert_eq!(handshakes(&gateway, "full") - full, 1.0);
}

#[test]
fn plain_http_is_told_to_use_https() {
    let gateway = Gateway::start(&GatewayConfig::new());
    for request in [
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let mut stream = tls::tcp_from(gateway.addr.ip(), gateway.addr).expect("a connection");
        stream.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer that ends in order");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(head.contains(&format!("Content-Length: {}", body.len())), "{answer}");
        assert!(body.contains("HTTPS"), "{answer}");
    }
    assert_eq!(handshakes(&gateway, "plain_http"), 2.0);
}

#[test]
fn garbage_is_answered_with_an_alert() {
    let gateway = Gateway::start(&GatewayConfig::new());
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        &[0; 64],
        &[0xff; 3000],
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
    ] {
        let mut stream = tls::tcp_from(gateway.addr.ip(), gateway.addr).expect("a connection");
        stream.write_all(garbage).expect("sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an end in order");
        // RFC 8446, 5.1 and 6: a record of type alert, two bytes long, fatal.
        assert_eq!(answer.first(), Some(&21), "{garbage:?} was answered with {answer:?}");
        assert_eq!(answer.get(3..6), Some(&[0, 2, 2][..]), "{garbage:?} was answered with {answer:?}");
    }
    assert_eq!(handshakes(&gateway, "failed"), 4.0);
    assert_eq!(gateway.get("/health").expect("still served").status, 200);
}

#[test]
fn files_that_do_not_fit_end_the_start() {
    let dir = TempDir::new();
    let other_dir = TempDir::new();
    let (cert, other) = (TestCert::generate(&dir), TestCert::generate(&other_dir));
    let missing = dir.path().join("nowhere.key");
    let empty = dir.write("empty.pem", "");
    for (name, cert_file, key_file, said) in [
        ("a missing key", &cert.cert_file, &missing, "nowhere.key"),
        ("a missing certificate", &missing, &cert.key_file, "nowhere.key"),
        ("another's key", &cert.cert_file, &other.key_file, "key"),
        ("no certificate", &empty, &cert.key_file, "empty.pem"),
        ("no key", &cert.cert_file, &empty, "empty.pem"),
        ("a certificate for a key", &cert.cert_file, &cert.cert_file, "server.pem"),
    ] {
        let config = GatewayConfig::new().showing(cert_file, key_file);
        let finished = Gateway::start_unready(&config).process.finish(LIMIT);
        let log = finished.stderr.join("\n");
        assert_eq!(finished.status.code(), Some(1), "{name}: {log}");
        assert!(log.to_lowercase().contains(said), "{name}: {log}");
        let last = finished.stderr.last().expect("a message");
        assert!(last.starts_with("mcp-gateway: "), "{name}: {log}");
    }
}

#[test]
fn an_upstream_s_certificate_is_verified() {
    let dirs = [TempDir::new(), TempDir::new()];
    let trusted = TestCert::generate(&dirs[0]);
    let stranger = TestCert::generate(&dirs[1]);
    let ca = format!("[servers.tls]\nca_file = {:?}", trusted.ca_file);
    for (cert, ip, host, status) in [
        (&trusted, 1, "127.0.0.1", 200),
        (&trusted, 1, "localhost", 200),
        // Signed by nobody that is trusted; valid for another name.
        (&stranger, 1, "127.0.0.1", 502),
        (&trusted, 2, "127.0.0.2", 502),
    ] {
        let addr = tls::serve_https(cert, [127, 0, 0, ip].into(), answer_any);
        let url = format!("https://{host}:{}/mcp", addr.port());
        let gateway = Gateway::start(&GatewayConfig::new().server_with("secure", &[&url], &ca));
        let answer = call_once(&gateway);
        assert_eq!(answer.status, status, "{host}: {}", answer.text());
        if status == 200 {
            assert_eq!(answer.json()["result"]["over"], "TLS");
        } else {
            assert_eq!(answer.json()["error"]["code"], -32000, "{}", answer.text());
        }
    }
}

fn call_once(gateway: &Gateway) -> Response {
    let mut connection = gateway.connect().expect("a connection");
    call(&mut connection, "/mcp/secure", "any", json!({})).expect("an answer")
}

/// A modern server's answer to any request.
fn answer_any(request: &[u8]) -> Vec<u8> {
    let start = request.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let message: serde_json::Value = serde_json::from_slice(&request[start..]).expect("JSON");
    let result =
        json!({"jsonrpc": "2.0", "id": message["id"], "result": {"over": "TLS", "tools": []}}).to_string();
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{result}",
        result.len()
    )
    .into_bytes()
}

fn handshakes(gateway: &Gateway, result: &str) -> f64 {
    gateway.metrics().count("mcp_gateway_handshakes_total", &[("result", result)])
}
