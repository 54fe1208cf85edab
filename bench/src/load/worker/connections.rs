//! A thread's connections: owns their opening, their events, their ends and their successors. It never decides when a call is
//! due.

use super::*;

impl Worker<'_> {
    pub(super) fn open_due(&mut self, now_ns: u64) {
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
        match self.connect_client(index, now_ns) {
            Ok(client) => self.slots[index].client = Some(client),
            Err(failure) => self.fail(index, failure, now_ns),
        }
    }

    fn connect_client(&mut self, index: usize, now_ns: u64) -> Result<Client, Failure> {
        let link = self.connect(index, 0)?;
        let deadline_ns = now_ns + as_ns(self.plan.timeout);
        let client = Client::new(link, self.slots[index].session.clone(), deadline_ns);
        if self.plan.target.protocol != Protocol::Sse {
            return Ok(client);
        }
        Ok(client.with_posts(self.connect(index, POSTS)?, now_ns))
    }

    /// Sees to the connection for POSTs of a client that has let its own go.
    pub(super) fn connect_posts(&mut self, index: usize) -> Result<(), Failure> {
        if !self.slots[index].client.as_ref().is_some_and(Client::wants_posts) {
            return Ok(());
        }
        let posts = self.connect(index, POSTS)?;
        if let Some(client) = &mut self.slots[index].client {
            client.set_posts(posts);
        }
        Ok(())
    }

    /// Begins a connection, whose events have `mark` in their token.
    fn connect(&mut self, index: usize, mark: u64) -> Result<Link, Failure> {
        let source = self.plan.source.map(|range| range.address(self.share.first + index));
        let tls = self.plan.tls.as_ref().zip(self.server_name.as_ref());
        let token = u64::from(self.slots[index].generation) << 32 | mark | index as u64;
        Link::open(self.plan.target.address, source, tls, &self.epoll, token)
    }

    pub(super) fn on_event(&mut self, event: Event) {
        let index = (event.token & (POSTS - 1)) as usize;
        let slot = &mut self.slots[index];
        if u64::from(slot.generation) != event.token >> 32 {
            return;
        }
        let Some(client) = &mut slot.client else { return };
        let context = &mut self.tools.context(self.plan);
        let advance = match event.token & POSTS {
            0 => client.handle_event(event, context),
            _ => client.handle_posts_event(event, context),
        };
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
    pub(super) fn fail(&mut self, index: usize, failure: Failure, now_ns: u64) {
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

    pub(super) fn close(&mut self, index: usize) {
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
    pub(super) fn sweep(&mut self, now_ns: u64) {
        if now_ns < self.next_sweep_ns {
            return;
        }
        self.next_sweep_ns = now_ns + SWEEP_NS;
        for index in 0..self.fresh {
            if let Some(client) = &mut self.slots[index].client {
                client.let_posts_go(now_ns);
            }
            let late = |c: &Client| !c.is_idle() && c.deadline_ns <= now_ns;
            if let Some(client) = self.slots[index].client.as_ref().filter(|c| late(c)) {
                let what = if client.in_flight().next().is_some() { "no answer" } else { "not set up" };
                self.fail(index, Failure::new(Kind::Timeout, what), now_ns);
            }
        }
    }
}
