//! The client's side: owns the requests that the client waits for, and the rule that each is answered once. Whatever the
//! gateway sends passes here on its way to standard output. Never a connection.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use mcp_protocol::jsonrpc::{Kind, Payload, Scan, ScanLimits, scan};

use super::host::{Gate, Host};
use super::message::{Fault, Message, RequestId, in_one_line};
use super::settings::Settings;
use super::stdio::{ClientGone, Output};
use crate::shard::tasks::TaskId;

/// Messages of the client's that may be under way at once: requests are refused above it, others, for which the requests may
/// be waiting, above twice as many.
const MAX_FLIGHTS: usize = 256;
/// Messages of the largest size that these may amount to; again twice as much for what is no request.
const MAX_FLIGHT_MESSAGES: usize = 4;

/// A message of the client's that is under way.
pub(super) struct Flight {
    /// The requests in it that have no answer yet.
    waiting: RefCell<Vec<RequestId>>,
    /// Of the modern era: cancelled by ending its exchange.
    pub(super) is_modern: bool,
    /// `initialize`, which cannot be cancelled.
    pub(super) is_initialize: bool,
    /// A stream without an end of its own: nobody waits for it when the client leaves.
    endless: bool,
    bytes: usize,
    task: Cell<Option<TaskId>>,
    is_cancelled: Cell<bool>,
}

impl Flight {
    /// Whether every request in it has its answer.
    pub(super) fn is_answered(&self) -> bool {
        self.waiting.borrow().is_empty()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.is_cancelled.get()
    }

    /// The task that carries it.
    pub(super) fn carried_by(&self, task: TaskId) {
        self.task.set(Some(task));
    }
}

/// Why a message does not reach the client.
#[derive(Debug)]
pub(super) enum Stuck {
    /// It is no JSON-RPC message: standard output must not carry it.
    Malformed(String),
    ClientGone,
}

impl From<ClientGone> for Stuck {
    fn from(_: ClientGone) -> Self {
        Stuck::ClientGone
    }
}

pub(super) struct Front {
    pub(super) host: Rc<Host>,
    output: Rc<Output>,
    pub(super) max_message: usize,
    flights: RefCell<Vec<Rc<Flight>>>,
    /// Opens when a flight is over.
    landed: Gate,
    /// What a session that is opened in place of a lost one must be told.
    pub(super) settings: Settings,
}

impl Front {
    pub(super) fn new(host: Rc<Host>, output: Rc<Output>, max_message: usize) -> Rc<Self> {
        Rc::new(Front {
            host,
            output,
            max_message,
            flights: RefCell::default(),
            landed: Gate::default(),
            settings: Settings::default(),
        })
    }

    /// Takes note of a message before it is carried.
    ///
    /// # Errors
    /// As many are under way as may be.
    pub(super) fn take_off(&self, message: &Message) -> Result<Rc<Flight>, Fault> {
        let mut flights = self.flights.borrow_mut();
        let bytes: usize = flights.iter().map(|flight| flight.bytes).sum();
        let requests = message.requests();
        let times = if requests.is_empty() { 2 } else { 1 };
        if flights.len() >= times * MAX_FLIGHTS
            || bytes + message.body.len() > times * MAX_FLIGHT_MESSAGES * self.max_message
        {
            return Err(Fault::retryable("too many messages are under way"));
        }
        let flight = Rc::new(Flight {
            is_initialize: message.is("initialize") && !requests.is_empty(),
            waiting: RefCell::new(requests),
            is_modern: message.is_modern(),
            endless: message.is("subscriptions/listen"),
            bytes: message.body.len(),
            task: Cell::new(None),
            is_cancelled: Cell::new(false),
        });
        flights.push(flight.clone());
        if flight.is_initialize {
            self.settings.clear();
        } else {
            self.settings.on_asked(message);
        }
        Ok(flight)
    }

    /// The message was carried: there is nothing more to wait for.
    pub(super) fn land(&self, flight: &Rc<Flight>) {
        self.flights.borrow_mut().retain(|held| !Rc::ptr_eq(held, flight));
        self.landed.open();
    }

    /// Answers the requests of a flight that have no answer, and lands it. What was cancelled is not answered.
    pub(super) async fn fail(&self, flight: &Rc<Flight>, fault: &Fault) {
        let waiting = flight.waiting.take();
        self.land(flight);
        for id in waiting {
            if !flight.is_cancelled() {
                self.refuse(Some(&id.raw), fault).await;
            }
        }
    }

    /// Answers a line that could not even be taken.
    pub(super) async fn refuse(&self, id: Option<&[u8]>, fault: &Fault) {
        // A client that has gone wants no answer.
        let _ = self.output.line(fault.answer(id)).await;
    }

    /// The flight of a request that is under way.
    pub(super) fn flight_of(&self, id: &[u8]) -> Option<Rc<Flight>> {
        let flights = self.flights.borrow();
        flights.iter().find(|flight| flight.waiting.borrow().iter().any(|waiting| waiting.is(id))).cloned()
    }

    /// The client does not want this any more: nobody waits for it, and its task ends at the caller's word.
    pub(super) fn cancel(&self, flight: &Rc<Flight>) {
        flight.is_cancelled.set(true);
        self.landed.open();
    }

    /// Ends the task of a flight, and with it its connection.
    pub(super) fn drop_flight(&self, flight: &Rc<Flight>) {
        if let Some(task) = flight.task.take() {
            self.host.cancel(task);
        }
        self.land(flight);
    }

    /// Passes a message, or a batch, of the gateway's on to the client. An answer that nobody waits for goes nowhere.
    /// The scan of a single message comes back, for whoever has to learn from it.
    pub(super) async fn pass(&self, text: &[u8]) -> Result<Option<Scan>, Stuck> {
        let payload =
            scan(text, &ScanLimits::default()).map_err(|failure| Stuck::Malformed(failure.to_string()))?;
        match payload {
            Payload::Single(scan) => {
                if scan.kind == Kind::Response && !self.settle(text, &scan) {
                    self.on_unawaited(text, &scan);
                } else {
                    self.output.line(in_one_line(text)).await?;
                }
                Ok(Some(scan))
            }
            Payload::Batch(scans) => {
                for scan in scans.iter().filter(|scan| scan.kind == Kind::Response) {
                    self.settle(text, scan);
                }
                self.output.line(in_one_line(text)).await?;
                Ok(None)
            }
        }
    }

    /// A response to nobody's request, or to one of [`Settings::requests`].
    pub(super) fn on_unawaited(&self, text: &[u8], response: &Scan) {
        if !Settings::is_own(text, response) {
            tracing::debug!("an answer that nobody waits for");
        } else if response.is_error {
            let fault = Fault::of_answer(text, || Fault::lasting("an error"));
            tracing::warn!("the next session did not take what was set in the lost one: {}", fault.message);
        }
    }

    /// Whether somebody waited for this response.
    fn settle(&self, text: &[u8], response: &Scan) -> bool {
        let Some(id) = response.id.map(|id| id.of(text)) else { return false };
        let Some(flight) = self.flight_of(id) else { return false };
        flight.waiting.borrow_mut().retain(|waiting| !waiting.is(id));
        self.settings.on_answered(text, response);
        true
    }

    /// Waits until nothing is under way that has an end.
    pub(super) async fn all_landed(&self) {
        let is_awaited = |flight: &Rc<Flight>| !flight.endless && !flight.is_cancelled();
        self.landed.until(|| (!self.flights.borrow().iter().any(is_awaited)).then_some(())).await;
    }
}
