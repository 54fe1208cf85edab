//! The gateway's certificate: owns reading it from files, making a self-signed one, and the names it vouches for. Never
//! a verification of somebody else's.

use std::path::Path;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// A chain, its key, and the DNS names of its leaf.
pub(crate) struct Certificate {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) names: Vec<String>,
}

/// Why there is no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error("{what} {path}: {cause}")]
    File { what: &'static str, path: String, cause: String },
    #[error("{path} holds no certificate")]
    Empty { path: String },
    #[error("a self-signed certificate could not be made: {0}")]
    SelfSigned(String),
    #[error("a certificate that cannot be read: {0}")]
    Unreadable(String),
    #[error("{path} has expired")]
    Expired { path: String },
    #[error(transparent)]
    Refused(#[from] rustls::Error),
}

impl Certificate {
    /// Reads a PEM chain (leaf first) and a PEM key.
    pub(crate) fn from_files(cert_file: &Path, key_file: &Path) -> Result<Self, CertificateError> {
        let failed = |what, path: &Path, cause: String| CertificateError::File {
            what,
            path: path.display().to_string(),
            cause,
        };
        let chain = CertificateDer::pem_file_iter(cert_file)
            .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
            .map_err(|cause| failed("reading the certificate", cert_file, cause.to_string()))?;
        if chain.is_empty() {
            return Err(CertificateError::Empty { path: cert_file.display().to_string() });
        }
        let key = PrivateKeyDer::from_pem_file(key_file)
            .map_err(|cause| failed("reading the key", key_file, cause.to_string()))?;
        let names = dns_names(&chain[0]);
        Ok(Certificate { chain, key, names })
    }

    /// When it ends, in seconds since 1970.
    pub(crate) fn ends_unix_s(&self) -> Result<i64, CertificateError> {
        let Some(leaf) = self.chain.first() else {
            return Err(CertificateError::Unreadable("there is none".to_owned()));
        };
        match x509_parser::parse_x509_certificate(leaf) {
            Ok((_, leaf)) => Ok(leaf.validity().not_after.timestamp()),
            Err(error) => Err(CertificateError::Unreadable(error.to_string())),
        }
    }

    /// Makes a P-256 certificate for the loopback names, for a laptop.
    pub(crate) fn self_signed() -> Result<Self, CertificateError> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names)
            .map_err(|cause| CertificateError::SelfSigned(cause.to_string()))?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        Ok(Certificate {
            chain: vec![made.cert.der().clone()],
            key: PrivateKeyDer::Pkcs8(key),
            names: vec!["localhost".to_owned()],
        })
    }
}

/// The DNS names that the leaf vouches for, in lower case; they are what a `Host` may say.
fn dns_names(leaf: &CertificateDer<'_>) -> Vec<String> {
    match webpki::EndEntityCert::try_from(leaf) {
        Ok(leaf) => leaf.valid_dns_names().map(str::to_ascii_lowercase).collect(),
        Err(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_from_files_knows_its_names() {
        let names = vec!["MCP.example.com".to_owned(), "*.example.org".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let folder = std::env::temp_dir().join(format!("mcp-certificate-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (cert_file, key_file) = (folder.join("tls.crt"), folder.join("tls.key"));
        std::fs::write(&cert_file, made.cert.pem()).unwrap();
        std::fs::write(&key_file, made.signing_key.serialize_pem()).unwrap();
        let read = Certificate::from_files(&cert_file, &key_file).unwrap();
        assert_eq!(read.names, ["mcp.example.com", "*.example.org"]);

        std::fs::write(&cert_file, "nothing").unwrap();
        assert!(matches!(
            Certificate::from_files(&cert_file, &key_file),
            Err(CertificateError::Empty { .. })
        ));
        std::fs::remove_file(&key_file).unwrap();
        std::fs::write(&cert_file, made.cert.pem()).unwrap();
        let error = Certificate::from_files(&cert_file, &key_file).err().unwrap().to_string();
        assert!(error.contains("tls.key"), "{error}");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
