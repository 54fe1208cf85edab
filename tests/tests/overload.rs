//! Setup: one shard in front of a server that holds its answers until the test lets them go, so that as many requests are in
//! flight, or wait for a connection, as may be.
//! Claim: one more is refused with 503, `Retry-After` and a JSON-RPC error of its own id, is counted, costs nobody else
//! anything, and its connection is served again; what ends other work still gets through.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mcp_system_tests::fixtures::Fixture;
use mcp_system_tests::mcp::{
    LEGACY, in_session, mirrored, modern_call, open_session, post_in_session, request,
};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(60);
const PATH: &str = "/mcp/holding";

/// A gateway in front of a server that answers calls of the tool "held" when it is told to.
struct Setup {
    gateway: Gateway,
    upstream: Fixture,
    released: Arc<AtomicBool>,
}

impl Setup {
    fn modern(configure: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Self {
        Self::start(|released| Fixture::modern(json!([]), holding(released)), configure)
    }

    fn legacy(configure: impl FnOnce(GatewayConfig) -> GatewayConfig) -> Self {
        Self::start(|released| Fixture::legacy(holding(released)), configure)
    }

    fn start(
        upstream: impl FnOnce(Arc<AtomicBool>) -> Fixture,
        configure: impl FnOnce(GatewayConfig) -> GatewayConfig,
    ) -> Self {
        let released = Arc::new(AtomicBool::new(false));
        let upstream = upstream(released.clone());
        let config = GatewayConfig::new().set("gateway.runtime", "shards = 1").server_with(
            "holding",
            &[&upstream.url()],
            "timeout = \"5m\"",
        );
        Setup { gateway: Gateway::start(&configure(config)), upstream, released }
    }

    fn connect(&self) -> Connection {
        self.gateway.connect().expect("a connection")
    }

    /// A connection with a call that is not answered yet.
    fn held_call(&self, id: u64) -> Connection {
        let mut connection = self.connect();
        send_call(&mut connection, id, "held", 0);
        connection
    }

    fn await_held(&self, count: usize) {
        let held = || self.upstream.seen().iter().filter(|seen| is_held(&seen.json())).count();
        eventually("the calls are held", LIMIT, || (held() == count).then_some(()));
    }

    fn release(&self) {
        self.released.store(true, Ordering::SeqCst);
    }

    fn shed(&self, reason: &str) -> f64 {
        self.gateway.metrics().count("mcp_gateway_requests_shed_total", &[("reason", reason)])
    }

    fn refused(&self, reason: &str) -> f64 {
        self.gateway.metrics().count("mcp_gateway_routing_errors_total", &[("reason", reason)])
    }
}

#[test]
fn one_more_than_may_be_in_flight_is_refused_and_served_later() {
    let setup = Setup::modern(|config| config.set("gateway.overload", "max_in_flight = 2"));
    let mut held: Vec<Connection> = (0..2).map(|id| setup.held_call(id)).collect();
    setup.await_held(2);

    // A body in one read, and one in many: both are read to their end, so that the connection can go on.
    let mut refused: Vec<Connection> = [10, 11].map(|_| setup.connect()).into();
    for ((id, pad), connection) in [(10, 0), (11, 3 << 20)].into_iter().zip(&mut refused) {
        send_call(connection, id, "quick", pad);
        assert_refused(&connection.read_response(false).expect("an answer"), id);
    }
    assert_eq!((setup.shed("in_flight"), setup.refused("overloaded")), (2.0, 2.0));
    assert_eq!(setup.gateway.get("/health").expect("an answer").status, 200);

    setup.release();
    for (id, connection) in held.iter_mut().enumerate() {
        assert_answered(&connection.read_response(false).expect("an answer"), id as u64);
    }
    for (id, connection) in refused.iter_mut().enumerate() {
        send_call(connection, id as u64, "quick", 0);
        assert_answered(&connection.read_response(false).expect("an answer"), id as u64);
    }
    assert_eq!(setup.shed("in_flight"), 2.0);
}

/// A client that does not wait is neither answered with refusals as fast as it can ask, nor forgotten.
#[test]
fn what_a_refused_client_sends_at_once_waits_and_is_answered() {
    let setup = Setup::modern(|config| config.set("gateway.overload", "max_in_flight = 1"));
    let mut held = setup.held_call(0);
    setup.await_held(1);
    let mut hasty = setup.connect();
    for id in 1..=3 {
        send_call(&mut hasty, id, "quick", 0);
    }
    assert_refused(&hasty.read_response(false).expect("an answer"), 1);
    setup.release();
    assert_answered(&held.read_response(false).expect("an answer"), 0);
    for id in 2..=3 {
        assert_answered(&hasty.read_response(false).expect("an answer"), id);
    }
    assert_eq!(setup.shed("in_flight"), 1.0);
}

#[test]
fn a_refused_client_that_leaves_is_forgotten() {
    let setup = Setup::modern(|config| config.set("gateway.overload", "max_in_flight = 1"));
    let _held = setup.held_call(0);
    setup.await_held(1);
    let mut refused = setup.connect();
    send_call(&mut refused, 1, "quick", 0);
    assert_refused(&refused.read_response(false).expect("an answer"), 1);
    drop(refused);
    let open = || setup.gateway.metrics().count("mcp_gateway_connections_active", &[]);
    eventually("only the held call's connection is left", LIMIT, || (open() == 1.0).then_some(()));
    setup.release();
}

#[test]
fn what_ends_other_work_gets_through() {
    let setup = Setup::legacy(|config| config.set("gateway.overload", "max_in_flight = 1"));
    let mut connection = setup.connect();
    let session = open_session(&mut connection, PATH, LEGACY);
    let mut holder = setup.connect();
    let call = request(1, "tools/call", json!({"name": "held"}));
    holder.send_post(PATH, &in_session(&session, LEGACY), &call).expect("sent");
    setup.await_held(1);

    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}});
    let response = json!({"jsonrpc": "2.0", "id": 3, "result": {}});
    for (message, status) in
        [(cancelled, 202), (response, 202), (request(4, "ping", json!({})), 200), (json!("no message"), 400)]
    {
        let answer = post_in_session(&mut connection, PATH, &session, &message).expect("an answer");
        assert_eq!(answer.status, status, "{message}: {}", answer.text());
    }
    let mut other = setup.connect();
    let answer = post_in_session(&mut other, PATH, &session, &request(5, "tools/list", json!({})));
    assert_refused(&answer.expect("an answer"), 5);
    let ended = connection.request("DELETE", PATH, &in_session(&session, LEGACY), b"");
    assert_eq!(ended.expect("an answer").status, 200);
    setup.release();
    assert_eq!(holder.read_response(false).expect("an answer").status, 200);
    assert_eq!(setup.shed("in_flight"), 1.0);
}

#[test]
fn streams_take_no_place() {
    let setup = Setup::modern(|config| config.set("gateway.overload", "max_in_flight = 1"));
    let mut subscriber = setup.connect();
    let listen = mcp_system_tests::mcp::modern(
        1,
        "subscriptions/listen",
        json!({"name": "held", "notifications": {"toolsListChanged": true}}),
    );
    subscriber.send_post(PATH, &mirrored("subscriptions/listen", None), &listen).expect("sent");
    setup.await_held(1);
    let mut caller = setup.connect();
    send_call(&mut caller, 2, "quick", 0);
    assert_answered(&caller.read_response(false).expect("an answer"), 2);
    setup.release();
}

#[test]
fn a_full_queue_for_a_server_is_refused_at_once() {
    let setup =
        Setup::modern(|config| config.set("gateway.connection_pool", "max_size = 1\nmax_waiting = 1"));
    let mut held = setup.held_call(0);
    setup.await_held(1);
    let mut waiting = setup.held_call(1);
    let in_flight = || setup.gateway.metrics().count("mcp_gateway_requests_in_flight", &[]);
    eventually("one waits for a connection", LIMIT, || (in_flight() == 2.0).then_some(()));
    let mut refused = setup.connect();
    send_call(&mut refused, 2, "quick", 0);
    assert_refused(&refused.read_response(false).expect("an answer"), 2);
    assert_eq!((setup.shed("pool"), setup.refused("pool_exhausted")), (1.0, 1.0));

    setup.release();
    assert_answered(&held.read_response(false).expect("an answer"), 0);
    assert_answered(&waiting.read_response(false).expect("an answer"), 1);
    send_call(&mut refused, 3, "quick", 0);
    assert_answered(&refused.read_response(false).expect("an answer"), 3);
}

#[test]
fn who_waited_for_a_server_as_long_as_may_be_is_refused() {
    let setup = Setup::modern(|config| {
        config.set("gateway.connection_pool", "max_size = 1\nmax_waiting = 100\nmax_wait = \"50ms\"")
    });
    let mut held = setup.held_call(0);
    setup.await_held(1);
    let mut waiting: Vec<Connection> = (1..10).map(|id| setup.held_call(id)).collect();
    for (connection, id) in waiting.iter_mut().zip(1..) {
        assert_refused(&connection.read_response(false).expect("an answer"), id);
    }
    assert_eq!(setup.shed("pool"), 9.0);
    setup.release();
    assert_answered(&held.read_response(false).expect("an answer"), 0);
}

#[test]
fn a_drain_does_not_wait_for_those_who_were_refused() {
    let setup = Setup::modern(|config| config.set("gateway.overload", "max_in_flight = 1"));
    let mut held = setup.held_call(0);
    setup.await_held(1);
    let mut refused = setup.connect();
    send_call(&mut refused, 1, "quick", 0);
    assert_refused(&refused.read_response(false).expect("an answer"), 1);
    setup.release();
    assert_answered(&held.read_response(false).expect("an answer"), 0);
    assert!(setup.gateway.stop(LIMIT).success());
    assert!(refused.is_closed().expect("a proper end"), "the connection is still open");
}

fn holding(
    released: Arc<AtomicBool>,
) -> impl Fn(
    &mcp_system_tests::upstream::UpstreamRequest,
    &mut std::net::TcpStream,
) -> Option<mcp_system_tests::upstream::After> {
    move |request, _| {
        if is_held(&request.json()) {
            eventually("the release", LIMIT, || released.load(Ordering::SeqCst).then_some(()));
        }
        None
    }
}

fn is_held(message: &Value) -> bool {
    message["params"]["name"] == "held"
}

fn send_call(connection: &mut Connection, id: u64, tool: &str, pad: usize) {
    let message = modern_call(id, tool, json!({"pad": "x".repeat(pad)}));
    connection.send_post(PATH, &mirrored("tools/call", Some(tool)), &message).expect("sent");
}

fn assert_refused(answer: &Response, id: u64) {
    assert_eq!(answer.status, 503, "{}", answer.text());
    assert_eq!((answer.header("retry-after"), answer.header("connection")), (Some("1"), None));
    let body = answer.json();
    assert_eq!((&body["id"], &body["error"]["code"]), (&json!(id), &json!(-32000)), "{body}");
    assert_eq!(body["error"]["data"], json!({"retryable": true, "retry_after": 1}));
}

fn assert_answered(answer: &Response, id: u64) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.json()["id"], json!(id), "{}", answer.text());
}
