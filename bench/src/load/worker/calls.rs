//! A thread's calls: owns which call goes to which connection and when, what its answer counts for, and the end of the
//! sessions. It never opens a connection.

use super::*;

impl Worker<'_> {
    /// Sends what is due; calls that are due together on one connection leave together.
    pub(super) fn send_due(&mut self, now_ns: u64) {
        while let Some((index, call)) = self.next_call(now_ns) {
            if let Err(failure) = self.connect_posts(index) {
                self.fail(index, failure, now_ns);
                continue;
            }
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

    pub(super) fn on_answered(&mut self, call: Call, verdict: Result<(), Failure>, now_ns: u64) {
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

    pub(super) fn enqueue(&mut self, index: usize) {
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
    pub(super) fn count_unanswered(&mut self) {
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
    pub(super) fn end_sessions(&mut self) -> io::Result<()> {
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
}
