//! A scripted MCP server over plain HTTP: one request per connection, each recorded and answered by the test's script.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::Value;

use crate::gateway::eventually;

#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) verb: String,
    /// By name in lower case.
    pub(crate) headers: HashMap<String, String>,
    pub(crate) body: Value,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

pub(crate) struct Server {
    pub(crate) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
}

/// What the script answers through.
pub(crate) struct Answer<'a> {
    stream: &'a mut TcpStream,
    server: &'a Arc<Mutex<Vec<Seen>>>,
}

impl Answer<'_> {
    pub(crate) fn status(&mut self, line: &str) {
        self.write(&format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
    }

    pub(crate) fn json(&mut self, fields: &str, body: &Value) {
        let body = body.to_string();
        let length = body.len();
        self.write(&format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n{fields}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        ));
    }

    /// An event stream that ends with the connection.
    pub(crate) fn begin_events(&mut self) {
        self.write("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n");
    }

    pub(crate) fn event(&mut self, message: &Value) {
        self.write(&format!("data: {message}\n\n"));
    }

    /// Lines of the stream as they are.
    pub(crate) fn lines(&mut self, lines: &str) {
        self.write(lines);
    }

    /// Waits until a request is recorded that fits.
    pub(crate) fn wait_for(&self, what: &str, fits: impl Fn(&Seen) -> bool) {
        eventually(what, || self.server.lock().unwrap().iter().any(&fits));
    }

    /// Waits until the other side has closed.
    pub(crate) fn wait_for_end(&mut self) {
        // A reset is an end, too.
        let _ = self.stream.read(&mut [0]);
    }

    fn write(&mut self, text: &str) {
        // A gateway that has gone is what some tests are about.
        let _ = self.stream.write_all(text.as_bytes());
    }
}

impl Server {
    /// Serves until the test's process ends.
    pub(crate) fn start(script: impl Fn(&Seen, &mut Answer<'_>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (script, record) = (Arc::new(script), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (Ok(mut stream), script, record) = (stream, script.clone(), record.clone()) else {
                    return;
                };
                std::thread::spawn(move || {
                    let Some(seen) = read(&mut stream) else { return };
                    record.lock().unwrap().push(seen.clone());
                    script(&seen, &mut Answer { stream: &mut stream, server: &record });
                });
            }
        });
        Server { url, seen }
    }

    /// All requests with this verb of HTTP so far.
    pub(crate) fn seen_verb(&self, verb: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.verb == verb).cloned().collect()
    }

    /// All requests of a JSON-RPC method so far.
    pub(crate) fn seen(&self, method: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.body["method"] == method).cloned().collect()
    }
}

fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&read| read > 0)?;
    let verb = line.split(' ').next()?.to_owned();
    let mut headers = HashMap::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = serde_json::from_slice(&body).unwrap_or_default();
    Some(Seen { verb, headers, body })
}
