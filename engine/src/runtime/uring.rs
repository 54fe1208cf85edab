//! Shards on glommio. Owns the one place that knows glommio: the executor pool, its settings, and the wait for a
//! foreign descriptor. It never does a shard's IO: that is the shard's epoll descriptor's business.
//!
//! Invariant: glommio is pinned to 0.9.0, because [`readable`] leans on how that version polls. A test holds it.

use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_io::AsyncRead;
use glommio::net::TcpStream;
use glommio::{LocalExecutorPoolBuilder, PoolPlacement, PoolThreadHandles};

use super::{Drive, Plan, StartError, Turn};

/// Entries of each ring. A shard has one poll in flight (its epoll descriptor), so the smallest ring that glommio is
/// comfortable with is enough; a ring's size costs kernel memory for every shard.
const RING_DEPTH: usize = 128;
/// Bytes of registered memory for glommio's own file IO, which the gateway does not use (the default is 10 MiB).
const IO_MEMORY_BYTES: usize = 64 << 10;
/// Turns that a busy shard takes before it lets glommio look at its own queues.
const TURNS_BEFORE_YIELD: usize = 64;

pub(super) struct Handles(PoolThreadHandles<()>);

impl Handles {
    pub(super) fn join(self) {
        for result in self.0.join_all() {
            if let Err(error) = result {
                crate::fatal::end(&format!("a shard's executor failed: {error}"));
            }
        }
    }
}

/// Asks the kernel whether io_uring may be used.
pub(super) fn probe() -> io::Result<()> {
    // `struct io_uring_params` is 120 bytes, all zero for the defaults.
    let mut params = [0u64; 15];
    // SAFETY: io_uring_setup(2) reads and writes exactly the 120 bytes given; a non-negative answer is a new
    // descriptor that only we own.
    let answer = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: see above; closing it here is its only use.
    drop(unsafe { std::os::fd::OwnedFd::from_raw_fd(answer as i32) });
    Ok(())
}

pub(super) fn start<D, F>(plan: &Plan, make: Arc<F>) -> Result<Handles, StartError>
where
    D: Drive + 'static,
    F: Fn(usize) -> D + Send + Sync + 'static,
{
    let next = Arc::new(AtomicUsize::new(0));
    let pin = plan.pin;
    LocalExecutorPoolBuilder::new(PoolPlacement::Unbound(plan.shards.get()))
        .name("shard")
        .io_memory(IO_MEMORY_BYTES)
        .ring_depth(RING_DEPTH)
        .on_all_shards(move || {
            let index = next.fetch_add(1, Ordering::Relaxed);
            super::enter(index, pin);
            crate::fatal::name_shard(index);
            async move { drive(make(index)).await }
        })
        .map(Handles)
        .map_err(|error| StartError::Executor(error.to_string()))
}

async fn drive<D: Drive>(shard: D) {
    let mut busy = 0;
    loop {
        match shard.turn(false) {
            Turn::Finished => return,
            Turn::Idle => {
                busy = 0;
                if let Err(error) = readable(shard.descriptor()).await {
                    crate::fatal::end(&format!("waiting for the shard's epoll descriptor failed: {error}"));
                }
            }
            Turn::Busy => {
                busy += 1;
                if busy % TURNS_BEFORE_YIELD == 0 {
                    glommio::yield_if_needed().await;
                }
            }
        }
    }
}

/// Waits until `descriptor` is readable, on the executor's ring.
///
/// glommio 0.9.0 has no public wait for a foreign descriptor. A `TcpStream` made of one submits a poll for
/// readability at once; when that completes, its read fails with `ENOTSOCK`, which is the signal. The stream takes a
/// duplicate, because it closes what it was given; a second read on the same stream would not wait.
async fn readable(descriptor: BorrowedFd<'_>) -> io::Result<()> {
    let duplicate = rustix::io::fcntl_dupfd_cloexec(descriptor, 0)?;
    // SAFETY: the duplicate is owned and open; the stream becomes its only owner and closes it when dropped.
    let mut stream = unsafe { TcpStream::from_raw_fd(duplicate.into_raw_fd()) };
    debug_assert!(stream.as_raw_fd() >= 0);
    let mut byte = [0u8; 1];
    let answer = poll_fn(|cx| Pin::new(&mut stream).poll_read(cx, &mut byte)).await;
    match answer {
        Err(error) if error.raw_os_error() == Some(libc::ENOTSOCK) => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Err(io::Error::other("an epoll descriptor answered a read")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use glommio::LocalExecutorBuilder;
    use rustix::event::{EventfdFlags, epoll, eventfd};

    use super::*;

    /// Pins what glommio does: the wait ends when the epoll descriptor turns readable, not before, and again and again.
    #[test]
    fn an_epoll_descriptor_can_be_awaited() {
        if probe().is_err() {
            return;
        }
        LocalExecutorBuilder::default()
            .io_memory(IO_MEMORY_BYTES)
            .ring_depth(RING_DEPTH)
            .spawn(|| async {
                let poll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
                let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).unwrap();
                epoll::add(&poll, &event, epoll::EventData::new_u64(1), epoll::EventFlags::IN).unwrap();
                for round in 0..100u64 {
                    let writer = event.try_clone().unwrap();
                    let waited = std::rc::Rc::new(std::cell::Cell::new(false));
                    let seen = waited.clone();
                    let task = glommio::spawn_local(async move {
                        glommio::timer::sleep(Duration::from_millis(1)).await;
                        assert!(
                            !seen.get(),
                            "the wait ended before the descriptor was readable, round {round}"
                        );
                        rustix::io::write(&writer, &1u64.to_ne_bytes()).unwrap();
                    });
                    readable(poll.as_fd()).await.unwrap();
                    waited.set(true);
                    task.await;
                    let mut value = [0u8; 8];
                    rustix::io::read(&event, &mut value).unwrap();
                }
            })
            .unwrap()
            .join()
            .unwrap();
    }
}
