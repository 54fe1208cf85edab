//! The one certificate that all targets of a run serve, so that their handshakes do the same work: self-signed, ECDSA on
//! P-256, for the loopback names.

use std::io;
use std::path::PathBuf;

use super::folder::Folder;

/// Its files, PEM.
#[derive(Clone, Debug)]
pub struct Certificate {
    /// The certificate; clients trust it.
    pub cert_file: PathBuf,
    /// The private key.
    pub key_file: PathBuf,
    /// Both in one file, as HAProxy wants them.
    pub both_file: PathBuf,
}

impl Certificate {
    /// Makes one with its files in `folder`.
    ///
    /// # Errors
    /// When the cryptography or the file system refuses it.
    pub fn generate(folder: &Folder) -> io::Result<Self> {
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        // rcgen's default key is ECDSA on P-256.
        let made = rcgen::generate_simple_self_signed(names).map_err(io::Error::other)?;
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Ok(Self {
            cert_file: folder.write("cert.pem", &cert)?,
            key_file: folder.write("key.pem", &key)?,
            both_file: folder.write("both.pem", &(cert + &key))?,
        })
    }
}
