//! One shard that serves nobody: owns a loop that drives a future, and the store's client in it, on the gateway's own
//! connection drivers. For integration tests and benchmarks of the store; the gateway does not use it.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::net::event::{EVENTS_PER_WAIT, Event};
use crate::net::reactor::{DriverKind, Reactor};
pub use crate::net::stream::Stream;
use crate::net::token::Kind;
use crate::runtime::Executor;
use crate::shard::core::Core;
use crate::shard::mailbox::{Mail, Mailbox};
use crate::store::names::{Lookups, Names};
pub use crate::store::runtime::StoreRuntime;
pub use crate::store::tls::StoreTls;
pub use crate::tls::config::TrustError;

/// Runs the future that `main` makes to its end on the calling thread, together with whatever it spawns on the runtime that
/// `main` is given; what is still running then is dropped. With `tls`, the runtime's connections are encrypted.
///
/// The future is a task of the shard: it may bound its steps by [`Runtime::deadline`], several futures in it may not.
/// A client registers itself by [`StoreRuntime::on_flush`]:
///
/// ```
/// # use mcp_engine::{runtime::Executor, standalone};
/// # use mcp_shard_store::runtime::Runtime;
/// let now = standalone::run(Executor::Epoll, None, |runtime| async move {
///     let client = std::rc::Rc::new(()); // Client::new(runtime.clone(), settings, events)
///     runtime.on_flush(&client, |_client| { /* client.flush() */ });
///     runtime.now()
/// });
/// assert!(now.is_ok());
/// ```
///
/// [`Runtime::deadline`]: mcp_shard_store::runtime::Runtime::deadline
///
/// # Errors
/// The system's; with [`Executor::IoUring`], where the kernel refuses the ring.
pub fn run<F>(
    driver: Executor,
    tls: Option<StoreTls>,
    main: impl FnOnce(StoreRuntime) -> F,
) -> io::Result<F::Output>
where
    F: Future<Output: 'static> + 'static,
{
    let driver = match driver {
        Executor::IoUring => DriverKind::Ring,
        Executor::Epoll => DriverKind::Epoll,
    };
    let mailbox = Arc::new(Mailbox::new()?);
    let core = Core::new(Instant::now(), Reactor::new(driver)?, &mailbox)?;
    let names = Names::new(Lookups::start()?, mailbox.clone());
    let runtime = StoreRuntime::new(&core, names, tls);
    let _alone = Alone(core.clone());
    let outcome = Rc::new(Cell::new(None));
    let (main, told) = (main(runtime.clone()), outcome.clone());
    core.tasks.spawn(|| async move { told.set(Some(main.await)) });
    let mut events = Vec::with_capacity(EVENTS_PER_WAIT);
    loop {
        turn(&core, &runtime, &mailbox, &mut events)?;
        if let Some(outcome) = outcome.take() {
            return Ok(outcome);
        }
    }
}

fn turn(core: &Core, runtime: &StoreRuntime, mailbox: &Mailbox, events: &mut Vec<Event>) -> io::Result<()> {
    let block = !core.tasks.any_ready() && !runtime.wants_flush();
    core.reactor.wait(block, events)?;
    core.begin_turn();
    if !mailbox.is_empty() {
        mailbox.acknowledge();
        while let Some(mail) = mailbox.take() {
            if let Mail::Name(mail) = mail {
                runtime.on_mail(mail);
            }
        }
    }
    for event in events.drain(..) {
        match event.token.kind {
            Kind::Socket => core.reactor.on_event(event.token, event.what),
            // Tasks are all that has deadlines here.
            Kind::Clock => core.on_clock(|_, _| {}),
            _ => {}
        }
    }
    core.tasks.run();
    runtime.flush();
    core.keep_timer();
    Ok(())
}

/// Ends everything that runs on the shard, also when the future panics.
struct Alone(Rc<Core>);

impl Drop for Alone {
    fn drop(&mut self) {
        self.0.tasks.cancel_all();
        // Sockets are closed when their last requests have reached the kernel.
        if let Err(error) = self.0.reactor.wait(false, &mut Vec::new()) {
            tracing::warn!(%error, "the last requests may not have reached the kernel");
        }
    }
}
