//! What a node of a cluster says of it: owns reading `CLUSTER SHARDS` (Redis 7), `CLUSTER SLOTS` (before) and the redirects
//! `MOVED` and `ASK`. Pure; whatever a node says is either understood or `None`.
//!
//! A node may leave a host out, which means "where you asked". It may also not know a host by the kind of name that it
//! prefers ("?"); then the IP address helps, which stands beside it.

use mcp_protocol::resp::Reply;

use super::slots::{MAX_NODES, SLOTS};
use crate::runtime::Address;

/// Ranges that one shard's slots may lie in: no slot next to another.
const MAX_RANGES: usize = SLOTS / 2;

/// A cluster, as one node sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The masters that serve slots.
    pub(super) masters: Vec<Shard>,
    /// Nodes that serve none, but can be asked.
    pub(super) replicas: Vec<Address>,
}

/// A master and what it serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shard {
    /// The master.
    pub(super) address: Address,
    /// First and last slot of each range, both below [`SLOTS`], the first not above the last.
    pub(super) ranges: Vec<(u16, u16)>,
}

/// How a node says that another one is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Redirect {
    /// Whether the slot has moved for good (`MOVED`), or this one command is to be asked elsewhere (`ASK`).
    pub(super) moved: bool,
    /// The slot.
    pub(super) slot: u16,
    /// Who is to be asked.
    pub(super) to: Address,
}

/// Reads the answer of `asked` to `CLUSTER SHARDS`. With `tls`, nodes are reached at their TLS port.
pub(super) fn read_shards(reply: &Reply, asked: &Address, tls: bool) -> Option<Layout> {
    let mut layout = Layout::default();
    for shard in list(reply, MAX_NODES)? {
        let ranges = list(shard.get("slots")?, 2 * MAX_RANGES)?;
        let ranges: Vec<_> =
            ranges.chunks(2).map(|range| span(range.first()?, range.get(1)?)).collect::<Option<_>>()?;
        let mut master: Option<(&Reply, bool)> = None;
        for node in list(shard.get("nodes")?, MAX_NODES)? {
            // During a failover both the old and the new master may be named as such.
            let online = node.get("health")?.as_str()? == "online";
            match node.get("role")?.as_str()? {
                "master" if master.is_none_or(|(_, other)| online && !other) => master = Some((node, online)),
                _ => layout.replicas.extend(node_of(node, asked, tls)),
            }
        }
        // A master that serves nothing has failed or just joined; a shard that has lost its master serves nothing.
        let Some((master, _)) = master.filter(|_| !ranges.is_empty()) else { continue };
        layout.masters.push(Shard { address: node_of(master, asked, tls)?, ranges });
    }
    complete(layout)
}

/// Reads the answer of `asked` to `CLUSTER SLOTS`; ports are those for the kind of connection that it was asked on.
pub(super) fn read_slots(reply: &Reply, asked: &Address) -> Option<Layout> {
    let mut layout = Layout::default();
    for entry in list(reply, SLOTS)? {
        let [first, last, master, replicas @ ..] = list(entry, MAX_NODES)? else { return None };
        let range = span(first, last)?;
        let address = slots_node(master, asked)?;
        match layout.masters.iter_mut().find(|shard| shard.address == address) {
            Some(shard) => shard.ranges.push(range),
            None => layout.masters.push(Shard { address, ranges: vec![range] }),
        }
        for replica in replicas.iter().filter_map(|node| slots_node(node, asked)) {
            if !layout.replicas.contains(&replica) {
                layout.replicas.push(replica);
            }
        }
    }
    complete(layout)
}

/// Reads an error that begins with `MOVED` or `ASK`; `None` for every other one.
pub(super) fn read_redirect(error: &str, asked: &Address) -> Option<Redirect> {
    let mut words = error.split(' ');
    let moved = match words.next()? {
        "MOVED" => true,
        "ASK" => false,
        _ => return None,
    };
    let slot = words.next()?.parse().ok().filter(|slot| usize::from(*slot) < SLOTS)?;
    // An IPv6 address comes without brackets, so only the last colon is the port's.
    let (host, port) = words.next()?.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = if is_known(host) { host.into() } else { asked.host.clone() };
    Some(Redirect { moved, slot, to: Address { host, port } })
}

/// A table is worth having when it names somebody, and not more than the limit.
fn complete(layout: Layout) -> Option<Layout> {
    (!layout.masters.is_empty() && layout.masters.len() <= MAX_NODES).then_some(layout)
}

fn node_of(node: &Reply, asked: &Address, tls: bool) -> Option<Address> {
    let port = node.get(if tls { "tls-port" } else { "port" })?;
    let host = match node.get("endpoint") {
        None | Some(Reply::Null) => asked.host.clone(),
        Some(endpoint) => match endpoint.as_str()? {
            "" => asked.host.clone(),
            "?" => node.get("ip").and_then(Reply::as_str).filter(|ip| is_known(ip))?.into(),
            host => host.into(),
        },
    };
    Some(Address { host, port: port_of(port)? })
}

fn slots_node(node: &Reply, asked: &Address) -> Option<Address> {
    let node = list(node, 16)?;
    let host = match node.first()? {
        Reply::Null => asked.host.clone(),
        host => match host.as_str()? {
            "" => asked.host.clone(),
            "?" => node.get(3)?.get("ip").and_then(Reply::as_str).filter(|ip| is_known(ip))?.into(),
            host => host.into(),
        },
    };
    Some(Address { host, port: port_of(node.get(1)?)? })
}

fn is_known(host: &str) -> bool {
    !matches!(host, "" | "?")
}

fn span(first: &Reply, last: &Reply) -> Option<(u16, u16)> {
    let (first, last) = (integer(first)?, integer(last)?);
    (first <= last && usize::from(last) < SLOTS).then_some((first, last))
}

fn port_of(reply: &Reply) -> Option<u16> {
    integer(reply).filter(|port| *port != 0)
}

fn integer(reply: &Reply) -> Option<u16> {
    u16::try_from(reply.as_integer()?).ok()
}

fn list(reply: &Reply, most: usize) -> Option<&[Reply]> {
    reply.as_array().filter(|items| items.len() <= most)
}

#[cfg(test)]
mod tests;
