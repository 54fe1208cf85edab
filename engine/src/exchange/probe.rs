//! What the gateway asks of servers while no client does: owns the checks of their endpoints' health, and the finding out of
//! their eras. One shard does it for all, which read its findings in the table. A breaker counts none of it: it judges by
//! what clients see.
//!
//! Invariant: every wait here ends when the process drains.

use std::future::{pending, poll_fn};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use mcp_config::{Health as HealthSettings, HealthKind};
use mcp_protocol::http1::Method;

use super::ask;
use super::eras;
use super::forward::{self, Again, Request};
use crate::shard::Shard;
use crate::shard::table::endpoints::Health;
use crate::shard::view::View;
use crate::upstream::answer::Answer;
use crate::upstream::call::{Ask, CallError, ask};
use crate::upstream::{Endpoint, Upstream};

/// Who asks, in the server's eyes.
const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Pauses while a server cannot be asked for its era: each twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Begins all that is done without clients, for servers that are others than `before`.
pub(crate) fn start(shard: &Rc<Shard>, before: Option<&View>) {
    for upstream in shard.setup().upstreams() {
        let old = before.and_then(|before| before.upstreams().get(upstream.index()));
        if old.is_some_and(|old| Rc::ptr_eq(old, upstream)) {
            continue;
        }
        discover(shard, upstream.index());
        if upstream.server().settings.health.kind == HealthKind::None {
            upstream.shared().forget_health();
        } else if !upstream.server().is_gone {
            let (shard, upstream) = (shard.clone(), upstream.clone());
            shard.clone().core.tasks.spawn(move || watch(shard, upstream));
        }
    }
}

/// Finds out whether a server speaks the modern era, unless that is being done.
pub(crate) fn discover(shard: &Rc<Shard>, server: usize) {
    let upstream = &shard.upstream(server);
    if upstream.is_probed() && upstream.knowledge.should_discover(shard.core.clock.now()) {
        let shard = shard.clone();
        shard.clone().core.tasks.spawn(move || find_out(shard, server));
    }
}

async fn find_out(shard: Rc<Shard>, server: usize) {
    let upstream = &shard.upstream(server);
    let mut pause = FIRST_PAUSE;
    while !has_told(&shard, upstream).await && slept(&shard, pause).await && is_current(&shard, upstream) {
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    upstream.knowledge.end_discovery(shard.core.clock.now());
}

/// Asks one endpoint; says whether there is no use in asking another time.
async fn has_told(shard: &Rc<Shard>, upstream: &Upstream) -> bool {
    let usable = |endpoint: &Endpoint| endpoint.place.row().health() != Health::Unhealthy;
    let Some(endpoint) = upstream.candidates(shard, None, usable).next() else { return false };
    match unless_draining(shard, pin!(ask_discover(shard, &endpoint, upstream.timeout))).await {
        Some(Ok(answer)) if answer.status() >= 500 => false,
        Some(Ok(answer)) => {
            let reading = pin!(eras::read_discovered(shard, upstream, answer));
            // One that asks for a credential tells its clients' requests.
            unless_draining(shard, reading).await.is_none_or(|told| told.is_ok())
        }
        Some(Err(error)) => {
            tracing::debug!(server = &*upstream.name, ?error, "a server could not be asked for its era");
            false
        }
        None => true,
    }
}

/// Checks a server's endpoints from time to time, as long as it is configured so.
async fn watch(shard: Rc<Shard>, upstream: Rc<Upstream>) {
    let interval = upstream.server().settings.health.interval;
    // Gateways that start together do not check together.
    let mut pause = interval.mul_f64(chance() * 0.1);
    while slept(&shard, pause).await && is_current(&shard, &upstream) {
        for endpoint in &*upstream.endpoints(&shard) {
            let (shard, upstream, endpoint) = (shard.clone(), upstream.clone(), endpoint.clone());
            shard.clone().core.tasks.spawn(move || check(shard, upstream, endpoint));
        }
        pause = interval.mul_f64(0.9 + chance() * 0.2);
    }
}

/// One check of one endpoint.
async fn check(shard: Rc<Shard>, upstream: Rc<Upstream>, endpoint: Rc<Endpoint>) {
    let settings = &upstream.server().settings.health;
    let asked = unless_draining(&shard, pin!(is_well(&shard, &upstream, &endpoint, settings))).await;
    let Some(Some(well)) = asked else { return };
    if !is_current(&shard, &upstream) {
        return;
    }
    let row = endpoint.place.row();
    let before = row.health();
    let mut streak = endpoint.checks.get();
    let change = streak.note(well, before, settings);
    endpoint.checks.set(streak);
    let Some(now) = change else { return };
    row.set_health(now);
    let server = endpoint.place.server_name();
    let endpoint = &*endpoint.label;
    match now {
        Health::Unhealthy => tracing::warn!(server, endpoint, "health checks fail: no new requests go there"),
        Health::Healthy | Health::Unknown => tracing::info!(server, endpoint, "health checks succeed"),
    }
    if before == Health::Unhealthy {
        // A check is no call, so it closes no breaker; but it ends the wait until one tries.
        row.breaker.try_now(shard.core.clock.now());
    }
}

/// Whether an endpoint is well; `None` where the gateway had no place to ask from.
async fn is_well(
    shard: &Rc<Shard>,
    upstream: &Upstream,
    endpoint: &Rc<Endpoint>,
    &HealthSettings { kind, timeout, ref path, .. }: &HealthSettings,
) -> Option<bool> {
    let answer = match kind {
        HealthKind::None => return None,
        HealthKind::Mcp if upstream.is_probed() => ask_discover(shard, endpoint, timeout).await,
        HealthKind::Tcp | HealthKind::Mcp => {
            let connected = endpoint.connect(shard, shard.core.clock.after(timeout)).await;
            return Some(connected.is_ok());
        }
        HealthKind::Http => ask_page(shard, endpoint, path, timeout).await,
    };
    let answer = match answer {
        Ok(answer) => answer,
        Err(CallError::Exhausted) => return None,
        Err(_) => return Some(false),
    };
    let status = answer.status();
    if kind == HealthKind::Http {
        return Some((200..400).contains(&status));
    }
    if status < 500 {
        // What cannot be read says nothing of the era, and the status has said that the endpoint is well.
        let _ = eras::read_discovered(shard, upstream, answer).await;
    }
    Some(status < 500)
}

async fn ask_page(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    path: &str,
    timeout: Duration,
) -> Result<Answer, CallError> {
    let mut head = Vec::new();
    // Writing to a Vec cannot fail.
    let _ = write!(
        head,
        "GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: */*\r\nUser-Agent: mcp-gateway\r\n\r\n",
        endpoint.authority
    );
    let by = shard.core.clock.after(timeout);
    let request = Ask { method: Method::Get, head: &head, body: b"", repeatable: true, place_by: by };
    ask(shard, endpoint, &request, by).await
}

async fn ask_discover(
    shard: &Rc<Shard>,
    endpoint: &Rc<Endpoint>,
    timeout: Duration,
) -> Result<Answer, CallError> {
    let message = ask::discover_message(None);
    let request = Request { verb: Method::Post, message: &message, peer: PEER, again: Again::Harmless };
    let by = shard.core.clock.after(timeout);
    forward::attempt(shard, &request, endpoint, None, by, by).await
}

/// Whether this is still how a server is configured. Of another one another task looks.
fn is_current(shard: &Shard, upstream: &Rc<Upstream>) -> bool {
    Rc::ptr_eq(&shard.upstream(upstream.index()), upstream)
}

/// Sleeps; says whether the process still serves.
async fn slept(shard: &Rc<Shard>, pause: Duration) -> bool {
    let until = shard.core.clock.after(pause);
    let sleep = pin!(shard.deadline(until, pending::<()>()));
    unless_draining(shard, sleep).await.is_some()
}

/// Waits for a step, but not in a drain, which wakes every task.
async fn unless_draining<T>(
    shard: &Rc<Shard>,
    mut step: std::pin::Pin<&mut impl Future<Output = T>>,
) -> Option<T> {
    poll_fn(|cx| {
        if shard.is_draining() {
            return Poll::Ready(None);
        }
        step.as_mut().poll(cx).map(Some)
    })
    .await
}

/// From 0 to 1; where the system gives no random number, 0.
fn chance() -> f64 {
    f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX)
}
