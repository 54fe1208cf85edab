//! The URL to load, taken apart and resolved once, before any thread starts.

use std::net::{SocketAddr, ToSocketAddrs};

/// What is spoken to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1: `http://`, `https://`.
    Http1,
    /// HTTP/2 by ALPN: `h2://`, a name of our own for `https://`.
    Http2,
    /// WebSocket: `wss://`, `ws://`.
    WebSocket,
    /// HTTP with SSE, of revision 2024-11-05, over HTTP/1.1: `sse://`, a name of our own for `https://`.
    Sse,
    /// The gateway's binary protocol, over TLS: `mcpb://`.
    Mcpb,
}

impl Protocol {
    /// What reports call it: the gateway's own label for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "h2",
            Self::WebSocket => "ws",
            Self::Sse => "sse",
            Self::Mcpb => "mcpb",
        }
    }

    /// What TLS is to agree on.
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http2 => b"h2",
            Self::Http1 | Self::WebSocket | Self::Sse | Self::Mcpb => b"http/1.1",
        }
    }
}

/// Where the load goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// By the URL's scheme.
    pub protocol: Protocol,
    /// All but `http` and `ws`.
    pub tls: bool,
    /// The host as written, for the certificate's check.
    pub host: String,
    /// The value of the `Host` field.
    pub authority: String,
    /// Path and query.
    pub path: String,
    /// The first address that the host resolves to.
    pub address: SocketAddr,
}

/// Why a URL cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It is of another scheme, or has no host.
    #[error(
        "`{url}` is not a URL like https://127.0.0.1:8443/mcp, h2://127.0.0.1:8443/mcp, wss://127.0.0.1:8443/ws, sse://127.0.0.1:8443/sse or mcpb://127.0.0.1:9443"
    )]
    Url {
        /// The URL given.
        url: String,
    },
    /// The host has no address.
    #[error("cannot resolve {authority}: {reason}")]
    Resolve {
        /// Host and port.
        authority: String,
        /// The resolver's words.
        reason: String,
    },
}

impl Target {
    /// Takes `url` apart and resolves its host (blocking).
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn resolve(url: &str) -> Result<Self, TargetError> {
        let malformed = || TargetError::Url { url: url.to_owned() };
        let (scheme, rest) = url.split_once("://").ok_or_else(malformed)?;
        let (protocol, tls, default_port) = match scheme {
            "https" => (Protocol::Http1, true, 443),
            "http" => (Protocol::Http1, false, 80),
            "h2" => (Protocol::Http2, true, 443),
            "wss" => (Protocol::WebSocket, true, 443),
            "ws" => (Protocol::WebSocket, false, 80),
            "sse" => (Protocol::Sse, true, 443),
            "mcpb" => (Protocol::Mcpb, true, 9443),
            _ => return Err(malformed()),
        };
        let at = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let visible = url.bytes().all(|b| b.is_ascii_graphic());
        if authority.is_empty() || authority.contains(['@', '?', '#']) || path.contains('#') || !visible {
            return Err(malformed());
        }
        let (host, port) = split_port(authority).ok_or_else(malformed)?;
        let port = port.unwrap_or(default_port);
        let failed = |reason: String| TargetError::Resolve { authority: authority.to_owned(), reason };
        let address = (host, port)
            .to_socket_addrs()
            .map_err(|e| failed(e.to_string()))?
            .next()
            .ok_or_else(|| failed("no address".to_owned()))?;
        Ok(Self {
            protocol,
            tls,
            host: host.to_owned(),
            authority: authority.to_owned(),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            address,
        })
    }
}

/// Host (brackets of an IPv6 address taken off) and port of an authority.
fn split_port(authority: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, tail) = rest.split_once(']')?;
        return match tail.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => tail.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) if !host.is_empty() => Some((host, Some(port.parse().ok()?))),
        Some(_) => None,
        None => Some((authority, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let t = Target::resolve("https://127.0.0.1:8443/mcp/a?b=c").unwrap();
        assert_eq!((t.tls, t.host.as_str(), t.authority.as_str()), (true, "127.0.0.1", "127.0.0.1:8443"));
        assert_eq!((t.path.as_str(), t.address), ("/mcp/a?b=c", "127.0.0.1:8443".parse().unwrap()));
        let t = Target::resolve("http://[::1]").unwrap();
        assert_eq!((t.tls, t.path.as_str(), t.address), (false, "/", "[::1]:80".parse().unwrap()));
        let t = Target::resolve("h2://127.0.0.1/mcp").unwrap();
        assert_eq!((t.protocol, t.tls, t.address.port()), (Protocol::Http2, true, 443));
        let t = Target::resolve("wss://127.0.0.1:8443/ws").unwrap();
        assert_eq!((t.protocol, t.tls, t.path.as_str()), (Protocol::WebSocket, true, "/ws"));
        let t = Target::resolve("sse://127.0.0.1:8443/sse/a").unwrap();
        assert_eq!((t.protocol, t.tls, t.path.as_str()), (Protocol::Sse, true, "/sse/a"));
        let t = Target::resolve("mcpb://127.0.0.1").unwrap();
        assert_eq!((t.protocol, t.tls, t.address), (Protocol::Mcpb, true, "127.0.0.1:9443".parse().unwrap()));
    }

    #[test]
    fn other_urls_are_refused() {
        for bad in
            ["127.0.0.1", "ftp://h/", "http://", "http://a@b/", "http://h:x/", "http://h/a b", "http://:1/"]
        {
            assert!(matches!(Target::resolve(bad), Err(TargetError::Url { .. })), "{bad}");
        }
    }
}
