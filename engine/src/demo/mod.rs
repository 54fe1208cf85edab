//! The built-in demo MCP server: something to call when no upstream is at hand.
//!
//! Owns a listener on a loopback address, one thread that accepts and one per connection, all blocking, and ends them
//! when the [`Demo`] is dropped. It is dual-era: legacy revisions with sessions, and 2026-07-28. It never runs on a
//! shard and never listens beyond the loopback interface.
//!
//! Sockets are ended by `shutdown`, not by closing descriptors: shards that copied the process's file table hold
//! copies of them, which would keep them alive.

mod connection;
mod http;
mod legacy;
mod modern;
mod sessions;
mod tools;

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use socket2::SockRef;

use sessions::Sessions;

/// The path of the MCP endpoint.
pub const PATH: &str = "/mcp";

/// Most connections at a time, each with a thread; one more is answered 503 and closed. With a message of 1 MiB in
/// each direction and a stack of 256 KiB they stay under 160 MiB.
pub const MAX_CONNECTIONS: usize = 64;

/// Most streams (GET and `subscriptions/listen`) at a time: half of the connections, so that calls still get through.
pub const MAX_STREAMS: usize = MAX_CONNECTIONS / 2;

/// Stack of a connection's thread, in bytes; JSON is parsed to a depth of 128.
const STACK_BYTES: usize = 256 << 10;

/// Pause after an accept that failed, such as for want of a descriptor.
const ACCEPT_BACK_OFF: Duration = Duration::from_millis(100);

/// The running demo server. Dropping it ends the streams, then all threads; a call in progress is given up.
#[derive(Debug)]
pub struct Demo {
    /// Where it listens, on 127.0.0.1.
    pub addr: SocketAddr,
    listener: Arc<TcpListener>,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

/// Starts the demo server on a free port of 127.0.0.1; its endpoint is [`PATH`].
///
/// # Errors
/// When no socket or no thread can be made.
pub fn start() -> io::Result<Demo> {
    let listener = Arc::new(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?);
    let addr = listener.local_addr()?;
    let shared = Arc::new(Shared::default());
    let acceptor = {
        let (listener, shared) = (Arc::clone(&listener), Arc::clone(&shared));
        Builder::new().name("demo-accept".to_owned()).spawn(move || accept_all(&listener, &shared))?
    };
    Ok(Demo { addr, listener, shared, acceptor: Some(acceptor) })
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes `accept`. It fails only if the listener is shut down already, and then nothing is left to do.
        SockRef::from(&*self.listener).shutdown(Shutdown::Both).ok();
        if let Some(acceptor) = self.acceptor.take() {
            // A panic of that thread has been reported by the panic hook.
            acceptor.join().ok();
        }
    }
}

/// What all threads of one demo server share.
#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    sessions: Sessions,
    streams: AtomicUsize,
    /// Handles to wake the connections' threads by, keyed by the connection's number.
    connections: Mutex<HashMap<u64, TcpStream>>,
}

impl Shared {
    fn stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// The right to one more stream, or `None` when [`MAX_STREAMS`] are open.
    fn stream_permit(&self) -> Option<StreamPermit<'_>> {
        let more = |open: usize| (open < MAX_STREAMS).then_some(open + 1);
        self.streams.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).ok()?;
        Some(StreamPermit { streams: &self.streams })
    }
}

/// Counts as an open stream until it is dropped.
struct StreamPermit<'a> {
    streams: &'a AtomicUsize,
}

impl Drop for StreamPermit<'_> {
    fn drop(&mut self) {
        self.streams.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Accepts until told to stop, then ends and joins every connection's thread.
fn accept_all(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    for number in 0.. {
        let accepted = listener.accept();
        if shared.stopping() {
            break;
        }
        threads.retain(|thread| !thread.is_finished());
        match accepted {
            Ok((stream, _)) if threads.len() >= MAX_CONNECTIONS => connection::refuse(stream),
            Ok((stream, _)) => threads.extend(spawn(number, stream, shared)),
            Err(_) => std::thread::sleep(ACCEPT_BACK_OFF),
        }
    }
    for stream in lock(&shared.connections).values() {
        // Ends every wait for input; what is being written may still be. Fails if the client is gone already.
        stream.shutdown(Shutdown::Read).ok();
    }
    for thread in threads {
        // A panic of that thread has been reported by the panic hook.
        thread.join().ok();
    }
}

/// A thread for the connection; without a second handle or a thread the connection is closed.
fn spawn(number: u64, stream: TcpStream, shared: &Arc<Shared>) -> Option<JoinHandle<()>> {
    let waker = stream.try_clone().ok()?;
    lock(&shared.connections).insert(number, waker);
    let spawned = {
        let shared = Arc::clone(shared);
        Builder::new().name("demo-connection".to_owned()).stack_size(STACK_BYTES).spawn(move || {
            connection::serve(stream, &shared);
            lock(&shared.connections).remove(&number);
        })
    };
    if spawned.is_err() {
        lock(&shared.connections).remove(&number);
    }
    spawned.ok()
}

/// Locks a mutex; what it guards stays whole when a holder panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
