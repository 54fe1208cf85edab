//! The loop that `connect` runs on: owns one shard's reactor, tasks and clock, on the calling thread, and the bell by which
//! the two threads of standard input and output wake it. Always epoll, which every kernel allows. Never a message.

use std::cell::{Cell, RefCell};
use std::future::{Future, pending, poll_fn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use futures_rustls::TlsConnector;
use mcp_shard_store::runtime::Address;
use rustix::event::{EventfdFlags, eventfd};
use rustls_pki_types::ServerName;

use crate::net::event::{EVENTS_PER_WAIT, Event};
use crate::net::reactor::{DriverKind, Reactor};
use crate::net::stream::Stream;
use crate::net::token::{Kind, Token};
use crate::shard::clock::Millis;
use crate::shard::core::{Core, Elapsed};
use crate::shard::mailbox::{Mail, Mailbox};
use crate::shard::tasks::TaskId;
use crate::store::names::{Lookups, Names};

/// How long a connection may take to come up: look-up, TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The bell's place beside the mailbox, which has 0.
const BELL: usize = 1;

/// Wakes the loop from another thread.
pub(super) struct Bell(OwnedFd);

impl Bell {
    /// # Errors
    /// The system's, when it gives no descriptor.
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Bell(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?)))
    }

    /// Every task of the loop looks again.
    pub(super) fn ring(&self) {
        // It fails only when the counter is full, and then it rings already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    fn silence(&self) {
        // EAGAIN only says that it does not ring.
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

/// What tasks use of the loop.
pub(super) struct Host {
    core: Rc<Core>,
    names: Names,
}

impl Host {
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> TaskId {
        self.core.tasks.spawn(|| task)
    }

    /// Drops a task.
    pub(super) fn cancel(&self, task: TaskId) {
        self.core.tasks.cancel(task);
    }

    /// The time of this turn.
    pub(super) fn now(&self) -> Millis {
        self.core.clock.now()
    }

    /// Bounds a step of the task that awaits it; a task bounds one step at a time.
    ///
    /// # Errors
    /// [`Elapsed`].
    pub(super) async fn within<T>(
        &self,
        limit: Duration,
        step: impl Future<Output = T>,
    ) -> Result<T, Elapsed> {
        self.core.deadline(self.core.clock.after(limit), step).await
    }

    pub(super) async fn sleep(&self, pause: Duration) {
        // What is pending for ever has no other end.
        let _ = self.within(pause, pending::<()>()).await;
    }

    /// Connects, with the TLS handshake where `tls` says how. It bounds its own time.
    ///
    /// # Errors
    /// The system's; `InvalidData` where the gateway's certificate does not prove its name.
    pub(super) async fn connect(
        &self,
        address: &Address,
        tls: Option<&(TlsConnector, ServerName<'static>)>,
    ) -> io::Result<Stream> {
        let connecting = async {
            let addresses = self.names.look_up(&self.core.clock, address).await?;
            Stream::connect(&self.core.reactor, addresses.into_iter(), tls).await
        };
        let stream =
            self.within(CONNECT_TIMEOUT, connecting).await.map_err(|Elapsed| io::ErrorKind::TimedOut)??;
        stream.probe_silent_peer()?;
        Ok(stream)
    }
}

/// Tasks that wait until something that they look at has changed.
#[derive(Default)]
pub(super) struct Gate(RefCell<Vec<Waker>>);

impl Gate {
    /// Who waits looks again.
    pub(super) fn open(&self) {
        self.0.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Waits until `look` gives something.
    pub(super) async fn until<T>(&self, mut look: impl FnMut() -> Option<T>) -> T {
        poll_fn(|cx| match look() {
            Some(found) => Poll::Ready(found),
            None => {
                let mut waiting = self.0.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
        })
        .await
    }
}

/// Runs the future that `main` makes to its end; what is still running then is dropped.
///
/// # Errors
/// The system's.
pub(super) fn run<F>(bell: &Arc<Bell>, main: impl FnOnce(Rc<Host>) -> F) -> io::Result<F::Output>
where
    F: Future<Output: 'static> + 'static,
{
    let mailbox = Arc::new(Mailbox::new()?);
    let core = Core::new(Instant::now(), Reactor::new(DriverKind::Epoll)?, &mailbox)?;
    core.reactor.add_level(bell.0.as_fd(), Token::plain(Kind::Mailbox, BELL))?;
    let host = Rc::new(Host { core: core.clone(), names: Names::new(Lookups::start()?, mailbox.clone()) });
    let outcome = Rc::new(Cell::new(None));
    let (main, told) = (main(host.clone()), outcome.clone());
    host.spawn(async move { told.set(Some(main.await)) });
    let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
    loop {
        turn(&host, bell, &mailbox, &mut events)?;
        if let Some(outcome) = outcome.take() {
            core.tasks.cancel_all();
            return Ok(outcome);
        }
    }
}

fn turn(host: &Host, bell: &Bell, mailbox: &Mailbox, events: &mut Vec<Event>) -> io::Result<()> {
    let core = &host.core;
    core.reactor.wait(!core.tasks.any_ready(), events)?;
    core.begin_turn();
    for event in events.drain(..) {
        match event.token.kind {
            Kind::Socket => core.reactor.on_event(event.token, event.what),
            // Tasks are all that has deadlines here.
            Kind::Clock => core.on_clock(|_, _| {}),
            Kind::Mailbox if event.token.index as usize == BELL => {
                bell.silence();
                core.tasks.wake_all();
            }
            Kind::Mailbox => {
                mailbox.acknowledge();
                while let Some(mail) = mailbox.take() {
                    if let Mail::Name(mail) = mail {
                        host.names.on_mail(mail, core.clock.now());
                    }
                }
            }
            _ => {}
        }
    }
    core.tasks.run();
    core.keep_timer();
    Ok(())
}
