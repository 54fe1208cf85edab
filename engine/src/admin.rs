//! The admin listener: owns `/metrics`, `/health` and a read-only status page on a thread of its own, away from the shards. It
//! never changes anything, and a scrape costs a shard one copy of its counters.

mod negotiate;
mod timed;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::metrics::{EndpointFacts, Facts, Format, Snapshot, render};
use crate::process::Process;
use crate::runtime::Executor;
use crate::shard::mailbox::Mail;
use crate::shard::table::endpoints::Row;
use timed::Timed;

/// Scrapes at the same time.
const MAX_CONNECTIONS: usize = 8;
/// How long a scraper may take to ask, and again to read all of the answer.
const IO_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a shard may take to answer; a busy one answers within a turn.
const SHARD_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of a scraper's request.
const MAX_REQUEST_BYTES: u64 = 8 << 10;

/// Listens, so that a port that is taken is known before the first shard serves.
///
/// # Errors
/// The system's, with the address.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let failed =
        |error: io::Error| io::Error::new(error.kind(), format!("listening on {address} (admin): {error}"));
    TcpListener::bind(address).map_err(failed)
}

/// Serves in the background for the rest of the process's life; says where.
///
/// # Errors
/// The system's, when it gives no thread.
pub(crate) fn start(
    listener: TcpListener,
    process: Arc<Process>,
    executor: Executor,
) -> io::Result<SocketAddr> {
    let bound = listener.local_addr()?;
    let open = Arc::new(AtomicUsize::new(0));
    std::thread::Builder::new().name("admin".into()).spawn(move || {
        for stream in listener.incoming() {
            let Ok(stream) = stream else {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            };
            if open.fetch_add(1, Ordering::AcqRel) >= MAX_CONNECTIONS {
                open.fetch_sub(1, Ordering::AcqRel);
                continue;
            }
            let (process, open_here) = (process.clone(), open.clone());
            let served = std::thread::Builder::new().name("admin-scrape".into()).spawn(move || {
                if let Err(error) = serve(&process, executor, stream) {
                    tracing::debug!(%error, "a scrape failed");
                }
                open_here.fetch_sub(1, Ordering::AcqRel);
            });
            if let Err(error) = served {
                tracing::warn!(%error, "no thread for a scrape");
                open.fetch_sub(1, Ordering::AcqRel);
            }
        }
    })?;
    Ok(bound)
}

fn serve(process: &Process, executor: Executor, stream: TcpStream) -> io::Result<()> {
    let (line, accept) = read_head(&stream)?;
    let mut words = line.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (status, kind, body) = match (method, path) {
        ("GET", "/metrics") => {
            let format = negotiate::format(&accept);
            ("200 OK", negotiate::content_type(format), metrics(process, executor, format))
        }
        ("GET", "/") => ("200 OK", "application/json", status(process, executor)),
        ("GET", "/health") => health(process),
        ("GET", _) => ("404 Not Found", "text/plain", "/metrics and /health are here\n".to_owned()),
        _ => ("405 Method Not Allowed", "text/plain", "GET only\n".to_owned()),
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nVary: Accept\r\nConnection: close\r\n\r\n",
        body.len()
    );
    let mut answer = Timed::new(&stream, IO_TIMEOUT);
    answer.write_all(head.as_bytes())?;
    answer.write_all(body.as_bytes())
}

/// The request's first line, and what it accepts.
fn read_head(stream: &TcpStream) -> io::Result<(String, String)> {
    let mut request = BufReader::new(Timed::new(stream, IO_TIMEOUT).take(MAX_REQUEST_BYTES));
    let mut line = String::new();
    request.read_line(&mut line)?;
    let (mut field, mut accept) = (String::new(), String::new());
    while request.read_line(&mut field)? > 2 {
        if let Some((_, value)) =
            field.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("accept"))
        {
            accept.push_str(value.trim());
            accept.push(',');
        }
        field.clear();
    }
    Ok((line, accept))
}

fn metrics(process: &Process, executor: Executor, format: Format) -> String {
    let setup = process.setup();
    let servers = setup.server_names();
    let rows = setup.servers.iter().zip(&servers);
    let endpoints: Vec<Vec<EndpointFacts>> = rows
        .map(|(server, (_, texts))| {
            (0..texts.len()).map(|number| endpoint_facts(server.rows.row(number))).collect()
        })
        .collect();
    let facts = Facts {
        servers: &servers,
        processes: setup.processes(),
        certificates: &process.certificates,
        reloads: &process.reloads,
        endpoints: &endpoints,
        uptime: process.start.elapsed(),
        version: env!("CARGO_PKG_VERSION"),
        executor: executor.name(),
    };
    let mut snapshots = snapshots(process);
    // What was in flight when its server was taken off is counted by its name, which is nobody's on the page.
    snapshots.iter_mut().for_each(|snapshot| snapshot.keep_servers(|server| setup.is_there(server.into())));
    render(format, &facts, &snapshots)
}

fn endpoint_facts(row: &Row) -> EndpointFacts {
    EndpointFacts { breaker: row.breaker.state(), health: row.health() }
}

/// The shards' metrics; what a shard has measured since the last scrape begins anew with each.
fn snapshots(process: &Process) -> Vec<Snapshot> {
    let mut snapshots: Vec<_> = ask(process, Mail::Metrics).into_iter().map(|snapshot| *snapshot).collect();
    snapshots.sort_by_key(|snapshot| snapshot.shard());
    snapshots
}

/// Asks every shard; the answer of one that gives none in time is missing, and the log says so.
fn ask<T>(process: &Process, question: impl Fn(SyncSender<T>) -> Mail) -> Vec<T> {
    let count = process.mailboxes.len();
    let (sender, answers) = sync_channel(count);
    let asked =
        process.mailboxes.iter().filter(|mailbox| mailbox.send(question(sender.clone())).is_ok()).count();
    drop(sender);
    let by = Instant::now() + SHARD_TIMEOUT;
    let mut given = Vec::with_capacity(count);
    while given.len() < asked {
        match answers.recv_timeout(by.saturating_duration_since(Instant::now())) {
            Ok(answer) => given.push(answer),
            Err(_) => break,
        }
    }
    if given.len() < count {
        tracing::warn!(
            answered = given.len(),
            shards = count,
            "some shards did not answer the admin listener"
        );
    }
    given
}

/// Whether the process lives, which is whether a shard turns. That of the HTTPS door says the same, but a gateway that has all the
/// connections that it may have takes no further one there, and must not be restarted for it.
fn health(process: &Process) -> (&'static str, &'static str, String) {
    if ask(process, Mail::Alive).is_empty() {
        ("503 Service Unavailable", "text/plain", "no shard answers\n".to_owned())
    } else {
        ("200 OK", "text/plain", "ok\n".to_owned())
    }
}

fn status(process: &Process, executor: Executor) -> String {
    let setup = process.setup();
    let status = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "driver": executor.name(),
        "shards": process.mailboxes.len(),
        "uptime_seconds": process.start.elapsed().as_secs(),
        "connections": process.table.connections(),
        "servers": setup.present().map(|server| &server.settings.name).collect::<Vec<_>>(),
    });
    format!("{status}\n")
}
