//! The shard as the store's client sees it: owns the client's tasks, and who is told when a turn ends. Never a command, never
//! a reply.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;

use mcp_shard_store::Millis;
use mcp_shard_store::runtime::{Address, Elapsed, Runtime};

use super::names::{NameMail, Names};
use super::tls::StoreTls;
use crate::net::stream::Stream;
use crate::shard::core::Core;

/// A shard's runtime for the store's client. Clones are the same runtime.
#[derive(Clone)]
pub struct StoreRuntime(Rc<Inner>);

struct Inner {
    core: Rc<Core>,
    names: Names,
    tls: Option<StoreTls>,
    flush_wanted: Cell<bool>,
    /// Each says whether its owner is still there.
    flushes: RefCell<Vec<Rc<dyn Fn() -> bool>>>,
    tasks: Rc<Cell<usize>>,
}

impl StoreRuntime {
    pub(crate) fn new(core: &Rc<Core>, names: Names, tls: Option<StoreTls>) -> Self {
        StoreRuntime(Rc::new(Inner {
            core: core.clone(),
            names,
            tls,
            flush_wanted: Cell::new(false),
            flushes: RefCell::default(),
            tasks: Rc::default(),
        }))
    }

    /// Has `flush` called at the end of each turn in which [`Runtime::flush_later`] was, as long as `owner` is alive.
    pub fn on_flush<T: 'static>(&self, owner: &Rc<T>, flush: impl Fn(&T) + 'static) {
        let owner = Rc::downgrade(owner);
        let hook = Rc::new(move || owner.upgrade().inspect(|owner| flush(owner)).is_some());
        self.0.flushes.borrow_mut().push(hook);
    }

    /// The end of a turn: whoever has gathered something sends it.
    pub(crate) fn flush(&self) {
        if !self.0.flush_wanted.take() {
            return;
        }
        // A flush may end a connection, and so run anything: nothing is borrowed meanwhile.
        let mut place = 0;
        loop {
            let Some(hook) = self.0.flushes.borrow().get(place).cloned() else { break };
            if hook() {
                place += 1;
            } else {
                self.0.flushes.borrow_mut().remove(place);
            }
        }
    }

    /// Whether something waits for [`StoreRuntime::flush`].
    pub(crate) fn wants_flush(&self) -> bool {
        self.0.flush_wanted.get()
    }

    /// Tasks of the client's own, which live as long as it does: no exchange is one of them.
    pub(crate) fn tasks(&self) -> usize {
        self.0.tasks.get()
    }

    pub(crate) fn on_mail(&self, mail: NameMail) {
        self.0.names.on_mail(mail, self.0.core.clock.now());
    }
}

impl Runtime for StoreRuntime {
    type Stream = Stream;

    fn now(&self) -> Millis {
        self.0.core.clock.now()
    }

    fn precise_us(&self) -> u64 {
        self.0.core.clock.precise_us()
    }

    fn unix_ms(&self) -> u64 {
        self.0.core.clock.unix_ms()
    }

    fn spawn(&self, task: Pin<Box<dyn Future<Output = ()>>>) {
        let counted = Counted::new(&self.0.tasks);
        self.0.core.tasks.spawn(|| async move {
            let _counted = counted;
            task.await;
        });
    }

    async fn connect(&self, address: &Address) -> io::Result<Stream> {
        let Inner { core, names, tls, .. } = &*self.0;
        let tls = match tls {
            None => None,
            Some(tls) => Some(tls.connector(&address.host).ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidInput, format!("{} is no host name", address.host))
            })?),
        };
        let addresses = names.look_up(&core.clock, address).await?;
        Stream::connect(&core.reactor, addresses.into_iter(), tls.as_ref()).await
    }

    async fn deadline<T>(&self, at: Millis, step: impl Future<Output = T>) -> Result<T, Elapsed> {
        self.0.core.deadline(at, step).await.map_err(|_| Elapsed)
    }

    fn flush_later(&self) {
        self.0.flush_wanted.set(true);
    }
}

/// One of the tasks, until its future is dropped.
struct Counted(Rc<Cell<usize>>);

impl Counted {
    fn new(tasks: &Rc<Cell<usize>>) -> Self {
        tasks.set(tasks.get() + 1);
        Counted(tasks.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
