//! Setup: the MCP server behind the gateway does, call by call, what the table in `src/faults.rs` says: it breaks off, lies about
//! lengths, breaks HTTP, refuses, talks nonsense, or takes its time. Every row is run at every door, all rows at the same time
//! and over shared connections to the server.
//! Claim: the client gets the one answer that the table names, which belongs to its request and is counted under its reason; what
//! broke off never looks complete; and the next call is answered in order.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use mcp_system_tests::faults::{Fault, Told, expand, faults, faulty_server, good_result};
use mcp_system_tests::mcp::{LEGACY, in_session, mirrored, modern_call, open_session, request};
use mcp_system_tests::mcpb::{Frames, REQUEST};
use mcp_system_tests::port::free_port;
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer, answer_json};
use mcp_system_tests::ws::Socket;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response};
use serde_json::{Value, json};

/// Requests that are under way at a door of frames; the gateway takes 64.
const IN_FLIGHT: usize = 32;
/// Rows are numbered from here: three digits each, as the table's lengths expect.
const FIRST_ID: usize = 100;
/// Where a session's server answers 404.
const SESSION_OVER: Told = Told::Error(-32001);

#[test]
fn every_row_is_documented() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/upstream-faults.md");
    let page = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
    let missing: Vec<String> = faults()
        .iter()
        .map(Fault::documented)
        .filter(|line| !page.lines().any(|found| found == line))
        .collect();
    assert!(missing.is_empty(), "docs/upstream-faults.md lacks:\n{}", missing.join("\n"));
}

#[test]
fn over_http() {
    let setup = Setup::start();
    let connect = || setup.gateway.connect().expect("a connection");
    setup.run(Over::Http, || setup.each_over_http(&|| (connect(), None)));
}

#[test]
fn over_http_in_a_session() {
    let setup = Setup::start();
    let connect = || {
        let mut connection = setup.gateway.connect().expect("a connection");
        let session = open_session(&mut connection, "/mcp/faulty", LEGACY);
        (connection, Some(session))
    };
    setup.run(Over::Session, || setup.each_over_http(&connect));
}

#[test]
fn over_a_socket() {
    let setup = Setup::start();
    let mut socket = Socket::open(&setup.gateway, "/ws/faulty", &[]);
    setup.run(Over::Frames, || {
        setup.each_over_frames(&mut socket, Socket::send_json, |socket| socket.message())
    });
}

#[test]
fn over_mcpb() {
    let setup = Setup::start();
    let mut frames = Frames::open(&setup.gateway, setup.binary_port).expect("a connection");
    setup.run(Over::Frames, || {
        let send = |frames: &mut Frames, message: &Value| {
            frames.send(REQUEST, message.to_string().as_bytes()).expect("sent");
        };
        setup.each_over_frames(&mut frames, send, |frames| frames.message().expect("a message"))
    });
}

#[test]
fn a_stream_that_can_be_resumed_ends_without_an_error() {
    let begun = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n\
                 id: 1\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/message\",\"params\":{}}\n\n";
    let upstream = ScriptedUpstream::modern(move |_, stream| answer(stream, begun, After::Close));
    let gateway = Gateway::start(&GatewayConfig::new().server("faulty", &[&upstream.url()]));
    let mut connection = gateway.connect().expect("a connection");
    let message = modern_call(6, "any", json!({}));
    connection.send_post("/mcp/faulty", &mirrored("tools/call", Some("any")), &message).expect("sent");
    let mut events = connection.into_events().expect("a stream");
    let first = events.next_event().expect("an event").expect("an event");
    assert_eq!(first.id.as_deref(), Some("1"));
    // An error would tell the client that there is no use in asking for the rest.
    assert_eq!(events.next_event().ok().flatten(), None);
}

#[test]
fn a_fault_is_not_taken_for_an_earlier_era() {
    let asked = AtomicUsize::new(0);
    let upstream = ScriptedUpstream::start(move |request, stream| {
        // The very first answer breaks off, whatever the gateway asks with it.
        if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            let text = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n{";
            return answer(stream, text, After::Close);
        }
        let result = json!({
            "resultType": "complete", "content": [], "tools": [], "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 0, "cacheScope": "private",
        });
        answer_json(
            stream,
            "200 OK",
            &json!({"jsonrpc": "2.0", "id": request.json()["id"], "result": result}),
        )
    });
    let gateway = Gateway::start(
        &GatewayConfig::new().server("faulty", &[&upstream.url()]).set("gateway.runtime", "shards = 1"),
    );
    let try_call = |id| call(&mut gateway.connect().expect("a connection"), None, id, "any");
    match try_call(9) {
        Ok(answer) => assert!(matches!(answer.status, 200 | 502), "{}", answer.text()),
        Err(error) => assert!(is_broken(error.kind()), "{error}"),
    }
    let answer = try_call(10).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Which of a row's answers counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Over {
    Http,
    Session,
    Frames,
}

struct Setup {
    gateway: Gateway,
    binary_port: u16,
    rows: Vec<Fault>,
    _server: ScriptedUpstream,
}

impl Setup {
    fn start() -> Self {
        let server = faulty_server();
        let binary_port = free_port();
        let config = GatewayConfig::new()
            .server_with("faulty", &[&server.url()], "timeout = \"3s\"")
            .binary_port(binary_port)
            .set("gateway.server", "max_body = \"1MiB\"")
            // What a breaker does is not the matter here.
            .set("gateway.circuit_breaker", "failure_threshold = 10000");
        Self { gateway: Gateway::start(&config), binary_port, rows: faults(), _server: server }
    }

    /// Runs all rows by `each`, which gives what was wrong; and looks that each refusal was counted once, under its reason.
    fn run(&self, over: Over, each: impl FnOnce() -> Vec<String>) {
        let wrong = each();
        let mut expected = BTreeMap::new();
        for fault in &self.rows {
            if let Some(reason) = reason(expected_of(fault, over)) {
                *expected.entry(reason).or_insert(0.0) += 1.0;
            }
        }
        let metrics = self.gateway.metrics();
        let counted: BTreeMap<_, _> = expected
            .keys()
            .map(|reason| (*reason, metrics.count("mcp_gateway_routing_errors_total", &[("reason", reason)])))
            .collect();
        assert!(
            wrong.is_empty(),
            "{}\n{} of {} rows are wrong",
            wrong.join("\n"),
            wrong.len(),
            self.rows.len()
        );
        assert_eq!(counted, expected);
    }

    /// Every row over a connection of its own, all at the same time.
    fn each_over_http(&self, connect: &(dyn Fn() -> (Connection, Option<String>) + Sync)) -> Vec<String> {
        std::thread::scope(|scope| {
            let rows: Vec<_> = (FIRST_ID..)
                .zip(&self.rows)
                .map(|(id, fault)| {
                    scope.spawn(move || {
                        let (mut connection, session) = connect();
                        let told = call(&mut connection, session.as_deref(), id, fault.name);
                        let (mut connection, session) = connect();
                        let good = call(&mut connection, session.as_deref(), id, "good");
                        let over = if session.is_some() { Over::Session } else { Over::Http };
                        check_http(&told, expected_of(fault, over), id, fault.name)
                            .and_then(|()| check_http(&good, &Told::Passed(200, None), id, "good"))
                            .map_err(|wrong| format!("{}: {wrong}", fault.name))
                    })
                })
                .collect();
            rows.into_iter().filter_map(|row| row.join().expect("a row's thread").err()).collect()
        })
    }

    /// Every row over one connection, many at the same time, a good call behind each.
    fn each_over_frames<D>(
        &self,
        door: &mut D,
        send: impl Fn(&mut D, &Value),
        receive: impl Fn(&mut D) -> Value,
    ) -> Vec<String> {
        let calls: Vec<_> = (FIRST_ID..)
            .zip(&self.rows)
            .flat_map(|(id, fault)| {
                [(id, fault.name, &fault.framed), (id + 500, "good", &Told::Passed(200, None))]
            })
            .collect();
        let mut wrong = Vec::new();
        for calls in calls.chunks(IN_FLIGHT) {
            for (id, tool, _) in calls {
                send(door, &modern_call(*id, tool, json!({})));
            }
            let mut waiting: BTreeMap<_, _> =
                calls.iter().map(|(id, tool, told)| (json!(id).to_string(), (*id, *tool, *told))).collect();
            while !waiting.is_empty() {
                let message = receive(door);
                if message.get("method").is_some() {
                    continue;
                }
                let Some((id, tool, told)) = waiting.remove(&message["id"].to_string()) else {
                    wrong.push(format!("an answer to nobody: {message}"));
                    continue;
                };
                wrong.extend(
                    check_message(&message, told, id, tool).err().map(|wrong| format!("{tool}: {wrong}")),
                );
            }
        }
        wrong
    }
}

fn expected_of(fault: &Fault, over: Over) -> &Told {
    match over {
        Over::Frames => &fault.framed,
        // A session that the server does not know is over, whatever it says with that (2025-11-25, "Session Management").
        Over::Session if fault.name.starts_with("404") => &SESSION_OVER,
        Over::Http | Over::Session => &fault.http,
    }
}

fn reason(told: &Told) -> Option<&'static str> {
    match told {
        Told::Refused(_, reason) | Told::Cut(reason) | Told::LastEvent(reason) => Some(reason),
        Told::Passed(..) | Told::Error(_) => None,
    }
}

/// What comes of a call: an answer, whole and in order, or an end before that.
fn call(
    connection: &mut Connection,
    session: Option<&str>,
    id: usize,
    tool: &str,
) -> std::io::Result<Response> {
    match session {
        None => connection.post(
            "/mcp/faulty",
            &mirrored("tools/call", Some(tool)),
            &modern_call(id, tool, json!({})),
        ),
        Some(session) => {
            let message = request(id, "tools/call", json!({"name": tool, "arguments": {}}));
            connection.post("/mcp/faulty", &in_session(session, LEGACY), &message)
        }
    }
}

fn check_http(answer: &std::io::Result<Response>, told: &Told, id: usize, tool: &str) -> Result<(), String> {
    let answer = match (answer, told) {
        (Err(error), Told::Cut(_)) if is_broken(error.kind()) => return Ok(()),
        (Err(error), _) => return Err(format!("{error}, not {told:?}")),
        (Ok(answer), _) => answer,
    };
    let json = answer.try_json().unwrap_or_default();
    let shown = || format!("{} {:?} {}, not {told:?}", answer.status, answer.headers, answer.text());
    let right = match told {
        Told::Refused(status, _) => answer.status == *status && is_gateways(&json, id),
        Told::Cut(_) => false,
        Told::LastEvent(_) => answer.status == 200 && is_gateways(&json, id),
        Told::Passed(status, None) => {
            answer.status == *status
                && json == json!({"jsonrpc": "2.0", "id": id, "result": good_result(tool)})
        }
        Told::Passed(status, Some(body)) => {
            answer.status == *status && answer.text() == expand(body, &json!(id), tool)
        }
        Told::Error(code) => json["error"]["code"] == *code,
    };
    // What a server must not set, or what would make the gateway's own connection doubtful.
    let own = [
        "mcp-session-id",
        "access-control-allow-origin",
        "upgrade",
        "x-private",
        "trailer",
        "set-cookie",
        "location",
    ];
    let stolen = own.iter().find(|name| answer.header(name).is_some());
    if right && stolen.is_none() { Ok(()) } else { Err(shown()) }
}

fn check_message(message: &Value, told: &Told, id: usize, tool: &str) -> Result<(), String> {
    let right = match told {
        Told::Refused(..) => is_gateways(message, id),
        Told::Passed(..) => message["result"] == good_result(tool),
        Told::Error(code) => message["error"]["code"] == *code,
        Told::Cut(_) | Told::LastEvent(_) => false,
    };
    if right { Ok(()) } else { Err(format!("{message}, not {told:?}")) }
}

/// Whether a message is an error of the gateway's own about this request.
fn is_gateways(message: &Value, id: usize) -> bool {
    message["id"] == id
        && message["error"]["code"] == -32000
        && message["error"]["message"].as_str().is_some_and(|text| text.contains("\"faulty\""))
        && message.get("result").is_none()
}

fn is_broken(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::BrokenPipe
            | ErrorKind::ConnectionAborted
    )
}
