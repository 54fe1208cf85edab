//! Owns two gateways on one store, which stand for two pods of a deployment, and what a client of either may be answered.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Store;
use crate::mcp::{LEGACY, in_session, initialize, post_in_session, request};
use crate::{Connection, Gateway, GatewayConfig, Response};

/// The server's path at both gateways.
pub const PATH: &str = "/mcp/one";

/// Two gateways with the same store and the same upstream, reachable at [`PATH`].
#[derive(Debug)]
pub struct Pods {
    /// The gateways.
    pub gateways: [Gateway; 2],
}

/// What an answer means to a client that does right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// 200 or 202.
    Done,
    /// 404: there is no such session.
    Unknown,
    /// A typed error that says that asking again may help, and when.
    Retryable,
    /// Anything else: what no client may see.
    Wrong(String),
}

impl Pods {
    /// Starts both, each with two shards and what `configure` adds; waits until they are ready, which does not mean that
    /// they reach the store.
    ///
    /// # Panics
    /// When one does not start.
    #[must_use]
    pub fn start(
        store: &dyn Store,
        upstream: &str,
        configure: impl Fn(GatewayConfig) -> GatewayConfig,
    ) -> Self {
        let start =
            || Gateway::start(&configure(GatewayConfig::new().server("one", &[upstream]).store(store)));
        Self { gateways: [start(), start()] }
    }

    /// A connection to each.
    ///
    /// # Panics
    /// When one does not accept it.
    #[must_use]
    pub fn connect(&self) -> [Connection; 2] {
        [0, 1].map(|pod: usize| self.gateways[pod].connect().expect("a connection"))
    }
}

impl Answer {
    /// What a whole answer means.
    #[must_use]
    pub fn of(answer: &Response) -> Self {
        match answer.status {
            200 | 202 => Self::Done,
            404 => Self::Unknown,
            503 => {
                let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let typed = body["error"]["data"]["retryable"] == true && body["error"]["code"].is_i64();
                let when = answer.header("retry-after").and_then(|after| after.parse::<u32>().ok());
                if typed && when.is_some() { Self::Retryable } else { Self::wrong(answer) }
            }
            _ => Self::wrong(answer),
        }
    }

    fn wrong(answer: &Response) -> Self {
        Self::Wrong(format!("{} {:?} {}", answer.status, answer.headers, answer.text()))
    }
}

/// Asks for a session; its id when the answer names one.
///
/// # Errors
/// When the connection fails or the answer is malformed.
pub fn open(connection: &mut Connection) -> std::io::Result<(Answer, Option<String>)> {
    let answer = connection.post(PATH, &[], &initialize(LEGACY))?;
    Ok((Answer::of(&answer), answer.header("mcp-session-id").map(str::to_owned)))
}

/// Sends a `ping` in a session.
///
/// # Errors
/// When the connection fails or the answer is malformed.
pub fn ping(connection: &mut Connection, session: &str) -> std::io::Result<Answer> {
    let message = request(1, "ping", json!({}));
    Ok(Answer::of(&post_in_session(connection, PATH, session, &message)?))
}

/// Ends a session.
///
/// # Errors
/// When the connection fails or the answer is malformed.
pub fn end(connection: &mut Connection, session: &str) -> std::io::Result<Answer> {
    Ok(Answer::of(&connection.request("DELETE", PATH, &in_session(session, LEGACY), b"")?))
}

/// Sends a `ping` in a session until the answer is no retryable error.
///
/// # Panics
/// When the connection fails, or all answers within `limit` were such errors.
pub fn ping_until_answered(connection: &mut Connection, session: &str, limit: Duration) -> Answer {
    let deadline = Instant::now() + limit;
    loop {
        let answer = ping(connection, session).expect("an answer");
        if answer != Answer::Retryable {
            return answer;
        }
        assert!(Instant::now() < deadline, "only retryable errors for {limit:?}");
        // What the answer asks for is a second; a test that waits less sees more.
        std::thread::sleep(Duration::from_millis(20));
    }
}
