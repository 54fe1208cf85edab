//! Who this process is to others: owns its identity, and the TLS configurations by which processes prove theirs. Never a
//! connection.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_rustls::{TlsAcceptor, TlsConnector};
use mcp_config::Peers;
use mcp_shard_store::{Owner, StoreError};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::{InvalidDnsNameError, ServerName};

use crate::tls::certificate::CertificateError;
use crate::tls::config::{TrustError, provider, roots, tls13};
use crate::tls::rotating::Rotating;

/// Bits of a number that every reader of JSON can hold.
const BOOT_BITS: u32 = 53;

/// What all shards share of the way to others.
pub(crate) struct Identity {
    pod: Box<str>,
    boot: u64,
    reach: Option<Reach>,
}

struct Reach {
    listen: SocketAddr,
    certificate: Arc<Rotating>,
    /// Who vouches for others.
    ca_file: PathBuf,
    ways: ArcSwap<Ways>,
    /// What every process proves instead of its address.
    name: Option<ServerName<'static>>,
}

/// How connections are made, by one set of authorities.
struct Ways {
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// Why there is no way to others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PeerError {
    #[error("gateway.peers.ca_file: {0}")]
    Trust(#[from] TrustError),
    #[error("gateway.peers: {0}")]
    Certificate(#[from] CertificateError),
    #[error("gateway.peers.ca_file: {0}")]
    Verifier(#[from] VerifierBuilderError),
    #[error("gateway.peers: {0}")]
    Tls(#[from] rustls::Error),
    #[error("gateway.peers.server_name: {0}")]
    Name(#[from] InvalidDnsNameError),
    #[error(transparent)]
    NoRandom(#[from] StoreError),
}

impl Identity {
    /// Takes an identity for this process, which no other one has had.
    ///
    /// # Errors
    /// [`PeerError`].
    pub(crate) fn new(peers: Option<&Peers>) -> Result<Self, PeerError> {
        // 64 of the bits of an id, which are as random as those of any other.
        let [a, b, c, d, e, f, g, h, ..] = mcp_shard_store::SessionId::mint(0)?.random();
        let boot = u64::from_ne_bytes([a, b, c, d, e, f, g, h]) >> (u64::BITS - BOOT_BITS);
        let pod = peers.map(|peers| peers.advertise.to_string()).unwrap_or_default().into();
        Ok(Identity { pod, boot, reach: peers.map(Reach::new).transpose()? })
    }

    /// What the sessions of a shard's streams say of it.
    pub(super) fn owner(&self, shard: u16) -> Owner {
        Owner { pod: self.pod.clone(), boot: self.boot, shard }
    }

    /// What the process proves itself by to others, where it reaches any.
    pub(crate) fn certificate(&self) -> Option<Arc<Rotating>> {
        self.reach.as_ref().map(|reach| reach.certificate.clone())
    }

    /// Whether there is a way to other processes.
    pub(super) fn reaches_others(&self) -> bool {
        self.reach.is_some()
    }

    /// The file of the authorities that vouch for others.
    pub(crate) fn ca_file(&self) -> Option<&Path> {
        self.reach.as_ref().map(|reach| &*reach.ca_file)
    }

    /// Trusts the authorities that the file holds now. Connections that are open stay.
    ///
    /// # Errors
    /// [`PeerError`]; then those before stay in force.
    pub(crate) fn trust_again(&self) -> Result<(), PeerError> {
        let Some(reach) = &self.reach else { return Ok(()) };
        reach.ways.store(Arc::new(Ways::new(&reach.ca_file, &reach.certificate)?));
        Ok(())
    }

    /// Where others connect.
    pub(super) fn listens(&self) -> Option<SocketAddr> {
        self.reach.as_ref().map(|reach| reach.listen)
    }

    /// How those who connect prove who they are.
    pub(super) fn acceptor(&self) -> Option<TlsAcceptor> {
        self.reach.as_ref().map(|reach| reach.ways.load().acceptor.clone())
    }

    /// How the process at this address proves who it is.
    pub(super) fn connector(&self, address: IpAddr) -> Option<(TlsConnector, ServerName<'static>)> {
        let name = |reach: &Reach| reach.name.clone().unwrap_or_else(|| ServerName::from(address));
        self.reach.as_ref().map(|reach| (reach.ways.load().connector.clone(), name(reach)))
    }
}

impl Reach {
    fn new(peers: &Peers) -> Result<Self, PeerError> {
        let certificate = Rotating::new("peers", Some(&peers.files))?;
        let ways = Ways::new(&peers.ca_file, &certificate)?;
        Ok(Reach {
            listen: peers.listen,
            certificate,
            ca_file: peers.ca_file.clone(),
            ways: ArcSwap::from_pointee(ways),
            name: peers.server_name.clone().map(ServerName::try_from).transpose()?,
        })
    }
}

impl Ways {
    fn new(ca_file: &Path, certificate: &Arc<Rotating>) -> Result<Self, PeerError> {
        let roots = Arc::new(roots(ca_file)?);
        let provider = Arc::new(provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(tls13())?
            .with_client_cert_verifier(verifier)
            .with_cert_resolver(certificate.clone());
        let client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(tls13())?
            .with_root_certificates(roots)
            .with_client_cert_resolver(certificate.clone());
        Ok(Ways {
            acceptor: TlsAcceptor::from(Arc::new(server)),
            connector: TlsConnector::from(Arc::new(client)),
        })
    }
}

/// A shard's Unix socket, in the abstract namespace: it has no file, and ends with its process.
pub(super) fn socket_name(boot: u64, shard: u16) -> String {
    format!("mcp-gateway.{boot:014x}.{shard}")
}
