//! Host names of the store's nodes, which become known only at run time: owns the questions of one shard, and the thread
//! that looks names up, because looking up blocks. The answer comes back by mail.
//!
//! Invariants: a shard has at most one question per name under way; an answer serves everybody who asked, and whoever asks
//! within [`FRESH_MS`], since a look-up may take longer than the patience of the one who asked first.

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::task::{Context, Poll, Waker};

use mcp_shard_store::runtime::Address;

use crate::shard::clock::{Clock, Millis};
use crate::shard::mailbox::{Mail, Mailbox};

/// Questions of all shards that may wait for the thread: each is of another name or another shard.
const QUESTIONS: usize = 1_024;
/// Names that one shard keeps in mind: far more than a cluster has nodes.
const NAMES: usize = 1_024;
/// How long an answer is good. Short: a name that moved is asked for again with the next try to connect.
const FRESH_MS: Millis = 2_000;

/// What a name stands for, in the order in which the addresses are to be tried; or the resolver's complaint.
pub(crate) type Found = Result<Vec<IpAddr>, Box<str>>;

/// The thread's answer.
pub(crate) struct NameMail {
    host: Box<str>,
    found: Found,
}

struct Question {
    host: Box<str>,
    mailbox: Arc<Mailbox>,
}

/// The way to the thread that looks names up. It ends when the last of these is gone.
#[derive(Clone)]
pub(crate) struct Lookups(SyncSender<Question>);

impl Lookups {
    /// # Errors
    /// The system's, when it gives no thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (ask, questions) = sync_channel(QUESTIONS);
        std::thread::Builder::new().name("store-names".into()).spawn(move || answer_all(&questions))?;
        Ok(Lookups(ask))
    }
}

fn answer_all(questions: &Receiver<Question>) {
    while let Ok(Question { host, mailbox }) = questions.recv() {
        let found = match (&*host, 0).to_socket_addrs() {
            Ok(found) => {
                let mut found: Vec<_> = found.map(|address| address.ip()).collect();
                // IPv4 first: where a name has both, a server often listens on that only.
                found.sort_by_key(IpAddr::is_ipv6);
                found.dedup();
                Ok(found)
            }
            Err(error) => Err(error.to_string().into()),
        };
        // A full mailbox loses the answer: the shard asks again once it is older than any answer.
        let _ = mailbox.send(Mail::Name(NameMail { host, found }));
    }
}

/// One shard's view of names.
pub(crate) struct Names {
    lookups: Lookups,
    mailbox: Arc<Mailbox>,
    known: RefCell<HashMap<Box<str>, Known>>,
}

struct Known {
    /// When it was asked for, or answered.
    since: Millis,
    found: Option<Found>,
    waiting: Vec<Waker>,
}

/// A question without an answer is taken for lost after this long: longer than the system's resolver tries.
const LOST_MS: Millis = 60_000;

impl Names {
    pub(crate) fn new(lookups: Lookups, mailbox: Arc<Mailbox>) -> Self {
        Names { lookups, mailbox, known: RefCell::default() }
    }

    /// The addresses behind a node's address. The caller bounds the time.
    ///
    /// # Errors
    /// `NotFound` where the name has no address, `ResourceBusy` where as many names wait as may.
    pub(crate) async fn look_up(&self, clock: &Clock, address: &Address) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = address.host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, address.port)]);
        }
        let found = poll_fn(|cx| self.poll_found(cx, clock.now(), &address.host)).await?;
        match found {
            Ok(ips) => Ok(ips.into_iter().map(|ip| SocketAddr::new(ip, address.port)).collect()),
            Err(complaint) => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("{}: {complaint}", address.host)))
            }
        }
    }

    fn poll_found(&self, cx: &mut Context<'_>, now: Millis, host: &str) -> Poll<io::Result<Found>> {
        let mut known = self.known.borrow_mut();
        if let Some(name) = known.get_mut(host) {
            let age = now.saturating_sub(name.since);
            match &name.found {
                Some(found) if age <= FRESH_MS => return Poll::Ready(Ok(found.clone())),
                None if age <= LOST_MS => {
                    if !name.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                        name.waiting.push(cx.waker().clone());
                    }
                    return Poll::Pending;
                }
                Some(_) | None => {}
            }
        }
        known.retain(|_, name| name.found.is_none() || now.saturating_sub(name.since) <= FRESH_MS);
        let question = Question { host: host.into(), mailbox: self.mailbox.clone() };
        if known.len() >= NAMES || self.lookups.0.try_send(question).is_err() {
            return Poll::Ready(Err(io::ErrorKind::ResourceBusy.into()));
        }
        let waiting = vec![cx.waker().clone()];
        known.insert(host.into(), Known { since: now, found: None, waiting });
        Poll::Pending
    }

    /// Takes an answer.
    pub(crate) fn on_mail(&self, mail: NameMail, now: Millis) {
        let mut known = self.known.borrow_mut();
        let Some(name) = known.get_mut(&mail.host) else { return };
        name.since = now;
        name.found = Some(mail.found);
        name.waiting.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn names() -> (Names, Receiver<Question>) {
        let (ask, questions) = sync_channel(2);
        (Names::new(Lookups(ask), Arc::new(Mailbox::new().unwrap())), questions)
    }

    fn poll(names: &Names, now: Millis, host: &str) -> Poll<io::Result<Found>> {
        names.poll_found(&mut Context::from_waker(Waker::noop()), now, host)
    }

    fn answer(names: &Names, now: Millis, host: &str) {
        names.on_mail(NameMail { host: host.into(), found: Ok(vec![IpAddr::from([127, 0, 0, 9])]) }, now);
    }

    #[test]
    fn a_name_is_asked_for_once_while_the_question_is_under_way_and_again_when_the_answer_is_old() {
        let (names, questions) = names();
        for _ in 0..3 {
            assert!(poll(&names, 5, "node").is_pending());
        }
        assert_eq!(questions.try_iter().count(), 1);
        answer(&names, 90, "node");
        assert!(matches!(poll(&names, 90 + FRESH_MS, "node"), Poll::Ready(Ok(Ok(_)))));
        assert!(poll(&names, 91 + FRESH_MS, "node").is_pending());
        assert_eq!(questions.try_iter().count(), 1);
        assert!(poll(&names, 92 + FRESH_MS + LOST_MS, "node").is_pending());
        assert_eq!(questions.try_iter().count(), 1, "an answer that was lost is asked for again");
    }

    #[test]
    fn one_question_too_many_is_refused_and_what_is_old_makes_room() {
        let (names, questions) = names();
        assert!(poll(&names, 0, "a").is_pending() && poll(&names, 0, "b").is_pending());
        let Poll::Ready(Err(error)) = poll(&names, 0, "c") else { panic!("the queue is full") };
        assert_eq!(error.kind(), io::ErrorKind::ResourceBusy);
        assert_eq!(questions.try_iter().count(), 2);
        answer(&names, 0, "a");
        answer(&names, 0, "unasked");
        assert!(poll(&names, FRESH_MS + 1, "c").is_pending());
        assert_eq!(names.known.borrow().len(), 2, "b waits, c waits, a is old");
    }

    #[test]
    fn the_thread_answers_by_mail() {
        let mailbox = Arc::new(Mailbox::new().unwrap());
        let names = Names::new(Lookups::start().unwrap(), mailbox.clone());
        let clock = Clock::new(Instant::now());
        for (host, is_known) in [("localhost", true), ("no-such-host.invalid", false)] {
            assert!(poll(&names, clock.now(), host).is_pending());
            let mut polled = [rustix::event::PollFd::new(&mailbox, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut polled, None).unwrap();
            mailbox.acknowledge();
            let Some(Mail::Name(mail)) = mailbox.take() else { panic!("mail of another kind") };
            names.on_mail(mail, clock.now());
            let Poll::Ready(Ok(found)) = poll(&names, clock.now(), host) else { panic!("no answer") };
            assert_eq!(found.is_ok_and(|ips| ips.iter().all(IpAddr::is_loopback)), is_known, "{host}");
        }
    }
}
