//! The turn of a shard's loop: owns the order in which mail, sockets, tasks and timers are served, and how much of each a
//! turn may hold. It never decides what a message means.
//!
//! Invariants: mail is read before sockets in every turn (the store's invalidations depend on it); what does not fit a
//! turn waits for the next one in its order.

use std::rc::Rc;

use super::Shard;
use super::conn::{self, Conn};
use super::mailbox::Mail;
use crate::door;
use crate::net::event::What;
use crate::net::token::{Kind, Token};
use crate::runtime::{Drive, Turn};

/// Events of connections in their handshake per turn: two for each, so as many handshakes as are accepted. Further ones
/// wait for the next turn, behind those who wait already; whoever is through its handshake does not wait for them.
const HANDSHAKE_EVENTS_PER_TURN: usize = 2 * super::accept::ACCEPTS_PER_EVENT;

/// A shard as the executor drives it.
pub(crate) struct Driven(pub(crate) Rc<Shard>);

impl Drive for Driven {
    fn turn(&self) -> Turn {
        self.0.turn()
    }
}

impl Shard {
    /// One turn of the loop: waits unless there is work left, then does what is due.
    pub(crate) fn turn(self: &Rc<Self>) -> Turn {
        let mut events = self.events.take();
        let block = !self.has_work();
        if let Err(error) = self.core.reactor.wait(block, &mut events) {
            crate::fatal::end(&format!("waiting for events failed on shard {}: {error}", self.index));
        }
        self.core.begin_turn();
        let started = self.core.clock.precise_us();
        let mut busy = !events.is_empty();
        let mut served = false;

        busy |= self.read_mail();
        busy |= self.serve_waiting();
        for event in events.drain(..) {
            served |= matches!(event.token.kind, Kind::Conn | Kind::Socket | Kind::Listener);
            self.on_event(event.token, event.what);
        }
        self.events.replace(events);
        for token in self.revisit.take() {
            busy = true;
            if let Some(conn) = self.conns.get(token) {
                conn::on_readable(self, &conn);
            }
        }
        busy |= self.core.tasks.run();
        if let Some(link) = &self.kept.link {
            link.runtime.flush();
        }
        self.flush();
        self.core.keep_timer();
        if busy {
            let ended = self.core.clock.precise_us();
            self.metrics.turn(ended.saturating_sub(started));
            // An idle shard is not woken by its own probe.
            if served && let Some(waiting) = self.probe.on_turn(ended).filter(|us| self.overload.is_long(*us))
            {
                self.on_queue_delay(waiting);
            }
        }
        let next = self.after_turn();
        if next == Turn::Finished {
            // What was asked for in this turn still reaches the kernel.
            let last = self.core.reactor.wait(false, &mut self.events.borrow_mut());
            tracing::debug!(?last, shard = self.index, "finished");
        }
        next
    }

    fn flush(self: &Rc<Self>) {
        let mut unflushed = self.unflushed.take();
        for token in unflushed.drain(..) {
            if let Some(conn) = self.conns.get(token) {
                door::flush(self, &conn);
            }
        }
        // A connection that failed may have had others say something: that is for the next turn.
        unflushed.append(&mut self.unflushed.borrow_mut());
        self.unflushed.replace(unflushed);
    }

    fn has_work(&self) -> bool {
        self.core.tasks.any_ready()
            || self.kept.link.as_ref().is_some_and(|link| link.runtime.wants_flush())
            || !self.unflushed.borrow().is_empty()
            || !self.revisit.borrow().is_empty()
            || !self.resting.borrow().is_empty()
            || !self.postponed.borrow().is_empty()
    }

    /// Serves what had to wait for this turn, first come first served.
    fn serve_waiting(self: &Rc<Self>) -> bool {
        let resting = self.resting.take();
        let mut busy = !resting.is_empty();
        for token in resting {
            if let Some(conn) = self.conns.get(token) {
                door::go_on(self, &conn);
            }
        }
        self.handshake_events.set(0);
        while self.handshake_events.get() < HANDSHAKE_EVENTS_PER_TURN {
            let Some(token) = self.postponed.borrow_mut().pop_front() else { break };
            let Some(conn) = self.conns.get(token) else { continue };
            busy = true;
            self.handshake_events.set(self.handshake_events.get() + 1);
            // Read when the turn comes to those that are looked at again.
            conn.resume(self);
        }
        busy
    }

    fn on_conn_event(self: &Rc<Self>, conn: &Rc<Conn>, what: What) {
        if conn.is_handshaking() && !matches!(what, What::Sent(_)) {
            let over = self.handshake_events.get() >= HANDSHAKE_EVENTS_PER_TURN;
            self.handshake_events.set(self.handshake_events.get() + 1);
            // During the pause the event only leaves its note that there is something to read.
            if over && !conn.pause() {
                self.postponed.borrow_mut().push_back(conn.token);
            }
        }
        conn::on_event(self, conn, what);
    }

    fn on_queue_delay(&self, us: u64) {
        self.metrics.queue_delay(us);
        self.overload.on_delay(self.core.clock.now(), us);
    }

    /// Tasks in flight but for those that live as long as connections to the store and to other owners, and channels to servers.
    pub(crate) fn exchanges(&self) -> usize {
        let stores = self.kept.link.as_ref().map_or(0, |link| link.runtime.tasks());
        self.core.tasks.live() - stores - self.peers.tasks() - self.duplex.tasks()
    }

    fn after_turn(&self) -> Turn {
        if let Some(deadline) = self.draining.get() {
            if self.conns.is_empty() && self.exchanges() == 0 && self.kept.is_settled() {
                return Turn::Finished;
            }
            if self.core.clock.now() >= deadline {
                tracing::warn!(
                    shard = self.index,
                    connections = self.conns.len(),
                    "drain_timeout reached, cut"
                );
                return Turn::Finished;
            }
        }
        Turn::More
    }

    fn on_event(self: &Rc<Self>, token: Token, what: What) {
        match token.kind {
            Kind::Conn => {
                if let Some(conn) = self.conns.get(token) {
                    self.on_conn_event(&conn, what);
                }
            }
            Kind::Probe => {
                if let Some(waited) = self.probe.on_event(self.core.clock.precise_us()) {
                    self.on_queue_delay(waited);
                }
            }
            Kind::Socket => self.core.reactor.on_event(token, what),
            Kind::Listener => self.accept(token.index as usize),
            Kind::Peer => crate::peer::accept(self, token.index as usize),
            Kind::Keeper => crate::upstream::duplex::stdio::on_keeper(self),
            Kind::Clock => self.on_clock(),
            // Read at the start of the turn.
            Kind::Mailbox => {}
            Kind::Task | Kind::Housekeeping => {}
        }
    }

    fn on_clock(self: &Rc<Self>) {
        self.core.on_clock(|token, tick| match token.kind {
            Kind::Conn => {
                let Some(conn) = self.conns.get(token) else { return };
                if self.core.came_up(&conn.timer, token, tick) {
                    conn::on_deadline(self, &conn);
                }
            }
            Kind::Housekeeping => {
                if self.core.came_up(&self.housekeeping, token, tick) {
                    self.keep_house();
                }
            }
            Kind::Listener => self.resume_listener(token, tick),
            Kind::Task
            | Kind::Socket
            | Kind::Mailbox
            | Kind::Clock
            | Kind::Probe
            | Kind::Peer
            | Kind::Keeper => {}
        });
    }

    fn read_mail(self: &Rc<Self>) -> bool {
        let mailbox = &self.process.mailboxes[self.index];
        if mailbox.is_empty() {
            return false;
        }
        mailbox.acknowledge();
        while let Some(mail) = mailbox.take() {
            match mail {
                Mail::Store(mail) => self.kept.sessions.on_mail(mail, self.core.clock.now()),
                Mail::Name(mail) => {
                    if let Some(link) = &self.kept.link {
                        link.runtime.on_mail(mail);
                    }
                }
                Mail::Alive(answer) => {
                    // The admin listener gave up on an answer this late.
                    let _ = answer.try_send(());
                }
                Mail::Metrics(answer) => {
                    let snapshot = self.metrics.snapshot(self.index, self.gauges());
                    // The admin listener gave up on an answer this late.
                    let _ = answer.try_send(Box::new(snapshot));
                }
                Mail::Probe => crate::exchange::start_probes(self, None),
                Mail::Setup => self.take_setup(),
                Mail::Discover(server) => crate::exchange::discover(self, server),
                Mail::Part => self.part(),
                Mail::Leave => self.leave_newcomers(),
                Mail::Drain => self.drain(),
            }
        }
        true
    }
}
