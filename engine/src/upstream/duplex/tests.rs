//! What a hub makes of messages: own and shared channels, sessions and none, and the end of all that. The server is whoever reads
//! the outbox and says something; no socket and no process is there.

use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use mcp_protocol::jsonrpc::{Payload, ScanLimits, scan};

use super::flight::{Flight, Purpose, Stage};
use super::hub::{Hub, NotAMessage, Outgoing, Wire};
use super::told::{Answering, Listening};
use super::{Closed, SeatId};
use crate::upstream::answer::{Source, Step};
use crate::upstream::call::CallError;

const A: SeatId = SeatId(1);
const B: SeatId = SeatId(2);

/// A hub with its open channel and the seats of these sessions.
fn hub(is_shared: bool, seats: &[SeatId]) -> (Rc<Hub>, Wire) {
    let hub = Hub::new(0, is_shared, 0);
    let wire = hub.attach();
    seats.iter().for_each(|seat| hub.add_seat(*seat, 0));
    (hub, wire)
}

fn outgoing(text: &str) -> Outgoing<'_> {
    match scan(text.as_bytes(), &ScanLimits::default()) {
        Ok(Payload::Single(scan)) => Outgoing { bytes: text.as_bytes(), scan },
        other => panic!("{text}: {other:?}"),
    }
}

fn ask(hub: &Rc<Hub>, seat: Option<SeatId>, purpose: Purpose, texts: &[&str]) -> Answering {
    let flight = Flight::new(&hub.backlog, seat, purpose);
    let answering = Answering::new(hub, flight.clone());
    let messages: Vec<_> = texts.iter().map(|text| outgoing(text)).collect();
    hub.take_off(&flight, &messages, 1).expect("room");
    answering
}

fn legacy(hub: &Rc<Hub>, seat: SeatId, text: &str) -> Answering {
    ask(hub, Some(seat), Purpose::Legacy, &[text])
}

fn modern(hub: &Rc<Hub>, text: &str) -> Answering {
    ask(hub, None, Purpose::Modern, &[text])
}

fn cx() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// What the server has been sent.
fn sent(wire: &Wire) -> Vec<String> {
    let mut all = Vec::new();
    while let Poll::Ready(Some(message)) = wire.poll_outgoing(&cx()) {
        all.push(String::from_utf8(message).unwrap());
    }
    all
}

/// What an answer has brought so far.
fn heard(answering: &Answering) -> Vec<String> {
    let mut all = Vec::new();
    while let Poll::Ready(Ok(Some(message))) = answering.flight.poll_message(&cx()) {
        all.push(String::from_utf8(message).unwrap());
    }
    all
}

fn stage(answering: &Answering) -> Option<Stage> {
    match answering.flight.poll_stage(&cx()) {
        Poll::Ready(stage) => Some(stage.unwrap()),
        Poll::Pending => None,
    }
}

fn say(hub: &Hub, text: &str) -> u64 {
    hub.on_message(text.as_bytes()).expect("a message")
}

/// What a listener has been brought, each event's data.
fn listened(listening: &mut Listening) -> Vec<String> {
    let mut all = Vec::new();
    let mut piece = Vec::new();
    while let Poll::Ready(Ok(Step::Piece)) = listening.poll_piece(&mut cx(), &mut piece) {
        let text = String::from_utf8(std::mem::take(&mut piece)).unwrap();
        all.push(text.trim().trim_start_matches("event: message\ndata: ").to_owned());
    }
    all
}

fn listen(hub: &Rc<Hub>, seat: SeatId) -> Listening {
    Listening::new(hub, seat, hub.listen(seat, 2).expect("a session"))
}

#[test]
fn on_a_channel_of_its_own_a_sessions_bytes_pass_as_they_are() {
    let (hub, wire) = hub(false, &[A]);
    let call = r#"{ "jsonrpc":"2.0", "id":"a", "method":"tools/call", "params":{"_meta":{"progressToken":1.50e1},"n":1.0} }"#;
    let answering = legacy(&hub, A, call);
    assert_eq!(sent(&wire), [call]);
    assert_eq!(stage(&answering), None);
    let progress = r#"{"method":"notifications/progress","jsonrpc":"2.0","params":{"progress":1,"progressToken":1.50e1}}"#;
    let response = r#"{"result":{"x":[1.0,{}]},"id":"a" , "jsonrpc":"2.0"}"#;
    assert_eq!(say(&hub, progress) + say(&hub, response), 0);
    assert_eq!(stage(&answering), Some(Stage::Stream));
    assert_eq!(heard(&answering), [progress, response]);
    assert_eq!(say(&hub, response), 1, "a response came twice");
    assert_eq!(hub.on_message(b"nonsense"), Err(NotAMessage));
}

#[test]
fn a_response_that_comes_alone_is_the_whole_answer() {
    let (hub, _wire) = hub(false, &[A]);
    let answering = legacy(&hub, A, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let response = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
    say(&hub, response);
    assert_eq!(stage(&answering), Some(Stage::Whole));
    assert_eq!(answering.flight.take_whole(), response.as_bytes());
}

#[test]
fn what_belongs_to_no_request_goes_where_somebody_hears_it() {
    let (hub, wire) = hub(false, &[A]);
    let roots = |id| format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#);
    let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    // Nobody is there: it waits for whoever listens next.
    say(&hub, &roots(1));
    let mut first = listen(&hub, A);
    say(&hub, changed);
    assert_eq!(listened(&mut first), [&roots(1), changed]);
    // A question asked while a call is served is the call's; news are the listener's.
    let call = legacy(&hub, A, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
    say(&hub, &roots(2));
    say(&hub, changed);
    assert_eq!((heard(&call), listened(&mut first)), (vec![roots(2)], vec![changed.to_owned()]));
    drop(call);
    // What a stream that broke off had not passed on waits for the next, in its order.
    say(&hub, &roots(3));
    drop(first);
    say(&hub, &roots(4));
    assert_eq!(listened(&mut listen(&hub, A)), [roots(3), roots(4)]);
    // The client's answer goes to the server as it is.
    sent(&wire);
    let answer = r#"{"jsonrpc":"2.0","id":4,"result":{"roots":[]}}"#;
    hub.pass_on(Some(A), &outgoing(answer));
    assert_eq!(sent(&wire), [answer]);
}

#[test]
fn a_ping_that_nobody_would_hear_is_answered_and_a_question_too_many_refused() {
    let (hub, wire) = hub(false, &[A]);
    say(&hub, r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
    assert_eq!(sent(&wire), [r#"{"jsonrpc":"2.0","id":"p","result":{}}"#]);
    let mut refused = 0;
    for id in 0..1000 {
        refused += say(&hub, &format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"roots/list"}}"#));
    }
    let answers = sent(&wire);
    assert!(refused > 0 && answers.len() as u64 == refused, "{refused} refused, {} answered", answers.len());
    assert!(answers.iter().all(|answer| answer.contains(r#""error":{"code":-32000"#)), "{}", answers[0]);
}

#[test]
fn sessions_that_share_a_channel_may_use_the_same_ids_and_tokens() {
    let (hub, wire) = hub(true, &[A, B]);
    let call =
        r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"_meta":{"progressToken":"t"},"x":1.0}}"#;
    let (a, b) = (legacy(&hub, A, call), legacy(&hub, B, call));
    let ours = |id| call.replace(r#""id":1"#, &format!(r#""id":{id}"#)).replace(r#""t""#, &format!("{id}"));
    assert_eq!(sent(&wire), [ours(1), ours(2)]);
    say(
        &hub,
        r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":2,"progress":1}}"#,
    );
    say(&hub, r#"{"jsonrpc":"2.0","id":2,"result":{"whose":"b"}}"#);
    say(&hub, r#"{"jsonrpc":"2.0","id":1,"result":{"whose":"a"}}"#);
    assert_eq!(heard(&a), [r#"{"jsonrpc":"2.0","id":1,"result":{"whose":"a"}}"#]);
    assert_eq!(
        heard(&b),
        [
            r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"t","progress":1}}"#,
            r#"{"jsonrpc":"2.0","id":1,"result":{"whose":"b"}}"#
        ]
    );
}

#[test]
fn a_cancellation_names_the_request_as_the_server_knows_it() {
    let (hub, wire) = hub(true, &[A, B]);
    let call = r#"{"jsonrpc":"2.0","id":"c","method":"tools/call","params":{}}"#;
    let (a, b) = (legacy(&hub, A, call), legacy(&hub, B, call));
    sent(&wire);
    let cancel = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"c"}}"#;
    hub.pass_on(Some(B), &outgoing(cancel));
    assert_eq!(sent(&wire), [cancel.replace("\"c\"", "2")]);
    assert_eq!((stage(&b), heard(&b).len()), (Some(Stage::Stream), 0), "the answer goes on");
    assert_eq!(say(&hub, r#"{"jsonrpc":"2.0","id":2,"result":{}}"#), 1);
    assert_eq!(stage(&a), None);
    // What is not in flight is nothing to a server that others use, too.
    hub.pass_on(Some(B), &outgoing(cancel));
    assert_eq!(sent(&wire), Vec::<String>::new());
}

#[test]
fn nobody_is_asked_for_a_shared_server_and_its_news_are_for_all() {
    let (hub, wire) = hub(true, &[A, B]);
    let (mut a, mut b) = (listen(&hub, A), listen(&hub, B));
    say(&hub, r#"{"jsonrpc":"2.0","id":7,"method":"ping"}"#);
    let unclaimed = say(&hub, r#"{"jsonrpc":"2.0","id":8,"method":"sampling/createMessage","params":{}}"#);
    let answers = sent(&wire);
    assert_eq!((unclaimed, &answers[0][..]), (1, r#"{"jsonrpc":"2.0","id":7,"result":{}}"#));
    assert!(answers[1].starts_with(r#"{"jsonrpc":"2.0","id":8,"error":{"code":-32601"#), "{}", answers[1]);
    let news = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
    say(&hub, news);
    assert_eq!((listened(&mut a), listened(&mut b)), (vec![news.to_owned()], vec![news.to_owned()]));
    // Nobody was asked, and the gateway has said that it is initialized.
    hub.pass_on(Some(A), &outgoing(r#"{"jsonrpc":"2.0","id":8,"result":{}}"#));
    hub.pass_on(Some(A), &outgoing(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#));
    assert_eq!(sent(&wire), Vec::<String>::new());
}

#[test]
fn the_end_of_a_channel_is_told_to_whoever_waits() {
    let (own, wire) = hub(false, &[A]);
    let waiting = legacy(&own, A, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    let mut listening = listen(&own, A);
    own.on_closed(Closed::Gone);
    assert!(wire.is_closed() && !own.has_seat(A));
    assert!(matches!(waiting.flight.poll_stage(&cx()), Poll::Ready(Err(CallError::Closed))));
    assert!(matches!(listening.poll_piece(&mut cx(), &mut Vec::new()), Poll::Ready(Ok(Step::End))));

    let (shared, first) = hub(true, &[A, B]);
    shared.note_state(B);
    let waiting = legacy(&shared, A, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    shared.on_closed(Closed::Gone);
    assert!(matches!(waiting.flight.poll_stage(&cx()), Poll::Ready(Err(CallError::Closed))));
    // Where the server held something of the session's, it must be said again; else the session goes on.
    assert_eq!((shared.has_seat(A), shared.has_seat(B)), (true, false));
    let second = shared.attach();
    let again = legacy(&shared, A, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    assert_eq!((sent(&first).len(), sent(&second).len()), (0, 1));
    drop(again);
}

#[test]
fn a_session_that_its_client_ends_ends_its_channel_and_its_answers() {
    let (hub, wire) = hub(false, &[A]);
    let waiting = legacy(&hub, A, r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#);
    hub.end_seat(A);
    assert!(wire.is_closed());
    assert_eq!((stage(&waiting), heard(&waiting).len()), (Some(Stage::Stream), 0));
}

#[test]
fn a_session_whose_initialize_fails_or_is_given_up_is_none() {
    let initialize = r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}"#;
    let (refused, wire) = hub(false, &[A]);
    let answering = ask(&refused, Some(A), Purpose::Opens, &[initialize]);
    say(&refused, r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"no"}}"#);
    assert!(wire.is_closed());
    assert_eq!((stage(&answering), heard(&answering).len()), (Some(Stage::Whole), 1));

    let (left, wire) = hub(false, &[A]);
    drop(ask(&left, Some(A), Purpose::Opens, &[initialize]));
    assert!(wire.is_closed());

    let (fine, wire) = hub(false, &[A]);
    let answering = ask(&fine, Some(A), Purpose::Opens, &[initialize]);
    say(&fine, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    drop(answering);
    assert!(!wire.is_closed());
}

#[test]
fn a_modern_client_that_leaves_cancels_and_a_legacy_one_does_not() {
    let (hub, wire) = hub(true, &[A]);
    drop(modern(&hub, r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{}}"#));
    drop(legacy(&hub, A, r#"{"jsonrpc":"2.0","id":"x","method":"tools/call","params":{}}"#));
    let answered = modern(&hub, r#"{"jsonrpc":"2.0","id":"x","method":"tools/list"}"#);
    say(&hub, r#"{"jsonrpc":"2.0","id":3,"result":{}}"#);
    drop(answered);
    let all = sent(&wire);
    let cancelled: Vec<_> = all.iter().filter(|text| text.contains("notifications/cancelled")).collect();
    assert_eq!((all.len(), cancelled.len()), (4, 1), "{all:?}");
    assert!(cancelled[0].contains(r#""requestId":1,"#), "{}", cancelled[0]);
}

#[test]
fn a_subscription_hears_its_own_notifications_under_its_own_name() {
    let (hub, _wire) = hub(true, &[]);
    let listen = r#"{"jsonrpc":"2.0","id":"sub","method":"subscriptions/listen","params":{}}"#;
    let (a, b) = (modern(&hub, listen), modern(&hub, listen));
    let name = "io.modelcontextprotocol/subscriptionId";
    let told =
        |id: &str| format!(r#"{{"jsonrpc":"2.0","method":"n","params":{{"_meta":{{"{name}":{id}}}}}}}"#);
    say(&hub, &told("2"));
    let end = |id: &str| format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{"_meta":{{"{name}":{id}}}}}}}"#);
    say(&hub, &end("2"));
    assert_eq!((heard(&a).len(), heard(&b)), (0, vec![told("\"sub\""), end("\"sub\"")]));
    // A notification that names no request could be either's.
    let (c, d) = (modern(&hub, listen), say(&hub, r#"{"jsonrpc":"2.0","method":"notifications/message"}"#));
    assert_eq!((heard(&c).len(), d), (0, 1));
}

#[test]
fn an_id_that_is_in_use_gets_another_name() {
    let (hub, wire) = hub(false, &[A]);
    let call = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#;
    let (first, second) = (legacy(&hub, A, call), legacy(&hub, A, call));
    let other = call.replace(r#""id":1"#, r#""id":"mcp-gateway-1""#);
    assert_eq!(sent(&wire), [call, &other]);
    say(&hub, r#"{"jsonrpc":"2.0","id":"mcp-gateway-1","result":{"n":2}}"#);
    say(&hub, r#"{"jsonrpc":"2.0","id":1,"result":{"n":1}}"#);
    assert_eq!(heard(&first), [r#"{"jsonrpc":"2.0","id":1,"result":{"n":1}}"#]);
    assert_eq!(heard(&second), [r#"{"jsonrpc":"2.0","id":1,"result":{"n":2}}"#]);
}

#[test]
fn a_batch_is_answered_when_all_of_it_is() {
    let (hub, wire) = hub(false, &[A]);
    let texts =
        [r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, r#"{"jsonrpc":"2.0","id":2,"method":"ping"}"#];
    let answering = ask(&hub, Some(A), Purpose::Legacy, &texts);
    assert_eq!(sent(&wire), texts);
    // The server may answer with a batch, too.
    say(&hub, r#"[{"jsonrpc":"2.0","id":2,"result":{}},{"jsonrpc":"2.0","method":"notifications/message"}]"#);
    assert_eq!((stage(&answering), heard(&answering).len()), (Some(Stage::Stream), 2));
    assert!(matches!(answering.flight.poll_message(&cx()), Poll::Pending));
    say(&hub, r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
    assert_eq!(heard(&answering).len(), 1);
    assert!(matches!(answering.flight.poll_message(&cx()), Poll::Ready(Ok(None))));
}

#[test]
fn a_slow_client_stops_its_own_channel_and_loses_a_shared_one() {
    let (own, wire) = hub(false, &[A]);
    let slow = legacy(&own, A, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
    let log = format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/message","params":"{{}}","x":"{}"}}"#,
        "x".repeat(100_000)
    );
    let log = log.replace(r#""params":"{}","#, "");
    let mut said = 0;
    while matches!(wire.poll_may_read(&cx()), Poll::Ready(true)) && said < 1000 {
        say(&own, &log);
        said += 1;
    }
    assert!(said < 10, "{said} messages wait");
    assert_eq!(heard(&slow).len(), said);
    assert!(matches!(wire.poll_may_read(&cx()), Poll::Ready(true)));

    let (shared, wire) = hub(true, &[]);
    let slow = modern(&shared, r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{}}"#);
    for _ in 0..1000 {
        assert!(matches!(wire.poll_may_read(&cx()), Poll::Ready(true)), "one client holds all up");
        shared.on_message(log.as_bytes()).expect("a message");
    }
    assert!(shared.backlog.bytes() < 20 << 20, "{}", shared.backlog.bytes());
    heard(&slow);
    assert!(matches!(slow.flight.poll_message(&cx()), Poll::Ready(Err(CallError::Closed))));
}
