//! Servers that the load driver starts by itself, to be measured in turn: our gateway, other proxies, and the bundled
//! upstream directly. Each is a child process on free loopback ports, with a configuration made here and the one
//! certificate of the run.
//!
//! It sends no load. A target never outlives the run: it is asked to end, then killed, and the kernel kills it should we be
//! killed ourselves.

mod certificate;
pub mod cgroup;
mod envoy;
mod folder;
mod gateway;
mod haproxy;
mod nginx;
mod probe;
mod process;
mod program;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConfig;
use serde::{Deserialize, Serialize};

use crate::load::{Protocol, Trust, TrustError, client_config};
use crate::sys::{Confinement, MAX_CPUS};

pub use certificate::Certificate;
pub use cgroup::{CgroupError, Group, GroupReport};
pub use folder::Folder;
pub use probe::TlsFacts;
pub use process::Process;

/// Connections that a target may keep to the upstream (the gateway: per shard). The same for all.
pub const POOL_CONNECTIONS: u16 = 1000;
/// TLS 1.3 suites of the proxies on OpenSSL: the gateway's order. Envoy takes the client's first.
const CIPHER_SUITES: &str = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
/// Descriptors that a proxy needs besides two per connection.
const SPARE_DESCRIPTORS: u64 = 200;
/// How long a target may take until it serves.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Time between two looks at one that starts.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What can be a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TargetKind {
    /// Our gateway.
    Gateway,
    /// HAProxy, a plain proxy.
    Haproxy,
    /// Envoy, a plain proxy.
    Envoy,
    /// Envoy with its MCP filters.
    EnvoyMcp,
    /// nginx, a plain proxy.
    Nginx,
    /// The upstream itself, without TLS.
    Direct,
    /// Something that runs already.
    Url,
}

/// Whether a memory limit must be in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CgroupUse {
    /// Without a group the target does not start.
    #[default]
    Required,
    /// Without a group it starts, and the report says why there was none.
    IfPossible,
}

/// By which of the gateway's doors a target is measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// HTTPS.
    #[default]
    Https,
    /// HTTPS by HTTP/2; the gateway only.
    H2,
    /// WebSocket; the gateway only.
    Ws,
    /// HTTP with SSE; the gateway only.
    Sse,
    /// The binary protocol; the gateway only.
    Mcpb,
}

/// What a target shall be. Everything but the kind has a default.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// What it is.
    pub kind: TargetKind,
    /// What reports call it; different for each target of a run. Default: the kind.
    #[serde(default)]
    pub name: String,
    /// Worker threads (the gateway's shards), 1 to 256.
    #[serde(default = "one")]
    pub threads: u16,
    /// CPUs that it may use; empty: all that we may.
    #[serde(default)]
    pub cpus: Vec<usize>,
    /// Its program; default: found as [`TargetKind`] says.
    #[serde(default)]
    pub program: Option<PathBuf>,
    /// Keys of the gateway's configuration file, over those made here.
    #[serde(default)]
    pub config: toml::Table,
    /// The door that calls go to.
    #[serde(default)]
    pub door: Door,
    /// Options of the load for this target, over those of all; in a scenario the table `load` of the target.
    #[serde(skip)]
    pub load_options: Vec<String>,
    /// Put before the tool's name in calls to this target.
    #[serde(default)]
    pub tool_prefix: String,
    /// Limit of a memory group, like `"2GiB"`.
    #[serde(default)]
    pub memory_limit: Option<String>,
    /// What happens where no group can be made.
    #[serde(default)]
    pub cgroup: CgroupUse,
    /// Of the kind `url`: where it is.
    #[serde(default)]
    pub url: Option<String>,
    /// Of the kind `url`: the process to measure.
    #[serde(default)]
    pub server_pid: Option<u32>,
}

/// What all targets of a run share.
#[derive(Debug)]
pub struct Setting<'a> {
    folder: &'a Folder,
    certificate: &'a Certificate,
    upstream: SocketAddr,
    port: u16,
    second_port: u16,
    /// MCPB; 0: not served.
    binary_port: u16,
    max_connections: u64,
}

/// Where targets are started.
#[derive(Debug)]
pub struct Site<'a> {
    /// Holds their files.
    pub folder: &'a Folder,
    /// Their certificate.
    pub certificate: &'a Certificate,
    /// The upstream's address.
    pub upstream: SocketAddr,
    /// The upstream's process.
    pub upstream_pid: u32,
    /// Open files per process.
    pub open_files: u64,
}

/// Why a target does not run.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Its program is not there.
    #[error("{name} is not installed: no {program}; {remedy}")]
    Missing {
        /// The target.
        name: String,
        /// What was looked for.
        program: String,
        /// What to do.
        remedy: &'static str,
    },
    /// The specification cannot be.
    #[error("target {name}: {reason}")]
    Spec {
        /// The target.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// It ended before it served, or never did.
    #[error("{name} does not serve: {reason}\n{output}")]
    Failed {
        /// The target.
        name: String,
        /// The last thing that went wrong.
        reason: String,
        /// The end of what it printed.
        output: String,
    },
    /// The memory group.
    #[error("{name}: memory_limit: {source}")]
    Cgroup {
        /// The target.
        name: String,
        /// Why.
        source: CgroupError,
    },
    /// The client's TLS.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A system call of ours failed.
    #[error("starting targets: {0}")]
    Io(#[from] io::Error),
}

/// A target that serves. Dropped, it is ended and its memory group removed.
#[derive(Debug)]
pub struct Running {
    /// The MCP endpoint.
    pub url: String,
    /// The process to measure.
    pub pid: Option<u32>,
    /// What clients have to trust; `None`: no TLS, or (kind `url`) anything.
    pub ca_file: Option<PathBuf>,
    /// What TLS it negotiates.
    pub tls: Option<TlsFacts>,
    /// The first line that its program prints about its version.
    pub version: Option<String>,
    /// Why there is no memory group though one was asked for.
    pub no_group: Option<String>,
    // The order of these two matters: a group can be removed only once its process has ended.
    process: Option<Process>,
    group: Option<Group>,
}

impl TargetSpec {
    /// A target of this kind with defaults.
    pub fn new(kind: TargetKind) -> Self {
        Self {
            kind,
            name: kind.name().to_owned(),
            threads: 1,
            cpus: Vec::new(),
            program: None,
            config: toml::Table::new(),
            door: Door::Https,
            load_options: Vec::new(),
            tool_prefix: String::new(),
            memory_limit: None,
            cgroup: CgroupUse::Required,
            url: None,
            server_pid: None,
        }
    }

    /// Whether this can be started, as far as its words say.
    ///
    /// # Errors
    /// [`StartError::Spec`].
    pub fn check(&self) -> Result<(), StartError> {
        let wrong =
            |reason: &str| Err(StartError::Spec { name: self.name.clone(), reason: reason.to_owned() });
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        if self.name.is_empty() || !self.name.bytes().all(word) {
            return wrong("a name consists of letters, digits, `-` and `_`");
        }
        if !(1..=256).contains(&self.threads) {
            return wrong("threads: 1 to 256");
        }
        if self.kind == TargetKind::Nginx && self.threads != 1 {
            return wrong("threads: nginx works in processes, of which only one can be measured; use 1");
        }
        if self.kind != TargetKind::Gateway && !self.config.is_empty() {
            return wrong("config: only the gateway takes configuration keys");
        }
        if self.kind != TargetKind::Gateway && self.door != Door::Https {
            return wrong("door: only the gateway has another than https");
        }
        if (self.kind == TargetKind::Url) != self.url.is_some() {
            return wrong("url: needed by the kind `url`, and by no other");
        }
        if self.cpus.iter().any(|cpu| *cpu >= MAX_CPUS) {
            return wrong("cpus: no such CPU");
        }
        self.memory_limit_bytes().map(|_| ())
    }

    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(&self, site: &Site<'_>) -> Result<Running, StartError> {
        self.check()?;
        match (self.kind, &self.url) {
            (TargetKind::Url, Some(url)) => Ok(Running::outside(url.clone(), self.server_pid)),
            (TargetKind::Direct, _) => {
                Ok(Running::outside(format!("http://{}/mcp", site.upstream), Some(site.upstream_pid)))
            }
            _ => self.start_process(site),
        }
    }

    fn start_process(&self, site: &Site<'_>) -> Result<Running, StartError> {
        let program = program::find(self)?;
        let [port, second_port, binary_port] = free_ports()?;
        let (url, binary_port) = match self.door {
            Door::Https => (format!("https://127.0.0.1:{port}/mcp"), 0),
            Door::H2 => (format!("h2://127.0.0.1:{port}/mcp"), 0),
            Door::Ws => (format!("wss://127.0.0.1:{port}/ws"), 0),
            Door::Sse => (format!("sse://127.0.0.1:{port}/sse"), 0),
            Door::Mcpb => (format!("mcpb://127.0.0.1:{binary_port}"), binary_port),
        };
        let setting = Setting {
            folder: site.folder,
            certificate: site.certificate,
            upstream: site.upstream,
            port,
            second_port,
            binary_port,
            max_connections: site.open_files.saturating_sub(SPARE_DESCRIPTORS) / 2,
        };
        let (group, no_group) = self.group()?;
        let mut confinement = Confinement { cpus: self.cpus.clone(), group_file: None };
        if let Some(group) = &group {
            confinement.group_file = Some(group.entrance()?);
        }
        let version = program::version(self.kind, &program);
        let command = self.command(&program, &setting)?;
        let log = site.folder.file(&format!("{}.log", self.name));
        let mut running = Running {
            url,
            pid: None,
            ca_file: Some(site.certificate.cert_file.clone()),
            tls: None,
            version,
            no_group,
            process: Some(Process::start(command, &log, confinement)?),
            group,
        };
        running.pid = running.process.as_ref().map(Process::id);
        let tls = client_config(&Trust::File(site.certificate.cert_file.clone()), Protocol::Http1)?;
        running.tls = self.wait_ready(&mut running, SocketAddr::from((Ipv4Addr::LOCALHOST, port)), &tls)?;
        Ok(running)
    }

    /// Writes the configuration and says how the program is run with it.
    fn command(&self, program: &PathBuf, setting: &Setting<'_>) -> io::Result<Command> {
        let write =
            |extension: &str, text: &str| setting.folder.write(&format!("{}.{extension}", self.name), text);
        let mut command = Command::new(program);
        match self.kind {
            TargetKind::Gateway => {
                command.arg("--config").arg(write("toml", &gateway::config(self, setting))?);
            }
            TargetKind::Haproxy => {
                command.arg("-db").arg("-f").arg(write("cfg", &haproxy::config(self, setting))?);
            }
            TargetKind::Nginx => {
                command.arg("-p").arg(setting.folder.path());
                command.arg("-c").arg(write("conf", &nginx::config(setting))?);
            }
            TargetKind::Envoy | TargetKind::EnvoyMcp => {
                let reads_mcp = self.kind == TargetKind::EnvoyMcp;
                command.arg("-c").arg(write("json", &envoy::config(setting, reads_mcp))?);
                command.args(["--disable-hot-restart", "-l", "error"]);
                command.args(["--concurrency", &self.threads.to_string()]);
            }
            TargetKind::Direct | TargetKind::Url => {}
        }
        Ok(command)
    }

    fn wait_ready(
        &self,
        running: &mut Running,
        address: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Result<Option<TlsFacts>, StartError> {
        // The gateway's shards come up one by one; it says itself when all have.
        let path = (self.kind == TargetKind::Gateway).then_some("/ready");
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let reason = match probe::attempt(address, Some(tls), path) {
                Ok(facts) => return Ok(facts),
                Err(e) => e.to_string(),
            };
            let Some(process) = &mut running.process else { return Ok(None) };
            let ended = process.ended()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Err(StartError::Failed {
                    name: self.name.clone(),
                    reason: ended.map_or(reason, |status| format!("it ended with {status}")),
                    output: process.tail(),
                });
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn group(&self) -> Result<(Option<Group>, Option<String>), StartError> {
        let Some(limit) = self.memory_limit_bytes()? else { return Ok((None, None)) };
        match Group::create(limit) {
            Ok(group) => Ok((Some(group), None)),
            Err(e) if self.cgroup == CgroupUse::IfPossible => Ok((None, Some(e.to_string()))),
            Err(source) => Err(StartError::Cgroup { name: self.name.clone(), source }),
        }
    }

    fn memory_limit_bytes(&self) -> Result<Option<u64>, StartError> {
        let Some(text) = &self.memory_limit else { return Ok(None) };
        parse_size(text).map(Some).ok_or_else(|| StartError::Spec {
            name: self.name.clone(),
            reason: format!("memory_limit: `{text}` is not a size like 512MiB or 2GiB"),
        })
    }
}

impl Running {
    pub(crate) fn outside(url: String, pid: Option<u32>) -> Self {
        Self { url, pid, ca_file: None, tls: None, version: None, no_group: None, process: None, group: None }
    }

    /// Looks at the memory group, if there is one.
    pub fn sample_group(&mut self) {
        if let Some(group) = &mut self.group {
            group.sample();
        }
    }

    /// What became of the memory group.
    pub fn group_report(&mut self) -> Option<GroupReport> {
        self.group.as_mut().map(Group::report)
    }

    /// Why it no longer serves: how it ended and what it last printed.
    pub fn death(&mut self) -> Option<String> {
        let process = self.process.as_mut()?;
        let status = process.ended().ok()??;
        Some(format!("it ended with {status}: {}", process.tail()))
    }
}

impl TargetKind {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gateway => "gateway",
            Self::Haproxy => "haproxy",
            Self::Envoy => "envoy",
            Self::EnvoyMcp => "envoy-mcp",
            Self::Nginx => "nginx",
            Self::Direct => "direct",
            Self::Url => "url",
        }
    }
}

fn one() -> u16 {
    1
}

/// Ports that are free now. Another process may take them before the target does; that shows at its start.
fn free_ports() -> io::Result<[u16; 3]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let [a, b, c] = [bind()?, bind()?, bind()?];
    Ok([a.local_addr()?.port(), b.local_addr()?.port(), c.local_addr()?.port()])
}

fn parse_size(text: &str) -> Option<u64> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
    let shift = match unit {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift).filter(|bytes| *bytes > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn spec(kind: &str) -> TargetSpec {
        let mut spec: TargetSpec = toml::from_str(&format!("kind = {kind:?}")).unwrap();
        spec.name = kind.to_owned();
        spec
    }

    pub(super) fn setting<T>(with: impl FnOnce(&Setting<'_>) -> T) -> T {
        let folder = Folder::create().unwrap();
        let certificate = Certificate::generate(&folder).unwrap();
        with(&Setting {
            folder: &folder,
            certificate: &certificate,
            upstream: "127.0.0.1:3001".parse().unwrap(),
            port: 1,
            second_port: 2,
            binary_port: 0,
            max_connections: 100,
        })
    }

    #[test]
    fn what_cannot_be_started_is_said_before() {
        type Case = (&'static str, fn(&mut TargetSpec), &'static str);
        let cases: [Case; 7] = [
            ("haproxy", |s| s.door = Door::Mcpb, "door"),
            ("gateway", |s| s.threads = 0, "threads"),
            ("nginx", |s| s.threads = 2, "threads"),
            ("haproxy", |s| drop(s.config.insert("a".to_owned(), 1.into())), "config"),
            ("url", |_| {}, "url"),
            ("gateway", |s| s.name = "a b".to_owned(), "name"),
            ("gateway", |s| s.memory_limit = Some("2G".to_owned()), "memory_limit"),
        ];
        for (kind, change, word) in cases {
            let mut spec = spec(kind);
            change(&mut spec);
            let error = spec.check().unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        assert!(spec("gateway").check().is_ok());
    }

    #[test]
    fn a_program_that_is_not_there_is_named_with_the_command_that_installs_it() {
        let mut spec = spec("haproxy");
        spec.program = Some("/no/such/haproxy".into());
        let error = setting(|setting| {
            spec.start(&Site {
                folder: setting.folder,
                certificate: setting.certificate,
                upstream: setting.upstream,
                upstream_pid: 1,
                open_files: 1000,
            })
        })
        .unwrap_err();
        assert!(matches!(error, StartError::Missing { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("/no/such/haproxy") && text.contains("bench/install-targets"), "{text}");
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("2GiB"), Some(2 << 30));
        assert_eq!(parse_size("512MiB"), Some(512 << 20));
        for bad in ["", "2", "GiB", "0KiB", "2GB", "99999999999GiB"] {
            assert_eq!(parse_size(bad), None, "{bad}");
        }
    }
}
