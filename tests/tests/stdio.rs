//! Setup: a server that is a process of the gateway, on one shard, and does what such servers do wrong.
//! Claim: what a process says is the client's whatever else it writes; whoever waits for one that is gone is told so; no
//! process outlives its session, and none the gateway, whatever that dies of.

use std::path::Path;
use std::time::Duration;

use mcp_system_tests::gateway::beside_test;
use mcp_system_tests::mcp::{
    LEGACY, in_session, initialize, mirrored, modern_call, open_session, post_in_session, request,
};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, eventually};
use serde_json::{Value, json};

const PATH: &str = "/mcp/faulty";
/// How long what must end may take: the input's end, SIGTERM and SIGKILL have 2 s each.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn what_is_no_message_is_left_out_and_the_answer_is_not() {
    let gateway = start("");
    let mut client = Client::open(&gateway);
    for tool in ["garbage", "unasked"] {
        assert_eq!(client.call(tool, &json!({"n": 1})).json()["result"]["n"], 1, "{tool}");
    }
    let event = |event| events(&gateway, event);
    assert_eq!((event("not_a_message"), event("unclaimed")), (6.0, 2.0));
    assert!(gateway.process.log().contains("Server ready."), "the log does not show what was left out");
}

#[test]
fn a_line_that_is_too_long_ends_the_process_and_is_told() {
    let gateway = start("max_line = \"64KiB\"\n");
    let mut client = Client::open(&gateway);
    assert_eq!(client.call("long", &json!({"bytes": 65_000})).status, 200);
    let broken = client.call("long", &json!({"bytes": 10_000_000}));
    assert_eq!(broken.status, 502, "{}", broken.text());
    assert!(broken.text().contains("a line that is too long"), "{}", broken.text());
    assert_eq!(client.call("echo", &json!({})).status, 404);
    no_process_is_left(&gateway);
}

#[test]
fn a_process_that_ends_is_told_to_whoever_waits() {
    let gateway = start("");
    let mut client = Client::open(&gateway);
    // Its last words are heard.
    assert_eq!(client.call("last", &json!({"n": 7})).json()["result"]["n"], 7);
    eventually("the session has ended", LIMIT, || {
        (client.call("echo", &json!({})).status == 404).then_some(())
    });

    let mut client = Client::open(&gateway);
    let broken = client.call("exit", &json!({}));
    assert_eq!(broken.status, 502, "{}", broken.text());
    assert_eq!(broken.json()["id"], 1);
    assert_eq!(client.call("echo", &json!({})).status, 404);

    let mut client = Client::open(&gateway);
    let process = client.result("pid").as_u64().expect("a number");
    client.send("hang", &json!({}));
    kill(process);
    let broken = client.connection.read_response(false).expect("an answer");
    assert_eq!(broken.status, 502, "{}", broken.text());
    assert_eq!(events(&gateway, "lost"), 3.0);
}

#[test]
fn a_session_whose_process_ends_is_no_fault_of_the_others() {
    // Far more than a breaker would take.
    let gateway = start("");
    let mut other = Client::open(&gateway);
    for _ in 0..20 {
        let mut client = Client::open(&gateway);
        assert_eq!(client.call("exit", &json!({})).status, 502);
        assert_eq!(other.call("echo", &json!({})).status, 200);
    }
}

#[test]
fn a_process_that_cannot_be_started_is_told() {
    let config = GatewayConfig::new()
        .set("gateway.runtime", "shards = 1")
        .stdio("faulty", &["/no/such/program".to_owned()], "")
        .stdio("nowhere", &command(), "cwd = \"/no/such/directory\"");
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    for path in [PATH, "/mcp/nowhere"] {
        let refused = connection.post(path, &[], &initialize(LEGACY)).expect("an answer");
        assert_eq!(refused.status, 502, "{}", refused.text());
        assert_eq!(refused.json()["error"]["data"]["retryable"], true, "{}", refused.text());
    }
    assert!(gateway.process.log().contains("could not be started"), "{}", gateway.process.log());
    assert_eq!(gateway.metrics().value("mcp_gateway_upstream_processes", &[("server", "faulty")]), Some(0.0));
}

#[test]
fn a_flood_on_standard_error_holds_no_call_up_and_is_bounded_in_the_log() {
    let gateway = start("");
    let mut client = Client::open(&gateway);
    assert_eq!(client.call("stderr", &json!({"lines": 20_000, "bytes": 20})).status, 200);
    assert_eq!(client.call("stderr", &json!({"lines": 1, "bytes": 100_000})).status, 200);
    drop(client);
    let shown = |text: &str| gateway.process.log().lines().filter(|line| line.contains(text)).count();
    eventually("the log tells what it leaves out", LIMIT, || (shown("than is logged") > 0).then_some(()));
    let lines = shown("\"stderr\"");
    assert!((100..2000).contains(&lines), "{lines} lines");
    assert!(gateway.process.log().lines().all(|line| line.len() < 10_000), "a line is longer than may be");
}

#[test]
fn only_so_many_processes_run_and_a_place_comes_back() {
    let gateway = start("max_processes = 2\n");
    let first = Client::open(&gateway);
    let _second = Client::open(&gateway);
    let mut third = gateway.connect().expect("a connection");
    let refused = third.post(PATH, &[], &initialize(LEGACY)).expect("an answer");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("processes"), "{}", refused.text());
    first.end();
    eventually("a place is free", LIMIT, || {
        let answer = third.post(PATH, &[], &initialize(LEGACY)).expect("an answer");
        (answer.status == 200).then_some(())
    });
}

#[test]
fn the_end_of_a_session_is_the_end_of_its_processes_group() {
    let gateway = start("");
    let mut client = Client::open(&gateway);
    let [process, stays, _] = client.processes();
    assert!(is_alive(process) && is_alive(stays));
    client.end();
    eventually("the group has ended", LIMIT, || (!is_alive(process) && !is_alive(stays)).then_some(()));

    // One that neither its input's end nor SIGTERM makes go.
    let mut client = Client::open(&gateway);
    let process = client.result("stay").as_u64().expect("a number");
    client.end();
    eventually("the process has ended", LIMIT, || (!is_alive(process)).then_some(()));
    no_process_is_left(&gateway);
}

#[test]
fn a_session_that_nobody_uses_ends_with_its_process() {
    let config = config("").set("gateway.session", "ttl = \"1s\"");
    let gateway = Gateway::start(&config);
    let mut client = Client::open(&gateway);
    assert_eq!(client.call("echo", &json!({})).status, 200);
    no_process_is_left(&gateway);
    assert_eq!(client.call("echo", &json!({})).status, 404);
}

#[test]
fn no_process_outlives_a_gateway_that_is_killed() {
    let mut gateway = start("");
    let all = Client::open(&gateway).processes();
    let stubborn = Client::open(&gateway).result("stay").as_u64().expect("a number");
    assert!(all.iter().chain([&stubborn]).all(|process| is_alive(*process)));
    gateway.process.signal(libc::SIGKILL);
    eventually("all have ended", LIMIT, || {
        (!all.iter().chain([&stubborn]).any(|process| is_alive(*process))).then_some(())
    });
}

#[test]
fn no_process_outlives_a_gateway_that_is_stopped() {
    let gateway = start("");
    let mut client = Client::open(&gateway);
    let all = client.processes();
    drop(client);
    assert!(gateway.stop(LIMIT).success());
    eventually("all have ended", LIMIT, || (!all.iter().any(|process| is_alive(*process))).then_some(()));
}

#[test]
fn a_process_gets_what_it_is_configured_to_and_little_else() {
    let dir = mcp_system_tests::TempDir::new();
    let cwd = std::fs::canonicalize(dir.path()).expect("a directory");
    let lines = format!("env = [\"ONE=1=x\", \"PASSED\", \"ABSENT\"]\ncwd = {cwd:?}\n");
    let config = config(&lines).env("PASSED", "on").env("SECRET", "s").env("LANG", "C.UTF-8");
    let gateway = Gateway::start(&config);
    let environment = Client::open(&gateway).result("environment");
    assert_eq!(environment["cwd"], json!(cwd));
    let variables = environment["variables"].as_object().expect("an object");
    let value = |name: &str| variables.get(name).and_then(Value::as_str);
    assert_eq!((value("ONE"), value("PASSED"), value("LANG")), (Some("1=x"), Some("on"), Some("C.UTF-8")));
    assert!(value("PATH").is_some());
    let known = [
        "HOME", "LANG", "LC_ALL", "LC_CTYPE", "LOGNAME", "ONE", "PASSED", "PATH", "SHELL", "TMPDIR", "TZ",
        "USER",
    ];
    let others: Vec<_> = variables.keys().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn sessions_that_share_a_process_get_their_own_answers() {
    let gateway = start("mode = \"shared\"\n");
    let mut clients: Vec<_> = (0..8).map(|_| Client::open(&gateway)).collect();
    let processes: Vec<_> = clients.iter_mut().map(|client| client.result("pid")).collect();
    assert!(processes.windows(2).all(|pair| pair[0] == pair[1]), "{processes:?}");
    for round in 0..50 {
        for (number, client) in clients.iter_mut().enumerate() {
            client.send("echo", &json!({"n": [round, number]}));
        }
        for (number, client) in clients.iter_mut().enumerate() {
            let answer = client.connection.read_response(false).expect("an answer").json();
            assert_eq!((&answer["id"], &answer["result"]["n"]), (&json!(1), &json!([round, number])));
        }
    }
    // The server was initialized once, by the gateway.
    let heard = clients[0].result("heard");
    assert_eq!(heard, json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}]));
    let first = clients.remove(0).end();
    assert_eq!(first.status, 200);
    assert_eq!(clients[0].call("echo", &json!({})).status, 200, "a session's end is not the others'");
}

#[test]
fn a_shared_process_that_ends_is_started_again_and_its_sessions_go_on() {
    let gateway = start("mode = \"shared\"\n");
    let (mut one, mut two) = (Client::open(&gateway), Client::open(&gateway));
    let subscribe = request(1, "resources/subscribe", json!({"uri": "x://y"}));
    assert_eq!(two.post(&subscribe).status, 200);
    let before = one.result("pid");
    assert_eq!(one.call("exit", &json!({})).status, 502);
    let after = eventually("it answers again", LIMIT, || {
        let answer = one.call("pid", &json!({}));
        (answer.status == 200).then(|| answer.json()["result"].clone())
    });
    assert_ne!(before, after);
    // The new process knows nothing of what this session subscribed to.
    assert_eq!(two.call("echo", &json!({})).status, 404);
    for _ in 0..20 {
        one.call("exit", &json!({}));
    }
    assert!(events(&gateway, "opened") < 20.0, "a process that ends at once is started without a pause");
}

#[test]
fn a_modern_client_learns_that_the_server_is_a_legacy_one() {
    let gateway = start("");
    let mut connection = gateway.connect().expect("a connection");
    let refused = connection
        .post(PATH, &mirrored("tools/call", Some("echo")), &modern_call(1, "echo", json!({})))
        .expect("an answer");
    assert_eq!(refused.json()["error"]["code"], -32022, "{}", refused.text());
}

#[test]
fn a_cancellation_reaches_the_process_and_ends_the_answer() {
    for mode in ["per-session", "shared"] {
        let gateway = start(&format!("mode = \"{mode}\"\n"));
        let mut client = Client::open(&gateway);
        client.send("hang", &json!({}));
        let mut other = gateway.connect().expect("a connection");
        let mut heard = || {
            tool(&mut other, &client.session, 2, "heard", &json!({})).json()["result"]
                .as_array()
                .and_then(|heard| heard.last().cloned())
        };
        eventually("the call is there", LIMIT, || heard().filter(|heard| heard == "hang"));
        let cancel =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
        let mut third = gateway.connect().expect("a connection");
        let told = post_in_session(&mut third, PATH, &client.session, &cancel).expect("an answer");
        assert_eq!(told.status, 202, "{}", told.text());
        let heard = eventually("the server has heard it", LIMIT, || heard().filter(Value::is_object));
        assert!(heard["params"]["requestId"].is_number(), "{heard}");
        let ended = client.connection.read_response(false).expect("an answer");
        // Its answer ends; whoever still waits for the response is told that none comes.
        assert_eq!(ended.status, 200, "{mode}");
        assert!(ended.text().contains("\"id\":1,\"error\":{\"code\":-32000"), "{mode}: {}", ended.text());
    }
}

#[test]
fn a_message_of_several_lines_is_one_to_the_process() {
    let gateway = start("");
    let client = Client::open(&gateway);
    let mut connection = gateway.connect().expect("a connection");
    let body = b"{\r\n  \"jsonrpc\": \"2.0\",\n  \"id\": 1,\n\"method\":\"tools/call\",\"params\":{\"name\":\"echo\",\n\"arguments\":{\"a\":\"\\n\"}}\n}\n";
    let headers = [&in_session(&client.session, LEGACY)[..], &mcp_system_tests::mcp::POST_HEADERS].concat();
    let answer = connection.request("POST", PATH, &headers, body).expect("an answer");
    assert_eq!(answer.json()["result"]["a"], "\n", "{}", answer.text());
}

/// A session over a connection of its own.
struct Client {
    connection: Connection,
    session: String,
}

impl Client {
    fn open(gateway: &Gateway) -> Self {
        let mut connection = gateway.connect().expect("a connection");
        let session = open_session(&mut connection, PATH, LEGACY);
        Client { connection, session }
    }

    fn post(&mut self, message: &Value) -> Response {
        post_in_session(&mut self.connection, PATH, &self.session, message).expect("an answer")
    }

    fn call(&mut self, name: &str, arguments: &Value) -> Response {
        tool(&mut self.connection, &self.session, 1, name, arguments)
    }

    /// Sends a call without waiting for its answer.
    fn send(&mut self, name: &str, arguments: &Value) {
        let call = request(1, "tools/call", json!({"name": name, "arguments": arguments}));
        self.connection.send_post(PATH, &in_session(&self.session, LEGACY), &call).expect("a connection");
    }

    fn result(&mut self, name: &str) -> Value {
        let answer = self.call(name, &json!({}));
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["result"].clone()
    }

    /// The server's process, one that it started, and one that it started and that left its group.
    fn processes(&mut self) -> [u64; 3] {
        serde_json::from_value(self.result("spawn")).expect("three numbers")
    }

    fn end(mut self) -> Response {
        let headers = in_session(&self.session, LEGACY);
        self.connection.request("DELETE", PATH, &headers, b"").expect("an answer")
    }
}

fn tool(connection: &mut Connection, session: &str, id: u64, name: &str, arguments: &Value) -> Response {
    let call = request(id, "tools/call", json!({"name": name, "arguments": arguments}));
    post_in_session(connection, PATH, session, &call).expect("an answer")
}

fn command() -> Vec<String> {
    vec![beside_test("mcp-stdio-faulty").display().to_string()]
}

fn config(lines: &str) -> GatewayConfig {
    GatewayConfig::new().set("gateway.runtime", "shards = 1").stdio("faulty", &command(), lines)
}

fn start(lines: &str) -> Gateway {
    Gateway::start(&config(lines))
}

fn events(gateway: &Gateway, event: &str) -> f64 {
    let labels = [("server", "faulty"), ("event", event)];
    gateway.metrics().count("mcp_gateway_upstream_channel_events_total", &labels)
}

fn no_process_is_left(gateway: &Gateway) {
    eventually("no process is left", LIMIT, || {
        let count = gateway.metrics().value("mcp_gateway_upstream_processes", &[("server", "faulty")]);
        (count == Some(0.0)).then_some(())
    });
}

/// Whether a process runs; one that is dead and not buried does not.
fn is_alive(process: u64) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    let state = stat.ok().and_then(|stat| Some(stat.rsplit_once(')')?.1.trim_start().to_owned()));
    state.is_some_and(|state| !state.starts_with('Z') && !state.starts_with('X'))
}

fn kill(process: u64) {
    let process = i32::try_from(process).expect("process ids are small");
    // SAFETY: kill takes no pointer; the process is the gateway's, which has not buried it.
    assert_eq!(unsafe { libc::kill(process, libc::SIGKILL) }, 0);
}
