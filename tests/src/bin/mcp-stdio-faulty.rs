//! An MCP server on standard input and output (2025-11-25) that does, when asked to, what such servers do wrong: it ends, says
//! what is no message, says too much, starts processes and does not want to go. Its arguments are of no matter.

use std::io::{BufRead, Write, stderr, stdin, stdout};
use std::process::{Command, Stdio, exit};

use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut heard = Vec::new();
    for line in stdin().lock().lines() {
        let message: Value = serde_json::from_str(&line?).unwrap_or_default();
        let id = &message["id"];
        match message["method"].as_str() {
            Some("initialize") => respond(
                id,
                &json!({"protocolVersion": message["params"]["protocolVersion"], "capabilities": {"tools": {}},
                    "serverInfo": {"name": "faulty", "version": "1"}}),
            )?,
            Some("tools/call") => on_call(id, &message["params"], &mut heard)?,
            Some("ping") => respond(id, &json!({}))?,
            Some("resources/subscribe") => respond(id, &json!({}))?,
            Some(_) if id.is_null() => heard.push(message),
            Some(_) => {
                let error = json!({"code": -32601, "message": "no such method"});
                say(&json!({"jsonrpc": "2.0", "id": id, "error": error}))?;
            }
            None => heard.push(message),
        }
    }
    Ok(())
}

fn on_call(id: &Value, params: &Value, heard: &mut Vec<Value>) -> std::io::Result<()> {
    let arguments = &params["arguments"];
    let number =
        |name: &str| arguments[name].as_u64().and_then(|value| usize::try_from(value).ok()).unwrap_or(0);
    match params["name"].as_str().unwrap_or_default() {
        "echo" => respond(id, arguments),
        "pid" => respond(id, &json!(std::process::id())),
        "heard" => respond(id, &json!(heard)),
        "environment" => {
            let variables: serde_json::Map<String, Value> =
                std::env::vars().map(|(name, value)| (name, json!(value))).collect();
            respond(id, &json!({"variables": variables, "cwd": std::env::current_dir()?}))
        }
        // Ends without a word.
        "exit" => exit(3),
        // Answers, and ends at once.
        "last" => {
            respond(id, arguments)?;
            exit(0)
        }
        "hang" => {
            heard.push(json!("hang"));
            Ok(())
        }
        // What is no message, then the answer.
        "garbage" => {
            stdout().write_all(b"Server ready.\n{\"jsonrpc\":\"2.0\"\n\xff\xfe\n\n[]\n42\n{\"id\":1}\n")?;
            respond(id, arguments)
        }
        // The answer to a request that nobody made, then this one's twice.
        "unasked" => {
            respond(&json!("nobody's"), arguments)?;
            respond(id, arguments)?;
            respond(id, arguments)
        }
        // A line of so many bytes, and the answer behind it.
        "long" => {
            stdout().write_all(&vec![b'x'; number("bytes")])?;
            stdout().write_all(b"\n")?;
            respond(id, arguments)
        }
        // So many lines of so many bytes on standard error, then the answer.
        "stderr" => {
            let line = "e".repeat(number("bytes"));
            for at in 0..number("lines") {
                writeln!(stderr(), "{at} {line}")?;
            }
            respond(id, arguments)
        }
        // Starts one process in the own group and one that leaves it; says which.
        "spawn" => {
            let start = |words: [&str; 3]| {
                let mut command = Command::new(words[0]);
                command.args(&words[1..]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                command.spawn().map(|child| child.id())
            };
            let stays = start(["sh", "-c", "sleep 600; :"])?;
            let leaves = start(["setsid", "sleep", "600"])?;
            respond(id, &json!([std::process::id(), stays, leaves]))
        }
        // From here on neither SIGTERM nor the end of its input makes it go.
        "stay" => {
            // SAFETY: to ignore a signal runs no code of this process.
            unsafe { libc::signal(libc::SIGTERM, libc::SIG_IGN) };
            respond(id, &json!(std::process::id()))?;
            loop {
                std::thread::park();
            }
        }
        _ => {
            let error = json!({"code": -32602, "message": "no such tool"});
            say(&json!({"jsonrpc": "2.0", "id": id, "error": error}))
        }
    }
}

fn respond(id: &Value, result: &Value) -> std::io::Result<()> {
    say(&json!({"jsonrpc": "2.0", "id": id, "result": result}))
}

fn say(message: &Value) -> std::io::Result<()> {
    let mut out = stdout().lock();
    writeln!(out, "{message}")?;
    out.flush()
}
