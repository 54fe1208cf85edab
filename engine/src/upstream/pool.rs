//! The connections of one shard to one endpoint: owns idle ones, the bound on how many are in use, and who waits for a
//! place. Long-lived streams give their place back, so that they cannot starve calls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use mcp_config::ConnectionPool;

use crate::net::stream::Stream;
use crate::shard::clock::Millis;

pub(crate) struct Pool {
    max_size: usize,
    max_idle_time: Duration,
    max_waiting: usize,
    /// Most recently used last, and taken first.
    idle: RefCell<Vec<Idle>>,
    in_use: Cell<usize>,
    waiting: RefCell<VecDeque<Rc<Waiting>>>,
    /// Counts how often the endpoint has moved; connections of before are not kept.
    moves: Cell<u32>,
}

struct Idle {
    stream: Stream,
    until: Millis,
}

#[derive(Default)]
struct Waiting {
    granted: Cell<bool>,
    gone: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// As many wait as may.
#[derive(Debug)]
pub(crate) struct Exhausted;

/// The right to hold one connection.
pub(crate) struct Permit(Rc<Pool>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.release();
    }
}

impl Pool {
    pub(crate) fn new(config: &ConnectionPool) -> Self {
        Pool {
            max_size: config.max_size as usize,
            max_idle_time: config.max_idle_time,
            max_waiting: config.max_waiting as usize,
            idle: RefCell::default(),
            in_use: Cell::new(0),
            waiting: RefCell::default(),
            moves: Cell::new(0),
        }
    }

    /// Exchanges that hold a place or wait for one; long streams have given theirs back.
    pub(crate) fn load(&self) -> u32 {
        (self.in_use.get() + self.waiting.borrow().len()) as u32
    }

    /// Exchanges at a time; over HTTP/1.1 each has a connection.
    pub(crate) fn max_size(&self) -> usize {
        self.max_size
    }

    /// How long an unused connection is kept.
    pub(crate) fn max_idle_time(&self) -> Duration {
        self.max_idle_time
    }

    /// Whether one more exchange would have to wait.
    pub(crate) fn is_full(&self) -> bool {
        self.in_use.get() >= self.max_size
    }

    /// The endpoint has moved: nothing that is connected is used again.
    pub(crate) fn renew(&self) {
        self.moves.set(self.moves.get().wrapping_add(1));
        let idle = self.idle.take();
        drop(idle);
    }

    /// How often the endpoint has moved; for [`Pool::keep`].
    pub(crate) fn moves(&self) -> u32 {
        self.moves.get()
    }

    /// Waits for a place; the caller bounds how long.
    ///
    /// # Errors
    /// [`Exhausted`] when too many wait already.
    pub(crate) async fn permit(self: &Rc<Self>) -> Result<Permit, Exhausted> {
        if self.in_use.get() < self.max_size {
            self.in_use.set(self.in_use.get() + 1);
            return Ok(Permit(self.clone()));
        }
        let place = Rc::new(Waiting::default());
        {
            let mut waiting = self.waiting.borrow_mut();
            waiting.retain(|place| !place.gone.get());
            if waiting.len() >= self.max_waiting {
                return Err(Exhausted);
            }
            waiting.push_back(place.clone());
        }
        let mut turn = Turn { pool: self, place };
        poll_fn(|cx| {
            if turn.place.granted.get() {
                return Poll::Ready(());
            }
            *turn.place.waker.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        turn.place = Rc::default();
        Ok(Permit(self.clone()))
    }

    /// An idle connection that is still good.
    pub(crate) fn take_idle(&self, now: Millis) -> Option<Stream> {
        let mut idle = self.idle.borrow_mut();
        while let Some(mut candidate) = idle.pop() {
            if candidate.until > now && candidate.stream.is_quiet() {
                return Some(candidate.stream);
            }
        }
        None
    }

    /// Keeps a connection whose exchange is complete, unless the endpoint has moved since [`Pool::moves`] said `moves`;
    /// `offered` is how long the server said that it will keep it.
    pub(crate) fn keep(&self, stream: Stream, moves: u32, now: Millis, offered: Option<Duration>) {
        if moves != self.moves.get() {
            return;
        }
        let keep = offered.map_or(self.max_idle_time, |offered| offered.min(self.max_idle_time));
        let mut idle = self.idle.borrow_mut();
        if idle.len() < self.max_size && !keep.is_zero() {
            idle.push(Idle { stream, until: now + keep.as_millis() as Millis });
        }
    }

    /// Connections in use and idle.
    pub(crate) fn sizes(&self) -> (usize, usize) {
        (self.in_use.get(), self.idle.borrow().len())
    }

    pub(crate) fn drop_idle(&self, now: Millis) -> bool {
        let mut idle = self.idle.borrow_mut();
        idle.retain_mut(|kept| kept.until > now && kept.stream.is_quiet());
        !idle.is_empty()
    }

    fn release(&self) {
        let mut waiting = self.waiting.borrow_mut();
        while let Some(place) = waiting.pop_front() {
            if place.gone.get() {
                continue;
            }
            place.granted.set(true);
            if let Some(waker) = place.waker.borrow_mut().take() {
                waker.wake();
            }
            return;
        }
        self.in_use.set(self.in_use.get() - 1);
    }
}

/// A place in the queue; given on when its owner goes away.
struct Turn<'a> {
    pool: &'a Pool,
    place: Rc<Waiting>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.place.gone.set(true);
        if self.place.granted.get() {
            self.pool.release();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Context;

    use super::*;

    const MAX_WAITING: u32 = 16;

    fn pool(max_size: u32) -> Rc<Pool> {
        Rc::new(Pool::new(&ConnectionPool {
            max_size,
            max_waiting: MAX_WAITING,
            ..ConnectionPool::default()
        }))
    }

    #[test]
    fn a_place_goes_to_whoever_waited_longest_and_is_never_lost() {
        let pool = pool(1);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(first)) = pin!(pool.permit()).poll(&mut cx) else { panic!("the pool is empty") };
        let mut second = Box::pin(pool.permit());
        let mut third = Box::pin(pool.permit());
        assert!(second.as_mut().poll(&mut cx).is_pending());
        assert!(third.as_mut().poll(&mut cx).is_pending());
        drop(first);
        // The second went away although it was granted: the third has it.
        drop(second);
        let Poll::Ready(Ok(permit)) = third.as_mut().poll(&mut cx) else { panic!("the place was lost") };
        assert_eq!(pool.sizes(), (1, 0));
        drop(permit);
        assert_eq!(pool.sizes(), (0, 0));
    }

    #[test]
    fn one_too_many_is_refused_and_those_who_left_do_not_count() {
        let pool = pool(1);
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(Ok(_held)) = pin!(pool.permit()).poll(&mut cx) else { panic!("the pool is empty") };
        let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| Box::pin(pool.permit())).collect();
        for place in &mut waiting {
            assert!(place.as_mut().poll(&mut cx).is_pending());
        }
        assert!(matches!(pin!(pool.permit()).poll(&mut cx), Poll::Ready(Err(Exhausted))));
        waiting.pop();
        assert!(pin!(pool.permit()).poll(&mut cx).is_pending());
    }
}
