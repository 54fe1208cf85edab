//! A gateway's WebSocket: owns the session's id, by which a socket that breaks is followed by one in the same session, and what
//! each way of its end means. The socket itself is [`crate::websocket`]'s.

use mcp_config::Endpoint;
use mcp_protocol::http1::write_field;
use mcp_protocol::jsonrpc::INVALID_REQUEST;

use super::codec::{Codec, Event};
use crate::connect::message::{Fault, Message};
use crate::connect::target::authority;
use crate::door::ws::{SESSION_META, SESSION_OVER};
use crate::websocket::{Answered, Said, Socket, Upgrade};

/// Close codes of an end in order: normal, going away (RFC 6455, section 7.4.1), and the echo of our own.
const IN_ORDER: [u16; 3] = [1000, 1001, SESSION_OVER];
/// "Service Restart" of the registry. A gateway that drains says it when it has answered all that it took.
const RESTART: u16 = 1012;

/// A socket after another.
pub(in crate::connect) struct Ws {
    path: String,
    /// `Host`, and what the user added.
    common: Vec<u8>,
    max_message: usize,
    /// The legacy session that the sockets belong to.
    session: Option<String>,
    /// The socket of the moment goes on with it.
    is_resumed: bool,
    stage: Stage,
}

enum Stage {
    Closed,
    Upgrading(Upgrade),
    Open(Socket),
}

impl Ws {
    pub(in crate::connect) fn new(endpoint: &Endpoint, added: &[u8], max_message: usize) -> Self {
        let mut common = format!("Host: {}\r\n", authority(endpoint)).into_bytes();
        common.extend_from_slice(added);
        Ws {
            path: endpoint.path.clone(),
            common,
            max_message,
            session: None,
            is_resumed: false,
            stage: Stage::Closed,
        }
    }
}

impl Codec for Ws {
    fn begin(&mut self, token: Option<&str>, out: &mut Vec<u8>) {
        let mut fields = self.common.clone();
        if let Some(token) = token {
            write_field(&mut fields, b"Authorization", format!("Bearer {token}").as_bytes());
        }
        if let Some(session) = &self.session {
            write_field(&mut fields, b"Mcp-Session-Id", session.as_bytes());
        }
        self.is_resumed = false;
        self.stage = Stage::Upgrading(Upgrade::ask(&self.path, &fields, out));
    }

    fn check(&self, message: &Message) -> Result<(), Fault> {
        match message.is_batch {
            true => Err(Fault::malformed(INVALID_REQUEST, "a WebSocket carries no batches")),
            false => Ok(()),
        }
    }

    fn encode(&mut self, message: &Message, _token: Option<&str>, out: &mut Vec<u8>) -> Result<(), Fault> {
        let refused = |what: String| Fault::lasting(format!("the message cannot be sent: {what}"));
        let Stage::Open(socket) = &mut self.stage else { return Err(refused("no socket is open".into())) };
        socket.write_text(message.body.clone(), out).map_err(refused)
    }

    fn decode(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Option<Event>, String> {
        match &mut self.stage {
            Stage::Closed => Err("no socket is open".into()),
            Stage::Open(socket) => Ok(socket.read(input, out)?.map(event)),
            Stage::Upgrading(upgrade) => Ok(upgrade.read(input)?.map(|answered| self.on_answer(&answered))),
        }
    }

    fn part(&mut self, out: &mut Vec<u8>) -> Result<(), String> {
        let Stage::Open(socket) = &mut self.stage else { return Err("no socket is open".into()) };
        socket.write_close(SESSION_OVER, "the client leaves", out)
    }

    fn is_resumed(&self) -> bool {
        self.is_resumed
    }

    fn learn(&mut self, initialized: &[u8]) {
        let answer: serde_json::Value = serde_json::from_slice(initialized).unwrap_or_default();
        let id = answer["result"]["_meta"][SESSION_META].as_str();
        // What no header can hold is no id.
        self.session = id.filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic())).map(str::to_owned);
    }

    fn forget_session(&mut self) {
        self.session = None;
    }
}

impl Ws {
    fn on_answer(&mut self, answered: &Answered) -> Event {
        match answered.status {
            101 => {
                let resumed = answered.session.as_deref();
                self.is_resumed =
                    self.session.as_ref().is_some_and(|session| resumed == Some(session.as_bytes()));
                self.stage = Stage::Open(Socket::new(self.max_message));
                Event::Open
            }
            404 if self.session.is_some() => Event::SessionEnded,
            401 => Event::Denied("the gateway asks for a valid token (401)".into()),
            status @ (408 | 429) => Event::Refused(format!("it answered with status {status}")),
            status @ 300..500 => {
                Event::Denied(format!("the gateway refuses a WebSocket at {} ({status})", self.path))
            }
            status => Event::Refused(format!("it answered with status {status}")),
        }
    }
}

fn event(said: Said) -> Event {
    match said {
        Said::Message(message) => Event::Message(message),
        Said::Close { code: Some(RESTART), reason } => Event::Restarting(reason),
        Said::Close { code: Some(code), reason } if !IN_ORDER.contains(&code) => {
            Event::Refused(format!("{reason} ({code})"))
        }
        Said::Close { code: Some(_), reason } => Event::Ended(reason),
        Said::Close { code: None, .. } => Event::Ended("closed".into()),
    }
}

#[cfg(test)]
mod tests {
    use mcp_protocol::ws::accept_of;

    use super::*;

    const SAID: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"_meta":{"mcp-gateway/sessionId":"s1"}}}"#;

    fn begun(session: bool) -> (Ws, String) {
        let mut codec =
            Ws::new(&Endpoint::parse("wss://gw:8443/ws/a", "ws", "wss").unwrap(), b"X: y\r\n", 1000);
        if session {
            codec.learn(SAID.as_bytes());
        }
        let mut out = Vec::new();
        codec.begin(Some("t"), &mut out);
        (codec, String::from_utf8(out).unwrap())
    }

    fn switch(head: &str, fields: &str) -> Vec<u8> {
        let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
        let accept = String::from_utf8(accept_of(key.as_bytes()).to_vec()).unwrap();
        format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n{fields}\r\n").into_bytes()
    }

    fn first(codec: &mut Ws, mut input: Vec<u8>) -> Result<Option<Event>, String> {
        codec.decode(&mut input, &mut Vec::new())
    }

    #[test]
    fn an_upgrade_says_who_asks_and_which_session_goes_on() {
        let (mut codec, head) = begun(false);
        assert!(head.starts_with("GET /ws/a HTTP/1.1\r\nHost: gw:8443\r\nX: y\r\n"), "{head}");
        assert!(
            head.contains("\r\nAuthorization: Bearer t\r\n") && !head.contains("Mcp-Session-Id"),
            "{head}"
        );
        assert_eq!(first(&mut codec, switch(&head, "")), Ok(Some(Event::Open)));
        assert!(!codec.is_resumed());

        let (mut codec, head) = begun(true);
        assert!(head.contains("\r\nMcp-Session-Id: s1\r\n"), "{head}");
        assert_eq!(first(&mut codec, switch(&head, "Mcp-Session-Id: s1\r\n")), Ok(Some(Event::Open)));
        assert!(codec.is_resumed());
        let (mut codec, head) = begun(true);
        assert_eq!(first(&mut codec, switch(&head, "Mcp-Session-Id: s2\r\n")), Ok(Some(Event::Open)));
        assert!(!codec.is_resumed(), "another session is not ours");
    }

    #[test]
    fn each_refusal_means_what_it_says() {
        let refused = |session, status: &str| {
            let (mut codec, _) = begun(session);
            first(&mut codec, format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").into_bytes())
        };
        assert_eq!(refused(true, "404 Not Found"), Ok(Some(Event::SessionEnded)));
        for status in
            ["404 Not Found", "401 Unauthorized", "403 Forbidden", "426 Upgrade Required", "302 Found"]
        {
            assert!(matches!(refused(false, status), Ok(Some(Event::Denied(_)))), "{status}");
        }
        for status in ["429 Too Many", "503 Service Unavailable", "200 OK"] {
            assert!(matches!(refused(false, status), Ok(Some(Event::Refused(_)))), "{status}");
        }
        let (mut codec, head) = begun(false);
        let wrong = String::from_utf8(switch(&head, "")).unwrap().replace("Accept: ", "Accept: A");
        assert!(first(&mut codec, wrong.into_bytes()).is_err());
        assert!(refused(false, "SSH").is_err());
    }

    #[test]
    fn messages_pass_and_a_close_means_what_its_code_says() {
        let ends = |close: &[u8]| {
            let (mut codec, head) = begun(false);
            assert_eq!(first(&mut codec, switch(&head, "")), Ok(Some(Event::Open)));
            let mut input = [b"\x81\x01x", close].concat();
            let mut out = Vec::new();
            assert_eq!(codec.decode(&mut input, &mut out), Ok(Some(Event::Message(b"x".to_vec()))));
            codec.decode(&mut input, &mut out).unwrap().unwrap()
        };
        assert_eq!(ends(b"\x88\x0f\x03\xf4shutting down"), Event::Restarting("shutting down".into()));
        assert_eq!(ends(b"\x88\x00"), Event::Ended("closed".into()));
        assert_eq!(ends(b"\x88\x06\x03\xf0long"), Event::Refused("long (1008)".into()));
    }
}
