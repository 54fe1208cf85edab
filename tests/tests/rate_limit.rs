//! Setup: gateways with a limit of one request a second and a burst of a few, alone or on a Redis.
//! Claim: what is one too many gets 429 with the time to wait, typed and counted, and reaches no server; principals are counted
//! apart, and addresses where there is no principal; the end of a session is always taken; with Redis gone, each gateway
//! counts by itself and says so.

use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, in_session, initialize, open_session, post_in_session, request};
use mcp_system_tests::redis::{Redis, RedisOptions, Store};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
const PATH: &str = "/mcp/one";
const BURST: usize = 5;
/// Requests by which a burst is used up, however slowly they come: more than flow back while they do.
const MANY: usize = 200;
/// alice:pw, bob:pw
const ALICE: &str = "Basic YWxpY2U6cHc=";
const BOB: &str = "Basic Ym9iOnB3";

#[test]
fn one_too_many_is_told_when_to_come_back() {
    let fixture = Fixture::legacy(nothing);
    let gateway = Gateway::start(&config(&fixture, "address"));
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, PATH, LEGACY);
    let answer = until_limited(|| {
        let message = request(7, "ping", json!({}));
        post_in_session(&mut connection, PATH, &session, &message).expect("an answer")
    });
    let before = fixture.seen().len();
    assert_eq!(answer.header("retry-after"), Some("1"), "{:?}", answer.headers);
    let error = answer.json();
    assert_eq!((&error["id"], &error["error"]["code"]), (&json!(7), &json!(-32000)), "{error}");
    assert_eq!(error["error"]["data"], json!({"retryable": true, "retry_after": 1}));
    let metrics = gateway.metrics();
    assert_eq!(metrics.count("mcp_gateway_rate_limited_total", &[("scope", "address")]), 1.0);
    assert_eq!(metrics.count("mcp_gateway_routing_errors_total", &[("reason", "rate_limited")]), 1.0);
    assert_eq!(fixture.seen().len(), before, "what was refused reached the server");

    eventually("it is taken again", LIMIT, || (ping(&mut connection, &session) == 200).then_some(()));
    until_limited(|| {
        let message = request(8, "ping", json!({}));
        post_in_session(&mut connection, PATH, &session, &message).expect("an answer")
    });
    let ended = connection.request("DELETE", PATH, &in_session(&session, LEGACY), b"");
    assert_eq!(ended.expect("an answer").status, 200, "an end relieves everybody");
}

#[test]
fn principals_are_counted_apart_and_strangers_by_address() {
    let fixture = Fixture::legacy(nothing);
    let gateway = Gateway::start(&config(&fixture, "principal"));
    let mut connection = gateway.connect().expect("a connection");
    let mut ask = |credential: Option<&str>| {
        let headers: Vec<_> = credential.map(|value| ("authorization", value)).into_iter().collect();
        connection.post(PATH, &headers, &initialize(LEGACY)).expect("an answer")
    };
    until_limited(|| ask(Some(ALICE)));
    assert_eq!(ask(Some(BOB)).status, 200, "another principal");
    assert_eq!(ask(None).status, 200, "no principal");
    // Whose these are nobody knows: they are one address's.
    let mut number = 0;
    until_limited(|| {
        number += 1;
        ask(Some(&format!("Bearer opaque-{number}")))
    });
    assert_eq!(ask(Some(BOB)).status, 200, "a principal is not its address");
    let metrics = gateway.metrics();
    for scope in ["principal", "address"] {
        assert_eq!(metrics.count("mcp_gateway_rate_limited_total", &[("scope", scope)]), 1.0, "{scope}");
    }
}

#[test]
fn redis_counts_for_all_and_each_for_itself_without_it() {
    let fixture = Fixture::legacy(nothing);
    let mut store = Redis::start(&RedisOptions::new());
    let gateway = Gateway::start(&config(&fixture, "address").store(&store as &dyn Store));
    eventually("the store is reached", LIMIT, || {
        (gateway.metrics().value("mcp_gateway_redis_up", &[]) == Some(1.0)).then_some(())
    });
    let mut connection = gateway.connect().expect("a connection");
    let session = open_session(&mut connection, PATH, LEGACY);
    let message = request(1, "ping", json!({}));
    until_limited(|| post_in_session(&mut connection, PATH, &session, &message).expect("an answer"));
    let counted = |gateway: &Gateway| {
        let metrics = gateway.metrics();
        let scripts = metrics.count("mcp_gateway_redis_commands_total", &[("command", "evalsha")]);
        (scripts, metrics.count("mcp_gateway_rate_limit_fallback_total", &[]))
    };
    let (scripts, fallbacks) = counted(&gateway);
    assert!(scripts > 0.0 && fallbacks == 0.0, "{scripts} {fallbacks}");

    store.node_mut().kill();
    eventually("it counts by itself", LIMIT, || {
        let status = ping(&mut connection, &session);
        assert!(status == 200 || status == 429, "{status}");
        (counted(&gateway).1 > 0.0 && status == 200).then_some(())
    });
    store.node_mut().restart();
    let before = counted(&gateway).0;
    eventually("Redis counts again", LIMIT, || {
        ping(&mut connection, &session);
        (counted(&gateway).0 > before + 1.0).then_some(())
    });
}

/// One request a second; one shard, because shards without Redis count each for itself.
fn config(fixture: &Fixture, key: &str) -> GatewayConfig {
    GatewayConfig::new()
        .server("one", &[&fixture.url()])
        .set("gateway.runtime", "shards = 1")
        .set("gateway.rate_limit", "requests_per_second = 1")
        .set("gateway.rate_limit", &format!("burst = {BURST}"))
        .set("gateway.rate_limit", &format!("key = {key:?}"))
}

/// Asks until the answer is 429, and returns it.
fn until_limited(mut ask: impl FnMut() -> Response) -> Response {
    for _ in 0..MANY {
        let answer = ask();
        if answer.status == 429 {
            return answer;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    panic!("{MANY} requests were taken");
}

fn ping(connection: &mut Connection, session: &str) -> u16 {
    post_in_session(connection, PATH, session, &request(1, "ping", json!({}))).expect("an answer").status
}
