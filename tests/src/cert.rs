//! Owns the tests' certificate authority and server certificates, made anew for each gateway.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use crate::TempDir;

/// A server certificate for this machine's loopback names, signed by an authority of its own, as files and in memory.
#[derive(Debug)]
pub struct TestCert {
    /// The authority's certificate, PEM.
    pub ca_file: PathBuf,
    /// The server's certificate, PEM.
    pub cert_file: PathBuf,
    /// The server's private key, PEM.
    pub key_file: PathBuf,
    ca: CertificateDer<'static>,
}

impl TestCert {
    /// Makes an authority and a certificate for 127.0.0.1 and localhost, with their files in `dir`.
    ///
    /// # Panics
    /// When the cryptography or the file system refuses it.
    #[must_use]
    pub fn generate(dir: &TempDir) -> Self {
        Self::generate_for(dir, &[])
    }

    /// As [`Self::generate`], valid for `names`, too.
    ///
    /// # Panics
    /// When the cryptography or the file system refuses it.
    #[must_use]
    pub fn generate_for(dir: &TempDir, names: &[String]) -> Self {
        Self::try_generate(dir, |params| {
            let of_these = CertificateParams::new(names)?;
            params.subject_alt_names.extend(of_these.subject_alt_names);
            Ok(())
        })
        .expect("the parameters are right")
    }

    /// As [`Self::generate`], with a certificate for `name` alone.
    ///
    /// # Panics
    /// When the cryptography or the file system refuses it.
    #[must_use]
    pub fn for_name_only(dir: &TempDir, name: &str) -> Self {
        Self::try_generate(dir, |params| {
            params.subject_alt_names = vec![SanType::DnsName(name.try_into()?)];
            Ok(())
        })
        .expect("the parameters are right")
    }

    /// As [`Self::generate`], with a certificate that was valid long ago.
    ///
    /// # Panics
    /// When the cryptography or the file system refuses it.
    #[must_use]
    pub fn expired(dir: &TempDir) -> Self {
        Self::try_generate(dir, |params| {
            params.not_before = date_time_ymd(2001, 1, 1);
            params.not_after = date_time_ymd(2002, 1, 1);
            Ok(())
        })
        .expect("the parameters are right")
    }

    /// A TLS client that trusts this authority and nothing else.
    ///
    /// # Panics
    /// Never: the authority was made for it.
    #[must_use]
    pub fn client_config(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.ca.clone()).expect("an authority that rcgen made");
        Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
    }

    /// The variables by which clients in Node and Python trust this authority.
    #[must_use]
    pub fn client_env(&self) -> [(&'static str, &Path); 2] {
        [("NODE_EXTRA_CA_CERTS", &self.ca_file), ("SSL_CERT_FILE", &self.ca_file)]
    }

    /// For this machine's loopback names, unless `change` says otherwise.
    fn try_generate(
        dir: &TempDir,
        change: impl FnOnce(&mut CertificateParams) -> Result<(), rcgen::Error>,
    ) -> Result<Self, rcgen::Error> {
        let ca_key = KeyPair::generate()?;
        let mut ca_params = CertificateParams::default();
        ca_params.distinguished_name = common_name("MCP Bridge test authority");
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        ca_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = ca_params.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca_params, ca_key);

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(["localhost", "127.0.0.1"].map(String::from))?;
        params.distinguished_name = common_name("localhost");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        // Nodes of a Redis cluster present theirs to each other as clients, too.
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params)?;
        let cert = params.signed_by(&key, &issuer)?;

        Ok(Self {
            ca_file: dir.write("ca.pem", &ca.pem()),
            cert_file: dir.write("server.pem", &cert.pem()),
            key_file: dir.write("server.key", &key.serialize_pem()),
            ca: ca.der().clone(),
        })
    }
}

fn common_name(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}
