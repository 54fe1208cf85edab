//! Several servers asked side by side: owns one task for each, the deadline for all of them, and what came. It never
//! puts anything together.
//!
//! Invariant: the tasks end with whoever asked, but for those that have only something to deliver.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use super::reply::{FederatedReply, is_response};
use super::{Way, one};
use crate::door::Reply;
use crate::door::answers::field;
use crate::exchange::{Ended, Inbound};
use crate::respond::Refusal;
use crate::shard::Shard;
use crate::shard::tasks::TaskId;

/// What came of one server's part.
pub(super) enum Outcome {
    /// A JSON-RPC response, and the session that came with it.
    Said {
        response: Vec<u8>,
        session: Option<Box<[u8]>>,
    },
    /// Another answer, such as 401.
    Answered {
        status: u16,
        fields: Vec<u8>,
        body: Vec<u8>,
    },
    Refused(Refusal),
    /// Nothing in time.
    Silent,
}

impl Outcome {
    /// Whether it is a response that is no error, or what a notification gets.
    pub(super) fn is_success(&self) -> bool {
        match self {
            Outcome::Said { response, .. } => serde_json::from_slice::<serde_json::Value>(response)
                .is_ok_and(|response| response.get("result").is_some()),
            Outcome::Answered { status, .. } => (200..300).contains(status),
            Outcome::Refused(_) | Outcome::Silent => false,
        }
    }

    /// Gives it to the client, where it is all that there is to say.
    pub(super) fn pass_on(self, reply: &mut Reply) -> Result<(), Ended> {
        match self {
            Outcome::Said { response, .. } => super::json(reply, &response),
            Outcome::Answered { status, fields, body } => reply.full(status, &fields, &body),
            Outcome::Refused(refusal) => return Err(refusal.into()),
            Outcome::Silent => return Err(Refusal::AllMissing.into()),
        }
        Ok(())
    }
}

/// How long servers may keep a client waiting after one of them has taken a message that is for all.
const DELIVERY_GRACE: Duration = Duration::from_millis(250);

/// What came of each server's part.
pub(super) type Outcomes = Vec<(usize, Outcome)>;

/// Where the tasks leave what came.
struct Gathering {
    outcomes: RefCell<Outcomes>,
    left: Cell<usize>,
    waiting: RefCell<Option<Waker>>,
}

/// Ends the tasks when nobody waits for them any more.
struct Started {
    shard: Rc<Shard>,
    tasks: Vec<TaskId>,
}

impl Drop for Started {
    fn drop(&mut self) {
        self.tasks.iter().for_each(|task| self.shard.core.tasks.cancel(*task));
    }
}

/// Asks each server its part; the outcomes are in the parts' order.
pub(super) async fn gather(shard: &Rc<Shard>, parts: Vec<(usize, Inbound)>, way: Way) -> Outcomes {
    let (gathering, started) = start(shard, parts, way);
    // A server with a shorter timeout has refused by then; one that has not said anything is silent.
    let by = shard.core.clock.after(shard.setup().config.federation.timeout);
    let _ = shard.deadline(by, pin!(gathering.wait(|outcomes| outcomes.left.get() == 0))).await;
    drop(started);
    gathering.outcomes.take()
}

/// Brings a message to servers of which one that takes it is enough: the others have a moment more, so that what the client
/// sends next finds them told, and are told all the same if they take longer.
pub(super) async fn deliver(shard: &Rc<Shard>, parts: Vec<(usize, Inbound)>, way: Way) -> Outcomes {
    let (gathering, mut started) = start(shard, parts, way);
    let by = shard.core.clock.after(shard.setup().config.federation.timeout);
    let one = gathering.wait(|outcomes| outcomes.left.get() == 0 || outcomes.has_success());
    let _ = shard.deadline(by, pin!(one)).await;
    let all = gathering.wait(|outcomes| outcomes.left.get() == 0);
    let _ = shard.deadline(by.min(shard.core.clock.after(DELIVERY_GRACE)), pin!(all)).await;
    started.tasks.clear();
    gathering.outcomes.take()
}

fn start(shard: &Rc<Shard>, parts: Vec<(usize, Inbound)>, way: Way) -> (Rc<Gathering>, Started) {
    let silent = parts.iter().map(|(server, _)| (*server, Outcome::Silent)).collect();
    let gathering = Rc::new(Gathering {
        outcomes: RefCell::new(silent),
        left: Cell::new(parts.len()),
        waiting: RefCell::new(None),
    });
    let tasks = parts
        .into_iter()
        .enumerate()
        .map(|(place, (_, part))| {
            let (shard, gathering) = (shard.clone(), gathering.clone());
            shard.clone().core.tasks.spawn(move || ask(shard, gathering, place, part, way))
        })
        .collect();
    (gathering, Started { shard: shard.clone(), tasks })
}

impl Gathering {
    fn has_success(&self) -> bool {
        self.outcomes.borrow().iter().any(|(_, outcome)| outcome.is_success())
    }

    async fn wait(&self, is_enough: impl Fn(&Self) -> bool) {
        poll_fn(|cx| {
            if is_enough(self) {
                return Poll::Ready(());
            }
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Asks one server.
async fn ask(shard: Rc<Shard>, gathering: Rc<Gathering>, place: usize, mut part: Inbound, way: Way) {
    let mut reply = Reply::Federated(FederatedReply::collect(&shard));
    let outcome = match Box::pin(one(&shard, &mut part, way, &mut reply)).await {
        Ok(()) => collected(&mut reply),
        Err(Ended::Refused(refusal) | Ended::Broken(refusal)) => Outcome::Refused(refusal),
        Err(Ended::Gone | Ended::Unclaimed) => {
            let server = shard.upstream(part.server()).name.to_string();
            Outcome::Refused(Refusal::UpstreamClosed { server })
        }
    };
    part.message.give_back(&shard);
    if let Some((_, slot)) = gathering.outcomes.borrow_mut().get_mut(place) {
        *slot = outcome;
    }
    gathering.left.set(gathering.left.get() - 1);
    if let Some(waker) = gathering.waiting.take() {
        waker.wake();
    }
}

fn collected(reply: &mut Reply) -> Outcome {
    match reply {
        Reply::Federated(FederatedReply::Collect(collect)) => {
            let (status, body) = (collect.status, std::mem::take(&mut collect.body));
            if is_response(&body) {
                let session = field(&collect.fields, "mcp-session-id").map(Into::into);
                Outcome::Said { response: body, session }
            } else {
                Outcome::Answered { status, fields: std::mem::take(&mut collect.fields), body }
            }
        }
        _ => Outcome::Silent,
    }
}
