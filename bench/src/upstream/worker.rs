//! One thread of the upstream: its listener, its epoll loop, its connections and its held-back answers.
//!
//! Bounds: [`ACCEPTS_PER_WAKE`] connections per turn, one read and one step of a stream per connection and turn, and connections by the limit of
//! open files (beyond it accepting pauses for [`ACCEPT_PAUSE`]).

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::answer::Responder;
use super::connection::{Connection, Progress, Scratch};
use crate::sys::{self, Epoll, Event, Interest, Wake};

const LISTENER: u64 = u64::MAX;
const WAKE: u64 = u64::MAX - 1;
/// Connections accepted before others get their turn.
const ACCEPTS_PER_WAKE: usize = 64;
/// How long accepting rests when there is no descriptor or memory for another connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Connections that may wait for `accept`.
const BACKLOG: i32 = 4096;
/// Bytes read in one go; the only input buffer of a thread.
const READ_BYTES: usize = 64 * 1024;

/// A thread's server.
#[derive(Debug)]
pub(super) struct Worker {
    epoll: Epoll,
    listener: Socket,
    accept_again: Option<Instant>,
    responder: Arc<Responder>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Answers that wait for their time, which is the same distance for all: first in, first out. One per request
    /// in flight.
    held_back: VecDeque<HeldBack>,
    /// Connections whose input was not read to the end in their last turn.
    unread: VecDeque<u64>,
    /// Streams whose next step has its time, and those that go on at once. One entry per connection.
    timed: BinaryHeap<Reverse<(Instant, u64)>>,
    running: VecDeque<u64>,
    scratch: Scratch,
    calls: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// Tells a slot's connections apart, in tokens.
    generation: u32,
    connection: Option<Connection>,
}

#[derive(Debug)]
struct HeldBack {
    due: Instant,
    token: u64,
    bytes: Vec<u8>,
}

impl Worker {
    /// Binds the listener. The calling thread must be the one that runs the loop, in its own file table.
    pub(super) fn bind(
        address: SocketAddr,
        wake: &Wake,
        responder: Arc<Responder>,
        index: usize,
    ) -> io::Result<Self> {
        if index == 0 {
            // Threads share the port, and so could a forgotten process; binding it alone first finds that one out.
            socket_for(address)?.bind(&address.into())?;
        }
        let listener = socket_for(address)?;
        listener.set_reuse_port(true)?;
        listener.bind(&address.into())?;
        listener.listen(BACKLOG)?;
        listener.set_nonblocking(true)?;
        // Accepted sockets inherit it.
        listener.set_tcp_nodelay(true)?;
        let epoll = Epoll::new()?;
        epoll.add(listener.as_fd(), Interest::Level, LISTENER)?;
        epoll.add(wake.as_fd(), Interest::Level, WAKE)?;
        Ok(Self {
            epoll,
            listener,
            accept_again: None,
            responder,
            slots: Vec::new(),
            free: Vec::new(),
            held_back: VecDeque::new(),
            unread: VecDeque::new(),
            timed: BinaryHeap::new(),
            running: VecDeque::new(),
            scratch: Scratch { input: vec![0; READ_BYTES], body: Vec::new(), output: Vec::new() },
            calls: 0,
        })
    }

    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()?.as_socket().ok_or_else(|| io::Error::other("not an IP address"))
    }

    /// Serves until the wake is raised.
    pub(super) fn run(&mut self) -> io::Result<()> {
        loop {
            let events = self.epoll.wait(self.next_timeout())?;
            for i in 0..events {
                match self.epoll.event(i) {
                    Event { token: WAKE, .. } => return Ok(()),
                    Event { token: LISTENER, .. } => self.accept()?,
                    event => self.on_event(event),
                }
            }
            for _ in 0..self.unread.len() {
                if let Some(token) = self.unread.pop_front() {
                    self.turn(token, false);
                }
            }
            self.send_due();
            self.step_streams();
            self.resume_accept()?;
        }
    }

    fn next_timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() || !self.running.is_empty() {
            return Some(Duration::ZERO);
        }
        let due = self.held_back.front().map(|h| h.due);
        let step = self.timed.peek().map(|Reverse((due, _))| *due);
        let next = [due, step, self.accept_again].into_iter().flatten().min()?;
        Some(next.saturating_duration_since(Instant::now()))
    }

    fn accept(&mut self) -> io::Result<()> {
        for _ in 0..ACCEPTS_PER_WAKE {
            match sys::accept(self.listener.as_fd()) {
                Ok(fd) => {
                    let index = self.free.pop().unwrap_or_else(|| {
                        self.slots.push(Slot::default());
                        u32::try_from(self.slots.len() - 1).expect("fewer connections than descriptors")
                    });
                    let slot = &mut self.slots[index as usize];
                    let token = u64::from(slot.generation) << 32 | u64::from(index);
                    self.epoll.add(fd.as_fd(), Interest::Edge, token)?;
                    slot.connection = Some(Connection::new(fd));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if matches!(e.raw_os_error(), Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)) => {
                    self.epoll.remove(self.listener.as_fd())?;
                    self.accept_again = Some(Instant::now() + ACCEPT_PAUSE);
                    break;
                }
                // The peer was gone before it was accepted.
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn resume_accept(&mut self) -> io::Result<()> {
        if self.accept_again.is_some_and(|at| at <= Instant::now()) {
            self.accept_again = None;
            self.epoll.add(self.listener.as_fd(), Interest::Level, LISTENER)?;
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        let Some(connection) = Self::at(&mut self.slots, event.token) else { return };
        let mut progress = Progress::Open;
        if event.writable {
            progress = connection.handle_writable();
        }
        connection.readable |= event.readable;
        if progress == Progress::Gone {
            self.drop_connection(event.token);
        } else {
            self.turn(event.token, event.closed);
        }
    }

    /// Lets one connection read and answer once.
    fn turn(&mut self, token: u64, peer_closed: bool) {
        let Some(connection) = Self::at(&mut self.slots, token) else { return };
        let mut progress = Progress::Open;
        self.scratch.output.clear();
        if connection.readable && connection.takes_requests() {
            let mut on_call = count_call(&self.responder, &mut self.calls);
            progress =
                connection.handle_readable(&self.responder, &mut self.scratch, peer_closed, &mut on_call);
        }
        if !self.scratch.output.is_empty() && progress == Progress::Open {
            if self.responder.delay.is_zero() {
                progress = connection.send(&self.scratch.output);
            } else {
                let due = Instant::now() + self.responder.delay;
                connection.held_back += 1;
                self.held_back.push_back(HeldBack { due, token, bytes: self.scratch.output.clone() });
            }
        }
        if progress == Progress::Gone || connection.is_finished() {
            self.drop_connection(token);
        } else if connection.readable && connection.takes_requests() {
            self.unread.push_back(token);
        } else {
            self.schedule(token);
        }
    }

    fn send_due(&mut self) {
        if self.held_back.is_empty() {
            return;
        }
        let now = Instant::now();
        while self.held_back.front().is_some_and(|h| h.due <= now) {
            let Some(answer) = self.held_back.pop_front() else { break };
            let Some(connection) = Self::at(&mut self.slots, answer.token) else { continue };
            connection.held_back -= 1;
            if connection.send(&answer.bytes) == Progress::Gone || connection.is_finished() {
                self.drop_connection(answer.token);
            } else {
                self.schedule(answer.token);
            }
        }
    }

    /// Sees to it that a connection's stream, if it has one and nothing stands before it, goes on.
    fn schedule(&mut self, token: u64) {
        let Some(connection) = Self::at(&mut self.slots, token) else { return };
        let waits = connection.held_back > 0 || connection.is_blocked();
        let Some(stream) = connection.stream.as_mut().filter(|s| !waits && !s.scheduled) else { return };
        stream.scheduled = true;
        match stream.due() {
            Some(due) => self.timed.push(Reverse((due, token))),
            None => self.running.push_back(token),
        }
    }

    fn step_streams(&mut self) {
        for _ in 0..self.running.len() {
            if let Some(token) = self.running.pop_front() {
                self.step(token);
            }
        }
        if self.timed.is_empty() {
            return;
        }
        let now = Instant::now();
        while let Some(Reverse((due, token))) = self.timed.peek().copied() {
            if due > now {
                return;
            }
            self.timed.pop();
            self.step(token);
        }
    }

    /// Lets one stream send what is due.
    fn step(&mut self, token: u64) {
        let Some(connection) = Self::at(&mut self.slots, token) else { return };
        let Some(stream) = &mut connection.stream else { return };
        stream.scheduled = false;
        self.scratch.output.clear();
        if stream.step(Instant::now(), &mut self.scratch.output) {
            connection.stream = None;
            let mut on_call = count_call(&self.responder, &mut self.calls);
            connection.handle_held(&self.responder, &mut self.scratch, &mut on_call);
        }
        if connection.send(&self.scratch.output) == Progress::Gone || connection.is_finished() {
            self.drop_connection(token);
        } else if connection.readable && connection.takes_requests() {
            self.unread.push_back(token);
        } else {
            self.schedule(token);
        }
    }

    /// The connection that `token` means, if it still lives.
    fn at(slots: &mut [Slot], token: u64) -> Option<&mut Connection> {
        let slot = slots.get_mut(token as u32 as usize)?;
        if u64::from(slot.generation) == token >> 32 { slot.connection.as_mut() } else { None }
    }

    fn drop_connection(&mut self, token: u64) {
        let index = token as u32;
        let slot = &mut self.slots[index as usize];
        slot.connection = None;
        // One short of all ones, so that no token is the listener's or the wake's.
        slot.generation = (slot.generation + 1) % (u32::MAX - 1);
        self.free.push(index);
    }
}

/// Counts a call, and stops the thread at the one where it shall stall.
fn count_call(responder: &Responder, calls: &mut u64) -> impl FnMut() {
    let stall = responder.stall;
    move || {
        *calls += 1;
        if let Some(stall) = stall.filter(|s| s.at_call == *calls) {
            thread::sleep(stall.pause);
        }
    }
}

fn socket_for(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    Ok(socket)
}
