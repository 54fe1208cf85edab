//! An endpoint's row in the table that all shards write, and one request's trial of it: owns that each leave a breaker gives
//! is answered once, also where the request's task is dropped. Never what counts as a failure.

use std::rc::Rc;
use std::sync::Arc;

use super::Endpoint;
use super::breaker::{Limits, Pass};
use super::resolver::sites::Site;
use crate::setup::Server;
use crate::shard::clock::Millis;
use crate::shard::table::endpoints::Row;

/// Names a row of a server's.
#[derive(Clone)]
pub(crate) struct Place {
    server: Arc<Server>,
    number: usize,
}

impl Place {
    /// The place of a server's site.
    pub(crate) fn claim(server: &Arc<Server>, site: &Site) -> Self {
        let place = Place { server: server.clone(), number: site.index.into() };
        place.row().claim(site.key);
        place
    }

    pub(crate) fn server_name(&self) -> &str {
        &self.server.settings.name
    }

    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    fn limits(&self) -> &Limits {
        &self.server.limits
    }

    pub(crate) fn row(&self) -> &Row {
        self.server.rows.row(self.number)
    }
}

/// One request's trial of an endpoint. Dropped, it says nothing of the endpoint: its client left, or the fault was not the
/// endpoint's.
pub(crate) struct Trial {
    endpoint: Rc<Endpoint>,
    pass: Pass,
    said: Said,
}

/// What has been said of the endpoint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Passed,
    Failed,
}

impl Trial {
    /// # Errors
    /// The breaker takes no request now: the milliseconds after which it may.
    pub(crate) fn begin(endpoint: &Rc<Endpoint>, now: Millis) -> Result<Self, u64> {
        let pass = endpoint.place.row().breaker.admit(endpoint.place.limits(), now)?;
        if pass.is_probe {
            tracing::debug!(
                server = endpoint.place.server_name(),
                endpoint = &*endpoint.label,
                "an open breaker probes"
            );
        }
        Ok(Trial { endpoint: endpoint.clone(), pass, said: Said::Nothing })
    }

    pub(crate) fn endpoint(&self) -> &Rc<Endpoint> {
        &self.endpoint
    }

    /// The endpoint answers. What follows may still fail.
    pub(crate) fn passed(&mut self) {
        if self.said != Said::Nothing {
            return;
        }
        self.said = Said::Passed;
        let place = &self.endpoint.place;
        if place.row().breaker.succeed(self.pass, place.limits()) {
            tracing::info!(
                server = self.endpoint.place.server_name(),
                endpoint = &*self.endpoint.label,
                "the breaker closed: the endpoint answers again"
            );
        }
    }

    /// Whatever follows says nothing of the endpoint to others.
    pub(crate) fn exempt(&mut self) {
        if std::mem::replace(&mut self.said, Said::Failed) == Said::Nothing && self.pass.is_probe {
            self.endpoint.place.row().breaker.give_back(self.pass);
        }
    }

    /// The endpoint could not be reached, broke off, took too long, or failed by its own account.
    pub(crate) fn failed(&mut self, now: Millis) {
        if std::mem::replace(&mut self.said, Said::Failed) == Said::Failed {
            return;
        }
        let place = &self.endpoint.place;
        if place.row().breaker.fail(self.pass, place.limits(), now) {
            tracing::warn!(
                server = self.endpoint.place.server_name(),
                endpoint = &*self.endpoint.label,
                "the breaker opened: the endpoint is left alone for a while"
            );
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if self.said == Said::Nothing && self.pass.is_probe {
            self.endpoint.place.row().breaker.give_back(self.pass);
        }
    }
}
