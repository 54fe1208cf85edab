//! Setup: one shard in front of a server with several endpoints, some of which are dead, full or ask for a certificate.
//! Claim: endpoints share what comes; a dead one costs a client nothing; a session stays where it began, and a client that is
//! to keep to one endpoint begins there again; TLS towards servers shows and checks what is configured, and what is wrong with
//! it stands in the log.

use std::collections::HashSet;
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, call, initialize, open_session, post_in_session, request};
use mcp_system_tests::port::free_port;
use mcp_system_tests::tls::Strict;
use mcp_system_tests::upstream::{ScriptedUpstream, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, TempDir, TestCert, eventually, tls};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn endpoints_share_what_comes() {
    for balance in ["round-robin", "least-in-flight", "two-choices"] {
        let fixtures: Vec<_> = (0..3).map(|_| Fixture::modern(json!([]), nothing)).collect();
        let gateway = start(&fixtures, &format!("balance = {balance:?}"));
        let mut connection = gateway.connect().expect("a connection");
        for _ in 0..60 {
            let answer = call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let shares: Vec<_> = fixtures.iter().map(|fixture| fixture.server.requests()).collect();
        // Drawn, a share below 6 of 60 happens once in 100,000 runs.
        assert!(shares.iter().all(|share| *share > 5), "{balance}: {shares:?}");
    }
}

#[test]
fn a_dead_endpoint_costs_nobody_a_call() {
    let fixture = Fixture::modern(json!([]), nothing);
    let dead = format!("http://127.0.0.1:{}/mcp", free_port());
    let config = one_shard().server("one", &[&dead, &fixture.url()]);
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    for _ in 0..20 {
        let answer = call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(
        gateway.process.log().contains("a connection to an endpoint failed"),
        "{}",
        gateway.process.log()
    );
}

#[test]
fn a_session_stays_where_it_began() {
    let fixtures: Vec<_> = (0..3).map(|_| Fixture::legacy(nothing)).collect();
    let gateway = start(&fixtures, "");
    let mut connection = gateway.connect().expect("a connection");
    let sessions: Vec<_> = (0..3).map(|_| open_session(&mut connection, "/mcp/one", LEGACY)).collect();
    let before: Vec<_> = fixtures.iter().map(|fixture| fixture.seen().len()).collect();
    assert_eq!(before, [1, 1, 1]);
    for session in &sessions {
        for id in 0..10 {
            let ping = request(id, "ping", json!({}));
            let answer = post_in_session(&mut connection, "/mcp/one", session, &ping).expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    }
    for fixture in &fixtures {
        let of_sessions: HashSet<_> = fixture
            .seen()
            .iter()
            .filter_map(|request| request.header("mcp-session-id").map(str::to_owned))
            .collect();
        assert_eq!((fixture.seen().len(), of_sessions.len()), (11, 1));
    }
}

#[test]
fn a_client_with_affinity_begins_where_it_was() {
    let fixtures: Vec<_> = (0..4).map(|_| Fixture::legacy(nothing)).collect();
    let gateway = start(&fixtures, "affinity = true");
    let mut connection = gateway.connect().expect("a connection");
    let mut begun = HashSet::new();
    // "user0:x" to "user7:x" in base64.
    for user in
        ["dXNlcjA6eA==", "dXNlcjE6eA==", "dXNlcjI6eA==", "dXNlcjM6eA==", "dXNlcjQ6eA==", "dXNlcjU6eA=="]
    {
        let authorization = format!("Basic {user}");
        let mut places = HashSet::new();
        for _ in 0..4 {
            let before: Vec<_> = fixtures.iter().map(|fixture| fixture.seen().len()).collect();
            let headers = [("authorization", &*authorization)];
            let answer =
                connection.post("/mcp/one", &headers, &initialize(LEGACY)).expect("an answer to initialize");
            assert_eq!(answer.status, 200, "{}", answer.text());
            places.insert(fixtures.iter().zip(&before).position(|(f, before)| f.seen().len() > *before));
        }
        assert_eq!(places.len(), 1, "a client moved");
        begun.extend(places);
    }
    assert!(begun.len() > 1, "all clients keep to one endpoint");
}

/// Both endpoints are full: the place that a request waits for is at either of them, and it waits once.
#[test]
fn a_place_is_waited_for_once() {
    let (hold, held) = sync_channel::<()>(8);
    let hold = std::sync::Mutex::new(Some(hold));
    let held = std::sync::Arc::new(std::sync::Mutex::new(held));
    let servers: Vec<_> = (0..2)
        .map(|_| {
            let held = held.clone();
            ScriptedUpstream::modern(move |request, stream| {
                // Until the test lets go.
                let _ = held.lock().expect("the test holds it").recv();
                let id = request.json()["id"].clone();
                answer_json(stream, "200 OK", &json!({"jsonrpc": "2.0", "id": id, "result": {}}))
            })
        })
        .collect();
    let urls: Vec<_> = servers.iter().map(ScriptedUpstream::url).collect();
    let config = one_shard()
        .set("gateway.connection_pool", "max_size = 1")
        .set("gateway.connection_pool", "max_wait = \"600ms\"")
        .server("one", &urls.iter().map(String::as_str).collect::<Vec<_>>());
    let gateway = Gateway::start(&config);
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut connection = gateway.connect().expect("a connection");
                    call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer").status
                })
            })
            .collect();
        let in_use = || {
            let of = [("server", "one"), ("state", "in_use")];
            gateway.metrics().count("mcp_gateway_upstream_pool_connections", &of)
        };
        eventually("both places are taken", LIMIT, || (in_use() == 2.0).then_some(()));
        let mut connection = gateway.connect().expect("a connection");
        let answer = call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer");
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (503, &json!(-32000)));
        let tried = gateway.metrics().count("mcp_gateway_upstream_requests_total", &[("status", "none")]);
        assert_eq!(tried, 2.0, "{}", gateway.process.log());
        drop(hold.lock().expect("nobody else").take());
        for call in calls {
            assert_eq!(call.join().expect("a call"), 200);
        }
    });
}

#[test]
fn a_server_that_asks_for_a_certificate_gets_the_configured_one_and_the_configured_name() {
    let dirs = [TempDir::new(), TempDir::new()];
    let own = TestCert::generate_for(&dirs[0], &["mcp.internal".to_owned()]);
    let stranger = TestCert::generate(&dirs[1]);
    let (names, asked) = sync_channel(64);
    let server = tls::serve_https_strict(&own, Strict { clients_of: &own, names }, |_| {
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 48\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":{\"over\":\"TLS\"}}".to_vec()
    });
    let url = format!("https://127.0.0.1:{}/mcp", server.port());
    let tls = |name: &str, ca: &TestCert, shown: Option<&TestCert>| {
        let shown = shown.map_or(String::new(), |cert| {
            format!("tls.cert_file = {:?}\ntls.key_file = {:?}\n", cert.cert_file, cert.key_file)
        });
        format!("tls.server_name = {name:?}\ntls.ca_file = {:?}\n{shown}", ca.ca_file)
    };
    for (lines, status, said) in [
        (tls("mcp.internal", &own, Some(&own)), 200, ""),
        (tls("mcp.internal", &own, None), 502, "CertificateRequired"),
        (tls("mcp.internal", &own, Some(&stranger)), 502, "received fatal alert"),
        (tls("other.internal", &own, Some(&own)), 502, "not valid for name"),
        // Another authority, but of the same name.
        (tls("mcp.internal", &stranger, Some(&own)), 502, "BadSignature"),
    ] {
        let gateway = Gateway::start(&one_shard().server_with("one", &[&url], &lines));
        let mut connection = gateway.connect().expect("a connection");
        let answer = call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer");
        assert_eq!(answer.status, status, "{lines}{}", answer.text());
        if status == 200 {
            assert_eq!(answer.json()["result"]["over"], "TLS");
        }
        eventually("the log says why", LIMIT, || gateway.process.log().contains(said).then_some(()));
    }
    let asked: HashSet<_> = asked.try_iter().collect();
    let expected = ["mcp.internal", "other.internal"].map(|name| Some(name.to_owned()));
    assert_eq!(asked, HashSet::from(expected));
}

/// A certificate that cannot be read ends the start, with the server and the file named.
#[test]
fn a_certificate_that_is_not_there_is_told_at_the_start() {
    let config = one_shard().server_with(
        "one",
        &["https://127.0.0.1:1/mcp"],
        "tls.cert_file = \"/nonexistent/client.pem\"\ntls.key_file = \"/nonexistent/client.key\"",
    );
    let mut gateway = Gateway::start_unready(&config);
    eventually("the gateway ended", LIMIT, || (!gateway.process.is_running()).then_some(()));
    let log = gateway.process.log();
    assert!(log.contains("server \"one\"") && log.contains("/nonexistent/client.pem"), "{log}");
}

fn one_shard() -> GatewayConfig {
    GatewayConfig::new().set("gateway.runtime", "shards = 1")
}

fn start(fixtures: &[Fixture], lines: &str) -> Gateway {
    let urls: Vec<_> = fixtures.iter().map(Fixture::url).collect();
    let urls: Vec<_> = urls.iter().map(String::as_str).collect();
    Gateway::start(&one_shard().server_with("one", &urls, lines))
}
