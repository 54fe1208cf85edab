//! `mcp-bench upstream`: an MCP server over plain HTTP/1.1 that costs a few microseconds per call, to be measured
//! against. It serves every revision at once.
//!
//! This file starts the threads and ends them. One thread per [`Options::threads`], each with its own listener
//! (`SO_REUSEPORT`), file table, epoll loop and connections; threads share nothing but the options.

mod answer;
mod connection;
mod sessions;
mod stream;
mod worker;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::sys::{StopSignals, Wake, open_file_limit, own_file_table, random};

pub use answer::AnswerStyle;
use answer::Responder;
use worker::Worker;

/// Longest wait for a signal in one go; only to keep the sum of times in range.
const LONGEST_RUN: Duration = Duration::from_secs(365 * 24 * 3600);

/// What the server shall be.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads, each with a loop of its own.
    pub threads: usize,
    /// Mint a session at `initialize` and demand it afterwards (legacy revisions).
    pub sessions: bool,
    /// How long every answer is held back.
    pub delay: Duration,
    /// Bytes of text that the tool `fixed` returns.
    pub result_bytes: usize,
    /// How requests are answered.
    pub style: AnswerStyle,
    /// The thread stops for a while at one of its calls, like a pause for garbage collection.
    pub stall: Option<Stall>,
    /// End by itself after this time.
    pub run_for: Option<Duration>,
}

/// One pause of a server thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The call (`tools/call`, counted from 1 on each thread) before whose answer the thread stops.
    pub at_call: u64,
    /// For how long.
    pub pause: Duration,
}

/// Runs the server until SIGINT, SIGTERM or the end of [`Options::run_for`].
///
/// Prints `listening on http://ADDRESS/mcp` on standard output when connections are accepted.
///
/// # Errors
/// When the address cannot be bound or a thread cannot be started.
pub fn run(options: &Options) -> io::Result<()> {
    let signals = StopSignals::block()?;
    let server = Server::start(options)?;
    writeln!(io::stdout(), "listening on http://{}/mcp", server.address())?;
    signals.wait(options.run_for.unwrap_or(LONGEST_RUN).min(LONGEST_RUN));
    server.stop()
}

/// A running server; it runs on if dropped, [`Self::stop`] ends it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    wake: Arc<Wake>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl Server {
    /// Binds the listeners and starts the threads.
    ///
    /// # Errors
    /// When the address cannot be bound or a thread cannot be started.
    pub fn start(options: &Options) -> io::Result<Self> {
        open_file_limit()?;
        let mut nonce = [0u8; 16];
        random(&mut nonce)?;
        let responder = Arc::new(Responder::new(options, u128::from_ne_bytes(nonce)));
        let wake = Arc::new(Wake::new()?);
        let mut server = Self { address: options.listen, wake, threads: Vec::new() };
        for index in 0..options.threads.max(1) {
            if let Err(e) = server.add_thread(index, &responder) {
                server.stop()?;
                return Err(e);
            }
        }
        Ok(server)
    }

    /// The address that is listened on, its port resolved.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends all threads; open connections are cut.
    ///
    /// # Errors
    /// The first error that ended a thread early.
    pub fn stop(self) -> io::Result<()> {
        self.wake.raise();
        let mut result = Ok(());
        for thread in self.threads {
            let ended = thread.join().unwrap_or_else(|_| Err(io::Error::other("a server thread panicked")));
            result = result.and(ended);
        }
        result
    }

    /// Starts one thread and waits until it listens.
    fn add_thread(&mut self, index: usize, responder: &Arc<Responder>) -> io::Result<()> {
        let (bound, result) = sync_channel(1);
        let (wake, responder, address) = (self.wake.clone(), responder.clone(), self.address);
        let main = move || run_thread(&wake, responder, address, index, &bound);
        let thread = thread::Builder::new().name(format!("upstream-{index}")).spawn(main)?;
        self.threads.push(thread);
        match result.recv() {
            Ok(address) => {
                self.address = address;
                Ok(())
            }
            // The thread ended before it listened; its own result says why.
            Err(_) => Err(io::Error::other(format!("cannot listen on {address}"))),
        }
    }
}

fn run_thread(
    wake: &Wake,
    responder: Arc<Responder>,
    address: SocketAddr,
    index: usize,
    bound: &SyncSender<SocketAddr>,
) -> io::Result<()> {
    own_file_table();
    let mut worker = Worker::bind(address, wake, responder, index)?;
    let at = worker.address()?;
    if bound.send(at).is_ok() { worker.run() } else { Ok(()) }
}
