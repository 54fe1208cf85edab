//! A certificate that is replaced while connections live: owns the pair in force, the look at its files, and when another pair
//! takes over. Never a connection: those that are open keep what they were made with, and tickets stay good.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use mcp_config::TlsFiles;
use rustls::SignatureScheme;
use rustls::client::ResolvesClientCert;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{Certificate, CertificateError};
use super::config::provider;
use crate::reload::files::{self, Seen, Watch};

/// A certificate with its key, and whatever replaces it.
#[derive(Debug)]
pub(crate) struct Rotating {
    /// The `certificate` label.
    label: &'static str,
    /// Where it comes from; `None` for one that was made for this run.
    files: Option<TlsFiles>,
    current: ArcSwap<Pair>,
    loaded: AtomicU64,
    refused: AtomicU64,
}

/// A pair that fits.
#[derive(Debug)]
struct Pair {
    certified: Arc<CertifiedKey>,
    names: Vec<String>,
    /// Seconds since 1970.
    ends_unix_s: i64,
}

impl Rotating {
    /// Reads the files, or makes a certificate for this run where there are none.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub(crate) fn new(label: &'static str, files: Option<&TlsFiles>) -> Result<Arc<Self>, CertificateError> {
        let pair = match files {
            Some(files) => Pair::from_files(files)?,
            None => Pair::new(Certificate::self_signed()?)?,
        };
        if pair.ends_unix_s < now_unix_s() {
            tracing::warn!(certificate = label, "the certificate has expired");
        }
        Ok(Arc::new(Rotating {
            label,
            files: files.cloned(),
            current: ArcSwap::from_pointee(pair),
            loaded: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }))
    }

    /// Whether one of the DNS names that the certificate in force vouches for is such a one.
    pub(crate) fn has_name(&self, is_such: impl FnMut(&String) -> bool) -> bool {
        self.current.load().names.iter().any(is_such)
    }

    /// The `certificate` label.
    pub(crate) fn label(&self) -> &'static str {
        self.label
    }

    /// When the certificate in force ends, in seconds since 1970.
    pub(crate) fn ends_unix_s(&self) -> i64 {
        self.current.load().ends_unix_s
    }

    /// How often another pair took over, and how often one was refused, since the process started.
    pub(crate) fn reloads(&self) -> (u64, u64) {
        (self.loaded.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    /// Counts what became of the authorities that vouch for others in the same way.
    pub(crate) fn count_authorities(&self, are_loaded: bool) {
        let counter = if are_loaded { &self.loaded } else { &self.refused };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// The certificate in force.
    #[cfg(test)]
    pub(crate) fn leaf(&self) -> rustls_pki_types::CertificateDer<'static> {
        self.current.load().certified.cert[0].clone()
    }

    /// Takes over what the files hold now.
    fn reload(&self, files: &TlsFiles) {
        let before = self.current.load();
        let read = Pair::from_files(files).and_then(|pair| {
            let now = now_unix_s();
            // One that has ended is no better than one that has not; where both have, the later file is the wish.
            if pair.ends_unix_s < now && before.ends_unix_s >= now {
                return Err(CertificateError::Expired { path: files.cert_file.display().to_string() });
            }
            Ok(pair)
        });
        match read {
            Ok(pair) => {
                tracing::info!(certificate = self.label, names = ?pair.names, "another certificate is in force");
                self.current.store(Arc::new(pair));
                self.loaded.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::error!(certificate = self.label, %error, "a new certificate is refused; the old one serves on");
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Pair {
    fn from_files(files: &TlsFiles) -> Result<Self, CertificateError> {
        Self::new(Certificate::from_files(&files.cert_file, &files.key_file)?)
    }

    fn new(certificate: Certificate) -> Result<Self, CertificateError> {
        let ends_unix_s = certificate.ends_unix_s()?;
        let certified = CertifiedKey::from_der(certificate.chain, certificate.key, &provider())?;
        Ok(Pair { certified: Arc::new(certified), names: certificate.names, ends_unix_s })
    }
}

impl ResolvesServerCert for Rotating {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }
}

impl ResolvesClientCert for Rotating {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().certified.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// What was seen of a certificate's files.
pub(crate) struct Watched {
    certificate: Arc<Rotating>,
    files: TlsFiles,
    watch: Watch,
}

impl Watched {
    /// `None` for a certificate that comes from no file.
    pub(crate) fn new(certificate: &Arc<Rotating>) -> Option<Self> {
        let files = certificate.files.clone()?;
        let watch = Watch::new(see(&files));
        Some(Watched { certificate: certificate.clone(), files, watch })
    }

    /// Loads what has changed, once it has stayed as it is for a look: a pair is two files, and no two files are written
    /// at once.
    pub(crate) fn look(&mut self) {
        if self.watch.is_news(see(&self.files)) {
            self.certificate.reload(&self.files);
        }
    }
}

fn see(files: &TlsFiles) -> Vec<Seen> {
    [&files.cert_file, &files.key_file].map(|file| files::see(file)).into()
}

fn now_unix_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
