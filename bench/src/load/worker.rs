//! One client thread: its epoll loop, its connections and when each of them calls.
//!
//! Bounds: [`MAX_OPENING`] connections coming up at once, one call in flight per connection, and a look at the clock
//! after every batch of events. Times are nanoseconds since the run's base. The thread's descriptors live in a file
//! table of its own.

mod calls;
mod connections;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;

use super::client::{Advance, After, Call, Client, Context};
use super::driver::{Shared, Start};
use super::failure::{Failure, Kind};
use super::link::{Link, Scratch};
use super::overload::Outcome;
use super::pace::Pacer;
use super::stats::ThreadStats;
use super::stream::EventCounts;
use super::target::Protocol;
use super::{Overload, Plan, Scenario};
use crate::report::{Intervals, interval_for};
use crate::sys::{Epoll, Event};

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
/// In a token: the event is of a client's second connection, for POSTs (HTTP with SSE). What is below is the client's number.
const POSTS: u64 = 1 << 31;

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
        let start_ns = match self.shared.start() {
            Start::NotYet => return false,
            Start::CalledOff => return true,
            Start::At(start_ns) => start_ns,
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
