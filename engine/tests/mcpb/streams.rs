//! Setup: a legacy server whose streams end early, or never.
//! Claim: the gateway resumes streams on behalf of a client that sees none: the server's own, and that of an answer, after
//! the pause that the server names and with the credential of the request; a call that is cancelled frees its place.

use serde_json::json;

use crate::client::{Client, REQUEST, RESPONSE, call, initialize};
use crate::gateway::{Gateway, eventually};
use crate::server::{Answer, Seen, Server};
use crate::servers::{begin_session, result};

/// Whether the request is for the stream on which the server speaks by itself.
fn is_own_stream(seen: &Seen) -> bool {
    seen.verb == "GET" && seen.header("last-event-id").is_none_or(|id| id.starts_with("own"))
}

fn no_own_stream(seen: &Seen, answer: &mut Answer<'_>) -> bool {
    let is_it = is_own_stream(seen);
    if is_it {
        answer.status("405 Method Not Allowed");
    }
    is_it
}

#[test]
fn the_server_s_own_stream_goes_on_where_it_ended() {
    let server = Server::start(|seen, answer| {
        if begin_session(seen, answer) {
            return;
        }
        let last = seen.header("last-event-id").and_then(|id| id.strip_prefix("own-")?.parse().ok());
        let number: u64 = last.unwrap_or(0) + 1;
        answer.begin_events();
        answer.lines(&format!("id: own-{number}\nretry: 10\n"));
        answer
            .event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": number}}));
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::open(gateway.port);
    client.ask(&initialize(json!({"token": "t"})));
    assert!(server.seen_verb("GET").is_empty());
    // The client sends nothing more after this.
    client.send_json(REQUEST, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    for number in 1..=4 {
        let message = client.receive();
        assert_eq!((message.kind, &message.json()["params"]["data"]), (REQUEST, &json!(number)));
    }
    for (seen, last) in
        server.seen_verb("GET").iter().zip([None, Some("own-1"), Some("own-2"), Some("own-3")])
    {
        assert_eq!(seen.header("last-event-id"), last);
        assert_eq!(seen.header("authorization"), Some("Bearer t"));
        assert_eq!(seen.header("mcp-session-id"), Some("theirs"));
    }
    drop(client);
    eventually("nothing is left", || gateway.metric("requests_in_flight") == 0);
}

#[test]
fn an_answer_s_stream_goes_on_with_its_own_credential() {
    let server = Server::start(|seen, answer| {
        if begin_session(seen, answer) || no_own_stream(seen, answer) {
            return;
        }
        answer.begin_events();
        match seen.header("last-event-id") {
            None => answer.lines("id: 1\nretry: 10\ndata:\n\n"),
            Some("1") => {
                answer.lines("id: 2\n");
                answer.event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}));
            }
            Some(_) => {
                answer.event(&json!({"jsonrpc": "2.0", "id": "c", "result": {"content": []}}));
                // What a stream says beyond the response is not waited for.
                answer.wait_for_end();
            }
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::open(gateway.port);
    client.ask(&initialize(json!({"token": "login"})));
    client.send_json(REQUEST, &json!({"auth_token": "own", "request": call("c", "any", json!({}))}));
    let message = client.receive().json();
    assert_eq!(message["method"], "notifications/message", "{message}");
    let response = client.receive();
    assert_eq!((response.kind, &response.json()["id"]), (RESPONSE, &json!("c")));
    assert!(response.json()["result"].is_object());
    let resumed: Vec<Seen> =
        server.seen_verb("GET").into_iter().filter(|seen| !is_own_stream(seen)).collect();
    let ids: Vec<_> = resumed.iter().map(|seen| seen.header("last-event-id")).collect();
    assert_eq!(ids, [Some("1"), Some("2")]);
    assert!(resumed.iter().all(|seen| seen.header("authorization") == Some("Bearer own")), "{resumed:?}");
    eventually("nothing is in flight", || gateway.metric("requests_in_flight") == 0);
}

#[test]
fn a_stream_that_only_ever_ends_is_given_up() {
    let server = Server::start(|seen, answer| {
        if !begin_session(seen, answer) && !no_own_stream(seen, answer) {
            answer.begin_events();
            answer.lines("id: 1\nretry: 1\ndata:\n\n");
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::log_in(gateway.port);
    let given_up = client.ask(&call(1, "any", json!({})));
    assert_eq!(given_up["error"]["code"], -32000, "{given_up}");
    let resumed = server.seen_verb("GET").iter().filter(|seen| !is_own_stream(seen)).count();
    assert_eq!(resumed, 16);
}

#[test]
fn a_session_that_follows_does_not_get_the_answers_of_the_one_before() {
    let server = Server::start(|seen, answer| {
        if seen.body["params"]["name"] == "slow" {
            answer.begin_events();
            answer.lines("id: 1\nretry: 1\ndata:\n\n");
            answer.wait_for("the second session", |seen| seen.body["params"]["second"] == true);
        } else if !begin_session(seen, answer) {
            no_own_stream(seen, answer);
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::log_in(gateway.port);
    client.send_json(REQUEST, &call("before", "slow", json!({})));
    eventually("the call is at the server", || server.seen("tools/call").len() == 1);
    assert!(client.ask(&initialize(json!({})))["result"]["sessionId"].is_string());
    client.send_json(
        REQUEST,
        &json!({"jsonrpc": "2.0", "method": "notifications/initialized", "params": {"second": true}}),
    );
    let answer = client.receive().json();
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!("before"), &json!(-32000)), "{answer}");
    assert!(server.seen_verb("GET").iter().all(|seen| seen.header("last-event-id").is_none()));
}

#[test]
fn cancelled_calls_free_their_places() {
    let server = Server::start(|seen, answer| {
        if begin_session(seen, answer) || no_own_stream(seen, answer) {
            return;
        }
        match seen.body["method"].as_str() {
            Some("tools/call") => {
                answer.begin_events();
                answer.event(&json!({"jsonrpc": "2.0", "method": "notifications/progress",
                    "params": {"progressToken": seen.body["id"], "progress": 1}}));
                answer.wait_for_end();
            }
            Some("ping") => answer.json("", &result(seen, json!({}))),
            _ => answer.status("202 Accepted"),
        }
    });
    let gateway = Gateway::with_server(&server.url, &[]);
    let mut client = Client::log_in(gateway.port);
    // More than may be in flight, one after the other.
    for id in 0..80 {
        client.send_json(REQUEST, &call(id, "slow", json!({})));
        assert_eq!(client.receive().json()["params"]["progressToken"], id);
        let params = json!({"requestId": id, "reason": "enough"});
        client.send_json(
            REQUEST,
            &json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}),
        );
    }
    assert!(client.ask(&json!({"jsonrpc": "2.0", "id": "after", "method": "ping"}))["result"].is_object());
    eventually("nothing is in flight", || gateway.metric("requests_in_flight") == 0);
    assert_eq!(server.seen("notifications/cancelled").len(), 80);
}
