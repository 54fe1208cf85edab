//! How the store's nodes prove who they are: owns the client configuration for `rediss://`. Never a connection.

use std::path::Path;
use std::sync::Arc;

use futures_rustls::TlsConnector;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use crate::tls::config::{TrustError, provider, trusting};

/// How connections to the store are encrypted.
#[derive(Clone)]
pub struct StoreTls {
    config: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl StoreTls {
    /// Nodes must prove `server_name`, or the host by which each is reached where it is `None`, by a certificate that the
    /// CA file vouches for, or the system's roots where there is none. With `skip_verify` nobody proves anything: whoever
    /// stands between reads and changes every session.
    ///
    /// # Errors
    /// The file cannot be used, or the name is none.
    pub fn new(
        ca_file: Option<&Path>,
        skip_verify: bool,
        server_name: Option<&str>,
    ) -> Result<Self, TrustError> {
        let config = if skip_verify { trusting_anybody()? } else { trusting(ca_file, None)? };
        let name = match server_name {
            None => None,
            Some(name) => {
                let parsed = ServerName::try_from(name.to_owned());
                Some(parsed.map_err(|_| TrustError::Name(name.to_owned()))?)
            }
        };
        Ok(StoreTls { config: Arc::new(config), name })
    }

    /// What a connection to `host` is encrypted with; `None` where `host` is no name that a certificate could prove.
    pub(crate) fn connector(&self, host: &str) -> Option<(TlsConnector, ServerName<'static>)> {
        let name = match &self.name {
            Some(name) => name.clone(),
            None => ServerName::try_from(host.to_owned()).ok()?,
        };
        Some((TlsConnector::from(self.config.clone()), name))
    }
}

fn trusting_anybody() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(provider());
    let config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody(provider)))
        .with_no_client_auth();
    Ok(config)
}

/// Takes every certificate; the handshake's own signatures are still checked.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
