//! Setup: MCP servers that cannot be connected to, each in its own way, TLS among them; servers that spoil a connection which the
//! gateway would have used again; and one whose answer is a gigabyte.
//! Claim: the client is told that the server cannot be reached, and is served as soon as it can; no call fails or gets another's
//! answer for a connection that was kept; and an answer costs the gateway no memory, however long it is and however slow its
//! reader.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::faults::good_response;
use mcp_system_tests::mcp::{mirrored, modern, modern_call};
use mcp_system_tests::tls::{answer_https, server_of};
use mcp_system_tests::upstream::{After, ScriptedUpstream, answer_json, close_with_reset};
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, TempDir, TestCert, eventually};
use rustls::ServerConfig;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

const LIMIT: Duration = Duration::from_secs(30);

/// What a server does to a connection while it is at fault.
type Spoil = Box<dyn Fn(TcpStream) + Send + Sync>;

#[test]
fn a_server_that_cannot_be_connected_to_is_told_so_until_it_can() {
    let dirs = [(); 5].map(|()| TempDir::new());
    let [right, stranger, expired, elsewhere] = [
        TestCert::generate(&dirs[0]),
        TestCert::generate(&dirs[1]),
        TestCert::expired(&dirs[2]),
        TestCert::for_name_only(&dirs[3], "elsewhere.example"),
    ];
    let with = |cert: &TestCert| -> Spoil {
        let config = server_of(cert);
        Box::new(move |stream| answer_https(stream, &config, &answer_bytes))
    };
    // The name, who vouches for the server when it is right, and what it does until then.
    let rows: Vec<(&str, &TestCert, Spoil)> = vec![
        ("a certificate of an unknown authority", &right, with(&stranger)),
        ("a certificate that has expired", &expired, with(&expired)),
        ("a certificate for another name", &elsewhere, with(&elsewhere)),
        ("no TLS at a TLS port", &right, Box::new(talk_plainly)),
        ("the end instead of a handshake", &right, Box::new(drop)),
        ("a reset instead of a handshake", &right, Box::new(|stream| close_with_reset(&stream))),
        ("the end within the handshake", &right, Box::new(close_within_hello)),
        ("a handshake that stalls", &right, Box::new(stall)),
    ];
    let servers: Vec<_> = rows
        .into_iter()
        .map(|(name, cert, spoil)| {
            // Where the certificate itself is wrong, the right one comes of another authority, which is trusted as well.
            let bundle = [right.ca_file.clone(), cert.ca_file.clone()]
                .map(|file| std::fs::read_to_string(file).expect("PEM"));
            let ca_file = dirs[4].write(&format!("{}.pem", name.replace(' ', "-")), &bundle.concat());
            (name, ca_file, TlsServer::start(&right, spoil))
        })
        .collect();
    let mut config = GatewayConfig::new().set("gateway.circuit_breaker", "failure_threshold = 10000");
    for (number, (_, ca_file, server)) in servers.iter().enumerate() {
        let lines = format!("timeout = \"2s\"\ntls = {{ ca_file = {ca_file:?} }}");
        config = config.server_with(&format!("s{number}"), &[&server.url], &lines);
    }
    let gateway = Gateway::start(&config);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let rows: Vec<_> = servers
            .iter()
            .enumerate()
            .map(|(number, (name, _, server))| {
                let gateway = &gateway;
                scope.spawn(move || {
                    unreachable_and_back(gateway, &format!("s{number}"), name, || server.heal())
                })
            })
            .collect();
        rows.into_iter().filter_map(|row| row.join().expect("a row's thread").err()).collect()
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_server_that_is_not_there_is_told_so_until_it_is() {
    // Bound and not listening: connections are refused, and nobody else takes the port.
    let refusing = bound();
    let refusing_addr = refusing.local_addr().expect("bound").as_socket().expect("an address");
    // Listening, with a backlog that is full: what more comes is not answered at all.
    let silent = bound();
    silent.listen(0).expect("a listener");
    let silent_addr = silent.local_addr().expect("bound").as_socket().expect("an address");
    let fillers: Vec<TcpStream> =
        std::iter::from_fn(|| TcpStream::connect_timeout(&silent_addr, Duration::from_millis(300)).ok())
            .take(64)
            .collect();
    assert!(fillers.len() < 64, "the backlog is never full");
    let config = GatewayConfig::new()
        .set("gateway.circuit_breaker", "failure_threshold = 10000")
        .server_with("refusing", &[&format!("http://{refusing_addr}/mcp")], "timeout = \"3s\"")
        .server_with("silent", &[&format!("http://{silent_addr}/mcp")], "timeout = \"3s\"");
    let gateway = Gateway::start(&config);
    let heal = |socket: Socket| {
        let listener = TcpListener::from(socket);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer_plainly(stream));
            }
        });
    };
    unreachable_and_back(&gateway, "silent", "no answer to a connection", || {
        drop(fillers);
        heal(silent);
    })
    .expect("told so");
    unreachable_and_back(&gateway, "refusing", "a connection refused", || {
        refusing.listen(16).expect("a listener");
        heal(refusing);
    })
    .expect("told so");
}

#[test]
fn a_connection_that_was_kept_fails_nobody() {
    type Spoiled = fn(&mut TcpStream);
    let rows: [(&str, Spoiled); 6] = [
        ("closed while idle", |stream| stream.shutdown(Shutdown::Both).expect("closed")),
        ("half closed while idle", |stream| stream.shutdown(Shutdown::Write).expect("closed")),
        ("an answer that nobody asked for", |stream| {
            stream
                .write_all(&http(&json!({"jsonrpc": "2.0", "id": 2, "result": {"stolen": true}})))
                .expect("sent");
        }),
        ("a timeout told", |stream| {
            let told = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
            stream.write_all(told).expect("sent");
            stream.shutdown(Shutdown::Both).expect("closed");
        }),
        ("a single byte", |stream| stream.write_all(b"H").expect("sent")),
        ("a line", |stream| stream.write_all(b"\r\n").expect("sent")),
    ];
    for (name, spoil) in rows {
        let (spoiled, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (told, count) = (spoiled.clone(), calls.clone());
        let server = ScriptedUpstream::start(move |request, stream| {
            let message = request.json();
            let is_first = message["method"] == "tools/call" && count.fetch_add(1, Ordering::SeqCst) == 0;
            // What is said behind the answer must not wait until the gateway has acknowledged it with its next request.
            stream.set_nodelay(true).expect("a socket's option");
            let after = answer_well(&message, stream);
            if is_first {
                spoil(stream);
                told.store(true, Ordering::SeqCst);
            }
            after
        });
        let gateway = of_one_shard(&server.url());
        let mut connection = gateway.connect().expect("a connection");
        assert_answered(&call(&mut connection, "faulty", 1), 1, name);
        eventually("the connection is spoiled", LIMIT, || spoiled.load(Ordering::SeqCst).then_some(()));
        assert_answered(&call(&mut connection, "faulty", 2), 2, name);
        assert_eq!(calls.load(Ordering::SeqCst), 2, "{name}: the server was asked twice");
    }
}

/// Nobody can know whether the server has done what it was asked to.
#[test]
fn what_may_have_been_done_is_not_asked_again() {
    let (calls, lists) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (called, listed) = (calls.clone(), lists.clone());
    let server = ScriptedUpstream::start(move |request, stream| {
        let message = request.json();
        let number = match message["method"].as_str() {
            Some("tools/call") => called.fetch_add(1, Ordering::SeqCst),
            Some("prompts/list") => listed.fetch_add(1, Ordering::SeqCst),
            _ => 0,
        };
        if number == 1 { After::Close } else { answer_well(&message, stream) }
    });
    let gateway = of_one_shard(&server.url());
    let mut connection = gateway.connect().expect("a connection");
    assert_answered(&call(&mut connection, "faulty", 1), 1, "a call");
    assert_refused(&call(&mut connection, "faulty", 2), 2).expect("told that it broke off");
    assert_eq!(calls.load(Ordering::SeqCst), 2, "a call was sent again");
    assert_answered(&call(&mut connection, "faulty", 3), 3, "the next call");
    for id in 4..6 {
        let list = modern(id, "prompts/list", json!({}));
        let answer =
            connection.post("/mcp/faulty", &mirrored("prompts/list", None), &list).expect("an answer");
        assert_eq!(answer.json()["id"], id, "{}", answer.text());
        assert!(answer.json()["result"].is_object(), "{}", answer.text());
    }
    assert_eq!(lists.load(Ordering::SeqCst), 3, "what only reads was not sent again");
}

#[test]
fn an_answer_of_a_gigabyte_costs_no_memory() {
    const WHOLE: usize = 1 << 30;
    const READ: usize = 48 << 20;
    const ALLOWED: u64 = 24 << 20;
    // Looks in a row at which the server has sent nothing more.
    const STILL: usize = 20;
    let ended = Arc::new(AtomicBool::new(false));
    let pieces = Arc::new(AtomicUsize::new(0));
    let (told, sent) = (ended.clone(), pieces.clone());
    let server = ScriptedUpstream::start(move |request, stream| {
        let message = request.json();
        if message["method"] != "tools/call" {
            return answer_well(&message, stream);
        }
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {WHOLE}\r\n\r\n");
        let piece = [b'x'; 64 << 10];
        let taken = stream.write_all(head.as_bytes()).is_ok()
            && (0..WHOLE / piece.len()).all(|number| {
                sent.store(number, Ordering::SeqCst);
                stream.write_all(&piece).is_ok()
            });
        told.store(!taken, Ordering::SeqCst);
        After::Close
    });
    let gateway = of_one_shard(&server.url());
    let mut connection = gateway.connect().expect("a connection");
    assert_answered(&call_tool(&mut connection, "faulty", 1, "tools/list"), 1, "a list");
    let before = gateway.process.resident_bytes();
    let message = modern_call(2, "huge", json!({}));
    connection.send_post("/mcp/faulty", &mirrored("tools/call", Some("huge")), &message).expect("sent");
    let (status, mut body) = connection.into_body().expect("an answer");
    assert_eq!(status, 200);
    let (mut read, mut most) = (0, 0);
    while read < READ {
        let part = body.next_part().expect("a part").expect("more of it");
        assert!(part.iter().all(|&byte| byte == b'x'), "other bytes at {read}");
        read += part.len();
        most = most.max(gateway.process.resident_bytes());
    }
    // The client reads no more: soon everything on the way is full, and the server has to wait.
    let (mut seen, mut looks) = (0, 0);
    eventually("the server has to wait", LIMIT, || {
        most = most.max(gateway.process.resident_bytes());
        let now = pieces.load(Ordering::SeqCst);
        looks = if now == seen { looks + 1 } else { 0 };
        seen = now;
        (looks == STILL).then_some(())
    });
    assert!(most < before + ALLOWED, "{} KiB more after {read} bytes", (most - before) >> 10);
    drop(body);
    eventually("the server learns that nobody reads", LIMIT, || ended.load(Ordering::SeqCst).then_some(()));
    let mut connection = gateway.connect().expect("a connection");
    assert_answered(&call_tool(&mut connection, "faulty", 3, "tools/list"), 3, "a list");
}

/// A call fails, and succeeds after `heal`.
fn unreachable_and_back(
    gateway: &Gateway,
    server: &str,
    name: &str,
    heal: impl FnOnce(),
) -> Result<(), String> {
    let connect = || gateway.connect().expect("a connection");
    assert_refused(&call(&mut connect(), server, 1), 1).map_err(|wrong| format!("{name}: {wrong}"))?;
    heal();
    let answer = call(&mut connect(), server, 2);
    if answer.status == 200 && answer.json()["id"] == 2 {
        Ok(())
    } else {
        Err(format!("{name}, and then right: {}", answer.text()))
    }
}

/// A server that spoils every connection until it is healed.
struct TlsServer {
    url: String,
    healed: Arc<AtomicBool>,
}

impl TlsServer {
    fn start(right: &TestCert, spoil: Spoil) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("https://{}/mcp", listener.local_addr().expect("bound"));
        let healed = Arc::new(AtomicBool::new(false));
        let (is_healed, spoil): (_, Arc<Spoil>) = (healed.clone(), Arc::new(spoil));
        let config: Arc<ServerConfig> = server_of(right);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (spoil, config) = (spoil.clone(), config.clone());
                if is_healed.load(Ordering::SeqCst) {
                    std::thread::spawn(move || answer_https(stream, &config, &answer_bytes));
                } else {
                    std::thread::spawn(move || spoil(stream));
                }
            }
        });
        Self { url, healed }
    }

    fn heal(&self) {
        self.healed.store(true, Ordering::SeqCst);
    }
}

fn talk_plainly(mut stream: TcpStream) {
    // A client that has gone is the test's own matter, here and below.
    let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
}

fn close_within_hello(mut stream: TcpStream) {
    let _ = stream.read(&mut [0; 16]);
}

fn stall(mut stream: TcpStream) {
    let mut bytes = [0; 4096];
    while matches!(stream.read(&mut bytes), Ok(read) if read > 0) {}
}

/// Answers the requests of a connection that is no TLS.
fn answer_plainly(mut stream: TcpStream) {
    let mut held = Vec::new();
    let mut bytes = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut bytes) {
        held.extend_from_slice(&bytes[..read]);
        if message_of(&held).is_some() {
            if stream.write_all(&answer_bytes(&held)).is_err() {
                return;
            }
            held.clear();
        }
    }
}

/// The answer to a whole request.
fn answer_bytes(request: &[u8]) -> Vec<u8> {
    let response = message_of(request).and_then(|message| good_response(&message));
    response.map_or_else(
        || b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n".to_vec(),
        |response| http(&response),
    )
}

/// The message of a request, once all of it is here.
fn message_of(request: &[u8]) -> Option<Value> {
    let end = request.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    serde_json::from_slice(&request[end..]).ok()
}

fn http(message: &Value) -> Vec<u8> {
    let body = message.to_string();
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

fn answer_well(message: &Value, stream: &mut TcpStream) -> After {
    let response = good_response(message).unwrap_or_default();
    answer_json(stream, "200 OK", &response)
}

fn bound() -> Socket {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket
}

/// One shard, so that there is one pool.
fn of_one_shard(url: &str) -> Gateway {
    let config = GatewayConfig::new().server("faulty", &[url]).set("gateway.runtime", "shards = 1");
    Gateway::start(&config)
}

fn call(connection: &mut Connection, server: &str, id: u32) -> Response {
    let message = modern_call(id, "any", json!({}));
    let path = format!("/mcp/{server}");
    connection.post(&path, &mirrored("tools/call", Some("any")), &message).expect("an answer")
}

fn call_tool(connection: &mut Connection, server: &str, id: u32, method: &str) -> Response {
    let path = format!("/mcp/{server}");
    connection.post(&path, &mirrored(method, None), &modern(id, method, json!({}))).expect("an answer")
}

fn assert_answered(answer: &Response, id: u32, what: &str) {
    assert_eq!(answer.status, 200, "{what}: {}", answer.text());
    let expected = good_response(&json!({"id": id, "method": "tools/call", "params": {"name": "any"}}));
    let json = answer.json();
    assert!(Some(&json) == expected.as_ref() || json["result"]["tools"].is_array(), "{what}: {json}");
    assert_eq!(json["id"], id, "{what}: {json}");
}

fn assert_refused(answer: &Response, id: u32) -> Result<(), String> {
    let json = answer.try_json().unwrap_or_default();
    let right = answer.status == 502 && json["id"] == id && json["error"]["code"] == -32000;
    if right { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
}
