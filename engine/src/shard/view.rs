//! The setup as a shard has it: owns the shard's part of each server, and what is done on the shard when another setup replaces
//! the one in force. Whoever has begun by one view ends by it.

use std::ops::Deref;
use std::rc::Rc;
use std::sync::Arc;

use super::Shard;
use crate::setup::Setup;
use crate::upstream::Upstream;

/// One setup, with what this shard made of it.
pub(crate) struct View {
    setup: Arc<Setup>,
    /// By number.
    upstreams: Vec<Rc<Upstream>>,
}

impl Deref for View {
    type Target = Setup;

    fn deref(&self) -> &Setup {
        &self.setup
    }
}

impl View {
    /// What of the view before has not changed stays, with its connections and what is known.
    pub(super) fn new(setup: Arc<Setup>, place: (usize, usize), before: Option<&View>) -> Self {
        let upstreams = setup.servers.iter().map(|server| {
            let old = before.and_then(|before| before.upstreams.get(usize::from(server.number)));
            match old {
                Some(old) if Arc::ptr_eq(old.server(), server) => old.clone(),
                old => Rc::new(Upstream::new(server, place, old.map(Rc::as_ref))),
            }
        });
        let upstreams = upstreams.collect();
        View { setup, upstreams }
    }

    /// The servers that have been there, by number.
    pub(crate) fn upstreams(&self) -> &[Rc<Upstream>] {
        &self.upstreams
    }

    /// The server of this number.
    pub(crate) fn upstream(&self, server: usize) -> &Rc<Upstream> {
        &self.upstreams[server]
    }
}

impl Shard {
    /// What is configured at the moment.
    pub(crate) fn setup(&self) -> Rc<View> {
        self.view.borrow().clone()
    }

    /// A server as it is at the moment.
    pub(crate) fn upstream(&self, server: usize) -> Rc<Upstream> {
        self.view.borrow().upstreams[server].clone()
    }

    /// Takes over the process's setup.
    pub(super) fn take_setup(self: &Rc<Self>) {
        let before = self.setup();
        let place = (self.index, self.process.mailboxes.len());
        let view = Rc::new(View::new(self.process.setup(), place, Some(&before)));
        self.view.replace(view.clone());
        self.duplex.grow(view.upstreams.len());
        self.kept.sessions.know(&view.setup);
        if before.config.rate_limit != view.config.rate_limit {
            self.kept.limit(&view.config.rate_limit);
        }
        if before.config.overload != view.config.overload {
            self.overload.set(&view.config.overload);
        }
        let has_left = |server: usize| before.is_there(server) && !view.is_there(server);
        if (0..view.upstreams.len()).any(has_left) {
            for conn in self.conns.all() {
                crate::door::on_servers_gone(self, &conn);
            }
        }
        for (old, new) in before.upstreams.iter().zip(&view.upstreams) {
            let number = new.server().number;
            if new.server().is_gone {
                self.metrics.forget_server(number);
            }
            if !old.server().is_same_place(new.server()) {
                self.metrics.forget_endpoints(number);
                self.duplex.end_server(number);
            }
        }
        if self.index == 0 {
            crate::exchange::start_probes(self, Some(&before));
        }
        // Streams of servers that are gone end, those of all servers go on with those that are there.
        self.core.tasks.wake_all();
    }
}
