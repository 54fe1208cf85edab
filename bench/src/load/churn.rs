//! One client thread of `mcp-bench handshake`: connections that live only a moment.
//!
//! A connection's life: TCP, TLS, as many calls as the plan says (with a session, which is ended again), our end of
//! sending, the peer's end. We close first, so `TIME_WAIT` stays at our side; every connection takes a source port of
//! its own from a wide range of addresses. Bounds: as many connections at a time as the plan has slots.

use std::collections::VecDeque;
use std::io;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustls::HandshakeKind;
use rustls::pki_types::ServerName;

use super::client::{Advance, After, Call, Client};
use super::driver::{Shared, Start};
use super::failure::{Failure, Kind};
use super::link::Link;
use super::pace::Pacer;
use super::stats::ThreadStats;
use super::tickets::with_tickets;
use super::worker::{START_POLL_NS, SWEEP_NS, Share, Tools, as_ns, nanos};
use super::{Handshakes, Plan};
use crate::sys::{Epoll, Event};

/// Source addresses that are used in turn. With 500 connections each, two million ports pass before one comes again: at
/// 10,000 connections a second that is longer than the minute of `TIME_WAIT`.
const MAX_SOURCES: usize = 4096;
/// Rest of a slot whose connection failed, so that a dead target is not hammered.
const BACKOFF_NS: u64 = 200_000_000;

pub(super) struct Churn<'a> {
    plan: &'a Plan,
    handshakes: Handshakes,
    shared: &'a Shared,
    share: Share,
    server_name: Option<ServerName<'static>>,
    tls: Option<std::sync::Arc<rustls::ClientConfig>>,
    epoll: Epoll,
    slots: Vec<Slot>,
    free: Vec<u32>,
    /// Slots that rest after a failure, and until when; in order of time.
    resting: VecDeque<(u64, u32)>,
    window: Option<Window>,
    next_sweep_ns: u64,
    tools: Tools,
    stats: ThreadStats,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    client: Option<Client>,
    intended_ns: u64,
    calls_left: u32,
    shaken: bool,
    closing: bool,
}

struct Window {
    start_ns: u64,
    measure_from_ns: u64,
    end_ns: u64,
    pacer: Option<Pacer>,
    /// No more connections are begun.
    over: bool,
}

impl<'a> Churn<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        handshakes: Handshakes,
        shared: &'a Shared,
        share: Share,
        server_name: Option<ServerName<'static>>,
    ) -> io::Result<Self> {
        let tls = plan
            .tls
            .as_ref()
            .map(|config| if handshakes.resume { with_tickets(config) } else { config.clone() });
        Ok(Self {
            plan,
            handshakes,
            shared,
            share,
            server_name,
            tls,
            epoll: Epoll::new()?,
            slots: std::iter::repeat_with(Slot::default).take(share.connections).collect(),
            free: (0..share.connections as u32).rev().collect(),
            resting: VecDeque::new(),
            window: None,
            next_sweep_ns: 0,
            tools: Tools::new(share.thread),
            stats: ThreadStats::new(),
        })
    }

    /// Runs to the end and returns what was counted.
    pub(super) fn run(mut self) -> io::Result<ThreadStats> {
        self.shared.settled_threads.fetch_add(1, Ordering::Release);
        loop {
            let now_ns = self.now_ns();
            if self.start_or_stop(now_ns) {
                break;
            }
            self.begin_due(now_ns);
            self.sweep(now_ns);
            self.publish();
            if self.window.as_ref().is_some_and(|w| w.over) && self.alive() == 0 {
                break;
            }
            let events = self.epoll.wait(Some(self.next_wait(now_ns)))?;
            for i in 0..events {
                self.on_event(self.epoll.event(i));
            }
        }
        // With a total the schedule ends early by itself; else a call of it that was never begun is a failure.
        if self.handshakes.total.is_none() {
            let late = self.window.as_ref().and_then(|w| w.pacer.as_ref()).map_or(0, Pacer::left);
            self.stats.failures.add_many(Failure::new(Kind::Timeout, "no connection was free"), late);
        }
        self.stats.sent_bytes = self.tools.scratch.sent_bytes;
        self.stats.received_bytes = self.tools.scratch.received_bytes;
        self.publish();
        Ok(self.stats)
    }

    /// Takes over the start time once it is set, and ends the window. True when the run is called off.
    fn start_or_stop(&mut self, now_ns: u64) -> bool {
        if let Some(window) = &mut self.window {
            if self.shared.stop.load(Ordering::Relaxed) && window.end_ns > now_ns {
                window.end_ns = now_ns;
                if let Some(pacer) = &mut window.pacer {
                    pacer.cut(now_ns);
                }
            }
            window.over |= now_ns >= window.end_ns;
            return false;
        }
        let start_ns = match self.shared.start() {
            Start::NotYet => return false,
            Start::CalledOff => return true,
            Start::At(start_ns) => start_ns,
        };
        let Plan { warmup, duration, rate_per_s, threads, .. } = self.plan;
        let length = *warmup + *duration;
        self.window = Some(Window {
            start_ns,
            measure_from_ns: start_ns + as_ns(*warmup),
            end_ns: start_ns.saturating_add(as_ns(length)),
            pacer: rate_per_s.map(|rate| Pacer::new(start_ns, rate, length, self.share.thread, *threads)),
            over: false,
        });
        false
    }

    fn next_wait(&self, now_ns: u64) -> Duration {
        let mut next_ns = self.next_sweep_ns;
        let mut earliest = |candidate: Option<u64>| next_ns = next_ns.min(candidate.unwrap_or(u64::MAX));
        match &self.window {
            None => earliest(Some(now_ns + START_POLL_NS)),
            Some(window) if !window.over => {
                earliest(Some(window.end_ns));
                earliest(self.resting.front().map(|(at, _)| *at));
                if !self.free.is_empty() {
                    earliest(window.pacer.as_ref().and_then(Pacer::next_due_ns));
                }
            }
            Some(_) => {}
        }
        Duration::from_nanos(next_ns.saturating_sub(now_ns))
    }

    // Connections.

    fn begin_due(&mut self, now_ns: u64) {
        while self.resting.front().is_some_and(|(at, _)| *at <= now_ns) {
            self.free.extend(self.resting.pop_front().map(|(_, index)| index));
        }
        while !self.free.is_empty() {
            let Some(window) = self.window.as_mut().filter(|w| !w.over) else { return };
            let intended_ns = match &mut window.pacer {
                None => now_ns,
                Some(pacer) => match pacer.take_due(now_ns) {
                    Some(due_ns) => due_ns,
                    None => return,
                },
            };
            let number = self.shared.begun.fetch_add(1, Ordering::Relaxed);
            if self.handshakes.total.is_some_and(|total| number >= total) {
                window.over = true;
                return;
            }
            if let Some(index) = self.free.pop() {
                self.begin(index as usize, number, intended_ns, now_ns);
            }
        }
    }

    fn begin(&mut self, index: usize, number: u64, intended_ns: u64, now_ns: u64) {
        self.stats.handshakes.begun += 1;
        match self.connect(index, number) {
            Ok(link) => {
                let slot = &mut self.slots[index];
                slot.client = Some(Client::new(link, None, now_ns + as_ns(self.plan.timeout)));
                slot.intended_ns = intended_ns;
                slot.calls_left = self.handshakes.calls;
                (slot.shaken, slot.closing) = (false, false);
            }
            Err(failure) => self.fail(index, failure, now_ns),
        }
    }

    fn connect(&mut self, index: usize, number: u64) -> Result<Link, Failure> {
        let source = self.plan.source.map(|range| {
            let cycle = (range.per_address * MAX_SOURCES) as u64;
            range.address((number % cycle) as usize)
        });
        let tls = self.tls.as_ref().zip(self.server_name.as_ref());
        let token = u64::from(self.slots[index].generation) << 32 | index as u64;
        Link::open(self.plan.target.address, source, tls, &self.epoll, token)
    }

    fn on_event(&mut self, event: Event) {
        let index = event.token as u32 as usize;
        let slot = &mut self.slots[index];
        if u64::from(slot.generation) != event.token >> 32 {
            return;
        }
        let Some(client) = &mut slot.client else { return };
        let bare = self.handshakes.calls == 0 && !slot.closing;
        let advance = if bare {
            client.handle_handshake(event, &mut self.tools.context(self.plan))
        } else {
            client.handle_event(event, &mut self.tools.context(self.plan))
        };
        let now_ns = self.now_ns();
        self.note_handshake(index, now_ns);
        match advance {
            Ok(Advance::Pending) => {}
            Ok(Advance::Ready) => self.go_on(index, now_ns),
            Ok(Advance::Answered { then }) => {
                // One call is in flight at a time.
                if let Some((call, verdict)) = self.tools.answered.pop() {
                    self.on_answered(index, call, verdict, now_ns);
                }
                match then {
                    After::Idle => self.go_on(index, now_ns),
                    // The peer ends it before we do; a session that is left over ends by its own time.
                    After::Close | After::Lost => self.release(index),
                }
            }
            Ok(Advance::SessionEnded { verdict }) => {
                match verdict {
                    Ok(()) => self.stats.sessions_ended += 1,
                    Err(failure) => self.stats.failures.add(failure),
                }
                self.go_on(index, now_ns);
            }
            Ok(Advance::Closed) => self.release(index),
            Err(failure) => self.fail(index, failure, now_ns),
        }
    }

    /// Counts the handshake once, as soon as it is done.
    fn note_handshake(&mut self, index: usize, now_ns: u64) {
        let slot = &mut self.slots[index];
        let Some(client) = slot.client.as_ref().filter(|c| !slot.shaken && c.is_open()) else { return };
        slot.shaken = true;
        let Some(window) = &self.window else { return };
        let counts = &mut self.stats.handshakes;
        match client.handshake_kind() {
            Some(HandshakeKind::Resumed) => counts.resumed += 1,
            Some(HandshakeKind::FullWithHelloRetryRequest) => counts.retried += 1,
            Some(HandshakeKind::Full) => counts.full += 1,
            None => counts.plain += 1,
        }
        if (window.measure_from_ns..window.end_ns).contains(&now_ns) {
            counts.in_window += 1;
            counts.latency.saturating_record((now_ns - slot.intended_ns).max(1));
        }
    }

    /// The connection is idle: the next call, the end of its session, or its own end.
    fn go_on(&mut self, index: usize, now_ns: u64) {
        let slot = &mut self.slots[index];
        let Some(client) = &mut slot.client else { return };
        client.deadline_ns = now_ns + as_ns(self.plan.timeout);
        let mut context = self.tools.context(self.plan);
        let done = if slot.calls_left > 0 {
            slot.calls_left -= 1;
            client.push_call(Call { intended_ns: now_ns, sent_ns: now_ns }, &mut context);
            client.flush(&mut context)
        } else if client.session.is_some() && !self.plan.keep_sessions {
            client.send_end(&mut context)
        } else {
            slot.closing = true;
            client.close(&mut context)
        };
        if let Err(failure) = done {
            self.fail(index, failure, now_ns);
        }
    }

    fn on_answered(&mut self, index: usize, call: Call, verdict: Result<(), Failure>, now_ns: u64) {
        if let Err(failure) = verdict {
            self.slots[index].calls_left = 0;
            self.stats.failures.add(failure);
            return;
        }
        self.stats.ok += 1;
        let Some(window) = &self.window else { return };
        if (window.measure_from_ns..window.end_ns).contains(&now_ns) {
            self.stats.ok_in_window += 1;
            self.stats.record(now_ns - call.intended_ns, now_ns - call.sent_ns);
            self.stats.intervals.record(now_ns - window.start_ns, now_ns - call.intended_ns);
        }
    }

    fn fail(&mut self, index: usize, failure: Failure, now_ns: u64) {
        if self.slots[index].closing && failure.kind == Kind::Reset {
            // All was said and answered; some servers end so.
            self.stats.handshakes.reset_at_close += 1;
            return self.release(index);
        }
        self.stats.failures.add(failure);
        self.forget(index);
        self.resting.push_back((now_ns + BACKOFF_NS, index as u32));
    }

    fn release(&mut self, index: usize) {
        self.stats.opened += 1;
        self.forget(index);
        self.free.push(index as u32);
    }

    fn forget(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.client = None;
        slot.generation = slot.generation.wrapping_add(1);
    }

    /// Fails what has waited too long.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns < self.next_sweep_ns {
            return;
        }
        self.next_sweep_ns = now_ns + SWEEP_NS;
        for index in 0..self.slots.len() {
            let slot = &self.slots[index];
            if slot.client.as_ref().is_some_and(|c| c.deadline_ns <= now_ns) {
                let what = match (slot.closing, slot.shaken) {
                    (true, _) => "not closed by the peer",
                    (_, true) => "no answer",
                    _ => "not set up",
                };
                self.fail(index, Failure::new(Kind::Timeout, what), now_ns);
            }
        }
    }

    fn alive(&self) -> usize {
        self.slots.len() - self.free.len() - self.resting.len()
    }

    fn publish(&self) {
        let progress = &self.shared.progress[self.share.thread];
        progress.publish(self.alive() as u64, self.stats.ok, self.stats.failures.total());
        progress.units.store(self.stats.handshakes.total(), Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        nanos(self.shared.base)
    }
}
