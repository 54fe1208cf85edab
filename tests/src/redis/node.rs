//! Owns one process of Redis: a server or a sentinel, with its folder, its ports and the faults that a test puts upon it. It
//! is killed with its process group when its `Node` is dropped, and by the kernel's hand when the thread that started it
//! ends. When a test fails, the end of what it logged is printed.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use super::resp::{Reply, Resp};
use crate::boxes::Namespace;
use crate::port::free_port;
use crate::{Process, TempDir, eventually};

/// How long a process may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(20);
/// The pause between two looks whether it answers.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How often other ports are tried when somebody else took one between its choice and its use.
const PORT_TRIES: usize = 8;
/// What Redis logs then.
const IN_USE: &str = "Address already in use";
/// Lines of its log that are shown when a test fails.
const SHOWN_LINES: usize = 40;

/// What a process is started with.
#[derive(Debug, Clone, Default)]
pub(super) struct Spec {
    /// What messages call it.
    pub(super) name: String,
    /// `redis-server --sentinel`.
    pub(super) sentinel: bool,
    /// With a port for the cluster's bus.
    pub(super) cluster: bool,
    /// With a port for TLS beside the plain one.
    pub(super) tls: bool,
    /// User and password by which the harness itself logs in; the user may be empty.
    pub(super) login: Option<(String, String)>,
    /// Lines of its configuration file, ports and folder apart.
    pub(super) lines: Vec<String>,
    /// Where it is to run; the loopback if nothing else is said.
    pub(super) place: Option<Place>,
}

/// A place other than the loopback: an address and the network in which it is one. Whoever asks a node there must be in a
/// network from which it is reached.
#[derive(Debug, Clone)]
pub struct Place {
    /// The network in which the process is started.
    pub network: Namespace,
    /// Its address there.
    pub ip: Ipv4Addr,
}

/// A process of Redis.
#[derive(Debug)]
pub struct Node {
    spec: Spec,
    dir: TempDir,
    port: u16,
    tls_port: u16,
    process: Option<Process>,
    /// What the processes before this one logged.
    past: String,
}

impl Node {
    /// Starts a process on free ports and waits until it answers.
    ///
    /// # Panics
    /// When it does not; the message has what it logged.
    pub(super) fn start(spec: Spec) -> Self {
        for _ in 0..PORT_TRIES {
            let port = free_port();
            let tls_port = if spec.tls { free_port() } else { 0 };
            let mut node = Self {
                spec: spec.clone(),
                dir: TempDir::new(),
                port,
                tls_port,
                process: None,
                past: String::new(),
            };
            node.dir.write("redis.conf", &node.config());
            node.spawn();
            if node.comes_up() {
                return node;
            }
        }
        panic!("{PORT_TRIES} times a port was taken by somebody else");
    }

    /// Where it is reached without TLS.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        SocketAddr::from((self.ip(), self.port))
    }

    /// Where clients are to reach it: by TLS where it was started with TLS.
    #[must_use]
    pub fn client_addr(&self) -> SocketAddr {
        SocketAddr::from((self.ip(), if self.spec.tls { self.tls_port } else { self.port }))
    }

    /// Its address.
    #[must_use]
    pub fn ip(&self) -> Ipv4Addr {
        self.spec.place.as_ref().map_or(Ipv4Addr::LOCALHOST, |place| place.ip)
    }

    /// Asks it, over a connection made for this question; an error reply is one of the replies.
    ///
    /// # Errors
    /// When it does not run, is stopped, or does not take the harness's login.
    pub fn try_ask(&self, args: &[&str]) -> std::io::Result<Reply> {
        self.log_in()?.ask(args)
    }

    /// As [`Self::try_ask`], for questions that must have an answer that is no error.
    ///
    /// # Panics
    /// When there is none.
    pub fn ask(&self, args: &[&str]) -> Reply {
        match self.try_ask(args) {
            Ok(reply) if !reply.is_error() => reply,
            other => panic!("{} to {args:?}: {other:?}", self.spec.name),
        }
    }

    /// A connection that is logged in.
    ///
    /// # Errors
    /// As [`Self::try_ask`].
    pub fn log_in(&self) -> std::io::Result<Resp> {
        let mut resp = Resp::connect(self.addr())?;
        if let Some((user, password)) = &self.spec.login {
            let mut args = vec!["AUTH", user, password];
            args.retain(|arg| !arg.is_empty());
            let reply = resp.ask(&args)?;
            if reply.is_error() {
                return Err(std::io::Error::other(reply.text()));
            }
        }
        Ok(resp)
    }

    /// A field of `INFO <section>`; `None` when it does not answer or has no such field.
    #[must_use]
    pub fn info(&self, section: &str, field: &str) -> Option<String> {
        let info = self.try_ask(&["INFO", section]).ok()?.text();
        find_field(&info, field)
    }

    /// Sets a parameter of the running server.
    ///
    /// # Panics
    /// When it refuses.
    pub fn set_config(&self, parameter: &str, value: &str) {
        let _ = self.ask(&["CONFIG", "SET", parameter, value]);
    }

    /// Breaks off all connections of clients, but not those of replicas.
    ///
    /// # Panics
    /// When it does not answer.
    pub fn kill_clients(&self) {
        for kind in ["normal", "pubsub"] {
            let _ = self.ask(&["CLIENT", "KILL", "TYPE", kind]);
        }
    }

    /// Whether its process runs; a paused one does.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(Process::is_running)
    }

    /// Kills it (SIGKILL).
    pub fn kill(&mut self) {
        self.signal(libc::SIGKILL);
        if let Some(process) = self.process.take() {
            let log = process.log();
            drop(process);
            self.past = format!("{}{log}\n-- killed\n", self.past);
        }
    }

    /// Starts it again in its folder and at its ports, after [`Self::kill`], and waits until it answers.
    ///
    /// # Panics
    /// When it does not.
    pub fn restart(&mut self) {
        self.kill();
        // Its ports may be in use for a moment by somebody who looked for free ones meanwhile.
        let what = format!("{} is back at port {}", self.spec.name, self.port);
        eventually(&what, START_LIMIT, || {
            self.spawn();
            self.comes_up().then_some(())
        });
    }

    /// Stops its process (SIGSTOP): connections stay, nothing is answered.
    pub fn pause(&mut self) {
        self.signal(libc::SIGSTOP);
    }

    /// Lets a paused process go on (SIGCONT).
    pub fn resume(&mut self) {
        self.signal(libc::SIGCONT);
    }

    /// All that it logged so far, over its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        let now = self.process.as_ref().map(Process::log).unwrap_or_default();
        format!("{}{now}", self.past)
    }

    fn config(&self) -> String {
        let mut lines = vec![
            format!("bind {}", self.ip()),
            "daemonize no".to_owned(),
            format!("port {}", self.port),
            format!("dir {}", self.dir.path().display()),
        ];
        if self.spec.place.is_some() {
            // Whoever is not on its loopback would be refused, since there is no password.
            lines.push("protected-mode no".to_owned());
        }
        if self.spec.tls {
            lines.push(format!("tls-port {}", self.tls_port));
        }
        if self.spec.cluster {
            // Given by name: the usual one, 10,000 above the port, is where the kernel takes ports for connections.
            lines.push(format!("cluster-port {}", free_port()));
        }
        lines.extend(self.spec.lines.iter().cloned());
        lines.join("\n") + "\n"
    }

    fn spawn(&mut self) {
        let mut command = Command::new(redis_server());
        command.arg(self.dir.path().join("redis.conf"));
        if self.spec.sentinel {
            command.arg("--sentinel");
        }
        // A group of its own, so that the children that write a snapshot die with it.
        command.process_group(0).current_dir(self.dir.path());
        if let Some(place) = &self.spec.place {
            place.network.hold(&mut command);
        }
        self.process = Some(Process::start(&self.spec.name, &mut command));
    }

    /// Waits until this very process answers; `false` when it ended because a port was taken.
    fn comes_up(&mut self) -> bool {
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let Some(process) = self.process.as_mut() else { return false };
            let id = process.id().to_string();
            if !process.is_running() {
                // Its last words arrive a moment after its end.
                let what = format!("the last words of {}", self.spec.name);
                eventually(&what, START_LIMIT, || (!process.log().is_empty()).then_some(()));
                assert!(process.log().contains(IN_USE), "{} ended:\n{}", self.spec.name, process.log());
                self.process = None;
                return false;
            }
            if self.info("server", "process_id") == Some(id) && self.is_loaded() {
                return true;
            }
            assert!(Instant::now() < deadline, "{} does not answer:\n{}", self.spec.name, self.log());
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn is_loaded(&self) -> bool {
        self.spec.sentinel || self.info("persistence", "loading").as_deref() == Some("0")
    }

    /// Signals its process group; one that has ended already needs no signal.
    fn signal(&mut self, signal: libc::c_int) {
        let Some(process) = self.process.as_mut() else { return };
        if !process.is_running() {
            return;
        }
        let id = libc::pid_t::try_from(process.id()).expect("process ids are small");
        // SAFETY: the child was not waited for, so the group is still its own.
        let sent = unsafe { libc::kill(-id, signal) };
        assert_eq!(sent, 0, "cannot signal {}: {}", self.spec.name, std::io::Error::last_os_error());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
            eprintln!("-- the last lines of {} ({}):\n{shown}", self.spec.name, self.addr());
        }
        self.kill();
    }
}

/// The value of a line `field:value`.
pub(super) fn find_field(text: &str, field: &str) -> Option<String> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

/// The server's binary: `REDIS_SERVER_BIN`, or the one of the path.
fn redis_server() -> PathBuf {
    std::env::var_os("REDIS_SERVER_BIN").map_or_else(|| PathBuf::from("redis-server"), PathBuf::from)
}
