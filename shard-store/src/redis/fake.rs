//! For tests: a runtime in virtual time whose connections end at servers that the test writes down. Nothing in it opens a
//! socket or reads a clock, so every order of events that matters can be made.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_io::{AsyncRead, AsyncWrite};
use mcp_protocol::resp::{Reader, Reply};

use super::{Client, Events};
use crate::Millis;
use crate::runtime::{Address, Elapsed, Runtime};

/// What a server does about a command.
pub(crate) enum Act {
    /// Answers with these bytes.
    Say(Vec<u8>),
    /// Says nothing, now or ever.
    Nothing,
    /// Closes the connection.
    Close,
}

impl Act {
    pub(crate) fn say(text: &str) -> Act {
        Act::Say(text.as_bytes().to_vec())
    }
}

/// How a server acts: told the connection's number and the command's words.
pub(crate) type Handler = Box<dyn FnMut(usize, &[String]) -> Act>;

struct Server {
    handler: Handler,
    accepts: bool,
    pipes: Vec<Rc<RefCell<Pipe>>>,
    /// Commands of each write, the login's aside.
    writes: Vec<Vec<String>>,
}

#[derive(Default)]
struct Pipe {
    to_client: Vec<u8>,
    to_server: Vec<u8>,
    closed: bool,
    /// The server reads nothing.
    paused: bool,
    reader: Option<Waker>,
}

impl Pipe {
    fn wake(&mut self) {
        self.reader.take().into_iter().for_each(Waker::wake);
    }
}

struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

struct World {
    now: Cell<Millis>,
    tasks: RefCell<Vec<Task>>,
    spawned: RefCell<Vec<Task>>,
    timers: RefCell<Vec<Millis>>,
    servers: RefCell<HashMap<Address, Server>>,
    wants_flush: Cell<bool>,
    flush: RefCell<Option<Box<dyn Fn()>>>,
    woken: Arc<Flag>,
}

#[derive(Clone)]
pub(crate) struct Fake(Rc<World>);

/// Counts invalidations.
#[derive(Default)]
pub(crate) struct Noted(pub(crate) RefCell<Vec<Option<Vec<String>>>>);

impl Events for Noted {
    fn invalidated(&self, keys: Option<&[&[u8]]>) {
        let keys = keys.map(|keys| keys.iter().map(|key| String::from_utf8_lossy(key).into()).collect());
        self.0.borrow_mut().push(keys);
    }
}

pub(crate) fn address(port: u16) -> Address {
    Address { host: "node".into(), port }
}

impl Fake {
    pub(crate) fn new() -> Self {
        Fake(Rc::new(World {
            now: Cell::new(1_000),
            tasks: RefCell::default(),
            spawned: RefCell::default(),
            timers: RefCell::default(),
            servers: RefCell::default(),
            wants_flush: Cell::default(),
            flush: RefCell::default(),
            woken: Arc::new(Flag(AtomicBool::new(true))),
        }))
    }

    /// Puts a server on a port, or another in its place; its connections stay.
    pub(crate) fn serve(&self, port: u16, handler: impl FnMut(usize, &[String]) -> Act + 'static) {
        let handler: Handler = Box::new(handler);
        let mut servers = self.0.servers.borrow_mut();
        match servers.get_mut(&address(port)) {
            Some(server) => server.handler = handler,
            None => {
                let server = Server { handler, accepts: true, pipes: Vec::new(), writes: Vec::new() };
                servers.insert(address(port), server);
            }
        }
    }

    /// Whether the server takes connections.
    pub(crate) fn accept(&self, port: u16, accepts: bool) {
        self.with(port, |server| server.accepts = accepts);
    }

    /// Breaks all connections to a server.
    pub(crate) fn hang_up(&self, port: u16) {
        self.with(port, |server| {
            for pipe in &server.pipes {
                pipe.borrow_mut().closed = true;
                pipe.borrow_mut().wake();
            }
        });
    }

    /// Has a server read nothing, as a process that is stopped; what was sent meanwhile is read afterwards.
    pub(crate) fn pause(&self, port: u16, paused: bool) {
        self.with(port, |server| server.pipes.iter().for_each(|pipe| pipe.borrow_mut().paused = paused));
        self.deliver();
    }

    /// Says something on all open connections of a server.
    pub(crate) fn push(&self, port: u16, bytes: &str) {
        self.with(port, |server| {
            for pipe in &server.pipes {
                pipe.borrow_mut().to_client.extend_from_slice(bytes.as_bytes());
                pipe.borrow_mut().wake();
            }
        });
    }

    /// Commands of each write that the server got since the last call, the login's aside.
    pub(crate) fn writes(&self, port: u16) -> Vec<Vec<String>> {
        self.with(port, |server| std::mem::take(&mut server.writes))
    }

    fn with<T>(&self, port: u16, act: impl FnOnce(&mut Server) -> T) -> T {
        act(self.0.servers.borrow_mut().get_mut(&address(port)).expect("the test put a server there"))
    }

    pub(crate) fn flush_with(&self, client: &Rc<Client<Fake>>) {
        let client = Rc::downgrade(client);
        self.0.flush.replace(Some(Box::new(move || {
            if let Some(client) = client.upgrade() {
                client.flush();
            }
        })));
    }

    /// Tasks that have not ended.
    pub(crate) fn tasks(&self) -> usize {
        self.0.tasks.borrow().len() + self.0.spawned.borrow().len()
    }

    /// Runs until nothing more happens without time passing.
    pub(crate) fn settle(&self) {
        let waker = Waker::from(self.0.woken.clone());
        for _ in 0..10_000 {
            self.0.woken.0.store(false, Ordering::Relaxed);
            let mut tasks = self.0.tasks.take();
            tasks.append(&mut self.0.spawned.borrow_mut());
            tasks.retain_mut(|task| task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            self.0.tasks.borrow_mut().append(&mut tasks);
            if self.0.wants_flush.take()
                && let Some(flush) = &*self.0.flush.borrow()
            {
                flush();
            }
            self.deliver();
            if !self.0.woken.0.load(Ordering::Relaxed) && self.0.spawned.borrow().is_empty() {
                return;
            }
        }
        panic!("the tasks never come to rest");
    }

    /// Lets time pass, from one timer to the next.
    pub(crate) fn advance(&self, ms: Millis) {
        let end = self.0.now.get() + ms;
        self.settle();
        loop {
            let now = self.0.now.get();
            let next = self.0.timers.borrow().iter().copied().filter(|at| *at > now).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.0.now.set(next);
            self.0.timers.borrow_mut().retain(|at| *at > next);
            self.settle();
        }
        self.0.now.set(end);
        self.settle();
    }

    /// Drives a future to its end without letting time pass.
    ///
    /// # Panics
    /// Where it does not come to its end.
    pub(crate) fn run<T>(&self, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        for _ in 0..100 {
            if let Poll::Ready(value) = self.poll(future.as_mut()) {
                return value;
            }
            self.settle();
        }
        panic!("the future waits for something that does not happen");
    }

    /// Polls a future once.
    pub(crate) fn poll<T>(&self, future: Pin<&mut (impl Future<Output = T> + ?Sized)>) -> Poll<T> {
        future.poll(&mut Context::from_waker(&Waker::from(self.0.woken.clone())))
    }

    /// Has the servers act on what they were sent.
    fn deliver(&self) {
        for server in self.0.servers.borrow_mut().values_mut() {
            for (number, pipe) in server.pipes.iter().enumerate() {
                let mut pipe = pipe.borrow_mut();
                if pipe.paused || pipe.closed || pipe.to_server.is_empty() {
                    continue;
                }
                let bytes = std::mem::take(&mut pipe.to_server);
                let commands = parse(&bytes);
                let mut write = Vec::new();
                for words in commands {
                    if !is_login(&words) {
                        write.push(words.join(" "));
                    }
                    match (server.handler)(number, &words) {
                        Act::Say(bytes) => pipe.to_client.extend_from_slice(&bytes),
                        Act::Nothing => {}
                        Act::Close => pipe.closed = true,
                    }
                }
                if !write.is_empty() {
                    server.writes.push(write);
                }
                pipe.wake();
            }
        }
    }
}

fn parse(bytes: &[u8]) -> Vec<Vec<String>> {
    let mut reader = Reader::new(1 << 20);
    let mut rest = bytes;
    let mut commands = Vec::new();
    while !rest.is_empty() {
        let (reply, used) =
            reader.read(rest).expect("a command is RESP").expect("a write holds whole commands");
        let Reply::Array(words) = reply else { panic!("{reply:?} is no command") };
        let text = |word: &Reply| String::from_utf8_lossy(word.as_bytes().unwrap_or_default()).into_owned();
        commands.push(words.iter().map(text).collect());
        rest = &rest[used..];
    }
    commands
}

fn is_login(words: &[String]) -> bool {
    matches!(words[0].as_str(), "HELLO" | "AUTH" | "SELECT" | "CLIENT" | "ROLE")
}

/// What an obliging server says to a login; `None` for any other command.
pub(crate) fn welcome(words: &[String]) -> Option<Act> {
    match words[0].as_str() {
        "HELLO" => Some(Act::say("%1\r\n$5\r\nproto\r\n:3\r\n")),
        "AUTH" | "SELECT" | "CLIENT" => Some(Act::say("+OK\r\n")),
        "ROLE" => Some(Act::say("*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n")),
        "PING" => Some(Act::say("+PONG\r\n")),
        _ => None,
    }
}

/// A bulk string.
pub(crate) fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

pub(crate) struct Stream(Rc<RefCell<Pipe>>);

impl Drop for Stream {
    fn drop(&mut self) {
        self.0.borrow_mut().closed = true;
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.to_client.is_empty() {
            if pipe.closed {
                return Poll::Ready(Ok(0));
            }
            pipe.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let count = pipe.to_client.len().min(buf.len());
        buf[..count].copy_from_slice(&pipe.to_client[..count]);
        pipe.to_client.drain(..count);
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let mut pipe = self.0.borrow_mut();
        if pipe.closed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        pipe.to_server.extend_from_slice(buf);
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl Runtime for Fake {
    type Stream = Stream;

    fn now(&self) -> Millis {
        self.0.now.get()
    }

    fn precise_us(&self) -> u64 {
        self.0.now.get() * 1_000
    }

    fn unix_ms(&self) -> u64 {
        1_700_000_000_000 + self.0.now.get()
    }

    fn spawn(&self, task: Task) {
        self.0.spawned.borrow_mut().push(task);
        self.0.woken.0.store(true, Ordering::Relaxed);
    }

    async fn connect(&self, address: &Address) -> io::Result<Stream> {
        let mut servers = self.0.servers.borrow_mut();
        let server = servers.get_mut(address).filter(|server| server.accepts);
        let server = server.ok_or(io::ErrorKind::ConnectionRefused)?;
        let pipe = Rc::new(RefCell::new(Pipe::default()));
        server.pipes.push(pipe.clone());
        Ok(Stream(pipe))
    }

    async fn deadline<T>(&self, at: Millis, step: impl Future<Output = T>) -> Result<T, Elapsed> {
        let mut step = pin!(step);
        self.0.timers.borrow_mut().push(at);
        poll_fn(|cx| match step.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Ok(value)),
            Poll::Pending if self.0.now.get() >= at => Poll::Ready(Err(Elapsed)),
            Poll::Pending => Poll::Pending,
        })
        .await
    }

    fn flush_later(&self) {
        self.0.wants_flush.set(true);
    }
}
