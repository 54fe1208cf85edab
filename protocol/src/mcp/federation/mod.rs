//! Many servers shown as one: owns what becomes of names, URIs, ids, lists, cursors and greetings between a client that sees
//! one server and the servers behind it.
//!
//! It never decides whom to wait for and never sends: bytes of one side go in, bytes for the other come out. Whatever is not
//! such a name stays byte for byte, as the server or the client wrote it; only greetings are put together anew.

mod cursor;
mod hello;
mod list;
mod listen;
mod names;
mod outward;
mod route;
mod splice;

pub use hello::{Hello, ServerInfo, write_discover, write_initialize};
pub use list::{Freshness, List, Page, asks_only_for_page, write_list};
pub use listen::{Acknowledged, write_acknowledged};
pub use names::{Federation, clash};
pub use outward::Asked;
pub use route::{Route, Unroutable};

/// The key in a result's `_meta` that names the servers whose part is missing: an array of their names.
pub const MISSING_SERVERS: &str = "io.mcp-bridge/missing-servers";

/// Appends the array of these servers' names, which need no escapes.
fn write_names(out: &mut Vec<u8>, federation: &Federation, servers: &[usize]) {
    out.push(b'[');
    for (place, server) in servers.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        crate::jsonrpc::write_json_string(out, federation.name(*server));
    }
    out.push(b']');
}

#[cfg(test)]
mod tests;
