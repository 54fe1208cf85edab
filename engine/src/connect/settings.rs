//! What the client has set in its legacy session: owns the log level and the subscriptions, which a session that is opened in
//! place of a lost one must be told again. Pure bookkeeping of what the server has agreed to; it never sends anything.

use std::cell::RefCell;
use std::collections::VecDeque;

use mcp_protocol::jsonrpc::{Kind, Scan};

use super::message::{Message, RequestId};

/// Subscriptions that are told again; of more, the newest are not.
const MAX_SUBSCRIPTIONS: usize = 256;
/// The longest params of a request that is told again, in bytes. Worst-case memory with the limit above: 2 MiB.
const MAX_PARAMS_BYTES: usize = 8 << 10;
/// Requests whose answer decides: no more can be under way. One that never gets its answer is pushed out by the next ones.
const MAX_PENDING: usize = 256;
/// What the ids of requests begin with that are told again: a client's own look otherwise.
const ID_PREFIX: &str = "mcp-connect-again-";

/// What a session has been set to.
#[derive(Default)]
pub(super) struct Settings {
    pending: RefCell<VecDeque<(RequestId, Change)>>,
    /// The params of the last `logging/setLevel`.
    level: RefCell<Option<Vec<u8>>>,
    subscriptions: RefCell<Vec<Subscription>>,
}

enum Change {
    Level(Vec<u8>),
    Subscribe(Subscription),
    /// From this resource.
    Unsubscribe(String),
}

struct Subscription {
    uri: String,
    /// Of its request.
    params: Vec<u8>,
}

impl Settings {
    /// The client opens a session itself: it begins with nothing set.
    pub(super) fn clear(&self) {
        self.pending.take();
        self.level.take();
        self.subscriptions.take();
    }

    /// The client sends this message.
    pub(super) fn on_asked(&self, message: &Message) {
        if message.is_modern() {
            return;
        }
        let mut pending = self.pending.borrow_mut();
        for scan in message.scans.iter().filter(|scan| scan.kind == Kind::Request) {
            if let (Some(id), Some(change)) = (scan.id, change(scan, &message.body)) {
                if pending.len() == MAX_PENDING {
                    pending.pop_front();
                }
                pending.push_back((RequestId::new(id.of(&message.body)), change));
            }
        }
    }

    /// A response to the client's request comes by.
    pub(super) fn on_answered(&self, text: &[u8], response: &Scan) {
        let mut pending = self.pending.borrow_mut();
        if pending.is_empty() {
            return;
        }
        let Some(id) = response.id.map(|id| id.of(text)) else { return };
        let Some(place) = pending.iter().position(|(asked, _)| asked.is(id)) else { return };
        if let Some((_, change)) = pending.remove(place)
            && response.result.is_some()
        {
            self.apply(change);
        }
    }

    /// The requests that make another session what this one was.
    pub(super) fn requests(&self) -> Vec<Message> {
        let level = self.level.borrow();
        let level = level.iter().map(|params| ("logging/setLevel", params));
        let subscriptions = self.subscriptions.borrow();
        let subscriptions = subscriptions.iter().map(|one| ("resources/subscribe", &one.params));
        let texts = level.chain(subscriptions).enumerate().map(|(number, (method, params))| {
            let mut text =
                format!(r#"{{"jsonrpc":"2.0","id":"{ID_PREFIX}{number}","method":"{method}","params":"#)
                    .into_bytes();
            text.extend_from_slice(params);
            text.push(b'}');
            text
        });
        // What was a message's params is so again.
        texts.filter_map(|text| Message::parse(text).ok()).collect()
    }

    /// Whether a response answers one of [`Self::requests`].
    pub(super) fn is_own(text: &[u8], response: &Scan) -> bool {
        let id = response.id.map(|id| id.of(text)).unwrap_or_default();
        id.strip_prefix(b"\"").is_some_and(|id| id.starts_with(ID_PREFIX.as_bytes()))
    }

    fn apply(&self, change: Change) {
        let mut subscriptions = self.subscriptions.borrow_mut();
        match change {
            Change::Level(params) => *self.level.borrow_mut() = Some(params),
            Change::Unsubscribe(uri) => subscriptions.retain(|held| held.uri != uri),
            Change::Subscribe(new) => {
                subscriptions.retain(|held| held.uri != new.uri);
                if subscriptions.len() < MAX_SUBSCRIPTIONS {
                    subscriptions.push(new);
                } else {
                    tracing::warn!(
                        "more than {MAX_SUBSCRIPTIONS} subscriptions: the next one ends with its session"
                    );
                }
            }
        }
    }
}

/// What a request sets, where it does and can be told again.
fn change(scan: &Scan, body: &[u8]) -> Option<Change> {
    let params =
        scan.params.map(|params| params.of(body)).filter(|params| params.len() <= MAX_PARAMS_BYTES)?;
    let uri = || scan.uri.map(|uri| uri.decode(body).into_owned());
    match &*scan.method?.decode(body) {
        "logging/setLevel" => Some(Change::Level(params.to_owned())),
        "resources/subscribe" => {
            Some(Change::Subscribe(Subscription { uri: uri()?, params: params.to_owned() }))
        }
        "resources/unsubscribe" => uri().map(Change::Unsubscribe),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks under this id, and is answered with a result or an error.
    fn ask(settings: &Settings, id: usize, method: &str, params: &str, agreed: bool) {
        let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"{method}","params":{params}}}"#);
        settings.on_asked(&Message::parse(text.into_bytes()).unwrap_or_else(|_| panic!("{method}")));
        let outcome = if agreed { r#""result":{}"# } else { r#""error":{"code":1,"message":""}"# };
        let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},{outcome}}}"#);
        let Ok(answer) = Message::parse(answer.into_bytes()) else { panic!("an answer") };
        settings.on_answered(&answer.body, &answer.scans[0]);
    }

    fn told(settings: &Settings) -> Vec<(String, String)> {
        let requests = settings.requests();
        assert!(requests.iter().all(|request| request.requests().len() == 1));
        let params =
            |request: &Message| request.scans[0].params.map(|params| params.of(&request.body).to_owned());
        let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap_or_default();
        requests.iter().map(|request| (request.name(), text(params(request)))).collect()
    }

    #[test]
    fn what_the_server_agreed_to_is_told_again_as_it_was_last_said() {
        let settings = Settings::default();
        ask(&settings, 1, "logging/setLevel", r#"{"level":"debug"}"#, true);
        ask(&settings, 2, "resources/subscribe", r#"{"uri":"a:\u0062"}"#, true);
        ask(&settings, 3, "resources/subscribe", r#"{"uri":"a:c"}"#, true);
        ask(&settings, 4, "resources/subscribe", r#"{"uri":"a:d"}"#, false);
        ask(&settings, 5, "logging/setLevel", r#"{"level":"error", "_meta":{"x":1}}"#, true);
        ask(&settings, 6, "logging/setLevel", r#"{"level":"none"}"#, false);
        ask(&settings, 7, "resources/unsubscribe", r#"{"uri":"a:b"}"#, true);
        ask(&settings, 8, "resources/unsubscribe", r#"{"uri":"a:c"}"#, false);
        ask(&settings, 9, "tools/call", r#"{"name":"a","uri":"a:e"}"#, true);
        let expected = [
            ("logging/setLevel", r#"{"level":"error", "_meta":{"x":1}}"#),
            ("resources/subscribe", r#"{"uri":"a:c"}"#),
        ];
        assert_eq!(told(&settings), expected.map(|(method, params)| (method.to_owned(), params.to_owned())));
        settings.clear();
        assert_eq!(told(&settings), []);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let settings = Settings::default();
        let long = format!(r#"{{"uri":"{}"}}"#, "x".repeat(MAX_PARAMS_BYTES));
        ask(&settings, 0, "resources/subscribe", &long, true);
        assert_eq!(told(&settings), []);
        for id in 0..2 * MAX_SUBSCRIPTIONS {
            ask(&settings, id, "resources/subscribe", &format!(r#"{{"uri":"a:{id}"}}"#), true);
        }
        assert_eq!(told(&settings).len(), MAX_SUBSCRIPTIONS);
        for id in 0..2 * MAX_PENDING {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":"logging/setLevel","params":{{}}}}"#);
            settings.on_asked(&Message::parse(text.into_bytes()).unwrap_or_else(|_| panic!("a message")));
        }
        assert_eq!(settings.pending.borrow().len(), MAX_PENDING);
    }

    #[test]
    fn its_own_answers_are_known() {
        for (id, expected) in [(r#""mcp-connect-again-3""#, true), (r#""mcp""#, false), ("3", false)] {
            let text = format!(r#"{{"jsonrpc":"2.0","id":{id},"result":{{}}}}"#);
            let Ok(answer) = Message::parse(text.into_bytes()) else { panic!("an answer") };
            assert_eq!(Settings::is_own(&answer.body, &answer.scans[0]), expected, "{id}");
        }
    }
}
