//! TLS for clients by rustls' unbuffered API: a connection owns its keys and nothing else.
//!
//! Records are decrypted in the thread's scratch space; no socket is touched here. Sessions are not resumed unless a run
//! asks for it (`tickets`), so that every connection costs the server a full handshake.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConnectionData, Resumption, UnbufferedClientConnection};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus, WriteTraffic};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, HandshakeKind, RootCertStore, SignatureScheme,
};

use super::Protocol;

/// Plaintext of one record at most (RFC 8446, 5.1).
const MAX_FRAGMENT_BYTES: usize = 16 * 1024;
/// Room for a record's header, nonce, tag and content type; more than any suite needs.
const RECORD_OVERHEAD_BYTES: usize = 64;

/// Which server certificates are accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// Any.
    Anything,
    /// Those that lead to a certificate in this PEM file.
    File(PathBuf),
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read or holds no certificate.
    #[error("{path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refuses the configuration.
    #[error("TLS: {0}")]
    Config(#[from] Error),
    /// The host is neither a name nor an address.
    #[error("the host cannot stand in a certificate: {0}")]
    Host(#[from] InvalidDnsNameError),
}

/// The client's configuration for all connections that speak `protocol`.
///
/// # Errors
/// [`TrustError`].
pub fn client_config(trust: &Trust, protocol: Protocol) -> Result<Arc<ClientConfig>, TrustError> {
    let mut provider = aws_lc_rs::default_provider();
    // Offered first, as by browsers and Go: a server that takes the client's first suite then works as much as one that
    // has this order itself.
    provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
    let provider = Arc::new(provider);
    let builder =
        ClientConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let mut config = match trust {
        Trust::Anything => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AcceptAnything(provider)))
            .with_no_client_auth(),
        Trust::File(path) => builder.with_root_certificates(read_roots(path)?).with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = vec![protocol.alpn().to_vec()];
    Ok(Arc::new(config))
}

fn read_roots(path: &PathBuf) -> Result<RootCertStore, TrustError> {
    let failed = |reason: String| TrustError::File { path: path.clone(), reason };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(path).map_err(|e| failed(e.to_string()))? {
        let certificate = certificate.map_err(|e| failed(e.to_string()))?;
        roots.add(certificate).map_err(|e| failed(e.to_string()))?;
    }
    if roots.is_empty() { Err(failed("no certificate in it".to_owned())) } else { Ok(roots) }
}

/// One connection's TLS.
pub(super) struct Tls {
    connection: UnbufferedClientConnection,
    ready: bool,
    peer_closed: bool,
}

impl Tls {
    pub(super) fn try_new(config: Arc<ClientConfig>, name: ServerName<'static>) -> Result<Self, Error> {
        let connection = UnbufferedClientConnection::new(config, name)?;
        Ok(Self { connection, ready: false, peer_closed: false })
    }

    /// The handshake is done.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the handshake was a full one; `None` until it is known.
    pub(super) fn handshake_kind(&self) -> Option<HandshakeKind> {
        self.connection.handshake_kind()
    }

    /// The peer said that it sends no more.
    pub(super) fn is_peer_closed(&self) -> bool {
        self.peer_closed
    }

    /// Takes received records, appends plaintext to `plain` and what must be sent to `out`. Returns how many bytes of
    /// `input` are done with; the rest must come again, in front of what follows.
    pub(super) fn handle_input(
        &mut self,
        input: &mut [u8],
        plain: &mut Vec<u8>,
        out: &mut Vec<u8>,
    ) -> Result<usize, Error> {
        let mut used = 0;
        loop {
            let UnbufferedStatus { mut discard, state, .. } =
                self.connection.process_tls_records(&mut input[used..]);
            let mut settled = false;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        discard += record.discard;
                        plain.extend_from_slice(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => grow(out, 0, |room| match data.encode(room) {
                    Ok(n) => Ok(n),
                    Err(EncodeError::InsufficientSize(e)) => Err(Some(e.required_size)),
                    Err(EncodeError::AlreadyEncoded) => Err(None),
                })?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::WriteTraffic(_) => {
                    self.ready = true;
                    settled = true;
                }
                ConnectionState::PeerClosed | ConnectionState::Closed => {
                    self.peer_closed = true;
                    settled = true;
                }
                _ => settled = true,
            }
            used += discard;
            if settled {
                return Ok(used);
            }
        }
    }

    /// Encrypts `plain` and appends the records to `out`. The handshake must be done. `held` is what
    /// [`Self::handle_input`] left over: rustls wants to see it again at every step.
    pub(super) fn seal(&mut self, plain: &[u8], held: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), Error> {
        let records = plain.len() / MAX_FRAGMENT_BYTES + 1;
        let estimate = plain.len() + records * RECORD_OVERHEAD_BYTES;
        self.write(held, out, estimate, |traffic, room| traffic.encrypt(plain, room))
    }

    /// Appends the alert that says that no more will be sent. The handshake must be done; `held` is as for
    /// [`Self::seal`].
    pub(super) fn close(&mut self, held: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<(), Error> {
        self.write(held, out, RECORD_OVERHEAD_BYTES, |traffic, room| traffic.queue_close_notify(room))
    }

    /// Lets `fill` write one thing, in room of `estimate` bytes first.
    fn write(
        &mut self,
        held: &mut Vec<u8>,
        out: &mut Vec<u8>,
        estimate: usize,
        fill: impl Fn(&mut WriteTraffic<'_, ClientConnectionData>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> Result<(), Error> {
        loop {
            let UnbufferedStatus { discard, state, .. } = self.connection.process_tls_records(held);
            let mut sealed = false;
            match state? {
                ConnectionState::WriteTraffic(mut traffic) => {
                    sealed = true;
                    grow(out, estimate, |room| match fill(&mut traffic, room) {
                        Ok(n) => Ok(n),
                        Err(EncryptError::InsufficientSize(e)) => Err(Some(e.required_size)),
                        Err(EncryptError::EncryptExhausted) => Err(None),
                    })?;
                }
                ConnectionState::EncodeTlsData(mut data) => grow(out, 0, |room| match data.encode(room) {
                    Ok(n) => Ok(n),
                    Err(EncodeError::InsufficientSize(e)) => Err(Some(e.required_size)),
                    Err(EncodeError::AlreadyEncoded) => Err(None),
                })?,
                ConnectionState::TransmitTlsData(data) => data.done(),
                _ => return Err(Error::HandshakeNotComplete),
            }
            if discard > 0 {
                held.drain(..discard);
            }
            if sealed {
                return Ok(());
            }
        }
    }
}

/// Lets `fill` write `estimate` bytes behind the end of `out`; where it asks for more (`Err(Some(bytes))`) it gets it.
fn grow(
    out: &mut Vec<u8>,
    estimate: usize,
    mut fill: impl FnMut(&mut [u8]) -> Result<usize, Option<usize>>,
) -> Result<(), Error> {
    let at = out.len();
    let exhausted = || Error::General("nothing more can be encrypted".to_owned());
    out.resize(at + estimate, 0);
    let written = match fill(&mut out[at..]) {
        Ok(n) => n,
        Err(None) => return Err(exhausted()),
        Err(Some(needed)) => {
            out.resize(at + needed, 0);
            fill(&mut out[at..]).map_err(|_| exhausted())?
        }
    };
    out.truncate(at + written);
    Ok(())
}

/// `--insecure`: the certificate proves nothing, but the handshake's signature is still checked.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
