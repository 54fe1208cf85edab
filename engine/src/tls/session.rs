//! One connection's TLS session on rustls' unbuffered API: owns the state machine's loop. Ciphertext is decrypted in
//! the caller's scratch, so that an idle session owns no buffer.

use std::sync::Arc;

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    AppDataRecord, ConnectionState, EncodeError, EncodeTlsData, EncryptError, InsufficientSizeError,
    UnbufferedStatus, WriteTraffic,
};
use rustls::{HandshakeKind, ServerConfig};

/// Most bytes that encrypting adds to a record: header 5, content type 1, tag 16, TLS 1.2's explicit nonce 8.
const RECORD_OVERHEAD: usize = 32;
/// Plaintext per record (RFC 8446, section 5.1).
const RECORD_PLAINTEXT: usize = 16 << 10;

pub(crate) struct Session {
    connection: UnbufferedServerConnection,
}

/// What a piece of ciphertext came to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Bytes at the front that are done with; the rest must be presented again with what follows.
    pub(crate) consumed: usize,
    /// The peer closed its side with close_notify.
    pub(crate) closed: bool,
}

/// The session cannot go on; what is in `out` (an alert) may still be sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct TlsError(rustls::Error);

impl Session {
    pub(crate) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Session { connection: UnbufferedServerConnection::new(config).map_err(TlsError)? })
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// The protocol that the handshake agreed on, if any (ALPN).
    pub(crate) fn alpn(&self) -> Option<&[u8]> {
        self.connection.alpn_protocol()
    }

    /// Whether the finished handshake resumed an earlier session.
    pub(crate) fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// Takes ciphertext: plaintext is appended to `plain`, what must be sent to `out`.
    ///
    /// # Errors
    /// [`TlsError`]; the alert for the peer is in `out`.
    pub(crate) fn handle_ciphertext(
        &mut self,
        incoming: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<Progress, TlsError> {
        let mut progress = Progress::default();
        loop {
            let UnbufferedStatus { mut discard, state } =
                self.connection.process_tls_records(&mut incoming[progress.consumed..]);
            let more = match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let AppDataRecord { discard: done, payload, .. } = record.map_err(TlsError)?;
                        discard += done;
                        plain.extend_from_slice(payload);
                    }
                    true
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut data, out);
                    true
                }
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    true
                }
                Ok(ConnectionState::PeerClosed) => {
                    progress.closed = true;
                    true
                }
                Ok(ConnectionState::Closed) => {
                    progress.closed = true;
                    false
                }
                Ok(ConnectionState::ReadEarlyData(mut early)) => {
                    // 0-RTT is never offered; rustls asks for the state to be handled all the same.
                    while let Some(record) = early.next_record() {
                        discard += record.map_err(TlsError)?.discard;
                    }
                    true
                }
                Ok(_) => false,
                Err(error) => {
                    self.collect_alert(&mut incoming[progress.consumed..], out);
                    return Err(TlsError(error));
                }
            };
            progress.consumed += discard;
            if !more {
                return Ok(progress);
            }
        }
    }

    /// Encrypts `plain` onto `out`. `pending` is the ciphertext that is not yet complete (see [`Progress::consumed`]).
    ///
    /// # Errors
    /// [`TlsError`] when the session is not (or no longer) able to send.
    pub(crate) fn encrypt(
        &mut self,
        plain: &[u8],
        pending: &mut [u8],
        out: &mut Vec<u8>,
    ) -> Result<(), TlsError> {
        let reserve = plain.len() + (plain.len() / RECORD_PLAINTEXT + 1) * RECORD_OVERHEAD;
        self.when_writable(pending, |traffic| {
            append(out, reserve, |room| traffic.encrypt(plain, room).map_err(room_to_encrypt))
        })
    }

    /// Appends close_notify to `out`; nothing where the session cannot send it.
    pub(crate) fn close(&mut self, pending: &mut [u8], out: &mut Vec<u8>) {
        let closed = self.when_writable(pending, |traffic| {
            append(out, RECORD_OVERHEAD, |room| traffic.queue_close_notify(room).map_err(room_to_encrypt))
        });
        if let Err(error) = closed {
            tracing::trace!(%error, "no close_notify");
        }
    }

    fn when_writable(
        &mut self,
        pending: &mut [u8],
        write: impl FnOnce(&mut WriteTraffic<'_, ServerConnectionData>) -> bool,
    ) -> Result<(), TlsError> {
        let status = self.connection.process_tls_records(pending);
        match status.state {
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                if write(&mut traffic) {
                    Ok(())
                } else {
                    Err(TlsError(rustls::Error::EncryptError))
                }
            }
            Ok(_) => Err(TlsError(rustls::Error::HandshakeNotComplete)),
            Err(error) => Err(TlsError(error)),
        }
    }

    /// After an error, what rustls wants to say about it. `pending` must be what the failed call saw: rustls remembers how
    /// far into it a handshake message reached.
    fn collect_alert(&mut self, pending: &mut [u8], out: &mut Vec<u8>) {
        while let Ok(ConnectionState::EncodeTlsData(mut data)) =
            self.connection.process_tls_records(pending).state
        {
            let encoded = encode(&mut data, out);
            if !encoded {
                return;
            }
        }
    }
}

/// Appends a handshake record; `false` when rustls has none after all.
fn encode(data: &mut EncodeTlsData<'_, ServerConnectionData>, out: &mut Vec<u8>) -> bool {
    append(out, 0, |room| {
        data.encode(room).map_err(|error| match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size, .. }) => Some(required_size),
            EncodeError::AlreadyEncoded => None,
        })
    })
}

/// How much room encrypting would have needed; `None` when no room helps.
fn room_to_encrypt(error: EncryptError) -> Option<usize> {
    match error {
        EncryptError::InsufficientSize(InsufficientSizeError { required_size, .. }) => Some(required_size),
        EncryptError::EncryptExhausted => None,
    }
}

/// Lets `fill` write behind the end of `out`, with `reserve` bytes of room at first and as many as it asks for then.
fn append(
    out: &mut Vec<u8>,
    reserve: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> bool {
    let start = out.len();
    let mut room = reserve;
    loop {
        out.resize(start + room, 0);
        match fill(&mut out[start..]) {
            Ok(written) => {
                out.truncate(start + written);
                return true;
            }
            Err(Some(required)) if required > room => room = required,
            Err(_) => {
                out.truncate(start);
                return false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use mcp_config::TlsVersion;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::super::config;
    use super::super::rotating::Rotating;
    use super::*;

    fn client(
        certificate: &Rotating,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate.leaf()).unwrap();
        Arc::new(
            ClientConfig::builder_with_provider(Arc::new(config::provider()))
                .with_protocol_versions(versions)
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth(),
        )
    }

    /// Carries ciphertext both ways in pieces of `step` bytes until nothing moves; returns the server's plaintext.
    fn carry(client: &mut ClientConnection, server: &mut Session, step: usize) -> Vec<u8> {
        let (mut plain, mut pending) = (Vec::new(), Vec::new());
        loop {
            let mut wire = Vec::new();
            while client.wants_write() {
                client.write_tls(&mut wire).unwrap();
            }
            if wire.is_empty() {
                return plain;
            }
            let mut out = Vec::new();
            for piece in wire.chunks(step) {
                pending.extend_from_slice(piece);
                let progress = server.handle_ciphertext(&mut pending, &mut plain, &mut out).unwrap();
                pending.drain(..progress.consumed);
            }
            let mut answer = &out[..];
            while !answer.is_empty() {
                client.read_tls(&mut answer).unwrap();
                client.process_new_packets().unwrap();
            }
        }
    }

    #[test]
    fn handshake_data_resumption_and_close_at_any_split() {
        for (min, versions) in [
            (TlsVersion::V1_3, &[&rustls::version::TLS13][..]),
            (TlsVersion::V1_2, &[&rustls::version::TLS12][..]),
        ] {
            let certificate = Rotating::new("server", None).unwrap();
            let client_config = client(&certificate, versions);
            let server_config = config::server(certificate, min, &[b"http/1.1"]).unwrap();
            for (round, step) in [1, 7, 1_000, 1 << 20].into_iter().enumerate() {
                let mut server = Session::new(server_config.clone()).unwrap();
                let mut peer =
                    ClientConnection::new(client_config.clone(), "localhost".try_into().unwrap()).unwrap();
                carry(&mut peer, &mut server, step);
                assert!(!server.is_handshaking() && !peer.is_handshaking());
                assert_eq!(server.is_resumed(), round > 0, "every shard shares the ticket key");

                let sent = vec![b'x'; 40_000];
                peer.writer().write_all(&sent).unwrap();
                assert_eq!(carry(&mut peer, &mut server, step), sent);

                let mut out = Vec::new();
                server.encrypt(&sent, &mut [], &mut out).unwrap();
                server.close(&mut [], &mut out);
                let mut wire = &out[..];
                let mut received = Vec::new();
                while !wire.is_empty() {
                    peer.read_tls(&mut wire).unwrap();
                    peer.process_new_packets().unwrap();
                    // An error only says that there is no more for now.
                    let _ = peer.reader().read_to_end(&mut received);
                }
                assert_eq!(received, sent);
            }
        }
    }

    #[test]
    fn a_client_without_a_shared_revision_gets_an_alert() {
        let certificate = Rotating::new("server", None).unwrap();
        let client_config = client(&certificate, &[&rustls::version::TLS12]);
        let server_config = config::server(certificate, TlsVersion::V1_3, &[]).unwrap();
        let mut server = Session::new(server_config).unwrap();
        let mut hello = Vec::new();
        let mut peer = ClientConnection::new(client_config, "localhost".try_into().unwrap()).unwrap();
        peer.write_tls(&mut hello).unwrap();
        let mut out = Vec::new();
        assert!(server.handle_ciphertext(&mut hello, &mut Vec::new(), &mut out).is_err());
        assert_eq!(out.first(), Some(&21), "an alert record");
    }

    /// A panic in a shard ends the process, so no bytes of a stranger may cause one: whole client flights, damaged in
    /// every position, in one piece and in two.
    #[test]
    fn a_damaged_flight_never_panics() {
        let certificate = Rotating::new("server", None).unwrap();
        let client_config = client(&certificate, &[&rustls::version::TLS13, &rustls::version::TLS12]);
        let server_config = config::server(certificate, TlsVersion::V1_2, &[b"http/1.1"]).unwrap();
        let mut hello = Vec::new();
        let mut peer = ClientConnection::new(client_config, "localhost".try_into().unwrap()).unwrap();
        peer.write_tls(&mut hello).unwrap();
        for position in 0..hello.len() {
            for (flip, split) in [(0xff, hello.len()), (0x01, position), (0x80, position / 2)] {
                let mut damaged = hello.clone();
                damaged[position] ^= flip;
                let mut server = Session::new(server_config.clone()).unwrap();
                let (mut pending, mut out) = (Vec::new(), Vec::new());
                let (first, second) = damaged.split_at(split);
                for piece in [first, second, b"\x17\x03\x03\x00\x01x"] {
                    pending.extend_from_slice(piece);
                    match server.handle_ciphertext(&mut pending, &mut Vec::new(), &mut out) {
                        Ok(progress) => drop(pending.drain(..progress.consumed)),
                        Err(_) => break,
                    }
                    // Nothing can be sent before the handshake is done, and asking must do no harm.
                    assert!(server.encrypt(b"early", &mut pending, &mut out).is_err());
                }
            }
        }
    }
}
