//! Owns a name server on 127.0.0.1 that answers over UDP what its test sets, and changes when that does. It knows A, AAAA and
//! SRV records (RFC 1035, RFC 2782), and nothing of zones: what is not set does not exist.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

const A: u16 = 1;
const AAAA: u16 = 28;
const SRV: u16 = 33;

/// A record's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// An address.
    Address(IpAddr),
    /// A service: priority, port and target.
    Service(u16, u16, String),
}

/// A name server; dropped, it answers no more.
#[derive(Debug)]
pub struct NameServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// By lower-case name: time to live in seconds, and content.
    records: Mutex<HashMap<String, (u32, Vec<Data>)>>,
    questions: AtomicUsize,
    silent: AtomicBool,
    stopped: AtomicBool,
}

impl NameServer {
    /// Starts a name server that knows nothing yet.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let addr = socket.local_addr().expect("bound");
        let shared = Arc::new(Shared::default());
        let held = shared.clone();
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                if held.stopped.load(Ordering::SeqCst) {
                    return;
                }
                held.questions.fetch_add(1, Ordering::SeqCst);
                let answer = held.answer(&question[..length]);
                if let Some(answer) = answer.filter(|_| !held.silent.load(Ordering::SeqCst)) {
                    // Whoever asked may be gone.
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Self { addr, shared }
    }

    /// Where it answers.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// From now on a name stands for this.
    pub fn set(&self, name: &str, ttl_s: u32, data: &[Data]) {
        let mut records = self.shared.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(name.to_ascii_lowercase(), (ttl_s, data.to_vec()));
    }

    /// From now on it answers nothing, or answers again.
    pub fn set_silent(&self, silent: bool) {
        self.shared.silent.store(silent, Ordering::SeqCst);
    }

    /// Questions so far.
    #[must_use]
    pub fn questions(&self) -> usize {
        self.shared.questions.load(Ordering::SeqCst)
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread so that it sees that it is over; if that fails, it has ended already.
        let _ = UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.send_to(b"", self.addr));
    }
}

impl Shared {
    /// The answer to a message with one question; `None` for anything else.
    fn answer(&self, message: &[u8]) -> Option<Vec<u8>> {
        let (name, after) = read_name(message, 12)?;
        let kind = u16::from_be_bytes(message.get(after..after + 2)?.try_into().ok()?);
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let known = records.get(&name.to_ascii_lowercase());
        let mut answers = Vec::new();
        let mut count = 0u16;
        for (ttl, data) in known.iter().flat_map(|(ttl, data)| data.iter().map(move |data| (*ttl, data))) {
            let (of_kind, content) = match data {
                Data::Address(IpAddr::V4(address)) => (A, address.octets().to_vec()),
                Data::Address(IpAddr::V6(address)) => (AAAA, address.octets().to_vec()),
                Data::Service(priority, port, target) => {
                    let mut content = [priority.to_be_bytes(), [0, 1], port.to_be_bytes()].concat();
                    write_name(&mut content, target);
                    (SRV, content)
                }
            };
            if of_kind == kind {
                // The name is the question's, which stands at offset 12 (RFC 1035, 4.1.4).
                answers.extend_from_slice(&[0xc0, 12]);
                answers.extend_from_slice(&kind.to_be_bytes());
                answers.extend_from_slice(&[0, 1]);
                answers.extend_from_slice(&ttl.to_be_bytes());
                answers.extend_from_slice(&(content.len() as u16).to_be_bytes());
                answers.extend_from_slice(&content);
                count += 1;
            }
        }
        let mut answer = message.get(..2)?.to_vec();
        // A response, authoritative, recursion desired and available; 3 is "no such name".
        answer.extend_from_slice(&[0x85, if known.is_some() { 0x80 } else { 0x83 }, 0, 1]);
        answer.extend_from_slice(&count.to_be_bytes());
        answer.extend_from_slice(&[0, 0, 0, 0]);
        answer.extend_from_slice(message.get(12..after + 4)?);
        answer.extend_from_slice(&answers);
        Some(answer)
    }
}

/// The name at an offset, without its final dot, and where it ends.
fn read_name(message: &[u8], mut at: usize) -> Option<(String, usize)> {
    let mut labels = Vec::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((labels.join("."), at));
        }
        labels.push(String::from_utf8(message.get(at..at + length)?.to_vec()).ok()?);
        at += length;
    }
}

fn write_name(out: &mut Vec<u8>, name: &str) {
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
}
