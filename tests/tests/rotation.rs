//! Setup: a gateway whose certificate is replaced while it serves: by the swap of a symbolic link, as Kubernetes does it, and by
//! files that do not fit.
//! Claim: new connections get the new certificate within seconds, none fails meanwhile, open ones live on; what does not fit is
//! refused with a metric, and the old one serves on.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use mcp_system_tests::{Gateway, GatewayConfig, TempDir, TestCert, eventually, tls};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_swapped_link_changes_the_certificate_and_fails_nobody() {
    let setup = Setup::new();
    let [first, second] = [setup.pair("first"), setup.pair("second")];
    setup.swap_to("first");
    let gateway = setup.start();
    let either = trusting(&[&first, &second]);
    assert!(is_from(&gateway, &either, &first));
    let mut kept = tls::http_over(tls::connect(gateway.addr, &either).expect("a connection"), gateway.addr);

    let ending = Arc::new(AtomicBool::new(false));
    let made = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..2)
        .map(|_| {
            let (ending, made, config, addr) = (ending.clone(), made.clone(), either.clone(), gateway.addr);
            std::thread::spawn(move || {
                while !ending.load(Ordering::Relaxed) {
                    let stream = tls::connect(addr, &config).expect("a connection during the rotation");
                    let answer = tls::http_over(stream, addr).request("GET", "/health", &[], b"");
                    assert_eq!(answer.expect("an answer during the rotation").status, 200);
                    made.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let some_more = || {
        let before = made.load(Ordering::Relaxed);
        eventually("connections are made", LIMIT, || {
            (made.load(Ordering::Relaxed) >= before + 50).then_some(())
        });
    };
    some_more();
    setup.swap_to("second");
    eventually("the new certificate is in force", LIMIT, || {
        is_from(&gateway, &either, &second).then_some(())
    });
    some_more();
    ending.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.join().expect("no connection failed");
    }

    assert_eq!(kept.request("GET", "/health", &[], b"").expect("an old connection lives on").status, 200);
    assert_eq!(reloads(&gateway, "loaded"), 1.0);
    assert_eq!(reloads(&gateway, "refused"), 0.0);
    let ends =
        gateway.metrics().count("mcp_gateway_certificate_expiry_seconds", &[("certificate", "server")]);
    assert!(ends > 1.8e9, "{ends}");
}

#[test]
fn what_does_not_fit_is_refused_and_the_old_one_serves_on() {
    let setup = Setup::new();
    let [first, second] = [setup.pair("first"), setup.pair("second")];
    setup.swap_to("first");
    let gateway = setup.start();
    let either = trusting(&[&first, &second]);

    // The key of another certificate, no certificate at all, and one that has expired.
    let mismatched = setup.folder("mismatched");
    fs::copy(&second.cert_file, mismatched.join("tls.crt")).expect("a copy");
    fs::copy(&first.key_file, mismatched.join("tls.key")).expect("a copy");
    let empty = setup.folder("empty");
    fs::write(empty.join("tls.crt"), "").expect("a file");
    fs::copy(&first.key_file, empty.join("tls.key")).expect("a copy");
    expired(&setup.folder("expired"));
    for (number, name) in ["mismatched", "empty", "expired"].into_iter().enumerate() {
        setup.swap_to(name);
        eventually(name, LIMIT, || (reloads(&gateway, "refused") == number as f64 + 1.0).then_some(()));
        assert!(is_from(&gateway, &either, &first), "{name}");
    }
    // Files that are away for a while are no certificate either.
    fs::remove_file(setup.mounted.join("..data")).expect("a link");
    eventually("files that are away", LIMIT, || (reloads(&gateway, "refused") == 4.0).then_some(()));
    assert!(is_from(&gateway, &either, &first));

    setup.swap_to("second");
    eventually("the right one is in force", LIMIT, || is_from(&gateway, &either, &second).then_some(()));
    assert_eq!(reloads(&gateway, "loaded"), 1.0);
    assert!(gateway.process.log().contains("the old one serves on"), "{}", gateway.process.log());
}

/// A certificate, its key and its authority.
struct Pair {
    ca_file: PathBuf,
    cert_file: PathBuf,
    key_file: PathBuf,
}

/// A folder as the kubelet mounts a Secret: `tls.crt` leads to `..data/tls.crt`, and `..data` to the version in force.
struct Setup {
    dir: TempDir,
    mounted: PathBuf,
}

impl Setup {
    fn new() -> Self {
        let dir = TempDir::new();
        let mounted = dir.path().join("mounted");
        fs::create_dir(&mounted).expect("a folder");
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), mounted.join(name)).expect("a link");
        }
        Self { dir, mounted }
    }

    fn folder(&self, name: &str) -> PathBuf {
        let folder = self.mounted.join(format!("..{name}"));
        fs::create_dir(&folder).expect("a folder");
        folder
    }

    /// A certificate of an authority of its own, in the version of this name.
    fn pair(&self, name: &str) -> Pair {
        let made = TempDir::new();
        let cert = TestCert::generate(&made);
        let folder = self.folder(name);
        let (cert_file, key_file) = (folder.join("tls.crt"), folder.join("tls.key"));
        fs::copy(&cert.cert_file, &cert_file).expect("a copy");
        fs::copy(&cert.key_file, &key_file).expect("a copy");
        let ca_file = self.dir.path().join(format!("{name}-ca.pem"));
        fs::copy(&cert.ca_file, &ca_file).expect("a copy");
        Pair { ca_file, cert_file, key_file }
    }

    fn swap_to(&self, name: &str) {
        let next = self.mounted.join("..data_tmp");
        symlink(format!("..{name}"), &next).expect("a link");
        fs::rename(next, self.mounted.join("..data")).expect("the swap");
    }

    fn start(&self) -> Gateway {
        let (cert_file, key_file) = (self.mounted.join("tls.crt"), self.mounted.join("tls.key"));
        // Not `start`: the gateway proves itself by another certificate than the harness made for it.
        Gateway::start_beside(&GatewayConfig::new().showing(&cert_file, &key_file))
    }
}

fn trusting(certs: &[&Pair]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for cert in certs {
        roots.add_parsable_certificates(pem(&cert.ca_file));
    }
    Arc::new(ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn pem(file: &Path) -> Vec<CertificateDer<'static>> {
    use rustls::pki_types::pem::PemObject;
    CertificateDer::pem_file_iter(file).expect("a file").map(|each| each.expect("a certificate")).collect()
}

/// Whether a new connection, without a ticket of an earlier one, is served with this certificate.
fn is_from(gateway: &Gateway, config: &Arc<ClientConfig>, cert: &Pair) -> bool {
    let mut fresh = ClientConfig::clone(config);
    fresh.resumption = rustls::client::Resumption::disabled();
    let stream = tls::connect(gateway.addr, &Arc::new(fresh)).expect("a connection");
    stream.conn.peer_certificates().expect("a certificate")[0] == pem(&cert.cert_file)[0]
}

fn reloads(gateway: &Gateway, result: &str) -> f64 {
    let labels = [("certificate", "server"), ("result", result)];
    gateway.metrics().count("mcp_gateway_certificate_reloads_total", &labels)
}

fn expired(folder: &Path) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let cert = params.self_signed(&key).expect("a certificate");
    fs::write(folder.join("tls.crt"), cert.pem()).expect("a file");
    fs::write(folder.join("tls.key"), key.serialize_pem()).expect("a file");
}
