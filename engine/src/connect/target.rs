//! The URL that `connect` is given: owns which doors there are and what each asks of its URL. Never a connection.

use mcp_config::Endpoint;

/// Where MCPB listens unless the URL says otherwise.
const MCPB_PORT: u16 = 9443;

/// How the gateway is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Door {
    /// Streamable HTTP.
    Http,
    /// One socket for everything.
    WebSocket,
    /// The binary protocol, always inside TLS.
    Mcpb,
}

/// A gateway's door and where it is.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) door: Door,
    pub(super) endpoint: Endpoint,
}

impl Target {
    /// Parses the URL. A path that is left out is the door's own.
    ///
    /// # Errors
    /// What is wrong with it, as a sentence for the user.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.starts_with("mcpb://") {
            return Self::parse_mcpb(text);
        }
        let parsed = Endpoint::parse(text, "http", "https").map(|endpoint| (Door::Http, endpoint));
        let parsed = parsed.or_else(|| Some((Door::WebSocket, Endpoint::parse(text, "ws", "wss")?)));
        let (door, mut endpoint) = parsed.ok_or_else(|| {
            format!(
                "{text:?} is no URL of a gateway: use https://host/mcp/server, wss://host/ws/server or \
                 mcpb://host:{MCPB_PORT}"
            )
        })?;
        if !endpoint.tls && !is_loopback(&endpoint.host) {
            return Err(format!(
                "{text:?} would send everything, credentials included, in plain text: use https:// or wss:// (http:// and \
                 ws:// are for loopback hosts only)"
            ));
        }
        if endpoint.path == "/" {
            endpoint.path = if door == Door::Http { "/mcp" } else { "/ws" }.to_owned();
        }
        Ok(Target { door, endpoint })
    }

    fn parse_mcpb(text: &str) -> Result<Self, String> {
        let authority = text.trim_start_matches("mcpb://");
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| !port.contains(']'));
        let whole =
            if has_port || authority.contains('/') { text.to_owned() } else { format!("{text}:{MCPB_PORT}") };
        // No scheme is empty, so there is none without TLS.
        match Endpoint::parse(&whole, "", "mcpb") {
            Some(endpoint) if endpoint.path == "/" => Ok(Target { door: Door::Mcpb, endpoint }),
            Some(_) => {
                Err(format!("{text:?} has a path: MCPB has none, it leads to all of the gateway's servers"))
            }
            None => Err(format!("{text:?} is no URL of a gateway: use mcpb://host:{MCPB_PORT}")),
        }
    }
}

/// What `Host` says: the port stands where it is not the scheme's own.
pub(super) fn authority(endpoint: &Endpoint) -> String {
    let host = match endpoint.host.contains(':') {
        true => format!("[{}]", endpoint.host),
        false => endpoint.host.clone(),
    };
    let default = if endpoint.tls { 443 } else { 80 };
    if endpoint.port == default { host } else { format!("{host}:{}", endpoint.port) }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_door_has_its_scheme() {
        for (text, door, host, port, path) in [
            ("https://gw.example.com/mcp/files", Door::Http, "gw.example.com", 443, "/mcp/files"),
            ("https://gw.example.com:8443", Door::Http, "gw.example.com", 8443, "/mcp"),
            ("http://127.0.0.1:8080/mcp", Door::Http, "127.0.0.1", 8080, "/mcp"),
            ("http://[::1]/mcp?x=1", Door::Http, "::1", 80, "/mcp?x=1"),
            ("http://LocalHost/", Door::Http, "LocalHost", 80, "/mcp"),
            ("wss://gw.example.com/ws/files", Door::WebSocket, "gw.example.com", 443, "/ws/files"),
            ("ws://127.0.0.1:8080", Door::WebSocket, "127.0.0.1", 8080, "/ws"),
            ("mcpb://gw.example.com:9000", Door::Mcpb, "gw.example.com", 9000, "/"),
            ("mcpb://gw.example.com", Door::Mcpb, "gw.example.com", 9443, "/"),
            ("mcpb://[::1]", Door::Mcpb, "::1", 9443, "/"),
        ] {
            let target = Target::parse(text).expect(text);
            assert_eq!(target.door, door, "{text}");
            let endpoint = target.endpoint;
            assert_eq!((&*endpoint.host, endpoint.port, &*endpoint.path), (host, port, path), "{text}");
            assert_eq!(endpoint.tls, !text.starts_with("http:") && !text.starts_with("ws:"), "{text}");
        }
    }

    #[test]
    fn what_is_refused_is_told_with_the_way_out() {
        for (text, told) in [
            ("http://gw.example.com/mcp", "https://"),
            ("http://127.0.0.1.example.com/mcp", "https://"),
            ("ws://gw.example.com/ws", "wss://"),
            ("ftp://gw.example.com", "https://"),
            ("gw.example.com", "https://"),
            ("https://user:secret@gw.example.com/mcp", "https://"),
            ("mcpb://gw.example.com:9443/files", "all of the gateway's servers"),
            ("mcpb://", "mcpb://host"),
        ] {
            let error = Target::parse(text).expect_err(text);
            assert!(error.contains(told), "{text}: {error}");
        }
    }
}
