//! Owns `mcp-gateway connect` under test: its command line, and a client that writes and reads its lines.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Gateway;
use crate::fixtures::{Fixture, Override};
use crate::gateway::binary;
use crate::upstream::{After, UpstreamRequest};

/// Longest time that a line is waited for.
const LINE_LIMIT: Duration = Duration::from_secs(60);
/// Lines that may wait until the test looks at them.
const LINES: usize = 1024;

/// The command line by which a client starts `connect` towards this gateway.
#[must_use]
pub fn command(gateway: &Gateway, url: &str, options: &[&str]) -> Vec<String> {
    let ca_file = gateway.cert.ca_file.display().to_string();
    to(url, &[&["--ca-file", &*ca_file][..], options].concat())
}

/// The command line for any URL, trusting whom the system trusts.
#[must_use]
pub fn to(url: &str, options: &[&str]) -> Vec<String> {
    let mut command = vec![binary().display().to_string(), "connect".to_owned(), url.to_owned()];
    command.extend(options.iter().map(|&option| option.to_owned()));
    command
}

/// Does what `what` does with the first `times` requests of this method, and leaves the others to the fixture.
pub fn first_times(
    times: usize,
    method: &'static str,
    what: impl Fn(&UpstreamRequest, &mut TcpStream) -> After + Send + Sync + 'static,
) -> impl Override {
    let count = AtomicUsize::new(0);
    move |request: &UpstreamRequest, stream: &mut TcpStream| {
        let is_meant = request.json()["method"] == method && count.fetch_add(1, Ordering::SeqCst) < times;
        is_meant.then(|| what(request, stream))
    }
}

/// How often the server was sent this method.
#[must_use]
pub fn seen(server: &Fixture, method: &str) -> usize {
    server.seen().iter().filter(|request| request.json()["method"] == method).count()
}

/// A running `connect` and its client. Dropped, it is killed.
#[derive(Debug)]
pub struct Bridge {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Receiver<String>,
    /// What was read and not yet asked for.
    waiting: Vec<Value>,
}

impl Bridge {
    /// Starts this command line. Its log goes to the test's own standard error.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start(command: &[String]) -> Self {
        Self::start_with(command, &[])
    }

    /// As [`Self::start`], with variables for its environment.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn start_with(command: &[String], env: &[(&str, &str)]) -> Self {
        let mut process = Command::new(&command[0]);
        process.args(&command[1..]).envs(env.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        // SAFETY: prctl is async-signal-safe and touches no memory of this process.
        unsafe {
            process.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            });
        }
        let mut child = process.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let stdin = child.stdin.take();
        let (lines, stdout) = sync_channel(LINES);
        let reader = BufReader::new(child.stdout.take().expect("its output is a pipe"));
        std::thread::spawn(move || {
            for line in reader.lines() {
                let Ok(line) = line else { return };
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, stdin, stdout, waiting: Vec::new() }
    }

    /// The process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line.
    ///
    /// # Panics
    /// When the input was closed, or the process reads no more.
    pub fn write(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        stdin.write_all(format!("{line}\n").as_bytes()).expect("connect reads its input");
    }

    /// Sends a message.
    ///
    /// # Panics
    /// As for [`Self::write`].
    pub fn send(&mut self, message: &Value) {
        self.write(&message.to_string());
    }

    /// Sends a request.
    ///
    /// # Panics
    /// As for [`Self::write`].
    pub fn request(&mut self, id: u64, method: &str, params: Value) {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
    }

    /// Calls a tool.
    ///
    /// # Panics
    /// As for [`Self::write`].
    pub fn call(&mut self, id: u64, tool: &str, arguments: Value) {
        self.request(id, "tools/call", json!({"name": tool, "arguments": arguments}));
    }

    /// Goes through the legacy handshake; the result of `initialize` comes back.
    ///
    /// # Panics
    /// When it fails.
    pub fn initialize(&mut self) -> Value {
        self.request(
            0,
            "initialize",
            json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}),
        );
        let answer = self.answer(0);
        assert!(answer["result"]["protocolVersion"].is_string(), "{answer}");
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
        answer["result"].clone()
    }

    /// The first message, of those that were not asked for yet, for which `wanted` holds.
    ///
    /// # Panics
    /// When none comes in time, or a line is no JSON.
    pub fn take(&mut self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + LINE_LIMIT;
        loop {
            if let Some(place) = self.waiting.iter().position(&wanted) {
                return self.waiting.remove(place);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stdout.recv_timeout(left) {
                Ok(line) => {
                    let message =
                        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}"));
                    self.waiting.push(message);
                }
                Err(RecvTimeoutError::Timeout) => panic!("no {what} in time; there is {:?}", self.waiting),
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("no {what}: the output has ended; there is {:?}", self.waiting)
                }
            }
        }
    }

    /// The answer to a request.
    ///
    /// # Panics
    /// As for [`Self::take`].
    pub fn answer(&mut self, id: u64) -> Value {
        self.take(&format!("answer {id}"), |message| message["id"] == id && message.get("method").is_none())
    }

    /// Closes the input.
    pub fn close_input(&mut self) {
        self.stdin = None;
    }

    /// All that is left on the output, up to its end.
    ///
    /// # Panics
    /// When it does not end in time, or a line is no JSON.
    pub fn rest(&mut self) -> Vec<Value> {
        let mut rest = std::mem::take(&mut self.waiting);
        let deadline = Instant::now() + LINE_LIMIT;
        loop {
            match self.stdout.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => rest.push(serde_json::from_str(&line).expect("a line is JSON")),
                Err(RecvTimeoutError::Disconnected) => return rest,
                Err(RecvTimeoutError::Timeout) => panic!("the output does not end; there is {rest:?}"),
            }
        }
    }

    /// Sends a signal.
    ///
    /// # Panics
    /// When the process has ended.
    pub fn signal(&mut self, signal: libc::c_int) {
        assert!(matches!(self.child.try_wait(), Ok(None)), "connect has ended");
        let id = libc::pid_t::try_from(self.child.id()).expect("process ids are small");
        // SAFETY: the child was not waited for, so the id is still its own.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    /// When it still runs after `limit`.
    pub fn finish(mut self, limit: Duration) -> ExitStatus {
        crate::eventually("the end of connect", limit, || self.child.try_wait().expect("a child"))
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it remains after the wait.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
