//! Owns the L4 balancer: HAProxy in front of all pods' two ports, which asks each pod `/ready` over HTTPS as the kubelet does,
//! and passes bytes on, nothing more. It neither ends TLS nor looks into it.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use super::net::Namespace;
use super::settings::{
    BALANCER_CONNECT, BALANCER_DEAD, HTTPS_PORT, MCPB_PORT, PROBE_FALL, PROBE_PERIOD, PROBE_TIMEOUT,
};
use crate::{Process, TempDir, eventually};

const START_LIMIT: Duration = Duration::from_secs(30);

/// A running HAProxy; dropped, it is killed.
#[derive(Debug)]
pub struct Balancer {
    ip: Ipv4Addr,
    stats: PathBuf,
    process: Process,
    _dir: TempDir,
}

impl Balancer {
    /// Starts it on a node, in front of these pods; it knows them by their places, counted from 0.
    ///
    /// # Panics
    /// When it is not installed or does not start.
    #[must_use]
    pub fn start(network: &Namespace, ip: Ipv4Addr, pods: &[Ipv4Addr]) -> Self {
        let dir = TempDir::new();
        let stats = dir.path().join("stats");
        let file = dir.write("haproxy.cfg", &config(&stats.display().to_string(), ip, pods));
        let mut command = Command::new("/usr/sbin/haproxy");
        command.arg("-db").arg("-f").arg(file);
        network.hold(&mut command);
        let mut process = Process::start("haproxy", &mut command);
        eventually("HAProxy runs", START_LIMIT, || {
            assert!(process.is_running(), "HAProxy ended:\n{}", process.log());
            UnixStream::connect(&stats).is_ok().then_some(())
        });
        Self { ip, stats, process, _dir: dir }
    }

    /// Where clients speak HTTPS to the pods.
    #[must_use]
    pub fn https(&self) -> SocketAddr {
        SocketAddr::from((self.ip, HTTPS_PORT))
    }

    /// Where clients speak MCPB to them.
    #[must_use]
    pub fn mcpb(&self) -> SocketAddr {
        SocketAddr::from((self.ip, MCPB_PORT))
    }

    /// Whether it gives new connections to a pod.
    ///
    /// # Panics
    /// When it does not say.
    #[must_use]
    pub fn is_up(&self, pod: usize) -> bool {
        let mut answer = String::new();
        UnixStream::connect(&self.stats)
            .and_then(|mut stream| {
                stream.write_all(b"show stat\n")?;
                stream.read_to_string(&mut answer)
            })
            .unwrap_or_else(|error| panic!("HAProxy does not answer: {error}\n{}", self.process.log()));
        // pxname,svname,…: the 18th field is the state, "UP" or "UP 1/3" while probes fail.
        let line = answer.lines().find(|line| line.starts_with(&format!("https,pod-{pod},")));
        let state = line.and_then(|line| line.split(',').nth(17));
        state.unwrap_or_else(|| panic!("no pod {pod}: {answer}")).starts_with("UP")
    }
}

fn config(stats: &str, ip: Ipv4Addr, pods: &[Ipv4Addr]) -> String {
    let (mut https, mut mcpb) = (String::new(), String::new());
    let ms = |time: Duration| time.as_millis();
    // A machine that is gone is noticed by what it does not acknowledge, and where nothing is sent, by TCP's probes. Not in
    // `default-server`, from where HAProxy 2.6 does not take it.
    let dead = ms(BALANCER_DEAD);
    for (number, pod) in pods.iter().enumerate() {
        // Writing to a string cannot fail.
        let probed = "check check-ssl verify none";
        let _ = writeln!(https, "    server pod-{number} {pod}:{HTTPS_PORT} tcp-ut {dead} {probed}");
        let _ = writeln!(
            mcpb,
            "    server pod-{number} {pod}:{MCPB_PORT} tcp-ut {dead} track https/pod-{number}"
        );
    }
    let silent = BALANCER_DEAD.as_secs() / 2;
    format!(
        "\
global
    stats socket {stats} level admin
    nbthread 1
    maxconn 2000
defaults
    mode tcp
    timeout connect {connect}
    timeout client 1h
    timeout server 1h
    timeout check {timeout}
    retries 3
    option redispatch 1
    option srvtcpka
    srvtcpka-idle {silent}s
    srvtcpka-intvl {silent}s
    srvtcpka-cnt 1
    default-server inter {period} fall {PROBE_FALL} rise 1
frontend https-in
    bind {ip}:{HTTPS_PORT}
    default_backend https
frontend mcpb-in
    bind {ip}:{MCPB_PORT}
    default_backend mcpb
backend https
    balance roundrobin
    option httpchk
    http-check send meth GET uri /ready ver HTTP/1.1 hdr host 127.0.0.1 hdr connection close
    http-check expect status 200
{https}backend mcpb
    balance roundrobin
{mcpb}",
        connect = ms(BALANCER_CONNECT),
        timeout = ms(PROBE_TIMEOUT),
        period = ms(PROBE_PERIOD),
    )
}
