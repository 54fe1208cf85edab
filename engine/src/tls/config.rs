//! The process's TLS configuration: owns suites, revisions, ALPN and the ticket keys that all shards share. Never a
//! connection's state.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mcp_config::{TlsFiles, TlsVersion};
use rustls::crypto::CryptoProvider;
use rustls::crypto::aws_lc_rs::{self, Ticketer, cipher_suite};
use rustls::server::NoServerSessionStorage;
use rustls::{ClientConfig, RootCertStore, ServerConfig, SupportedProtocolVersion};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::certificate::{Certificate, CertificateError};
use super::rotating::Rotating;

/// Tickets per full TLS 1.3 handshake: a client that resumes needs one; each costs bytes and an encryption.
const TICKETS_PER_HANDSHAKE: usize = 1;
const TLS13_ONLY: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13];
const TLS12_AND_13: &[&SupportedProtocolVersion] = &[&rustls::version::TLS13, &rustls::version::TLS12];

/// aws-lc-rs with AES-128-GCM first: on CPUs with AES instructions a third more handshakes per core than AES-256 with
/// SHA-384, and no weaker in practice.
pub(crate) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider
        .cipher_suites
        .sort_by_key(|suite| u8::from(suite.suite() != cipher_suite::TLS13_AES_128_GCM_SHA256.suite()));
    provider
}

/// Builds the configuration that all shards share.
///
/// # Errors
/// rustls' own: no ticket key.
pub(crate) fn server(
    certificate: Arc<Rotating>,
    min_version: TlsVersion,
    alpn: &[&[u8]],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let versions = match min_version {
        TlsVersion::V1_2 => TLS12_AND_13,
        TlsVersion::V1_3 => TLS13_ONLY,
    };
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
        .with_protocol_versions(versions)?
        .with_no_client_auth()
        .with_cert_resolver(certificate);
    config.ignore_client_order = true;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    // Stateless tickets under one key for all shards: a client may come back to any of them.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.ticketer = Ticketer::new()?;
    config.send_tls13_tickets = TICKETS_PER_HANDSHAKE;
    Ok(Arc::new(config))
}

/// The same with ALPN left open: whatever a client offers, none is chosen and none refused. Keys are shared.
pub(crate) fn without_alpn(config: &ServerConfig) -> Arc<ServerConfig> {
    let mut config = config.clone();
    config.alpn_protocols.clear();
    Arc::new(config)
}

/// Why others' certificates cannot be verified.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The CA file cannot be read, or is no PEM.
    #[error("{}: {error}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        error: rustls_pki_types::pem::Error,
    },
    /// The CA file holds no certificate.
    #[error("{}: no certificate in it", .0.display())]
    Empty(PathBuf),
    /// The system brings no root certificates.
    #[error("the system has no root certificates; install ca-certificates or set tls.ca_file")]
    NoRoots,
    /// No certificate could prove this name.
    #[error("{0:?} is no host name")]
    Name(String),
    /// The own certificate cannot be read.
    #[error("{0}")]
    Own(String),
    /// The cryptography refuses.
    #[error(transparent)]
    Refused(#[from] rustls::Error),
}

impl From<CertificateError> for TrustError {
    fn from(error: CertificateError) -> Self {
        TrustError::Own(error.to_string())
    }
}

/// What is spoken where both sides are ours.
pub(crate) fn tls13() -> &'static [&'static SupportedProtocolVersion] {
    TLS13_ONLY
}

/// The authorities of a CA file.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn roots(file: &Path) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| TrustError::File { file: file.to_owned(), error })?;
    if roots.add_parsable_certificates(certificates).0 == 0 {
        return Err(TrustError::Empty(file.to_owned()));
    }
    Ok(roots)
}

/// Builds a client's configuration that verifies servers by the CA file, or by the system's roots, and shows a certificate
/// of its own to those that ask for one, where there is one.
///
/// # Errors
/// [`TrustError`].
pub(crate) fn trusting(ca_file: Option<&Path>, own: Option<&TlsFiles>) -> Result<ClientConfig, TrustError> {
    let roots = match ca_file {
        Some(file) => roots(file)?,
        None => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            if roots.add_parsable_certificates(found.certs).0 == 0 {
                return Err(TrustError::NoRoots);
            }
            roots
        }
    };
    let trusting = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    match own {
        None => Ok(trusting.with_no_client_auth()),
        Some(files) => {
            let own = Certificate::from_files(&files.cert_file, &files.key_file)?;
            Ok(trusting.with_client_auth_cert(own.chain, own.key)?)
        }
    }
}
