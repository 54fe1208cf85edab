//! The limiter on a real Redis server, by a client that blocks: what the script does there. Setup: a server of its own on a
//! free port of 127.0.0.1, killed at the end. Claim: script and server agree with what the limiter takes for granted.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::cell::RefCell;
use std::future::Future;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::pin::pin;
use std::process::{Child, Command as Process, Stdio};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use mcp_protocol::resp::Reply;
use mcp_shard_store::StoreError;
use mcp_shard_store::limiter::{Decision, Limit, Limiter};
use mcp_shard_store::redis::{Command, Commands};

/// How long the server may take to start.
const START: Duration = Duration::from_secs(20);

struct Server {
    process: Child,
    folder: PathBuf,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let deadline = Instant::now() + START;
        loop {
            let mut server = Self::spawn();
            while server.process.try_wait().unwrap().is_none() && Instant::now() < deadline {
                if let Some(mut link) = Link::open(server.port)
                    && link.send(&[b"PING"]).ok() == Some(Reply::Status("PONG".into()))
                {
                    return server;
                }
                std::thread::yield_now();
            }
            // Another process may have been faster to take the port.
            assert!(Instant::now() < deadline, "no server within {START:?}");
        }
    }

    fn spawn() -> Self {
        let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
        let folder = std::env::temp_dir().join(format!("limiter-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let process = Process::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--dir".as_ref(), folder.as_os_str()])
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        Server { process, folder, port }
    }

    fn client(&self) -> Client {
        let link = Link::open(self.port).expect("the server accepts connections");
        Client(Rc::new((RefCell::new(link), RefCell::default())))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

struct Link(BufReader<TcpStream>);

impl Link {
    fn open(port: u16) -> Option<Self> {
        #[allow(clippy::disallowed_methods, reason = "a test may block")]
        let stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
        stream.set_read_timeout(Some(START)).unwrap();
        Some(Link(BufReader::new(stream)))
    }

    fn send(&mut self, args: &[&[u8]]) -> std::io::Result<Reply> {
        let mut out = format!("*{}\r\n", args.len()).into_bytes();
        for arg in args {
            out.extend(format!("${}\r\n", arg.len()).bytes());
            out.extend([arg, &b"\r\n"[..]].concat());
        }
        self.0.get_mut().write_all(&out)?;
        self.read()
    }

    fn read(&mut self) -> std::io::Result<Reply> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        let (kind, rest) = line.trim_end().split_at_checked(1).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        Ok(match kind {
            "+" => Reply::Status(rest.into()),
            "-" => Reply::Error(rest.into()),
            ":" => Reply::Integer(rest.parse().unwrap()),
            "*" => Reply::Array((0..rest.parse().unwrap()).map(|_| self.read()).collect::<Result<_, _>>()?),
            "$" if rest == "-1" => Reply::Null,
            "$" => {
                let mut bytes = vec![0; rest.parse::<usize>().unwrap() + 2];
                self.0.read_exact(&mut bytes)?;
                bytes.truncate(bytes.len() - 2);
                Reply::Bulk(bytes.into())
            }
            other => panic!("no RESP2: {other}"),
        })
    }
}

/// A client that blocks, and remembers the names of what it was asked to send.
#[derive(Clone)]
struct Client(Rc<(RefCell<Link>, RefCell<Vec<&'static str>>)>);

impl Client {
    fn send(&self, args: &[&str]) -> Reply {
        let args: Vec<_> = args.iter().map(|arg| arg.as_bytes()).collect();
        self.0.0.borrow_mut().send(&args).unwrap()
    }

    fn sent(&self) -> Vec<&'static str> {
        self.0.1.take()
    }

    /// The name of the only record.
    fn record(&self) -> String {
        let Reply::Array(keys) = self.send(&["KEYS", "*"]) else { panic!("no keys") };
        assert_eq!(keys.len(), 1);
        String::from_utf8(keys[0].as_bytes().unwrap().to_vec()).unwrap()
    }

    /// The debt that the only record tells of, in millionths of a token, and its time.
    fn debt(&self) -> (u64, u64) {
        let Reply::Bulk(text) = self.send(&["GET", &self.record()]) else { panic!("no record") };
        let text = String::from_utf8(text.into()).unwrap();
        let (debt, at) = text.split_once(' ').unwrap();
        (debt.parse().unwrap(), at.parse().unwrap())
    }
}

impl Commands for Client {
    async fn call(&self, command: &Command<'_>) -> Result<Reply, StoreError> {
        self.0.1.borrow_mut().push(command.name);
        match self.0.0.borrow_mut().send(command.args) {
            Ok(Reply::Error(text)) => Err(StoreError::refused(&text)),
            Ok(reply) => Ok(reply),
            Err(_) => Err(StoreError::Unreachable),
        }
    }
}

fn run<T>(call: impl Future<Output = T>) -> T {
    match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        Poll::Pending => panic!("a client that blocks has nothing to wait for"),
    }
}

fn allowed(pod: &Limiter<Client>, key: &[u8], since: Instant) -> bool {
    run(pod.take(key, since.elapsed().as_millis() as u64)) == Decision::Allowed
}

#[test]
fn the_script_is_loaded_again_after_a_flush() {
    let server = Server::start();
    let client = server.client();
    let pod = Limiter::new(client.clone(), Limit { per_second: 1_000_000, burst: 5 });
    let since = Instant::now();
    for _ in 0..2 {
        assert!(allowed(&pod, b"key", since));
        assert_eq!(client.sent(), ["evalsha", "eval"]);
        assert!(allowed(&pod, b"key", since));
        assert_eq!(
            client.sent(),
            ["evalsha"],
            "the name that we give the script is the one that Redis knows"
        );
        client.send(&["SCRIPT", "FLUSH"]);
    }
    assert!(pod.stats().fallbacks.is_empty());
}

#[test]
fn pods_share_a_burst_and_an_idle_key_vanishes() {
    let server = Server::start();
    let client = server.client();
    let pods = [(); 3].map(|()| Limiter::new(server.client(), Limit { per_second: 1, burst: 7 }));
    let since = Instant::now();
    let passed = (0..60).filter(|turn| allowed(&pods[turn % 3], b"alice", since)).count();
    let flowed_back = since.elapsed().as_secs() as usize + 1;
    assert!((7..=7 + flowed_back).contains(&passed), "{passed} passed");
    let record = client.record();
    assert!(record.starts_with("mcp-rate:{") && record.len() == 43 && !record.contains("alice"), "{record}");
    let Reply::Integer(left_ms) = client.send(&["PTTL", &record]) else { panic!("no time") };
    assert!((1..=7_000).contains(&left_ms), "it lives until the debt has flowed back, not for {left_ms} ms");
}

#[test]
fn a_denial_says_when_there_is_a_token() {
    let server = Server::start();
    let pods = [(); 2].map(|()| Limiter::new(server.client(), Limit { per_second: 1, burst: 1 }));
    let since = Instant::now();
    assert!(allowed(&pods[0], b"key", since));
    match run(pods[1].take(b"key", 0)) {
        Decision::Limited { retry_after_ms } => assert!((1..=1_000).contains(&retry_after_ms)),
        Decision::Allowed => {
            assert!(since.elapsed() >= Duration::from_secs(1), "a second token within a second")
        }
    }
}

#[test]
fn a_record_from_another_clock_or_limit_or_of_no_sense_is_survived() {
    let server = Server::start();
    let client = server.client();
    let pod = || Limiter::new(client.clone(), Limit { per_second: 1, burst: 1_000 });
    let since = Instant::now();
    assert!(allowed(&pod(), b"key", since));
    let (record, (_, now)) = (client.record(), client.debt());
    // Counted an hour ahead of the clock: the debt holds, and is counted by this clock from now on.
    client.send(&["SET", &record, &format!("5000000 {}", now + 3_600_000_000)]);
    assert!(allowed(&pod(), b"key", since));
    let (debt, at) = client.debt();
    assert_eq!(debt, 6_000_000);
    assert!((now..now + 3_600_000_000).contains(&at));
    // More than the burst, from before the limit was lowered: it counts as a burst.
    client.send(&["SET", &record, &format!("9000000000000000 {}", at + 3_600_000_000)]);
    assert_eq!(run(pod().take(b"key", 0)), Decision::Limited { retry_after_ms: 1_000 });
    // Long ago.
    client.send(&["SET", &record, &format!("1000000000 {}", at - 2_000_000_000)]);
    assert!(allowed(&pod(), b"key", since));
    assert_eq!(client.debt().0, 1_000_000);
    client.send(&["SET", &record, "garbage"]);
    assert!(allowed(&pod(), b"key", since));
    assert_eq!(client.debt().0, 1_000_000);
    // What is no string is an error of the script: decided here, and said.
    client.send(&["DEL", &record]);
    client.send(&["RPUSH", &record, "item"]);
    let pod = pod();
    assert!(allowed(&pod, b"key", since));
    assert_eq!(pod.stats().fallbacks, [("refused", 1)]);
}

#[test]
fn the_largest_limit_is_counted_exactly() {
    let server = Server::start();
    let client = server.client();
    let pod = || Limiter::new(client.clone(), Limit { per_second: 1_000_000, burst: u32::MAX });
    assert!(allowed(&pod(), b"key", Instant::now()));
    let (record, (debt, now)) = (client.record(), client.debt());
    assert_eq!(debt, 1_000_000);
    // One token below the burst, as of a time that lies ahead: nothing has flowed back.
    let nearly = (u64::from(u32::MAX) - 1) * 1_000_000;
    client.send(&["SET", &record, &format!("{nearly} {}", now + 3_600_000_000)]);
    assert!(allowed(&pod(), b"key", Instant::now()));
    assert_eq!(client.debt().0, nearly + 1_000_000);
}

#[test]
fn pods_with_leases_keep_within_the_bound() {
    let server = Server::start();
    let (per_second, burst) = (2_000, 400);
    let pods = [(); 4].map(|()| Limiter::new(server.client(), Limit { per_second, burst }));
    let since = Instant::now();
    let mut passed = 0;
    for turn in 0.. {
        if since.elapsed() > Duration::from_millis(500) {
            break;
        }
        passed += u64::from(allowed(&pods[turn % pods.len()], b"key", since));
    }
    let flowed_back = since.elapsed().as_micros() as u64 * u64::from(per_second) / 1_000_000;
    let bound = flowed_back + 2 * u64::from(burst);
    assert!((u64::from(burst)..=bound).contains(&passed), "{passed} passed, at most {bound} may");
    for pod in &pods {
        assert!(pod.stats().fallbacks.is_empty());
    }
}

#[test]
fn a_shard_goes_on_when_the_server_dies() {
    let server = Server::start();
    let pod = Limiter::new(server.client(), Limit { per_second: 1, burst: 4 });
    let since = Instant::now();
    assert!(allowed(&pod, b"key", since));
    drop(server);
    let passed = (0..50).filter(|_| allowed(&pod, b"key", since)).count();
    assert!((3..=4 + since.elapsed().as_secs() as usize).contains(&passed), "{passed} passed");
    assert_eq!(pod.stats().fallbacks, [("unreachable", 50)]);
}
