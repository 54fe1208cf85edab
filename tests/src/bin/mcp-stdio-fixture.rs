//! An MCP server on standard input and output whose every word a test can foresee, of both eras: owns its tools and what it has
//! heard. It serves one message after the other, and ends with its input.

use std::io::{BufRead, Write, stdin, stdout};

use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut server = Server::default();
    for line in stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line?).unwrap_or_default();
        server.on_message(&message)?;
    }
    Ok(())
}

#[derive(Default)]
struct Server {
    calls: u64,
    /// The call that waits for the client's answer.
    asking: Option<Value>,
    /// What the client answered to a request that belonged to no call.
    answered: Option<Value>,
    cancelled: Vec<Value>,
    /// Calls that are never answered.
    hanging: u64,
}

impl Server {
    fn on_message(&mut self, message: &Value) -> std::io::Result<()> {
        let id = &message["id"];
        match message["method"].as_str() {
            Some("initialize") => respond(
                id,
                &json!({"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fixture", "version": "1"}}),
            ),
            Some("server/discover") => respond(
                id,
                &json!({"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
                    "serverInfo": {"name": "fixture", "version": "1"}}),
            ),
            Some("tools/list") => respond(id, &json!({"resultType": "complete", "tools": []})),
            Some("tools/call") => self.on_call(id, &message["params"]),
            Some("ping") => respond(id, &json!({})),
            Some("notifications/cancelled") => {
                self.cancelled.push(message["params"]["requestId"].clone());
                Ok(())
            }
            Some(_) if id.is_null() => Ok(()),
            Some(_) => refuse(id, -32601, "no such method"),
            None if *id == json!("ask") => match self.asking.take() {
                Some(call) => respond(&call, &json!({"content": [], "structuredContent": message["result"]})),
                None => Ok(()),
            },
            None => {
                self.answered = Some(message["result"].clone());
                Ok(())
            }
        }
    }

    fn on_call(&mut self, id: &Value, params: &Value) -> std::io::Result<()> {
        self.calls += 1;
        let arguments = &params["arguments"];
        let text = |text: &str| json!({"content": [{"type": "text", "text": text}]});
        match params["name"].as_str().unwrap_or_default() {
            // Who answers: its process, and how many calls that has had.
            "who" => respond(
                id,
                &json!({"content": [], "structuredContent": {"process": std::process::id(), "calls": self.calls}}),
            ),
            "echo" => respond(id, &text(arguments["text"].as_str().unwrap_or_default())),
            "big" => respond(id, &text(&"x".repeat(number(&arguments["bytes"])))),
            // Progress, step by step, then the result.
            "steps" => {
                let token = &params["_meta"]["progressToken"];
                for step in 1..=number(&arguments["count"]) {
                    let params = json!({"progressToken": token, "progress": step});
                    say(&json!({"jsonrpc": "2.0", "method": "notifications/progress", "params": params}))?;
                }
                respond(id, &text("done"))
            }
            // So many notifications of such a size, then the result.
            "flood" => {
                let data = "x".repeat(number(&arguments["bytes"]));
                for number in 0..number(&arguments["count"]) {
                    let params = json!({"level": "info", "logger": number.to_string(), "data": data});
                    say(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": params}))?;
                }
                respond(id, &text("done"))
            }
            // Asks the client before it answers.
            "ask" => {
                self.asking = Some(id.clone());
                say(&json!({"jsonrpc": "2.0", "id": "ask", "method": "roots/list"}))
            }
            // Asks the client when it has answered.
            "later" => {
                respond(id, &text("done"))?;
                say(&json!({"jsonrpc": "2.0", "id": "later", "method": "roots/list"}))
            }
            "hang" => {
                self.hanging += 1;
                Ok(())
            }
            "heard" => {
                let heard =
                    json!({"answered": self.answered, "cancelled": self.cancelled, "hanging": self.hanging});
                respond(id, &json!({"content": [], "structuredContent": heard}))
            }
            _ => refuse(id, -32602, "no such tool"),
        }
    }
}

fn number(value: &Value) -> usize {
    value.as_u64().and_then(|value| usize::try_from(value).ok()).unwrap_or_default()
}

fn respond(id: &Value, result: &Value) -> std::io::Result<()> {
    say(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn refuse(id: &Value, code: i64, message: &str) -> std::io::Result<()> {
    say(&json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}))
}

fn say(message: &Value) -> std::io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{message}")?;
    out.flush()
}
