//! Where a target's program is, and which version.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{StartError, TargetKind, TargetSpec};

/// Where `bench/install-targets` puts Envoy, seen from the folder of our own program.
const ENVOY_BESIDE: &str = "../bench-targets/envoy/envoy/_bin/envoy";
/// System folders that a user's `PATH` may leave out.
const SYSTEM_FOLDERS: [&str; 2] = ["/usr/local/sbin", "/usr/sbin"];
/// Characters kept of a version line.
const MAX_VERSION_CHARS: usize = 120;

/// Finds the program: the one given, else beside our own (the gateway, and Envoy from `bench/install-targets`), else in
/// `PATH` and the system's folders.
pub(super) fn find(spec: &TargetSpec) -> Result<PathBuf, StartError> {
    let missing = |program: String, remedy| StartError::Missing { name: spec.name.clone(), program, remedy };
    let (name, beside, remedy) = match spec.kind {
        TargetKind::Gateway => {
            ("mcp-gateway", "mcp-gateway", "build it (cargo build --release), or name it with --gateway PATH")
        }
        TargetKind::Haproxy => ("haproxy", "", "install it with bench/install-targets haproxy"),
        TargetKind::Nginx => ("nginx", "", "install it with bench/install-targets nginx"),
        _ => ("envoy", ENVOY_BESIDE, "install it with bench/install-targets envoy"),
    };
    if let Some(given) = &spec.program {
        return if given.is_file() {
            Ok(given.clone())
        } else {
            Err(missing(given.display().to_string(), remedy))
        };
    }
    let own = std::env::current_exe()?;
    let near = own.parent().map(|folder| folder.join(beside)).filter(|_| !beside.is_empty());
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_FOLDERS.map(PathBuf::from))
        .map(|folder| folder.join(name))
        .fold(near.filter(|path| path.is_file()), |found, path| {
            found.or_else(|| path.is_file().then_some(path))
        })
        .ok_or_else(|| missing(format!("{name} in PATH"), remedy))
}

/// The first line that the program prints about its version; `None` when it says nothing.
pub(super) fn version(kind: TargetKind, program: &Path) -> Option<String> {
    let flag = match kind {
        TargetKind::Haproxy | TargetKind::Nginx => "-v",
        _ => "--version",
    };
    let output = Command::new(program).arg(flag).stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    // Envoy begins with the path by which it was called.
    let line = line.rsplit_once("  version: ").map_or(line, |(_, version)| version);
    Some(line.chars().take(MAX_VERSION_CHARS).collect())
}
