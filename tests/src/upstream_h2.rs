//! Owns MCP servers that speak HTTP/2 without TLS, on the `h2` crate's server: each request is answered by its test's script.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;

use bytes::Bytes;
use h2::Reason;
use h2::server::{Connection, SendResponse};
use http::{HeaderMap, Request, Response};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct H2Request {
    /// How many connections came before its own.
    pub connection: usize,
    /// How many requests came before it on its connection.
    pub number: usize,
    /// Method and URI.
    pub line: String,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Vec<u8>,
}

impl H2Request {
    /// The JSON-RPC message.
    ///
    /// # Panics
    /// When the body is no JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a message")
    }
}

/// What becomes of a request.
#[derive(Debug, Clone)]
pub enum H2Answer {
    /// A JSON body.
    Json(Value),
    /// These pieces as a body of this type.
    Pieces(&'static str, Vec<Vec<u8>>),
    /// The stream is reset for this reason.
    Reset(Reason),
    /// The connection says goodbye and takes nothing after this request, which is answered.
    LastOne(Value),
    /// The connection ends at once.
    Drop,
}

/// A server on 127.0.0.1; dropped, it ends with its connections.
#[derive(Debug)]
pub struct H2Upstream {
    addr: SocketAddr,
    connections: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl H2Upstream {
    /// Starts a server that allows `streams` requests of a connection at a time. It answers the gateway's own questions as a
    /// modern server without tools does, and leaves the rest to `script`.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn modern(streams: u32, script: impl Fn(&H2Request) -> H2Answer + Send + Sync + 'static) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let (stop, stopped) = oneshot::channel();
        let script: Script = Arc::new(script);
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                let accepting = async {
                    while let Ok((stream, _)) = listener.accept().await {
                        let number = counted.fetch_add(1, Ordering::SeqCst);
                        tokio::spawn(serve(stream, number, streams, script.clone()));
                    }
                };
                tokio::pin!(accepting);
                let mut stopped = stopped;
                std::future::poll_fn(|cx| {
                    use std::future::Future;
                    if std::pin::Pin::new(&mut stopped).poll(cx).is_ready() {
                        return std::task::Poll::Ready(());
                    }
                    accepting.as_mut().poll(cx)
                })
                .await;
            });
        });
        Self { addr, connections, stop: Some(stop), thread: Some(thread) }
    }

    /// Its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.addr)
    }

    /// Connections so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for H2Upstream {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A script's panic is its test's failure already.
            let _ = thread.join();
        }
    }
}

type Script = Arc<dyn Fn(&H2Request) -> H2Answer + Send + Sync>;

async fn serve(stream: TcpStream, connection: usize, streams: u32, script: Script) {
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(streams);
    let Ok(mut serving) = builder.handshake::<_, Bytes>(stream).await else { return };
    let mut number = 0;
    while let Some(Ok((request, respond))) = serving.accept().await {
        let request = read(&mut serving, request, connection, number).await;
        number += 1;
        let Some(request) = request else { continue };
        let answer = own_answer(&request).unwrap_or_else(|| script(&request));
        match answer {
            H2Answer::Drop => return,
            H2Answer::LastOne(value) => {
                send(respond, "application/json", vec![value.to_string().into_bytes()]);
                serving.graceful_shutdown();
            }
            H2Answer::Json(value) => send(respond, "application/json", vec![value.to_string().into_bytes()]),
            H2Answer::Pieces(kind, pieces) => send(respond, kind, pieces),
            H2Answer::Reset(reason) => {
                let mut respond = respond;
                respond.send_reset(reason);
            }
        }
    }
}

/// Reads a request whole while the connection goes on.
async fn read(
    serving: &mut Connection<TcpStream, Bytes>,
    request: Request<h2::RecvStream>,
    connection: usize,
    number: usize,
) -> Option<H2Request> {
    let (parts, mut stream) = request.into_parts();
    let mut body = Vec::new();
    loop {
        let data = std::future::poll_fn(|cx| {
            // What comes for others waits in h2.
            let _ = serving.poll_closed(cx);
            stream.poll_data(cx)
        })
        .await;
        let Some(data) = data else { break };
        let data = data.ok()?;
        let _ = stream.flow_control().release_capacity(data.len());
        body.extend_from_slice(&data);
    }
    let line = format!("{} {}", parts.method, parts.uri);
    Some(H2Request { connection, number, line, headers: parts.headers, body })
}

fn send(mut respond: SendResponse<Bytes>, kind: &str, pieces: Vec<Vec<u8>>) {
    let head = Response::builder().header("content-type", kind).body(()).expect("a head");
    // The gateway may be gone, or have given the stream up.
    let Ok(mut stream) = respond.send_response(head, false) else { return };
    let count = pieces.len();
    for (number, piece) in pieces.into_iter().enumerate() {
        let _ = stream.send_data(piece.into(), number + 1 == count);
    }
}

/// What a modern server answers to the gateway's own questions.
fn own_answer(request: &H2Request) -> Option<H2Answer> {
    let message = request.json();
    let result = match message["method"].as_str()? {
        "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}),
        "tools/list" => json!({"tools": []}),
        _ => return None,
    };
    Some(H2Answer::Json(json!({"jsonrpc": "2.0", "id": message["id"], "result": result})))
}
