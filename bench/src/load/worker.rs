//! One client thread: its epoll loop, its connections and when each of them calls.
//!
//! Bounds: [`MAX_OPENING`] connections coming up at once, one call in flight per connection, and a look at the clock
//! after every batch of events. Times are nanoseconds since the run's base. The thread's descriptors live in a file
//! table of its own.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use super::client::{Advance, After, Call, Client, Context};
use super::driver::{ABORTED, Shared};
use super::failure::{Failure, Kind};
use super::link::{Link, Scratch};
use super::overload::Outcome;
use super::pace::Pacer;
use super::stats::ThreadStats;
use super::stream::EventCounts;
use super::tls::Tls;
use super::{Overload, Plan, Scenario};
use crate::report::{Intervals, interval_for};
use crate::sys::{Epoll, Event, Interest};

/// Connections that come up at the same time on one thread; more would only queue at the target.
const MAX_OPENING: usize = 256;
/// Attempts per connection before the run starts; later there is no limit but the run's end.
const MAX_SETUP_ATTEMPTS: u8 = 3;
/// Wait before a failed or lost connection is made again.
const REOPEN_BACKOFF_NS: u64 = 200_000_000;
/// How often deadlines are looked at; a timeout may be noticed that much late.
pub(super) const SWEEP_NS: u64 = 100_000_000;
/// How often a thread that waits for the start, or for the last sample at the end, looks whether it is there.
pub(super) const START_POLL_NS: u64 = 5_000_000;
/// Ids per thread, so that no two threads use the same.
const IDS_PER_THREAD: u64 = 1_000_000_000_000;

/// Where a thread stands among the others.
#[derive(Clone, Copy, Debug)]
pub(super) struct Share {
    pub(super) thread: usize,
    /// Number of its first connection, and how many it has.
    pub(super) first: usize,
    pub(super) connections: usize,
    /// They call as fast as they are answered, in the second half of the measured time.
    pub(super) floods: bool,
}

pub(super) struct Worker<'a> {
    plan: &'a Plan,
    shared: &'a Shared,
    share: Share,
    server_name: Option<ServerName<'static>>,
    epoll: Epoll,
    slots: Vec<Slot>,
    /// Idle connections, longest idle first. An entry whose connection has died is passed over.
    ready: VecDeque<u32>,
    /// Connections to be made again, and when; in order of time.
    reopen: VecDeque<(u64, u32)>,
    /// Slots from here on were never opened.
    fresh: usize,
    ramp: Option<Pacer>,
    opening: usize,
    up: u64,
    in_flight: usize,
    /// Sessions being ended.
    ending: usize,
    /// Slots that came up or were given up.
    settled: usize,
    window: Option<Window>,
    /// Phases of an overload that came before the one in hand.
    past_phases: usize,
    /// Connections with calls that have not left yet.
    unflushed: Vec<u32>,
    next_sweep_ns: u64,
    tools: Tools,
    stats: ThreadStats,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    client: Option<Client>,
    /// Kept over reconnects.
    session: Option<Arc<str>>,
    attempts: u8,
    settled: bool,
    was_up: bool,
    is_up: bool,
    queued: bool,
}

/// The times of the run, once it has started.
struct Window {
    start_ns: u64,
    measure_from_ns: u64,
    end_ns: u64,
    /// When the flood begins.
    flood_from_ns: u64,
    pacer: Option<Pacer>,
}

/// A thread's room and its count of ids, lent to the connection in hand.
pub(super) struct Tools {
    pub(super) scratch: Scratch,
    ids: u64,
    request: Vec<u8>,
    body: Vec<u8>,
    pub(super) events: EventCounts,
    pub(super) answered: Vec<(Call, Result<(), Failure>)>,
}

impl Tools {
    pub(super) fn new(thread: usize) -> Self {
        Self {
            scratch: Scratch::new(),
            ids: thread as u64 * IDS_PER_THREAD,
            request: Vec::new(),
            body: Vec::new(),
            events: EventCounts::new(),
            answered: Vec::new(),
        }
    }

    pub(super) fn context<'a>(&'a mut self, plan: &'a Plan) -> Context<'a> {
        let Self { scratch, ids, request, body, events, answered } = self;
        Context { plan, scratch, ids, request, body, events, answered }
    }
}

impl<'a> Worker<'a> {
    pub(super) fn new(
        plan: &'a Plan,
        shared: &'a Shared,
        share: Share,
        server_name: Option<ServerName<'static>>,
    ) -> io::Result<Self> {
        let ramp = plan.ramp_per_s.filter(|_| !share.floods).map(|rate| {
            let length = Duration::from_secs_f64(plan.connections as f64 / rate);
            Pacer::new(nanos(shared.base), rate, length, share.thread, plan.threads)
        });
        Ok(Self {
            plan,
            shared,
            share,
            server_name,
            epoll: Epoll::new()?,
            slots: std::iter::repeat_with(Slot::default).take(share.connections).collect(),
            ready: VecDeque::with_capacity(share.connections),
            reopen: VecDeque::new(),
            fresh: 0,
            ramp,
            opening: 0,
            up: 0,
            in_flight: 0,
            ending: 0,
            settled: 0,
            window: None,
            past_phases: 0,
            unflushed: Vec::new(),
            next_sweep_ns: 0,
            tools: Tools::new(share.thread),
            stats: ThreadStats::new(),
        })
    }

    /// Runs to the end and returns what was counted.
    pub(super) fn run(mut self) -> io::Result<ThreadStats> {
        loop {
            let now_ns = self.now_ns();
            if self.start_or_stop(now_ns) {
                break;
            }
            self.open_due(now_ns);
            self.give_up_due(now_ns);
            self.send_due(now_ns);
            self.sweep(now_ns);
            self.publish();
            self.tools.events.measuring =
                self.window.as_ref().is_some_and(|w| (w.measure_from_ns..w.end_ns).contains(&now_ns));
            if self.is_done(now_ns) {
                break;
            }
            let events = self.epoll.wait(Some(self.next_wait(now_ns)))?;
            for i in 0..events {
                self.on_event(self.epoll.event(i));
            }
        }
        self.count_unanswered();
        self.stats.up = self.up;
        self.end_sessions()?;
        self.stats.sent_bytes = self.tools.scratch.sent_bytes;
        self.stats.received_bytes = self.tools.scratch.received_bytes;
        self.publish();
        self.stats.events = self.tools.events;
        Ok(self.stats)
    }

    /// Takes over the start time once it is set. True when the run is called off before it starts.
    fn start_or_stop(&mut self, now_ns: u64) -> bool {
        if let Some(window) = &mut self.window {
            if self.shared.stop.load(Ordering::Relaxed) && window.end_ns > now_ns {
                window.end_ns = now_ns;
                if let Some(pacer) = &mut window.pacer {
                    pacer.cut(now_ns);
                }
            } else if now_ns >= window.end_ns {
                self.begin_next_phase();
            }
            return false;
        }
        let start_ns = match self.shared.start_ns.load(Ordering::Acquire) {
            0 => return false,
            ABORTED => return true,
            start_ns => start_ns,
        };
        let Plan { warmup, duration, rate_per_s, threads, .. } = self.plan;
        let thread = self.share.thread;
        let length = match self.plan.scenario {
            Scenario::Overload(overload) => *warmup + overload.probe,
            _ => *warmup + *duration,
        };
        self.stats.intervals = Intervals::new(interval_for(length));
        let (measure_from_ns, end_ns) = (start_ns + as_ns(*warmup), start_ns + as_ns(length));
        if matches!(self.plan.scenario, Scenario::Overload(_)) {
            self.stats.overload.begin(measure_from_ns, end_ns, None);
        }
        let flood_from_ns = measure_from_ns.midpoint(end_ns);
        self.window = Some(if self.share.floods {
            let (start_ns, measure_from_ns) = (flood_from_ns, flood_from_ns);
            Window { start_ns, measure_from_ns, end_ns, flood_from_ns, pacer: None }
        } else {
            let pacer = rate_per_s.map(|rate| Pacer::new(start_ns, rate, length, thread, *threads));
            Window { start_ns, measure_from_ns, end_ns, flood_from_ns, pacer }
        });
        false
    }

    /// The next phase of an overload, if it has been given out.
    fn begin_next_phase(&mut self) {
        let Some(phases) = self.shared.phases.get() else { return };
        let Some(phase) = phases.get(self.past_phases) else { return };
        self.give_up_due(self.now_ns());
        self.past_phases += 1;
        self.stats.overload.begin(phase.start_ns, phase.end_ns, Some(phase.rate_per_s));
        let (thread, length) = (self.share.thread, Duration::from_nanos(phase.end_ns - phase.start_ns));
        self.window = Some(Window {
            start_ns: phase.start_ns,
            measure_from_ns: phase.start_ns,
            end_ns: phase.end_ns,
            flood_from_ns: phase.end_ns,
            pacer: Some(Pacer::new(phase.start_ns, phase.rate_per_s, length, thread, self.plan.threads)),
        });
    }

    /// Drops the calls that have waited too long for a free connection, and at the end of a phase all that wait.
    fn give_up_due(&mut self, now_ns: u64) {
        let Scenario::Overload(Overload { patience, .. }) = self.plan.scenario else { return };
        let Some(window) = &mut self.window else { return };
        let Some(pacer) = &mut window.pacer else { return };
        let late_ns = if now_ns >= window.end_ns { u64::MAX } else { now_ns.saturating_sub(as_ns(patience)) };
        while let Some(due_ns) = pacer.take_due(late_ns) {
            self.stats.overload.on_other(due_ns, Outcome::Unsent);
        }
    }

    fn is_done(&self, now_ns: u64) -> bool {
        let Some(window) = &self.window else { return false };
        let left = window.pacer.as_ref().map_or(0, Pacer::left);
        let answered = self.in_flight == 0 && left == 0;
        let over =
            now_ns >= window.end_ns && (answered || now_ns >= window.end_ns + as_ns(self.plan.timeout));
        over && self.shared.sampled.load(Ordering::Acquire)
    }

    fn next_wait(&self, now_ns: u64) -> Duration {
        let mut next_ns = self.next_sweep_ns;
        let mut earliest = |candidate: Option<u64>| next_ns = next_ns.min(candidate.unwrap_or(u64::MAX));
        match &self.window {
            None => earliest(Some(now_ns + START_POLL_NS)),
            Some(window) => {
                for turn_ns in [window.start_ns, window.end_ns] {
                    earliest((turn_ns > now_ns).then_some(turn_ns));
                }
                if now_ns >= window.end_ns {
                    earliest(Some(now_ns + START_POLL_NS));
                }
                if !self.ready.is_empty() {
                    earliest(window.pacer.as_ref().and_then(Pacer::next_due_ns));
                }
            }
        }
        if self.opening < MAX_OPENING {
            earliest(self.reopen.front().map(|(at, _)| *at));
            if self.fresh < self.slots.len() {
                earliest(self.ramp.as_ref().and_then(Pacer::next_due_ns));
            }
        }
        Duration::from_nanos(next_ns.saturating_sub(now_ns))
    }

    // Connections.

    fn open_due(&mut self, now_ns: u64) {
        while self.opening < MAX_OPENING && self.fresh < self.slots.len() && self.may_open_fresh() {
            if self.ramp.as_mut().is_some_and(|ramp| ramp.take_due(now_ns).is_none()) {
                break;
            }
            self.fresh += 1;
            self.open(self.fresh - 1, now_ns);
        }
        while self.opening < MAX_OPENING && self.reopen.front().is_some_and(|(at, _)| *at <= now_ns) {
            if let Some((_, index)) = self.reopen.pop_front() {
                self.open(index as usize, now_ns);
            }
        }
    }

    /// With a shared session all connections but the first wait until it is there.
    fn may_open_fresh(&mut self) -> bool {
        let leads = self.share.first + self.fresh == 0;
        if !self.plan.shared_session || self.plan.requests.is_stateless() || leads {
            return true;
        }
        match self.shared.session.get() {
            Some(Some(session)) => self.slots[self.fresh].session = Some(session.clone()),
            Some(None) => {}
            None => return false,
        }
        true
    }

    fn open(&mut self, index: usize, now_ns: u64) {
        self.slots[index].attempts = self.slots[index].attempts.saturating_add(1);
        self.opening += 1;
        match self.connect(index) {
            Ok(link) => {
                let slot = &mut self.slots[index];
                let deadline_ns = now_ns + as_ns(self.plan.timeout);
                slot.client = Some(Client::new(link, slot.session.clone(), deadline_ns));
            }
            Err(failure) => self.fail(index, failure, now_ns),
        }
    }

    fn connect(&mut self, index: usize) -> Result<Link, Failure> {
        let tls = match (&self.plan.tls, &self.server_name) {
            (Some(config), Some(name)) => {
                Some(Tls::try_new(config.clone(), name.clone()).map_err(|e| Failure::new(Kind::Tls, e))?)
            }
            _ => None,
        };
        let source = self.plan.source.map(|range| range.address(self.share.first + index));
        let link = Link::connect(self.plan.target.address, source, tls)?;
        let token = u64::from(self.slots[index].generation) << 32 | index as u64;
        self.epoll.add(link.fd(), Interest::Edge, token).map_err(|e| Failure::new(Kind::Connect, e))?;
        Ok(link)
    }

    fn on_event(&mut self, event: Event) {
        let index = event.token as u32 as usize;
        let slot = &mut self.slots[index];
        if u64::from(slot.generation) != event.token >> 32 {
            return;
        }
        let Some(client) = &mut slot.client else { return };
        let advance = client.handle_event(event, &mut self.tools.context(self.plan));
        let now_ns = nanos(self.shared.base);
        match advance {
            Ok(Advance::Pending) if matches!(self.plan.scenario, Scenario::Stream(_)) => {
                // A stream may last; only its silence is limited.
                client.deadline_ns = now_ns + as_ns(self.plan.timeout);
            }
            Ok(Advance::Pending) => {}
            Ok(Advance::Ready) => self.on_ready(index, now_ns),
            Ok(Advance::Answered { then }) => {
                self.take_answered(now_ns);
                match then {
                    After::Idle => self.enqueue(index),
                    After::Lost => self.fail(index, Failure::new(Kind::Lost, "closed by the peer"), now_ns),
                    After::Close => {
                        self.close(index);
                        self.reopen_later(index, now_ns);
                    }
                }
                self.send_due(now_ns);
            }
            Ok(Advance::SessionEnded { verdict }) => {
                self.ending -= 1;
                match verdict {
                    Ok(()) => self.stats.sessions_ended += 1,
                    Err(failure) => self.stats.failures.add(failure),
                }
            }
            // Only short connections are ended by us first.
            Ok(Advance::Closed) => self.close(index),
            Err(failure) => {
                self.take_answered(now_ns);
                self.fail(index, failure, now_ns);
            }
        }
    }

    fn take_answered(&mut self, now_ns: u64) {
        let mut answered = std::mem::take(&mut self.tools.answered);
        for (call, verdict) in answered.drain(..) {
            self.on_answered(call, verdict, now_ns);
        }
        self.tools.answered = answered;
    }

    fn on_ready(&mut self, index: usize, now_ns: u64) {
        let slot = &mut self.slots[index];
        slot.session = slot.client.as_ref().and_then(|c| c.session.clone());
        if self.plan.shared_session && self.share.first + index == 0 {
            // A second set-up of the leader changes nothing for the others: the first session counts.
            let _ = self.shared.session.set(slot.session.clone());
        }
        let again = std::mem::replace(&mut slot.was_up, true);
        slot.is_up = true;
        self.opening -= 1;
        self.up += 1;
        if again {
            self.stats.reopened += 1;
        } else {
            self.stats.opened += 1;
        }
        self.settle(index);
        self.enqueue(index);
        self.send_due(now_ns);
    }

    /// Counts a failure that ends a connection, and sees to its successor.
    fn fail(&mut self, index: usize, failure: Failure, now_ns: u64) {
        let slot = &mut self.slots[index];
        if slot.is_up && matches!(failure.kind, Kind::Reset | Kind::Lost | Kind::Tls) {
            self.stats.lost += 1;
        }
        if !slot.is_up && failure.kind == Kind::HttpStatus {
            // The session it was to join may be what is refused.
            slot.session = None;
        }
        for call in slot.client.iter().flat_map(Client::in_flight) {
            self.in_flight -= 1;
            self.stats.overload.on_other(call.intended_ns, Outcome::Failed);
        }
        if slot.client.as_ref().is_some_and(Client::is_ending) {
            self.ending -= 1;
        }
        self.stats.failures.add(failure);
        self.close(index);
        self.reopen_later(index, now_ns);
    }

    fn close(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        if std::mem::replace(&mut slot.is_up, false) {
            self.up -= 1;
            slot.session = slot.client.as_ref().and_then(|c| c.session.clone());
        } else {
            self.opening -= 1;
        }
        slot.client = None;
        slot.generation = slot.generation.wrapping_add(1);
    }

    fn reopen_later(&mut self, index: usize, now_ns: u64) {
        let slot = &self.slots[index];
        if self.window.is_none() && !slot.was_up && slot.attempts >= MAX_SETUP_ATTEMPTS {
            if self.plan.shared_session && self.share.first + index == 0 {
                // Nobody can lead: the others try with sessions of their own, and fail or not by themselves.
                let _ = self.shared.session.set(None);
            }
            self.settle(index);
        } else if self.window.as_ref().is_none_or(|w| now_ns < w.end_ns) {
            self.reopen.push_back((now_ns + REOPEN_BACKOFF_NS, index as u32));
        }
    }

    fn settle(&mut self, index: usize) {
        if !std::mem::replace(&mut self.slots[index].settled, true) {
            self.settled += 1;
            if self.settled == self.slots.len() {
                self.publish();
                self.shared.settled_threads.fetch_add(1, Ordering::Release);
            }
        }
    }

    /// Fails what has waited too long.
    fn sweep(&mut self, now_ns: u64) {
        if now_ns < self.next_sweep_ns {
            return;
        }
        self.next_sweep_ns = now_ns + SWEEP_NS;
        for index in 0..self.fresh {
            let late = |c: &Client| !c.is_idle() && c.deadline_ns <= now_ns;
            if let Some(client) = self.slots[index].client.as_ref().filter(|c| late(c)) {
                let what = if client.in_flight().next().is_some() { "no answer" } else { "not set up" };
                self.fail(index, Failure::new(Kind::Timeout, what), now_ns);
            }
        }
    }

    // Calls.

    /// Sends what is due; calls that are due together on one connection leave together.
    fn send_due(&mut self, now_ns: u64) {
        while let Some((index, call)) = self.next_call(now_ns) {
            let Some(client) = &mut self.slots[index].client else { continue };
            client.deadline_ns = now_ns + as_ns(self.plan.timeout);
            client.push_call(call, &mut self.tools.context(self.plan));
            self.in_flight += 1;
            self.unflushed.push(index as u32);
            if client.has_room(self.plan) {
                self.enqueue(index);
            }
        }
        let mut unflushed = std::mem::take(&mut self.unflushed);
        for index in unflushed.drain(..).map(|index| index as usize) {
            let Some(client) = &mut self.slots[index].client else { continue };
            if let Err(failure) = client.flush(&mut self.tools.context(self.plan)) {
                self.fail(index, failure, now_ns);
            }
        }
        self.unflushed = unflushed;
    }

    /// The next call that is due, and a connection that has room for it.
    fn next_call(&mut self, now_ns: u64) -> Option<(usize, Call)> {
        // In a closed loop: all connections, but for the probe of an overload.
        let limit = match self.plan.scenario {
            Scenario::Overload(overload) => overload.probe_calls.div_ceil(self.plan.threads),
            _ => usize::MAX,
        };
        if self.ready.is_empty() {
            return None;
        }
        let window = self.window.as_mut()?;
        let intended_ns = match &mut window.pacer {
            None if self.in_flight >= limit => return None,
            None if (window.start_ns..window.end_ns).contains(&now_ns) => now_ns,
            None => return None,
            Some(pacer) => pacer.next_due_ns().filter(|due| *due <= now_ns)?,
        };
        let index = self.pop_ready()?;
        if let Some(pacer) = self.window.as_mut().and_then(|w| w.pacer.as_mut()) {
            pacer.take_due(now_ns);
        }
        Some((index, Call { intended_ns, sent_ns: now_ns }))
    }

    fn on_answered(&mut self, call: Call, verdict: Result<(), Failure>, now_ns: u64) {
        self.in_flight -= 1;
        let overloads = matches!(self.plan.scenario, Scenario::Overload(_));
        if let Err(failure) = verdict {
            if overloads && failure.kind == Kind::Shed {
                self.stats.overload.on_other(call.intended_ns, Outcome::Shed);
            } else {
                self.stats.overload.on_other(call.intended_ns, Outcome::Failed);
                self.stats.failures.add(failure);
            }
            return;
        }
        self.stats.ok += 1;
        let Some(window) = &self.window else { return };
        if overloads {
            self.stats.overload.on_right(call.intended_ns, now_ns);
            // The measured time is the overload alone.
            if self.past_phases != 1 {
                return;
            }
        } else if self.plan.flood > 0 && call.intended_ns >= window.measure_from_ns {
            let calm = call.intended_ns < window.flood_from_ns;
            let half = if calm { &mut self.stats.calm } else { &mut self.stats.flooded };
            half.saturating_record((now_ns - call.intended_ns).max(1));
        }
        if (window.measure_from_ns..window.end_ns).contains(&now_ns) {
            self.stats.ok_in_window += 1;
        }
        if call.intended_ns >= window.measure_from_ns {
            self.stats.record(now_ns - call.intended_ns, now_ns - call.sent_ns);
            self.stats.intervals.record(now_ns - window.start_ns, now_ns - call.intended_ns);
        }
    }

    fn enqueue(&mut self, index: usize) {
        if !std::mem::replace(&mut self.slots[index].queued, true) {
            self.ready.push_back(index as u32);
        }
    }

    fn pop_ready(&mut self) -> Option<usize> {
        while let Some(index) = self.ready.pop_front() {
            let slot = &mut self.slots[index as usize];
            slot.queued = false;
            if slot.client.as_ref().is_some_and(|client| client.has_room(self.plan)) {
                return Some(index as usize);
            }
        }
        None
    }

    /// Counts, at the end, the calls that have no answer and those that no connection was free for.
    fn count_unanswered(&mut self) {
        for index in 0..self.slots.len() {
            let unanswered = self.slots[index].client.iter().flat_map(Client::in_flight).count();
            if unanswered > 0 {
                self.stats.failures.add_many(Failure::new(Kind::Timeout, "no answer"), unanswered as u64);
                self.close(index);
            }
        }
        let unsent = self.window.as_ref().and_then(|w| w.pacer.as_ref()).map_or(0, Pacer::left);
        self.stats.failures.add_many(Failure::new(Kind::Timeout, "no connection was free"), unsent);
    }

    /// Ends the sessions of all idle connections (2025-11-25, basic/transports, Session Management), within the time
    /// of `--timeout`.
    fn end_sessions(&mut self) -> io::Result<()> {
        if self.plan.keep_sessions || self.window.is_none() {
            return Ok(());
        }
        let deadline_ns = self.now_ns() + as_ns(self.plan.timeout);
        let mut next = 0;
        loop {
            while self.ending < MAX_OPENING && next < self.slots.len() {
                self.end_session(next);
                next += 1;
            }
            let now_ns = self.now_ns();
            if self.ending == 0 || now_ns >= deadline_ns {
                break;
            }
            let events = self.epoll.wait(Some(Duration::from_nanos(deadline_ns - now_ns)))?;
            for i in 0..events {
                self.on_event(self.epoll.event(i));
            }
        }
        let left = Failure::new(Kind::Timeout, "session not ended");
        self.stats.failures.add_many(left, self.ending as u64);
        Ok(())
    }

    fn end_session(&mut self, index: usize) {
        // A shared session is ended once, by the connection that began it.
        let joined = self.plan.shared_session && self.share.first + index > 0;
        let Some(client) = &mut self.slots[index].client else { return };
        if joined || !client.is_idle() || client.session.is_none() {
            return;
        }
        self.ending += 1;
        if let Err(failure) = client.send_end(&mut self.tools.context(self.plan)) {
            self.fail(index, failure, self.now_ns());
        }
    }

    fn publish(&self) {
        let progress = &self.shared.progress[self.share.thread];
        progress.publish(self.up, self.stats.ok, self.stats.failures.total());
        progress.units.store(self.tools.events.total, Ordering::Relaxed);
    }

    fn now_ns(&self) -> u64 {
        nanos(self.shared.base)
    }
}

/// Nanoseconds since `base`, never 0.
pub(super) fn nanos(base: Instant) -> u64 {
    as_ns(base.elapsed()).max(1)
}

/// A duration in nanoseconds; beyond 584 years it is 584 years.
pub(super) fn as_ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
