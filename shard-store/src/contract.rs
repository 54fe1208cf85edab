//! What every session store promises: owns the body of the test that all of them must pass, from the memory store to a
//! cluster. It is told how time passes, so that it runs on real servers as well as on a clock of the test's own.

use crate::{Binding, Millis, Record, SessionId, SessionStore};

/// How long one store may take to hear of what was done through another, in milliseconds.
const NEWS_MS: Millis = 2_000;
/// How often it is asked for that.
const STEP_MS: Millis = 10;

/// Where the body runs.
#[allow(async_fn_in_trait)] // One shard is one thread: no caller needs these futures to be Send.
pub trait Stage {
    /// The stores' time.
    fn now(&self) -> Millis;

    /// Lets time pass, with all that goes on meanwhile.
    async fn pass(&self, ms: Millis);
}

/// Checks two stores that share their sessions: two shards of a process, or two processes. `ttl_ms` is a session's life, at
/// least 1,000; server 0 with its endpoint 0 is in the stores' directories.
///
/// # Panics
/// When a promise is not kept.
pub async fn check<S: SessionStore>(one: &S, other: &S, ttl_ms: Millis, stage: &impl Stage) {
    is_found_everywhere_and_ends_for_all(one, other, stage).await;
    an_update_reaches_the_other(one, other, stage).await;
    what_is_not_there_is_unknown(one, other, stage).await;
    lives_while_it_is_used_and_no_longer(one, other, ttl_ms, stage).await;
}

fn record(session: &[u8]) -> Record {
    Record {
        principal: "somebody".into(),
        revision: Some("2025-11-25".into()),
        client: None,
        created_unix_ms: 1_790_000_000_000,
        upstreams: [Binding {
            server: 0,
            endpoint: "http://a/mcp".into(),
            session: Some(session.into()),
            owner: None,
        }]
        .into(),
        owner: None,
    }
}

async fn look_up<S: SessionStore>(store: &S, id: &SessionId, stage: &impl Stage) -> Option<Record> {
    store.get(id, stage.now()).await.expect("a store that is there answers").map(|found| (*found).clone())
}

async fn eventually<S: SessionStore>(store: &S, id: &SessionId, wanted: Option<&Record>, stage: &impl Stage) {
    let until = stage.now() + NEWS_MS;
    loop {
        let found = look_up(store, id, stage).await;
        if found.as_ref() == wanted {
            return;
        }
        assert!(stage.now() < until, "found {found:?}, wanted {wanted:?}");
        stage.pass(STEP_MS).await;
    }
}

async fn is_found_everywhere_and_ends_for_all<S: SessionStore>(one: &S, other: &S, stage: &impl Stage) {
    for session in [&b"plain"[..], b"", b"\x00\xff \r\n"] {
        let id = one.create(record(session), stage.now()).await.expect("a session is kept");
        for store in [one, other, one, other] {
            assert_eq!(look_up(store, &id, stage).await, Some(record(session)));
        }
        assert_eq!(other.delete(&id, stage.now()).await, Ok(true));
        assert_eq!(look_up(other, &id, stage).await, None);
        eventually(one, &id, None, stage).await;
        assert_eq!(one.delete(&id, stage.now()).await, Ok(false));
    }
}

async fn an_update_reaches_the_other<S: SessionStore>(one: &S, other: &S, stage: &impl Stage) {
    let id = one.create(record(b"first"), stage.now()).await.expect("a session is kept");
    eventually(other, &id, Some(&record(b"first")), stage).await;
    for (writer, reader, session) in [(one, other, &b"second"[..]), (other, one, b"third")] {
        assert_eq!(writer.update(&id, record(session), stage.now()).await, Ok(true));
        assert_eq!(look_up(writer, &id, stage).await, Some(record(session)));
        eventually(reader, &id, Some(&record(session)), stage).await;
    }
    assert_eq!(one.delete(&id, stage.now()).await, Ok(true));
}

async fn what_is_not_there_is_unknown<S: SessionStore>(one: &S, other: &S, stage: &impl Stage) {
    let ended = one.create(record(b"ended"), stage.now()).await.expect("a session is kept");
    assert_eq!(one.delete(&ended, stage.now()).await, Ok(true));
    let never = SessionId::mint(0).expect("random bytes");
    let foreign = SessionId::mint(u16::MAX).expect("random bytes");
    for id in [ended, never, foreign] {
        for store in [one, other] {
            eventually(store, &id, None, stage).await;
            assert_eq!(store.update(&id, record(b"revived"), stage.now()).await, Ok(false));
            assert_eq!(store.delete(&id, stage.now()).await, Ok(false));
            assert_eq!(look_up(store, &id, stage).await, None);
        }
    }
}

async fn lives_while_it_is_used_and_no_longer<S: SessionStore>(
    one: &S,
    other: &S,
    ttl_ms: Millis,
    stage: &impl Stage,
) {
    let id = one.create(record(b"used"), stage.now()).await.expect("a session is kept");
    let started = stage.now();
    while stage.now() < started + 2 * ttl_ms {
        assert!(look_up(other, &id, stage).await.is_some(), "{} ms", stage.now() - started);
        stage.pass(ttl_ms / 4).await;
    }
    assert!(look_up(one, &id, stage).await.is_some());
    stage.pass(ttl_ms + ttl_ms / 4).await;
    eventually(one, &id, None, stage).await;
    eventually(other, &id, None, stage).await;
}
