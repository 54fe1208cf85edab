//! The client against a server that the test writes down, in virtual time.

use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use mcp_protocol::resp::Reply;

use super::fake::{Act, Fake, Noted, address, bulk, welcome};
use super::settings::{Auth, Settings, Topology};
use super::{Client, Command, Effect, Health};
use crate::StoreError;
use crate::error::{Change, ServerCode};
use crate::stats::BreakerState;

mod cluster;
mod sentinel;

const PORT: u16 = 1;

fn settings() -> Settings {
    Settings { tracked_prefix: b"mcp:{".to_vec(), ..Settings::new(Topology::Single(address(PORT))) }
}

/// A server that answers `GET key` with the key.
fn echo(_: usize, words: &[String]) -> Act {
    welcome(words).unwrap_or_else(|| match words[0].as_str() {
        "GET" => Act::Say(bulk(&words[1]).into_bytes()),
        "SET" => Act::say("+OK\r\n"),
        "WAIT" => Act::say(":1\r\n"),
        other => Act::Say(format!("-ERR unknown command '{other}'\r\n").into_bytes()),
    })
}

fn start(settings: Settings) -> (Fake, Rc<Client<Fake>>, Rc<Noted>) {
    let fake = Fake::new();
    fake.serve(PORT, echo);
    let events = Rc::new(Noted::default());
    let client = Client::new(fake.clone(), settings, events.clone());
    fake.flush_with(&client);
    (fake, client, events)
}

async fn get(client: &Client<Fake>, key: &str) -> Result<Reply, StoreError> {
    client.call(&Command::read("get", key.as_bytes(), &[b"GET", key.as_bytes()])).await
}

async fn set(client: &Client<Fake>, key: &str) -> Result<Reply, StoreError> {
    client.call(&Command::write("set", key.as_bytes(), &[b"SET", key.as_bytes(), b"v"])).await
}

fn text(reply: &str) -> Reply {
    Reply::Bulk(reply.as_bytes().into())
}

#[test]
fn the_commands_of_a_turn_leave_in_one_write_and_each_gets_its_own_reply() {
    let (fake, client, _) = start(settings());
    fake.settle();
    let mut calls: Vec<_> = ["a", "b", "c"].map(|key| Box::pin(get(&client, key))).into();
    for call in &mut calls {
        assert!(fake.poll(call.as_mut()).is_pending());
    }
    fake.settle();
    assert_eq!(fake.writes(PORT), [["GET a", "GET b", "GET c"]]);
    for (call, key) in calls.into_iter().zip(["a", "b", "c"]) {
        assert_eq!(fake.run(call), Ok(text(key)));
    }
    let stats = client.stats();
    assert_eq!(stats.nodes[0].commands, [("get", "ok", 3)]);
    assert_eq!((stats.nodes[0].pipeline_depth, stats.nodes[0].latency.count()), (3, 3));
}

#[test]
fn of_ten_thousand_every_fifth_goes_away_and_the_others_get_their_own() {
    let (fake, client, _) = start(settings());
    fake.settle();
    let keys: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let mut calls: Vec<_> = keys.iter().map(|key| Some(Box::pin(get(&client, key)))).collect();
    for call in calls.iter_mut().flatten() {
        assert!(fake.poll(call.as_mut()).is_pending());
    }
    // One too many for the window.
    assert_eq!(fake.run(get(&client, "more")), Err(StoreError::Busy));
    // Half of those that leave do so before their command is sent, half after.
    for (number, call) in calls.iter_mut().enumerate().filter(|(number, _)| number % 10 == 5) {
        drop(call.take().unwrap_or_else(|| panic!("{number} has gone already")));
    }
    fake.settle();
    calls.iter_mut().step_by(10).for_each(|call| *call = None);
    for (call, key) in calls.into_iter().zip(&keys) {
        if let Some(call) = call {
            assert_eq!(fake.run(call), Ok(text(key)));
        }
    }
    assert_eq!(fake.run(get(&client, "next")), Ok(text("next")));
}

#[test]
fn pushes_between_replies_are_told_and_disturb_nothing() {
    let (fake, client, events) = start(settings());
    fake.serve(PORT, |number, words| match words[0].as_str() {
        "GET" => {
            let push = ">2\r\n$10\r\ninvalidate\r\n*1\r\n";
            Act::Say(format!("{push}{}{}{push}{}", bulk("mcp:{x}"), bulk(&words[1]), bulk("mcp:{y}")).into())
        }
        _ => echo(number, words),
    });
    fake.settle();
    let (mut a, mut b) = (Box::pin(get(&client, "a")), Box::pin(get(&client, "b")));
    assert!(fake.poll(a.as_mut()).is_pending() && fake.poll(b.as_mut()).is_pending());
    assert_eq!((fake.run(a), fake.run(b)), (Ok(text("a")), Ok(text("b"))));
    fake.push(PORT, ">2\r\n$10\r\ninvalidate\r\n_\r\n");
    fake.settle();
    let told = events.0.borrow();
    assert_eq!(told.len(), 5);
    assert_eq!(told[0], Some(vec!["mcp:{x}".to_owned()]));
    assert_eq!(told[4], None);
    assert_eq!(client.stats().nodes[0].invalidations, 4);
}

#[test]
fn a_late_reply_is_nobodys_and_the_next_command_gets_its_own() {
    let (fake, client, _) = start(settings());
    fake.settle();
    fake.pause(PORT, true);
    let (mut read, mut write) = (Box::pin(get(&client, "a")), Box::pin(set(&client, "b")));
    assert!(fake.poll(read.as_mut()).is_pending() && fake.poll(write.as_mut()).is_pending());
    fake.advance(499);
    assert!(fake.poll(read.as_mut()).is_pending());
    fake.advance(2);
    assert_eq!(fake.run(read), Err(StoreError::Timeout(Change::None)));
    assert_eq!(fake.run(write), Err(StoreError::Timeout(Change::Unknown)));
    // A node that is silent is not asked any more.
    assert_eq!(fake.run(get(&client, "c")), Err(StoreError::Unreachable));
    assert_eq!((client.health(), client.origin(b"mcp:{a}")), (Health::Down, None));
    fake.pause(PORT, false);
    fake.settle();
    assert_eq!(client.health(), Health::Up);
    assert_eq!(fake.run(get(&client, "d")), Ok(text("d")));
    assert_eq!(client.stats().nodes[0].reconnects, 0);
}

#[test]
fn each_command_waits_for_its_own_time_behind_others_that_are_late() {
    let (fake, client, _) = start(settings());
    fake.settle();
    fake.pause(PORT, true);
    let mut first = Box::pin(set(&client, "a"));
    assert!(fake.poll(first.as_mut()).is_pending());
    fake.advance(200);
    let mut second = Box::pin(set(&client, "b"));
    assert!(fake.poll(second.as_mut()).is_pending());
    fake.advance(301);
    assert_eq!(fake.run(first), Err(StoreError::Timeout(Change::Unknown)));
    assert!(fake.poll(second.as_mut()).is_pending());
    fake.advance(200);
    let Poll::Ready(outcome) = fake.poll(second.as_mut()) else { panic!("it still waits") };
    assert_eq!(outcome, Err(StoreError::Timeout(Change::Unknown)));
}

#[test]
fn a_wait_for_replicas_that_is_not_answered_is_over_with_the_commands_time() {
    let (fake, client, _) = start(settings());
    fake.settle();
    fake.serve(PORT, |number, words| match words[0].as_str() {
        "WAIT" => Act::Nothing,
        _ => echo(number, words),
    });
    let args: &[&[u8]] = &[b"SET", b"a", b"v"];
    let command = Command::write("set", b"a", args);
    let mut calls: Vec<_> = (0..3).map(|_| Box::pin(client.call_replicated(&command, 1, 100))).collect();
    for call in &mut calls {
        assert!(fake.poll(call.as_mut()).is_pending());
        fake.advance(100);
    }
    fake.advance(500);
    for call in &mut calls {
        let Poll::Ready(outcome) = fake.poll(call.as_mut()) else { panic!("it still waits") };
        assert!(outcome.is_err());
    }
}

#[test]
fn a_node_that_stays_silent_is_given_up_and_connected_anew() {
    let (fake, client, _) = start(settings());
    fake.settle();
    let before = client.origin(b"mcp:{a}");
    assert!(before.is_some());
    fake.pause(PORT, true);
    let mut read = Box::pin(get(&client, "a"));
    assert!(fake.poll(read.as_mut()).is_pending());
    // The new connection is served.
    fake.advance(10_000);
    assert_eq!(fake.run(read), Err(StoreError::Timeout(Change::None)));
    assert_eq!(fake.run(get(&client, "b")), Ok(text("b")));
    assert_eq!(client.stats().nodes[0].reconnects, 1);
    assert!(client.origin(b"mcp:{a}").is_some_and(|origin| Some(origin) != before));
}

#[test]
fn an_idle_connection_that_died_without_a_word_is_found_out() {
    let (fake, client, _) = start(settings());
    fake.settle();
    assert!(client.origin(b"mcp:{a}").is_some());
    fake.pause(PORT, true);
    fake.advance(3_500);
    assert_eq!(client.origin(b"mcp:{a}"), None);
}

#[test]
fn what_a_broken_connection_means_is_decided_by_the_command() {
    let (fake, client, _) = start(settings());
    fake.settle();
    fake.pause(PORT, true);
    let (mut read, mut write) = (Box::pin(get(&client, "a")), Box::pin(set(&client, "b")));
    assert!(fake.poll(read.as_mut()).is_pending() && fake.poll(write.as_mut()).is_pending());
    fake.settle();
    fake.hang_up(PORT);
    fake.settle();
    assert_eq!(fake.run(write), Err(StoreError::Lost(Change::Unknown)));
    assert_eq!(fake.run(read), Ok(text("a")));
    // The write did not leave a second time.
    assert_eq!(fake.writes(PORT), [["GET a"]]);
}

#[test]
fn a_write_of_which_nothing_was_sent_waits_for_the_new_connection() {
    let (fake, client, _) = start(settings());
    fake.settle();
    fake.hang_up(PORT);
    let mut write = Box::pin(set(&client, "b"));
    assert!(fake.poll(write.as_mut()).is_pending());
    assert_eq!(fake.run(write), Ok(Reply::Ok));
}

#[test]
fn a_node_that_is_gone_fails_at_once_and_is_found_when_it_is_back() {
    let (fake, client, _) = start(settings());
    fake.accept(PORT, false);
    // The first try has not failed yet: the command waits for it, and fails with it.
    let mut first = Box::pin(get(&client, "a"));
    assert!(fake.poll(first.as_mut()).is_pending());
    assert_eq!(fake.run(first), Err(StoreError::Unreachable));
    assert_eq!(fake.run(set(&client, "a")), Err(StoreError::Unreachable));
    assert_eq!(client.health(), Health::Down);
    fake.advance(60_000);
    fake.accept(PORT, true);
    // The longest pause is a second.
    fake.advance(1_000);
    assert_eq!(client.health(), Health::Up);
    assert_eq!(fake.run(get(&client, "a")), Ok(text("a")));
}

#[test]
fn a_command_that_waits_for_a_connection_waits_no_longer_than_its_time() {
    let (fake, client, _) = start(settings());
    fake.serve(PORT, |_, _| Act::Nothing);
    let mut call = Box::pin(set(&client, "a"));
    assert!(fake.poll(call.as_mut()).is_pending());
    fake.advance(501);
    let Poll::Ready(outcome) = fake.poll(call.as_mut()) else { panic!("it still waits") };
    assert_eq!(outcome, Err(StoreError::Timeout(Change::None)));
}

#[test]
fn failures_in_a_row_open_the_breaker_and_probes_close_it() {
    let (fake, client, _) = start(settings());
    let loading = |_: usize, words: &[String]| match words[0].as_str() {
        "PING" | "GET" => Act::say("-LOADING Redis is loading the dataset in memory\r\n"),
        _ => echo(0, words),
    };
    fake.serve(PORT, loading);
    fake.settle();
    for _ in 0..5 {
        let refused = fake.run(get(&client, "a"));
        assert!(matches!(refused, Err(StoreError::Refused { code: ServerCode::Loading, .. })), "{refused:?}");
    }
    fake.writes(PORT);
    assert_eq!(fake.run(get(&client, "a")), Err(StoreError::Unreachable));
    assert_eq!((client.stats().breaker, client.health()), (BreakerState::Open, Health::Down));
    fake.advance(1_000);
    let writes = fake.writes(PORT);
    assert!((5..=11).contains(&writes.len()) && writes.iter().all(|write| *write == ["PING"]), "{writes:?}");
    fake.serve(PORT, echo);
    fake.advance(200);
    assert_eq!((client.stats().breaker, client.health()), (BreakerState::Closed, Health::Up));
    assert_eq!(fake.run(get(&client, "a")), Ok(text("a")));
}

#[test]
fn refused_writes_are_no_outage_but_they_show() {
    let (fake, client, _) = start(settings());
    fake.serve(PORT, |number, words| match words[0].as_str() {
        "SET" => Act::say("-OOM command not allowed when used memory > 'maxmemory'.\r\n"),
        _ => echo(number, words),
    });
    fake.settle();
    for _ in 0..10 {
        let refused = fake.run(set(&client, "a"));
        assert!(matches!(refused, Err(StoreError::Refused { code: ServerCode::OutOfMemory, .. })));
    }
    assert_eq!((client.stats().breaker, client.health()), (BreakerState::Closed, Health::Impaired));
    assert_eq!(fake.run(get(&client, "a")), Ok(text("a")));
    fake.serve(PORT, echo);
    assert_eq!(fake.run(set(&client, "a")), Ok(Reply::Ok));
    assert_eq!(client.health(), Health::Up);
}

#[test]
fn a_server_without_hello_is_spoken_to_in_the_older_version() {
    let auth = Some(Auth { username: Some("u".into()), password: "secret".into() });
    let (fake, client, _) = start(Settings { auth, database: 3, ..settings() });
    let asked = Rc::new(std::cell::RefCell::new(Vec::new()));
    let seen = asked.clone();
    fake.serve(PORT, move |number, words| {
        seen.borrow_mut().push(words.join(" "));
        match words[0].as_str() {
            "HELLO" => Act::say("-ERR unknown command 'HELLO'\r\n"),
            "GET" => Act::say("$-1\r\n"),
            _ => echo(number, words),
        }
    });
    assert_eq!(fake.run(get(&client, "a")), Ok(Reply::Null));
    assert_eq!(client.origin(b"mcp:{a}"), None);
    let asked = asked.borrow();
    assert!(asked[0].starts_with("HELLO 3 AUTH u secret"), "{asked:?}");
    assert_eq!(asked[1..], ["AUTH u secret", "CLIENT SETNAME mcp-gateway", "SELECT 3", "GET a"]);
}

#[test]
fn a_wrong_password_is_an_outage_that_ends_when_it_is_right() {
    let (fake, client, _) = start(settings());
    fake.serve(PORT, |number, words| match words[0].as_str() {
        "HELLO" => Act::say("-WRONGPASS invalid username-password pair or user is disabled.\r\n"),
        _ => echo(number, words),
    });
    fake.settle();
    assert_eq!(fake.run(get(&client, "a")), Err(StoreError::Unreachable));
    fake.serve(PORT, echo);
    fake.advance(1_000);
    assert_eq!(fake.run(get(&client, "a")), Ok(text("a")));
}

#[test]
fn the_writes_of_a_turn_share_one_wait() {
    let (fake, client, _) = start(settings());
    fake.settle();
    let set = |key: &'static str| {
        let client = client.clone();
        Box::pin(async move {
            let args: &[&[u8]] = &[b"SET", key.as_bytes(), b"v"];
            client.call_replicated(&Command::write("set", key.as_bytes(), args), 1, 100).await
        })
    };
    // The connection for these is opened with the first.
    assert_eq!(fake.run(set("first")), Ok(Reply::Ok));
    fake.writes(PORT);
    let (mut a, mut b) = (set("a"), set("b"));
    assert!(fake.poll(a.as_mut()).is_pending() && fake.poll(b.as_mut()).is_pending());
    assert_eq!((fake.run(a), fake.run(b)), (Ok(Reply::Ok), Ok(Reply::Ok)));
    assert_eq!(fake.writes(PORT), [["SET a v", "SET b v", "WAIT 1 100"]]);
    fake.serve(PORT, |number, words| match words[0].as_str() {
        "WAIT" => Act::say(":0\r\n"),
        _ => echo(number, words),
    });
    assert_eq!(fake.run(set("c")), Err(StoreError::NotReplicated { acknowledged: 0, wanted: 1 }));
    // Neither is a connection that breaks before the count is known.
    fake.serve(PORT, |number, words| match words[0].as_str() {
        "WAIT" => Act::Close,
        _ => echo(number, words),
    });
    assert_eq!(fake.run(set("d")), Err(StoreError::NotReplicated { acknowledged: 0, wanted: 1 }));
}

#[test]
fn a_closed_client_answers_and_leaves_no_task() {
    let (fake, client, _) = start(settings());
    fake.settle();
    fake.pause(PORT, true);
    let mut call = Box::pin(get(&client, "a"));
    assert!(fake.poll(call.as_mut()).is_pending());
    fake.settle();
    client.close();
    assert_eq!(fake.run(call), Err(StoreError::Lost(Change::None)));
    assert_eq!(fake.run(get(&client, "b")), Err(StoreError::Unreachable));
    fake.advance(10_000);
    assert_eq!(fake.tasks(), 0);
}

#[test]
fn garbage_ends_the_connection_and_not_the_client() {
    let (fake, client, _) = start(settings());
    fake.settle();
    fake.push(PORT, "what is this?\r\n");
    fake.settle();
    fake.advance(1_000);
    assert_eq!(fake.run(get(&client, "a")), Ok(text("a")));
    // A reply to nothing, and one that announces more than may be.
    fake.push(PORT, "+OK\r\n");
    fake.advance(2_000);
    fake.push(PORT, "$536870912\r\n");
    fake.advance(2_000);
    assert_eq!(fake.run(get(&client, "a")), Ok(text("a")));
    assert_eq!(client.stats().nodes[0].reconnects, 3);
}

#[test]
fn an_unknown_command_is_an_error_of_ours() {
    let (fake, client, _) = start(settings());
    let command = Command { name: "nonsense", args: &[b"NONSENSE"], key: None, effect: Effect::Read };
    let refused = fake.run(pin!(client.call(&command)));
    assert!(matches!(refused, Err(StoreError::Refused { code: ServerCode::Other, .. })));
}
