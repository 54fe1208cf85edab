//! Asking sentinels who the master is: owns the task that asks one sentinel at a time and listens to it, and reading what
//! sentinels say. Never what follows from it.
//!
//! A sentinel is asked at once, then it is listened to: it says when the master has changed (`+switch-master`). Such a
//! message may be missed, so it is asked again every two seconds, and four times a second while the master is not
//! connected; then the others are heard in turn, for one of them may be cut off from the rest. A sentinel is left
//! for the next one when it does not answer. Two connections per shard: one asks, the other one listens, because a listener
//! may not ask in RESP2.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::Poll;

use mcp_protocol::resp::Reply;

use super::client::Client;
use super::link::Link;
use super::login::{LoginError, login};
use super::pause::{jittered, pause};
use super::sentinel::Watched;
use super::sources::Sources;
use crate::runtime::{Address, Elapsed, Runtime};
use crate::{Millis, StoreError};

/// How often a sentinel is asked while all is well, in milliseconds.
const POLL_MS: Millis = 2_000;
/// How often while the master is not connected, or no sentinel answers, in milliseconds; jittered.
const URGENT_MS: Millis = 250;
/// The least pause between two questions, in milliseconds.
const GAP_MS: Millis = 20;
/// How often one sentinel is asked in a row while the master is not connected.
const ASKS_WHILE_UNWELL: u32 = 4;
/// The channel on which sentinels say that the master has changed.
const CHANNEL: &str = "+switch-master";

/// Asks until the topology is closed, or the client is gone.
pub(super) async fn watch<R: Runtime>(runtime: R, watched: Rc<Watched<R>>, client: Weak<Client<R>>) {
    let mut sources = Sources::new(watched.sentinels.clone());
    let mut in_vain = 0;
    let mut said = String::new();
    while !watched.is_closed() {
        let Some(sentinel) = sources.first() else { return };
        let visit = Visit { runtime: &runtime, watched: &watched, client: &client, sentinel: &sentinel };
        let mut answered = false;
        let ended = visit.run(&mut sources, &mut answered).await;
        in_vain = if answered { 0 } else { in_vain + 1 };
        sources.postpone(&sentinel);
        match ended {
            Ended::Closed => return,
            Ended::NextPlease => {}
            Ended::Failed(error) => {
                let text = error.to_string();
                if text != said {
                    tracing::warn!(%sentinel, error = text, "the sentinel does not help");
                    said = text;
                }
            }
        }
        if in_vain >= sources.len() {
            let Some(client) = client.upgrade() else { return };
            watched.on_unknown(&client);
            drop(client);
            in_vain = 0;
            // Either way they are asked again.
            let _ = runtime.deadline(runtime.now() + jittered(URGENT_MS), watched.bell.rung()).await;
        }
    }
}

/// Why another sentinel is asked.
enum Ended {
    Closed,
    /// It answers, but the master that it names does not.
    NextPlease,
    Failed(LoginError),
}

impl From<LoginError> for Ended {
    fn from(error: LoginError) -> Self {
        Ended::Failed(error)
    }
}

/// Why the listener was left.
enum Heard {
    Switch(Address),
    /// Somebody wants to know now.
    Rung,
    Broken(io::Error),
}

/// One sentinel, asked and listened to for as long as it helps.
struct Visit<'a, R: Runtime> {
    runtime: &'a R,
    watched: &'a Watched<R>,
    client: &'a Weak<Client<R>>,
    sentinel: &'a Address,
}

impl<R: Runtime> Visit<'_, R> {
    async fn run(&self, sources: &mut Sources, answered: &mut bool) -> Ended {
        match self.stay(sources, answered).await {
            Ok(ended) | Err(ended) => ended,
        }
    }

    async fn stay(&self, sources: &mut Sources, answered: &mut bool) -> Result<Ended, Ended> {
        let mut asker = self.open().await?;
        self.ask(&mut asker, sources).await?;
        *answered = true;
        let mut listener = self.open().await?;
        self.bounded(self.watched.ask_ms, async {
            Ok(listener.send(&[b"SUBSCRIBE", CHANNEL.as_bytes()]).await?)
        })
        .await?;
        let mut unwell = 0;
        loop {
            // Once more after the subscription, too: the master may have changed in between.
            self.ask(&mut asker, sources).await?;
            unwell = if self.watched.is_well() { 0 } else { unwell + 1 };
            if unwell > ASKS_WHILE_UNWELL && sources.len() > 1 {
                return Ok(Ended::NextPlease);
            }
            let wait = if unwell > 0 { jittered(URGENT_MS) } else { POLL_MS };
            match self.wait(&mut listener, self.runtime.now() + wait, unwell > 0).await {
                Some(Heard::Switch(address)) => self.on_master(address)?,
                Some(Heard::Broken(error)) => return Err(LoginError::Io(error).into()),
                Some(Heard::Rung) => pause(self.runtime, GAP_MS).await,
                None => {}
            }
            if self.watched.is_closed() {
                return Ok(Ended::Closed);
            }
        }
    }

    async fn open(&self) -> Result<Link<R::Stream>, Ended> {
        self.bounded(self.watched.connect_ms, async {
            let stream = self.runtime.connect(self.sentinel).await?;
            let mut link = Link::new(stream, self.watched.max_reply_bytes);
            login(&mut link, &self.watched.login).await?;
            Ok(link)
        })
        .await
    }

    /// Asks for the master and for other sentinels.
    async fn ask(&self, asker: &mut Link<R::Stream>, sources: &mut Sources) -> Result<(), Ended> {
        let name = self.watched.name.as_bytes();
        let (master, sentinels) = self
            .bounded(self.watched.ask_ms, async {
                let master = asker.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name]).await?;
                Ok((master, asker.ask(&[b"SENTINEL", b"SENTINELS", name]).await?))
            })
            .await?;
        if let Reply::Error(text) = &master {
            return Err(LoginError::Refused(StoreError::refused(text)).into());
        }
        let unknown = "it knows no master of this name";
        let master = read_master(&master).ok_or(LoginError::Io(io::Error::other(unknown)))?;
        let others = read_sentinels(&sentinels);
        sources.learned(others.iter().chain([self.sentinel]));
        sources.answered(self.sentinel);
        self.on_master(master)
    }

    /// Listens until something is to be done, or `until`. A question that is `urgent` anyhow is not asked any sooner because
    /// somebody rings: each failure to connect does.
    async fn wait(&self, listener: &mut Link<R::Stream>, until: Millis, urgent: bool) -> Option<Heard> {
        loop {
            match self.runtime.deadline(until, self.hear(listener)).await {
                Ok(Heard::Rung) if urgent && !self.watched.is_closed() => {}
                Ok(heard) => return Some(heard),
                Err(Elapsed) => return None,
            }
        }
    }

    /// Listens until something is to be done. May be dropped at any time: what was read stays with the listener.
    async fn hear(&self, listener: &mut Link<R::Stream>) -> Heard {
        loop {
            let mut next = pin!(listener.next());
            let heard = poll_fn(|cx| match self.watched.bell.poll_rung(cx) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => next.as_mut().poll(cx).map(Some),
            });
            match heard.await {
                None => return Heard::Rung,
                Some(Err(error)) => return Heard::Broken(error),
                Some(Ok(reply)) => {
                    if let Some(address) = read_switch(&reply, &self.watched.name) {
                        return Heard::Switch(address);
                    }
                }
            }
        }
    }

    fn on_master(&self, address: Address) -> Result<(), Ended> {
        let client = self.client.upgrade().filter(|_| !self.watched.is_closed()).ok_or(Ended::Closed)?;
        self.watched.on_master(&client, address);
        Ok(())
    }

    async fn bounded<T>(
        &self,
        ms: Millis,
        step: impl Future<Output = Result<T, LoginError>>,
    ) -> Result<T, Ended> {
        let done = self.runtime.deadline(self.runtime.now() + ms, step).await;
        Ok(done.unwrap_or(Err(LoginError::Timeout))?)
    }
}

/// The answer to `SENTINEL GET-MASTER-ADDR-BY-NAME`.
fn read_master(reply: &Reply) -> Option<Address> {
    let [host, port] = reply.as_array()? else { return None };
    address(host.as_str()?, port.as_str()?)
}

/// The answer to `SENTINEL SENTINELS`; what cannot be read is left out.
fn read_sentinels(reply: &Reply) -> Vec<Address> {
    let text = |sentinel: &'_ Reply, name| sentinel.get(name).and_then(Reply::as_str).map(str::to_owned);
    let read = |sentinel| address(&text(sentinel, "ip")?, &text(sentinel, "port")?);
    reply.as_array().unwrap_or_default().iter().filter_map(read).collect()
}

/// A message of [`CHANNEL`]: where the master of this name is now.
fn read_switch(reply: &Reply, name: &str) -> Option<Address> {
    let [kind, channel, message] = reply.as_array()? else { return None };
    if kind.as_str() != Some("message") || channel.as_str() != Some(CHANNEL) {
        return None;
    }
    let mut words = message.as_str()?.split(' ');
    if words.next() != Some(name) {
        return None;
    }
    // Before the new place stands the old one.
    address(words.nth(2)?, words.next()?)
}

fn address(host: &str, port: &str) -> Option<Address> {
    let port = port.parse().ok().filter(|port| *port != 0)?;
    (!host.is_empty()).then(|| Address { host: host.into(), port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bulk(text: &str) -> Reply {
        Reply::Bulk(text.as_bytes().into())
    }

    fn list(words: &[&str]) -> Reply {
        Reply::Array(words.iter().map(|word| bulk(word)).collect())
    }

    fn at(port: u16) -> Option<Address> {
        Some(Address { host: "10.0.0.1".into(), port })
    }

    #[test]
    fn a_master_is_a_host_and_a_port() {
        assert_eq!(read_master(&list(&["10.0.0.1", "6379"])), at(6379));
        for none in [Reply::Null, list(&["10.0.0.1"]), list(&["", "1"]), list(&["h", "0"]), list(&["h", "x"])]
        {
            assert_eq!(read_master(&none), None, "{none:?}");
        }
    }

    #[test]
    fn sentinels_that_cannot_be_read_are_left_out() {
        let known = ["name", "a", "ip", "10.0.0.1", "port", "26379"];
        let map = Reply::Map(known.chunks(2).map(|pair| (bulk(pair[0]), bulk(pair[1]))).collect());
        let reply = Reply::Array(vec![list(&known), map, list(&["name", "b"]), Reply::Null]);
        assert_eq!(read_sentinels(&reply), [at(26_379).unwrap(), at(26_379).unwrap()]);
        assert_eq!(read_sentinels(&Reply::Error("ERR No such master with that name".into())), []);
    }

    #[test]
    fn a_switch_is_read_in_both_versions_and_concerns_one_name() {
        let words = |message| [bulk("message"), bulk("+switch-master"), bulk(message)].to_vec();
        let message = "mymaster 10.0.0.9 1 10.0.0.1 2";
        assert_eq!(read_switch(&Reply::Array(words(message)), "mymaster"), at(2));
        assert_eq!(read_switch(&Reply::Push(words(message)), "mymaster"), at(2));
        assert_eq!(read_switch(&Reply::Push(words(message)), "other"), None);
        for none in ["", "mymaster", "mymaster 10.0.0.9 1 10.0.0.1", "mymaster 10.0.0.9 1 10.0.0.1 x"] {
            assert_eq!(read_switch(&Reply::Push(words(none)), "mymaster"), None, "{none}");
        }
        let other = Reply::Push(vec![bulk("message"), bulk("+sdown"), bulk(message)]);
        assert_eq!(read_switch(&other, "mymaster"), None);
    }
}
