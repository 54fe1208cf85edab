//! Owns a gateway's pod as the cluster overlay of `deploy/` makes it: the shipped `gateway.toml`, the overlay's settings as
//! variables, certificates mounted as a Secret is, SIGTERM with time to leave, and the kubelet's liveness probe.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::net::Namespace;
use super::servers::Servers;
use super::settings::{
    DRAIN_DELAY, DRAIN_TIMEOUT, HEALTH_FALL, HEALTH_INTERVAL, HEALTH_TIMEOUT, HTTPS_PORT, LIVENESS_FALL,
    LIVENESS_PERIOD, LIVENESS_TIMEOUT, PEERS_PORT, SERVER_CONNECT, SERVER_TIMEOUT,
};
use crate::gateway::binary;
use crate::{Connection, Process, TempDir, TestCert, eventually};

const START_LIMIT: Duration = Duration::from_secs(30);
/// What all pods' certificates for each other prove, as in `deploy/components/peers`.
const PEERS_NAME: &str = "gateways.mcp-system.internal";

/// What all pods have in common.
#[derive(Debug)]
pub struct Deployment {
    secret: Secret,
    peers: TestCert,
    file: PathBuf,
    stores: String,
    _dir: TempDir,
}

/// Certificates of authorities of their own, as a Secret's versions: the kubelet shows one of them, and swaps a link for
/// another.
#[derive(Debug)]
struct Secret {
    mounted: PathBuf,
    authorities: Vec<PathBuf>,
}

/// A pod, running or not.
#[derive(Debug)]
pub struct Pod {
    network: Namespace,
    ip: Ipv4Addr,
    running: Option<Running>,
    /// How often the kubelet would have killed it.
    liveness: Arc<AtomicU32>,
}

#[derive(Debug)]
struct Running {
    process: Process,
    probed: Arc<AtomicBool>,
}

impl Deployment {
    /// For clients that reach gateways at these addresses, servers at `servers`, and a Redis Cluster with nodes at `stores`.
    ///
    /// # Panics
    /// When the file system refuses it.
    #[must_use]
    pub fn new(addresses: &[Ipv4Addr], servers: &[Ipv4Addr], stores: &[SocketAddr]) -> Self {
        let dir = TempDir::new();
        let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let made = TempDir::new();
        let peers = TestCert::generate_for(&dir, &[PEERS_NAME.to_owned()]);
        let secret = Secret::new(dir.path(), [(); 2].map(|()| TestCert::generate_for(&made, &names)));
        let file = dir.write("gateway.toml", &(shipped() + &sections(servers)));
        let stores: Vec<String> = stores.iter().map(ToString::to_string).collect();
        Self { secret, peers, file, stores: stores.join(", "), _dir: dir }
    }

    /// Trusts the authority of the certificate that is mounted first, of the second, or both.
    #[must_use]
    pub fn trusting(&self, versions: &[usize]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        for version in versions {
            let file = &self.secret.authorities[*version];
            roots
                .add(CertificateDer::from_pem_file(file).expect("an authority's file"))
                .expect("an authority");
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        // A ticket would spare the certificate.
        config.resumption = rustls::client::Resumption::disabled();
        Arc::new(config)
    }

    /// Mounts a version of the certificate in all pods.
    ///
    /// # Panics
    /// When the file system refuses it.
    pub fn mount(&self, version: usize) {
        self.secret.show(version);
    }

    fn command(&self, ip: Ipv4Addr) -> Command {
        let mut command = Command::new(binary());
        command.arg("--config").arg(&self.file);
        let mounted = |name: &str| self.secret.mounted.join(name).display().to_string();
        let peers = |file: &Path| file.display().to_string();
        let variables = [
            ("SERVER__TLS__CERT_FILE", mounted("tls.crt")),
            ("SERVER__TLS__KEY_FILE", mounted("tls.key")),
            ("SERVER__DRAIN_DELAY", millis(DRAIN_DELAY)),
            ("SERVER__DRAIN_TIMEOUT", millis(DRAIN_TIMEOUT)),
            ("REDIS__CLUSTER__ADDRESSES", self.stores.clone()),
            ("SESSION__REPLICAS", "1".to_owned()),
            // What is not told to a replica in time is at one node alone; on a machine with much to do, time is long.
            ("SESSION__REPLICAS_TIMEOUT", "400ms".to_owned()),
            ("PEERS__LISTEN", format!("0.0.0.0:{PEERS_PORT}")),
            ("PEERS__ADVERTISE", format!("{ip}:{PEERS_PORT}")),
            ("PEERS__CERT_FILE", peers(&self.peers.cert_file)),
            ("PEERS__KEY_FILE", peers(&self.peers.key_file)),
            ("PEERS__CA_FILE", peers(&self.peers.ca_file)),
            ("PEERS__SERVER_NAME", PEERS_NAME.to_owned()),
        ];
        command.envs(variables.map(|(key, value)| (format!("MCP_GATEWAY__{key}"), value)));
        command
    }
}

impl Secret {
    fn new(dir: &Path, certs: [TestCert; 2]) -> Self {
        let mounted = dir.join("tls");
        fs::create_dir(&mounted).expect("a folder");
        let mut authorities = Vec::new();
        for (version, cert) in certs.iter().enumerate() {
            let folder = mounted.join(format!("..{version}"));
            fs::create_dir(&folder).expect("a folder");
            fs::copy(&cert.cert_file, folder.join("tls.crt")).expect("a copy");
            fs::copy(&cert.key_file, folder.join("tls.key")).expect("a copy");
            let authority = dir.join(format!("authority-{version}.pem"));
            fs::copy(&cert.ca_file, &authority).expect("a copy");
            authorities.push(authority);
        }
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), mounted.join(name)).expect("a link");
        }
        let secret = Self { mounted, authorities };
        secret.show(0);
        secret
    }

    fn show(&self, version: usize) {
        let next = self.mounted.join("..data_tmp");
        symlink(format!("..{version}"), &next).expect("a link");
        fs::rename(next, self.mounted.join("..data")).expect("the swap");
    }
}

impl Pod {
    /// A pod on a node, not running yet.
    #[must_use]
    pub fn new(network: &Namespace, ip: Ipv4Addr) -> Self {
        Self { network: network.clone(), ip, running: None, liveness: Arc::default() }
    }

    /// Starts its gateway; it is ready some time after.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(&mut self, deployment: &Deployment) {
        let mut command = deployment.command(self.ip);
        self.network.hold(&mut command);
        let process = Process::start(&format!("the gateway at {}", self.ip), &mut command);
        let probed = Arc::new(AtomicBool::new(true));
        self.running = Some(Running { process, probed: probed.clone() });
        let (network, ip, liveness) = (self.network.clone(), self.ip, self.liveness.clone());
        let tls = deployment.trusting(&[0, 1]);
        std::thread::spawn(move || {
            network.enter();
            probe(ip, &tls, &probed, &liveness);
        });
    }

    /// Waits until it says that it is ready.
    ///
    /// # Panics
    /// When it ends instead, or is not ready in time.
    pub fn wait_ready(&mut self, deployment: &Deployment) {
        let tls = deployment.trusting(&[0, 1]);
        let addr = SocketAddr::from((self.ip, HTTPS_PORT));
        let what = format!("the gateway at {} is ready", self.ip);
        eventually(&what, START_LIMIT, || {
            let process = &mut self.running.as_mut().expect("it was started").process;
            assert!(process.is_running(), "the gateway at {} ended:\n{}", self.ip, process.log());
            let ready = ask(addr, &tls, "/ready").is_ok_and(|status| status == 200);
            ready.then_some(())
        });
    }

    /// Ends it as Kubernetes does, and waits until it has.
    ///
    /// # Panics
    /// When it does not leave in order within its time.
    pub fn terminate(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.probed.store(false, Ordering::SeqCst);
        running.process.signal(libc::SIGTERM);
        let finished = running.process.finish(DRAIN_DELAY + DRAIN_TIMEOUT + START_LIMIT);
        assert_eq!(finished.status.code(), Some(0), "the gateway at {}: {:#?}", self.ip, finished.stdout);
    }

    /// Kills it.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        let mut running = self.running.take().expect("it runs");
        running.probed.store(false, Ordering::SeqCst);
        running.process.signal(libc::SIGKILL);
    }

    /// Whether a new connection to it shows a certificate of this version.
    #[must_use]
    pub fn shows(&self, deployment: &Deployment, version: usize) -> bool {
        let addr = SocketAddr::from((self.ip, HTTPS_PORT));
        ask(addr, &deployment.trusting(&[version]), "/health").is_ok_and(|status| status == 200)
    }

    /// How often the kubelet would have killed a gateway here that was alive.
    #[must_use]
    pub fn liveness_kills(&self) -> u32 {
        self.liveness.load(Ordering::SeqCst)
    }

    /// The last lines that it printed, for messages.
    #[must_use]
    pub fn log(&self) -> String {
        let log = self.running.as_ref().map(|running| running.process.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(60)..].join("\n")
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.probed.store(false, Ordering::SeqCst);
        }
        if std::thread::panicking() {
            eprintln!("-- the last lines of the gateway at {}:\n{}", self.ip, self.log());
        }
    }
}

/// Asks as the kubelet does, from the pod's own node, and counts how often it would have killed the pod.
fn probe(ip: Ipv4Addr, tls: &Arc<ClientConfig>, probed: &AtomicBool, kills: &AtomicU32) {
    let addr = SocketAddr::from((ip, HTTPS_PORT));
    // The startup probe's part: until the first success nothing is counted.
    let (mut failures, mut started) = (0, false);
    while probed.load(Ordering::SeqCst) {
        let begun = Instant::now();
        let well =
            ask(addr, tls, "/health").is_ok_and(|status| status == 200) && begun.elapsed() < LIVENESS_TIMEOUT;
        started |= well;
        failures = if well || !started { 0 } else { failures + 1 };
        if failures == LIVENESS_FALL && probed.load(Ordering::SeqCst) {
            kills.fetch_add(1, Ordering::SeqCst);
        }
        std::thread::sleep(LIVENESS_PERIOD);
    }
}

fn ask(addr: SocketAddr, tls: &Arc<ClientConfig>, path: &str) -> std::io::Result<u16> {
    let mut connection = Connection::tls(addr, tls)?;
    Ok(connection.request("GET", path, &[("connection", "close")], b"")?.status)
}

/// The shipped configuration without its servers.
fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/base/gateway.toml");
    let toml = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let (before, _) = toml.split_once("[[servers]]").expect("it has servers");
    before.to_owned()
}

/// Two servers, each with an endpoint in every zone.
fn sections(servers: &[Ipv4Addr]) -> String {
    let urls = servers.iter().map(|ip| Servers::urls(*ip));
    let (legacy, modern): (Vec<_>, Vec<_>) = urls.map(|[legacy, modern]| (legacy, modern)).unzip();
    [("legacy", legacy), ("modern", modern)]
        .map(|(name, endpoints)| {
            format!(
                "[[servers]]\nname = \"{name}\"\ntransport = \"streamable-http\"\nendpoints = {endpoints:?}\n\
                 timeout = \"{}\"\nconnect_timeout = \"{}\"\nhealth.kind = \"tcp\"\nhealth.interval = \"{}\"\n\
                 health.timeout = \"{}\"\nhealth.unhealthy_after = {HEALTH_FALL}\n\n",
                millis(SERVER_TIMEOUT),
                millis(SERVER_CONNECT),
                millis(HEALTH_INTERVAL),
                millis(HEALTH_TIMEOUT),
            )
        })
        .concat()
}

fn millis(time: Duration) -> String {
    format!("{}ms", time.as_millis())
}
