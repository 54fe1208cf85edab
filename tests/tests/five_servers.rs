//! Setup: five servers behind one gateway: two good ones, on an official SDK; one that takes every request and never answers; one
//! that answers garbage; and one that is killed (SIGKILL) every second and started again. All five are called all the time, in turn
//! as one of all servers (`/mcp`) and alone (`/mcp/<name>`).
//! Claim: no call to the good ones fails or gets another's answer, and every call to the others is answered with what became of
//! it. The median of the good ones is printed beside what it is while nobody calls the others.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use mcp_system_tests::mcp::{call, modern_call};
use mcp_system_tests::peers::Server;
use mcp_system_tests::port::free_port;
use mcp_system_tests::upstream::{After, ScriptedUpstream, UpstreamRequest, answer};
use mcp_system_tests::{Gateway, GatewayConfig, Response, eventually};
use serde_json::json;

/// How often the killed server is killed.
const KILLS: usize = 5;
/// How long it lives each time.
const LIFE: Duration = Duration::from_secs(1);
/// Calls of each client to a good server while nobody calls the others.
const CALLS_ALONE: usize = 500;
/// Clients of each server.
const CLIENTS: usize = 2;
/// How long a client waits after a call that failed: else it would measure how fast the gateway can refuse.
const PATIENCE: Duration = Duration::from_millis(20);
const LIMIT: Duration = Duration::from_secs(60);
const TOOL: &str = "test_simple_text";

#[test]
fn good_servers_do_not_suffer_from_bad_ones() {
    let good = [Server::modern(), Server::modern()];
    let hanging = ScriptedUpstream::start(hang);
    let garbage =
        ScriptedUpstream::start(|_, stream| answer(stream, "\u{1}garbage\r\n\r\n\u{2}", After::Close));
    let port = free_port();
    let config = GatewayConfig::new()
        .server("good-0", &[&good[0].url])
        .server("good-1", &[&good[1].url])
        .server_with("hanging", &[&hanging.url()], "timeout = \"1s\"")
        .server("garbage", &[&garbage.url()])
        .server("killed", &[&format!("http://127.0.0.1:{port}/mcp")]);
    let gateway = Gateway::start(&config);

    let mut alone = std::thread::scope(|scope| {
        let clients: Vec<_> = good_clients()
            .map(|server| {
                let gateway = &gateway;
                scope.spawn(move || good_calls(gateway, server, |made| made < CALLS_ALONE))
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("no call fails")).collect::<Vec<_>>()
    });

    let over = AtomicBool::new(false);
    let (stop, stopped) = sync_channel(1);
    let (mut beside, told) = std::thread::scope(|scope| {
        let (gateway, over) = (&gateway, &over);
        let killer = scope.spawn(move || kill_again_and_again(port, &stopped, over));
        let bad: Vec<_> = ["hanging", "garbage", "killed"]
            .into_iter()
            .flat_map(|server| [server; CLIENTS])
            .map(|server| scope.spawn(move || (server, bad_calls(gateway, server, over))))
            .collect();
        let clients: Vec<_> = good_clients()
            .map(|server| scope.spawn(move || good_calls(gateway, server, |_| !over.load(Ordering::SeqCst))))
            .collect();
        let times = clients.into_iter().map(|client| client.join()).collect::<Result<Vec<_>, _>>();
        // Also where a call failed: the killer must not wait for its end.
        finish(&stop, over);
        killer.join().expect("the killed server starts again and again");
        let told: Vec<_> =
            bad.into_iter().map(|client| client.join().expect("every call is answered")).collect();
        (times.expect("no call to a good server fails").concat(), told)
    });

    for (server, answers) in &told {
        println!("{server}: {answers:?}");
        assert!(answers.total() > 0, "{server} was not called");
    }
    let good_answers: usize =
        told.iter().filter(|(server, _)| *server != "killed").map(|(_, answers)| answers.good).sum();
    assert_eq!(good_answers, 0, "a server that cannot answer did");
    let (alone, beside) = (median(&mut alone), median(&mut beside));
    println!(
        "median of the good ones: alone {alone:?}, beside bad ones {beside:?} ({:.2} times)",
        beside.as_secs_f64() / alone.as_secs_f64()
    );
}

/// What became of the calls to a bad server.
#[derive(Debug, Default)]
struct Answers {
    good: usize,
    refused: usize,
}

impl Answers {
    fn total(&self) -> usize {
        self.good + self.refused
    }
}

fn good_clients() -> impl Iterator<Item = &'static str> {
    ["good-0", "good-1"].into_iter().flat_map(|server| [server; CLIENTS])
}

/// Calls a good server one time after another; how long each call took.
fn good_calls(gateway: &Gateway, server: &str, goes_on: impl Fn(usize) -> bool) -> Vec<Duration> {
    let mut connection = gateway.connect().expect("a connection");
    let mut times = Vec::new();
    while goes_on(times.len()) {
        let begun = Instant::now();
        let (path, tool) = way(server, times.len());
        let answer = call(&mut connection, &path, &tool, json!({})).expect("an answer");
        times.push(begun.elapsed());
        assert!(is_good(&answer), "{server}: {} {}", answer.status, answer.text());
    }
    times
}

/// Calls a bad server until all is over. Every call is answered: by the server or with the gateway's own error.
fn bad_calls(gateway: &Gateway, server: &str, over: &AtomicBool) -> Answers {
    let mut connection = gateway.connect().expect("a connection");
    let mut answers = Answers::default();
    while !over.load(Ordering::SeqCst) {
        // An answer that was cut off ends its connection, and so does a refusal that asks for patience.
        let (path, tool) = way(server, answers.total());
        let Ok(answer) = call(&mut connection, &path, &tool, json!({})) else {
            assert_eq!(server, "killed", "an answer of {server} was cut off");
            answers.refused += 1;
            std::thread::park_timeout(PATIENCE);
            connection = gateway.connect().expect("a connection");
            continue;
        };
        if is_good(&answer) {
            answers.good += 1;
        } else {
            let json = answer.json();
            let is_own =
                json["error"]["code"] == -32000 && json["id"] == modern_call(1, &tool, json!({}))["id"];
            assert!(is_own && matches!(answer.status, 502..=504), "{server}: {} {json}", answer.status);
            answers.refused += 1;
            std::thread::park_timeout(PATIENCE);
        }
    }
    answers
}

/// Where and as what the tool is called: as one of all servers' and as the server's own in turn.
fn way(server: &str, number: usize) -> (String, String) {
    if number.is_multiple_of(2) {
        ("/mcp".to_owned(), format!("{server}__{TOOL}"))
    } else {
        (format!("/mcp/{server}"), TOOL.to_owned())
    }
}

fn is_good(answer: &Response) -> bool {
    answer.status == 200
        && answer.json()["result"]["content"][0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("simple text"))
}

/// Starts a server at this port, kills it after a while, and so on; then all is over.
fn kill_again_and_again(port: u16, stop: &Receiver<()>, over: &AtomicBool) {
    let kills = AtomicUsize::new(0);
    eventually("the server was killed often enough", LIMIT, || {
        let mut server = Server::modern_at(port);
        if stop.recv_timeout(LIFE) != Err(RecvTimeoutError::Timeout) {
            return Some(());
        }
        server.process.signal(libc::SIGKILL);
        (kills.fetch_add(1, Ordering::SeqCst) + 1 == KILLS).then_some(())
    });
    over.store(true, Ordering::SeqCst);
}

fn finish(stop: &SyncSender<()>, over: &AtomicBool) {
    over.store(true, Ordering::SeqCst);
    // The killer has ended by itself where nothing failed.
    let _ = stop.try_send(());
}

/// Says nothing until the gateway has given up.
fn hang(_: &UpstreamRequest, stream: &mut TcpStream) -> After {
    // Whatever ends the waiting, the connection is of no use then.
    let _ = std::io::Read::read(stream, &mut [0]);
    After::Close
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
