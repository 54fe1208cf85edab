//! Setup: a gateway that checks its servers' endpoints, before servers that are well or not as they are told.
//! Claim: an endpoint whose checks fail gets no new requests until they succeed; `/ready` says 503 only when no server can be
//! asked at all; eras are found out without a client's request, and corrected when a server shows another.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::mcp::{mirrored, modern, modern_call};
use mcp_system_tests::upstream::{After, ScriptedUpstream, UpstreamRequest, answer, answer_json};
use mcp_system_tests::{Gateway, GatewayConfig, Response, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const HEALTHY: &str = "mcp_gateway_endpoint_healthy";
/// Checks as often as may be, judged at once.
const CHECKS: &str = "health.interval = \"100ms\"\nhealth.timeout = \"100ms\"\nhealth.unhealthy_after = 1\nhealth.healthy_after = 1";

/// A server whose page for checks says how it is, and that counts calls.
struct Checked {
    upstream: ScriptedUpstream,
    well: Arc<AtomicBool>,
    calls: Arc<AtomicUsize>,
}

impl Checked {
    fn start() -> Self {
        let (well, calls) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (is_well, counted) = (well.clone(), calls.clone());
        let upstream = ScriptedUpstream::modern(move |request, stream| {
            if request.head[0].starts_with("GET /up ") {
                let status = if is_well.load(Ordering::SeqCst) { "204 Well" } else { "503 Not" };
                return answer(
                    stream,
                    &format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n"),
                    After::KeepOpen,
                );
            }
            counted.fetch_add(1, Ordering::SeqCst);
            answer_json(
                stream,
                "200 OK",
                &json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": {"resultType": "complete"}}),
            )
        });
        Checked { upstream, well, calls }
    }
}

fn call(gateway: &Gateway) -> Response {
    let message = modern_call(7, "any", json!({}));
    let mut connection = gateway.connect().expect("a connection");
    connection.post("/mcp/one", &mirrored("tools/call", Some("any")), &message).expect("an answer")
}

fn healthy(gateway: &Gateway, url: &str) -> Option<f64> {
    gateway.metrics().value(HEALTHY, &[("server", "one"), ("endpoint", url)])
}

#[test]
fn an_endpoint_whose_checks_fail_gets_no_requests_until_they_succeed() {
    let (one, other) = (Checked::start(), Checked::start());
    let urls = [one.upstream.url(), other.upstream.url()];
    let lines = format!("health.kind = \"http\"\nhealth.path = \"/up\"\n{CHECKS}");
    let gateway = Gateway::start(&GatewayConfig::new().server_with("one", &[&urls[0], &urls[1]], &lines));
    eventually("both are well", LIMIT, || {
        urls.iter().all(|url| healthy(&gateway, url) == Some(1.0)).then_some(())
    });

    one.well.store(false, Ordering::SeqCst);
    eventually("one is not", LIMIT, || (healthy(&gateway, &urls[0]) == Some(0.0)).then_some(()));
    let before = one.calls.load(Ordering::SeqCst);
    for _ in 0..8 {
        assert_eq!(call(&gateway).status, 200);
    }
    assert_eq!(
        (one.calls.load(Ordering::SeqCst), gateway.get("/ready").expect("an answer").status),
        (before, 200)
    );

    other.well.store(false, Ordering::SeqCst);
    eventually("nothing can be served", LIMIT, || {
        (gateway.get("/ready").expect("an answer").status == 503).then_some(())
    });
    let refused = call(&gateway);
    assert_eq!((refused.status, &refused.json()["error"]["data"]["retryable"]), (503, &json!(true)));
    let ready = gateway.get("/ready").expect("an answer");
    assert_eq!(ready.json()["unavailable"], json!(["one"]), "{}", ready.text());

    one.well.store(true, Ordering::SeqCst);
    eventually("it serves again", LIMIT, || (call(&gateway).status == 200).then_some(()));
    assert_eq!(gateway.get("/ready").expect("an answer").status, 200);
}

#[test]
fn each_kind_of_check_tells_a_server_that_is_there_from_one_that_is_not() {
    for kind in ["tcp", "mcp"] {
        let server = Checked::start();
        let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let mute = format!("http://{}/mcp", silent.local_addr().expect("an address"));
        let urls = [server.upstream.url(), "http://127.0.0.1:9/mcp".to_owned(), mute];
        let lines = format!("health.kind = \"{kind}\"\n{CHECKS}");
        let config = GatewayConfig::new().server_with("one", &[&urls[0], &urls[1], &urls[2]], &lines);
        let gateway = Gateway::start(&config);
        // One that takes connections and says nothing is well for TCP, and for nobody else.
        let expected = [1.0, 0.0, f64::from(u8::from(kind == "tcp"))];
        eventually(kind, LIMIT, || {
            let seen = [&urls[0], &urls[1], &urls[2]].map(|url| healthy(&gateway, url));
            (seen == expected.map(Some)).then_some(())
        });
        assert_eq!(server.calls.load(Ordering::SeqCst), 0);
    }
}

#[test]
fn a_gateway_is_ready_while_one_of_its_servers_is() {
    let server = Checked::start();
    let config = GatewayConfig::new()
        .server_with("one", &[&server.upstream.url()], &format!("health.kind = \"tcp\"\n{CHECKS}"))
        .server_with("gone", &["http://127.0.0.1:9/mcp"], &format!("health.kind = \"tcp\"\n{CHECKS}"));
    let gateway = Gateway::start(&config);
    let ready = eventually("the other is known to be gone", LIMIT, || {
        let ready = gateway.get("/ready").expect("an answer");
        (ready.json()["unavailable"] == json!(["gone"])).then_some(ready)
    });
    assert_eq!((ready.status, &ready.json()["status"]), (200, &json!("degraded")));
}

#[test]
fn eras_are_found_out_before_a_client_asks() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let legacy = ScriptedUpstream::start(move |request, stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        refuse(request, stream)
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("one", &[&legacy.url()]));
    eventually("the gateway's own question", LIMIT, || (asked.load(Ordering::SeqCst) == 1).then_some(()));
    // No client's message reaches the server, over whichever shard it comes.
    for _ in 0..8 {
        let refused = call(&gateway);
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (400, &json!(-32022)),
            "{}",
            refused.text()
        );
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a shard asked for itself");
}

#[test]
fn a_server_that_asks_for_a_credential_is_asked_with_the_client_s() {
    let server = ScriptedUpstream::start(|request, stream| {
        if request.header("authorization") != Some("Bearer key") {
            return answer(stream, "HTTP/1.1 401 Who\r\ncontent-length: 0\r\n\r\n", After::KeepOpen);
        }
        refuse(request, stream)
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("one", &[&server.url()]));
    eventually("the gateway's own question", LIMIT, || (server.own_questions() == 1).then_some(()));
    assert_eq!(call(&gateway).status, 401, "the server's own answer");
    let mut headers = mirrored("tools/list", None);
    headers.push(("authorization", "Bearer key"));
    let mut connection = gateway.connect().expect("a connection");
    let answer =
        connection.post("/mcp/one", &headers, &modern(1, "tools/list", json!({}))).expect("an answer");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (400, &json!(-32022)), "{}", answer.text());
}

#[test]
fn a_server_that_is_replaced_by_one_of_the_other_era_is_known_by_it() {
    let is_legacy = Arc::new(AtomicBool::new(false));
    let replaced = is_legacy.clone();
    let server = ScriptedUpstream::start(move |request, stream| {
        let message = request.json();
        if replaced.load(Ordering::SeqCst) {
            return refuse(request, stream);
        }
        answer_json(
            stream,
            "200 OK",
            &json!({"jsonrpc": "2.0", "id": message["id"], "result": modern_result(&message)}),
        )
    });
    let gateway = Gateway::start(&GatewayConfig::new().server("one", &[&server.url()]));
    assert_eq!(call(&gateway).status, 200);
    is_legacy.store(true, Ordering::SeqCst);
    eventually("its new era is known", LIMIT, || {
        let refused = call(&gateway);
        assert_eq!(refused.status, 400, "{}", refused.text());
        (refused.json()["error"]["code"] == -32022).then_some(())
    });
}

fn modern_result(message: &Value) -> Value {
    match message["method"].as_str() {
        Some("server/discover") => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private"}),
        Some("tools/list") => {
            json!({"resultType": "complete", "tools": [], "ttlMs": 0, "cacheScope": "private"})
        }
        _ => json!({"resultType": "complete"}),
    }
}

/// As a server of the session era refuses what has no session.
fn refuse(request: &UpstreamRequest, stream: &mut std::net::TcpStream) -> After {
    let error = json!({"code": -32600, "message": "a session is required"});
    answer_json(
        stream,
        "400 Bad Request",
        &json!({"jsonrpc": "2.0", "id": request.json()["id"], "error": error}),
    )
}
