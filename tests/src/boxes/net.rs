//! Owns networks of the test's own: Linux network namespaces as nodes, a cable from each to one switch, and the pulling of
//! cables. Nothing in them reaches the machine's own network, and the other way round.
//!
//! All names begin with `mcpbox-<pid>-`. Dropped, the network is gone; what a killed run left behind is removed by the next
//! one. Needs root, or CAP_NET_ADMIN with CAP_SYS_ADMIN, and iproute2.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// What all names begin with.
const PREFIX: &str = "mcpbox-";
/// Where `ip netns` keeps its namespaces.
const FOLDER: &str = "/run/netns";
/// The node in which all cables end.
const SWITCH: &str = "switch";
/// How many bits of an address all nodes share: they are neighbours.
const NETWORK_BITS: u8 = 16;

/// A network namespace that is held open.
#[derive(Debug, Clone)]
pub struct Namespace {
    file: Arc<File>,
}

/// Nodes that are connected by a switch.
#[derive(Debug)]
pub struct Network {
    prefix: String,
    nodes: BTreeMap<String, Namespace>,
}

impl Namespace {
    /// Moves the calling thread into it, for good.
    ///
    /// # Panics
    /// When the system does not allow it.
    pub fn enter(&self) {
        set(self.file.as_raw_fd()).unwrap_or_else(|error| panic!("cannot enter a network: {error}"));
    }

    /// Has `command` run in it.
    pub fn hold(&self, command: &mut Command) {
        let namespace = self.clone();
        // SAFETY: setns is async-signal-safe, and the descriptor is open as long as the closure is.
        unsafe {
            command.pre_exec(move || set(namespace.file.as_raw_fd()));
        }
    }
}

impl Network {
    /// A switch without nodes. Removes what killed runs left behind.
    ///
    /// # Panics
    /// When the rights or the tools for it are missing; the message says which.
    #[must_use]
    pub fn new() -> Self {
        remove_leftovers();
        let network = Self { prefix: format!("{PREFIX}{}-", std::process::id()), nodes: BTreeMap::new() };
        let switch = network.name(SWITCH);
        let made = try_ip(&["netns", "add", &switch]);
        assert!(
            made.is_ok(),
            "this test makes network namespaces: it needs root, or CAP_NET_ADMIN with CAP_SYS_ADMIN, and iproute2: {made:?}"
        );
        ip(&["-n", &switch, "link", "add", SWITCH, "type", "bridge"]);
        ip(&["-n", &switch, "link", "set", SWITCH, "up"]);
        network
    }

    /// Adds a node with this address, its cable plugged in.
    ///
    /// # Panics
    /// When the system refuses it.
    pub fn add(&mut self, node: &str, address: Ipv4Addr) -> Namespace {
        let (name, switch) = (self.name(node), self.name(SWITCH));
        ip(&["netns", "add", &name]);
        ip(&["-n", &name, "link", "set", "lo", "up"]);
        ip(&["-n", &name, "link", "add", "eth0", "type", "veth", "peer", "name", node, "netns", &switch]);
        ip(&["-n", &name, "address", "add", &format!("{address}/{NETWORK_BITS}"), "dev", "eth0"]);
        ip(&["-n", &name, "link", "set", "eth0", "up"]);
        ip(&["-n", &switch, "link", "set", node, "master", SWITCH, "up"]);
        let path = format!("{FOLDER}/{name}");
        let file = File::open(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let namespace = Namespace { file: Arc::new(file) };
        self.nodes.insert(node.to_owned(), namespace.clone());
        namespace
    }

    /// A node's namespace.
    ///
    /// # Panics
    /// When there is no such node.
    #[must_use]
    pub fn node(&self, node: &str) -> Namespace {
        self.nodes.get(node).unwrap_or_else(|| panic!("no node {node}")).clone()
    }

    /// Pulls a node's cable at the switch: what is sent either way is lost without a word.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn cut(&self, node: &str) {
        ip(&["-n", &self.name(SWITCH), "link", "set", node, "down"]);
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn mend(&self, node: &str) {
        ip(&["-n", &self.name(SWITCH), "link", "set", node, "up"]);
    }

    fn name(&self, node: &str) -> String {
        format!("{}{node}", self.prefix)
    }
}

impl Default for Network {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        remove(|name| name.starts_with(&self.prefix));
    }
}

/// Removes the namespaces of test processes that are no more.
fn remove_leftovers() {
    remove(|name| {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        pid.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists())
    });
}

fn remove(is_meant: impl Fn(&str) -> bool) {
    let Ok(entries) = std::fs::read_dir(FOLDER) else { return };
    for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
        if is_meant(&name)
            && let Err(error) = try_ip(&["netns", "delete", &name])
        {
            // What stays is removed by the next run.
            eprintln!("{error}");
        }
    }
}

fn set(descriptor: i32) -> std::io::Result<()> {
    // SAFETY: the descriptor is open as long as its namespace is borrowed.
    match unsafe { libc::setns(descriptor, libc::CLONE_NEWNET) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

fn ip(args: &[&str]) {
    if let Err(error) = try_ip(args) {
        panic!("{error}");
    }
}

fn try_ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    use crate::{Connection, eventually};

    const LIMIT: Duration = Duration::from_secs(30);

    #[test]
    fn nodes_reach_each_other_until_a_cable_is_pulled() {
        let (here, there) = (Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 2));
        let mut network = Network::new();
        let prefix = network.prefix.clone();
        network.add("there", there);
        network.add("here", here);
        let there = network.node("there");
        let listening = std::thread::spawn(move || {
            there.enter();
            TcpListener::bind("10.77.0.2:80").expect("a listener")
        });
        let listener = listening.join().expect("no panic");
        let addr = SocketAddr::from(([10, 77, 0, 2], 80));
        // What the machine's own network has at this address, if anything, is somebody else's.
        let here = network.node("here");
        std::thread::spawn(move || {
            here.enter();
            let mut connection = Connection::plain(addr).expect("a connection");
            let (accepted, _) = listener.accept().expect("accepted");
            network.cut("there");
            drop(accepted);
            assert!(!connection.has_ended(), "the end came through");
            network.mend("there");
            eventually("the end comes after all", LIMIT, || connection.has_ended().then_some(()));
        })
        .join()
        .expect("no panic");
        let left = std::fs::read_dir(FOLDER).expect("a folder").flatten();
        assert!(!left.map(|entry| entry.file_name()).any(|name| name.to_string_lossy().starts_with(&prefix)));
    }
}
