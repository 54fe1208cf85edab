//! Setup: two gateways on one Redis: a server alone, a master with sentinels, a cluster.
//! Claim: a session that was opened at one gateway is a session at the other; it belongs to who opened it; its life is extended
//! by its use at either; its end at one is its end at both, and upstream. What is unknown is unknown at both.

use std::time::{Duration, Instant};

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, in_session, initialize, open_session, post_in_session, request};
use mcp_system_tests::redis::pods::{Answer, PATH, Pods, end, ping};
use mcp_system_tests::redis::{Redis, RedisCluster, RedisOptions, RedisSentinel, Store};
use mcp_system_tests::{Connection, Gateway, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);
/// By when a session that was ended at one gateway is unknown to the other: one invalidation, and much of a margin.
const INVALIDATED: Duration = Duration::from_secs(1);
/// How often is asked, over new connections, whether an ended session stays ended.
const ASKED_AGAIN: usize = 10;

#[test]
fn sessions_are_shared_on_one_server() {
    sessions_are_shared(&Redis::start(&RedisOptions::new()));
}

/// A server without `HELLO` speaks RESP2 and says nothing by itself: copies are believed for two seconds.
#[test]
fn sessions_are_shared_in_the_older_protocol() {
    let store = Redis::start(&RedisOptions::new().line("rename-command HELLO \"\""));
    sessions_are_shared_and_end(&store, Duration::from_secs(2) + INVALIDATED);
}

#[test]
fn sessions_are_shared_on_one_server_by_tls_and_password() {
    sessions_are_shared(&Redis::start(&RedisOptions::new().tls().user("gateway", "s3cret")));
}

#[test]
fn sessions_are_shared_on_a_sentinel_set() {
    sessions_are_shared(&RedisSentinel::start(&RedisOptions::new().password("s3cret")));
}

#[test]
fn sessions_are_shared_on_a_cluster() {
    sessions_are_shared(&RedisCluster::start(&RedisOptions::new()));
}

#[test]
fn sessions_are_shared_on_a_cluster_by_tls_and_password() {
    sessions_are_shared(&RedisCluster::start(&RedisOptions::new().tls().password("s3cret")));
}

#[test]
fn use_extends_a_life_and_disuse_ends_it() {
    let store = Redis::start(&RedisOptions::new());
    let fixture = Fixture::legacy(nothing);
    let ttl = Duration::from_secs(2);
    let pods = Pods::start(&store, &fixture.url(), |config| config.set("gateway.session", "ttl = \"2s\""));
    let mut connections = pods.connect();
    let session = open_session(&mut connections[0], PATH, LEGACY);
    let (opened, mut uses) = (Instant::now(), 0);
    eventually("three lives of a session that is used", LIMIT, || {
        uses += 1;
        let answer = ping(&mut connections[uses % 2], &session).expect("an answer");
        assert_eq!(answer, Answer::Done, "{uses} uses, {:?}", opened.elapsed());
        (opened.elapsed() > 3 * ttl).then_some(())
    });
    // Asked of Redis itself, which no question extends the life by.
    let used = Instant::now();
    let key = format!("mcp:{{{session}}}:session");
    assert_eq!(store.node().ask(&["EXISTS", &key]).integer(), Some(1));
    eventually("the record is gone", LIMIT, || {
        (store.node().ask(&["EXISTS", &key]).integer() == Some(0)).then_some(())
    });
    assert!(used.elapsed() > ttl / 2, "the record went after {:?} of disuse", used.elapsed());
    for connection in &mut connections {
        let answer = eventually("the session is unknown", ttl, || {
            ping(connection, &session).ok().filter(|answer| *answer != Answer::Done)
        });
        assert_eq!(answer, Answer::Unknown);
    }
}

fn sessions_are_shared(store: &dyn Store) {
    sessions_are_shared_and_end(store, INVALIDATED);
}

/// `within`: by when the end of a session at one gateway is seen at the other.
fn sessions_are_shared_and_end(store: &dyn Store, within: Duration) {
    let fixture = Fixture::legacy(nothing);
    let pods = Pods::start(store, &fixture.url(), |config| config);
    for pod in &pods.gateways {
        eventually("the store is reached", LIMIT, || {
            (pod.metrics().value("mcp_gateway_redis_up", &[]) == Some(1.0)).then_some(())
        });
    }
    what_is_opened_at_one_works_at_the_other(&pods, &fixture, store);
    what_ends_at_one_ends_at_the_other(&pods, &fixture, within);
    what_is_unknown_is_unknown_at_both(&pods, &fixture);
    a_session_belongs_to_its_principal(&pods, &fixture);
}

fn what_is_opened_at_one_works_at_the_other(pods: &Pods, fixture: &Fixture, store: &dyn Store) {
    let mut connections = pods.connect();
    for opener in [0, 1] {
        let session = open_session(&mut connections[opener], PATH, LEGACY);
        let upstream = format!("upstream-{}", opener + 1);
        for user in [1 - opener, opener] {
            assert_eq!(ping(&mut connections[user], &session).expect("an answer"), Answer::Done);
            let last = fixture.seen().pop().expect("a request");
            assert_eq!(last.header("mcp-session-id"), Some(upstream.as_str()), "{last:?}");
        }
        let master = store.master_of(&session).expect("a master");
        let ttl = store.nodes()[master].ask(&["PTTL", &format!("mcp:{{{session}}}:session")]);
        assert!(ttl.integer().is_some_and(|ttl| ttl > 0), "no record with an end: {ttl:?}");
    }
}

fn what_ends_at_one_ends_at_the_other(pods: &Pods, fixture: &Fixture, within: Duration) {
    let mut connections = pods.connect();
    for ender in [0, 1] {
        let session = open_session(&mut connections[0], PATH, LEGACY);
        for connection in &mut connections {
            assert_eq!(ping(connection, &session).expect("an answer"), Answer::Done);
        }
        let upstream = fixture.seen().pop().expect("a request").header("mcp-session-id").map(str::to_owned);
        assert_eq!(end(&mut connections[ender], &session).expect("an answer"), Answer::Done);
        assert_eq!(ping(&mut connections[ender], &session).expect("an answer"), Answer::Unknown);
        let other = &mut connections[1 - ender];
        eventually("its end at the other gateway", within, || {
            (ping(other, &session).expect("an answer") == Answer::Unknown).then_some(())
        });
        // Other connections are other shards, some of which never heard of it.
        for _ in 0..ASKED_AGAIN {
            let mut fresh = pods.connect();
            for connection in fresh.iter_mut().chain(&mut connections) {
                assert_eq!(ping(connection, &session).expect("an answer"), Answer::Unknown);
                assert_eq!(end(connection, &session).expect("an answer"), Answer::Unknown);
            }
        }
        let seen = fixture.seen();
        let ended: Vec<_> = seen.iter().filter(|request| request.is("DELETE")).collect();
        assert_eq!(ended.len(), ender + 1, "upstream sessions that were ended");
        assert_eq!(ended[ender].header("mcp-session-id"), upstream.as_deref());
    }
}

fn what_is_unknown_is_unknown_at_both(pods: &Pods, fixture: &Fixture) {
    let mut connections = pods.connect();
    let session = open_session(&mut connections[0], PATH, LEGACY);
    let before = fixture.seen().len();
    // Base64 of no other bytes that could have been minted: the middle is random.
    let other =
        format!("{}{}{}", &session[..8], if &session[8..9] == "A" { "B" } else { "A" }, &session[9..]);
    for connection in &mut connections {
        for id in [&other, "", "x", &format!("{session}A"), "{}*:session", &"A".repeat(24)] {
            assert_eq!(ping(connection, id).expect("an answer"), Answer::Unknown, "{id}");
        }
    }
    assert_eq!(fixture.seen().len(), before, "a message without a session reached the server");
}

fn a_session_belongs_to_its_principal(pods: &Pods, fixture: &Fixture) {
    // alice:pw, bob:pw, alice:other
    let (alice, bob, alice_again) = ("Basic YWxpY2U6cHc=", "Basic Ym9iOnB3", "Basic YWxpY2U6b3RoZXI=");
    let mut connections = pods.connect();
    let failures = || {
        let of =
            |pod: &Gateway| pod.metrics().count("mcp_gateway_auth_failures_total", &[("reason", "session")]);
        pods.gateways.iter().map(of).sum::<f64>()
    };
    let failures_before = failures();
    let answer =
        connections[0].post(PATH, &[("authorization", alice)], &initialize(LEGACY)).expect("an answer");
    let session = answer.header("mcp-session-id").expect("a session id").to_owned();
    for connection in &mut connections {
        let before = fixture.seen().len();
        assert_eq!(as_principal(connection, &session, Some(bob)), 404);
        assert_eq!(as_principal(connection, &session, None), 404);
        let mut headers = in_session(&session, LEGACY).to_vec();
        headers.push(("authorization", bob));
        let ended = connection.request("DELETE", PATH, &headers, b"").expect("an answer");
        assert_eq!(ended.status, 404, "{}", ended.text());
        assert_eq!(fixture.seen().len(), before, "a stranger's message reached the server");
        // The user makes the principal; whether the password is right is the server's to say.
        assert_eq!(as_principal(connection, &session, Some(alice)), 200);
        assert_eq!(as_principal(connection, &session, Some(alice_again)), 200);
    }
    let nobodys = open_session(&mut connections[0], PATH, LEGACY);
    assert_eq!(as_principal(&mut connections[1], &nobodys, Some(bob)), 404);
    assert_eq!(as_principal(&mut connections[1], &nobodys, None), 200);
    assert_eq!(failures() - failures_before, 7.0);
}

fn as_principal(connection: &mut Connection, session: &str, credential: Option<&str>) -> u16 {
    let message = request(1, "ping", json!({}));
    let answer = match credential {
        None => post_in_session(connection, PATH, session, &message),
        Some(credential) => {
            let mut headers = in_session(session, LEGACY).to_vec();
            headers.push(("authorization", credential));
            connection.post(PATH, &headers, &message)
        }
    };
    answer.expect("an answer").status
}
