//! Owns an nginx in front of a gateway, configured as Kubernetes' ingress controller configures it for a service with
//! WebSockets and long read timeouts, and allowed to speak TLS 1.3 to it, which not every nginx does by itself. It is one
//! process that dies with its test.

use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

use crate::port::free_port;
use crate::{Connection, Gateway, Process, TempDir, eventually};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running nginx; dropped, it is killed.
#[derive(Debug)]
pub struct Ingress {
    /// Where it serves HTTPS, with the gateway's own certificate.
    pub addr: SocketAddr,
    process: Process,
    _dir: TempDir,
}

impl Ingress {
    /// Starts an nginx in front of `gateway` that gives up on a connection on which nothing passes for `read_timeout`.
    ///
    /// # Panics
    /// When nginx is not installed or does not start.
    #[must_use]
    pub fn start(gateway: &Gateway, read_timeout: &str) -> Self {
        let dir = TempDir::new();
        let addr = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = dir.path().display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
            .collect();
        let config = format!(
            "\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ }}
http {{
{temporary}    access_log off;
    map $http_upgrade $connection_upgrade {{
        default upgrade;
        '' '';
    }}
    server {{
        listen {addr} ssl;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        location / {{
            proxy_pass https://{gateway};
            proxy_ssl_protocols TLSv1.3;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_read_timeout {read_timeout};
            proxy_send_timeout {read_timeout};
            proxy_buffering off;
        }}
    }}
}}
",
            cert = gateway.cert.cert_file.display(),
            key = gateway.cert.key_file.display(),
            gateway = gateway.addr,
        );
        let file = dir.write("nginx.conf", &config);
        let mut process = Process::start(
            "nginx",
            Command::new("/usr/sbin/nginx")
                .arg("-e")
                .arg("stderr")
                .arg("-p")
                .arg(dir.path())
                .arg("-c")
                .arg(file),
        );
        eventually("nginx listens", START_LIMIT, || {
            assert!(process.is_running(), "nginx ended:\n{}", process.log());
            Connection::plain(addr).is_ok().then_some(())
        });
        Self { addr, process, _dir: dir }
    }

    /// What it printed so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}
