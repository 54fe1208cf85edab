//! Addresses as text: URLs of endpoints and of Redis, `host:port`, origins and hosts of requests.
//!
//! Owns their grammar (RFC 3986, narrowed to what can be connected to) and refuses user information, so that no secret
//! gets into the runtime's shape. It never resolves a name.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::limits::MAX_TEXT_BYTES;
use crate::types::{Endpoint, RedisUrl};

/// Longest host name, in bytes (RFC 1035, 2.3.4).
const MAX_HOST_BYTES: usize = 253;

/// Longest label of a host name, in bytes (RFC 1035, 2.3.4).
const MAX_LABEL_BYTES: usize = 63;

/// The schemes of an endpoint, without and with TLS.
pub(crate) struct Schemes {
    pub(crate) plain: &'static str,
    pub(crate) tls: &'static str,
}

pub(crate) const HTTP: Schemes = Schemes { plain: "http", tls: "https" };
pub(crate) const WEBSOCKET: Schemes = Schemes { plain: "ws", tls: "wss" };

/// Port of Redis where a URL names none.
const REDIS_PORT: u16 = 6379;

/// Parses an endpoint's URL. `None` for other schemes, user information, a fragment, or characters that a request
/// target can't hold (RFC 9112, 3.2.1).
pub(crate) fn endpoint(text: &str, schemes: &Schemes) -> Option<Endpoint> {
    let (scheme, rest) = split_scheme(text)?;
    let tls = match scheme {
        _ if scheme.eq_ignore_ascii_case(schemes.plain) => false,
        _ if scheme.eq_ignore_ascii_case(schemes.tls) => true,
        _ => return None,
    };
    let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (host, port) = host_and_port(authority)?;
    if !target.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return None;
    }
    let path = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    Some(Endpoint { tls, host, port, path, text: text.to_owned() })
}

/// Parses `redis://host:port/database` or `rediss://…`. `None` for user information, a query or a fragment.
pub(crate) fn redis_url(text: &str) -> Option<RedisUrl> {
    let (scheme, rest) = split_scheme(text)?;
    let tls = match scheme {
        "redis" => false,
        "rediss" => true,
        _ => return None,
    };
    let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
    let (host, port) = host_and_port(authority)?;
    let database = if database.is_empty() { 0 } else { number(database)? };
    Some(RedisUrl { host, port: port.unwrap_or(REDIS_PORT), database, tls, text: text.to_owned() })
}

/// Checks `host:port`, both required; gives it back as it is.
pub(crate) fn node(text: &str) -> Option<String> {
    let (_, port) = host_and_port(text)?;
    port.map(|_| text.to_owned())
}

/// A serialized origin (RFC 6454, 6.2) in lower case. `None` for `null`, a path, or the scheme's default port, which a
/// browser never writes.
pub(crate) fn origin(text: &str) -> Option<String> {
    let (scheme, authority) = split_scheme(text)?;
    let (_, port) = host_and_port(authority)?;
    let scheme = scheme.to_ascii_lowercase();
    let default = matches!((scheme.as_str(), port), ("http" | "ws", Some(80)) | ("https" | "wss", Some(443)));
    (!default).then(|| text.to_ascii_lowercase())
}

/// The value of a `Host` header (RFC 9110, 7.2) in lower case.
pub(crate) fn host_header(text: &str) -> Option<String> {
    host_and_port(text).map(|_| text.to_ascii_lowercase())
}

/// A name or an address without a port, as a certificate may prove it.
pub(crate) fn bare_host(text: &str) -> Option<String> {
    if text.parse::<Ipv6Addr>().is_ok() {
        return Some(text.to_owned());
    }
    host_and_port(text).filter(|(_, port)| port.is_none()).map(|(host, _)| host)
}

/// Splits at `://` after a scheme (RFC 3986, 3.1).
fn split_scheme(text: &str) -> Option<(&str, &str)> {
    if text.len() > MAX_TEXT_BYTES {
        return None;
    }
    let (scheme, rest) = text.split_once("://")?;
    let valid = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    valid.then_some((scheme, rest))
}

/// Splits an authority without user information; an IPv6 address loses its brackets.
fn host_and_port(authority: &str) -> Option<(String, Option<u16>)> {
    if let Some(bracketed) = authority.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        let port = if rest.is_empty() { None } else { Some(port(rest.strip_prefix(':')?)?) };
        return Some((host.to_owned(), port));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, text)) => (host, Some(port(text)?)),
        None => (authority, None),
    };
    is_host(host).then(|| (host.to_owned(), port))
}

fn port(text: &str) -> Option<u16> {
    number(text).filter(|port| *port != 0)
}

/// Digits only; the parser of the standard library takes a sign, too.
fn number(text: &str) -> Option<u16> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A host name, or an IPv4 address: what consists of digits and dots only must be one.
fn is_host(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host);
    let label_ok = |label: &str| {
        (1..=MAX_LABEL_BYTES).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= MAX_HOST_BYTES
        && name.split('.').all(label_ok)
        && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> Option<(bool, String, u16, String)> {
        endpoint(text, &HTTP).map(|e| (e.tls, e.host, e.port, e.path))
    }

    #[test]
    fn endpoints() {
        for (text, tls, host, port, path) in [
            ("http://127.0.0.1:3001/mcp", false, "127.0.0.1", 3001, "/mcp"),
            ("https://mcp.example.com", true, "mcp.example.com", 443, "/"),
            ("http://h?x=1", false, "h", 80, "/?x=1"),
            ("HTTPS://h/a/b?c=d&e", true, "h", 443, "/a/b?c=d&e"),
            ("http://[::1]:8080/", false, "::1", 8080, "/"),
            ("http://svc_a.ns.svc.cluster.local./", false, "svc_a.ns.svc.cluster.local.", 80, "/"),
        ] {
            assert_eq!(parts(text), Some((tls, host.to_owned(), port, path.to_owned())), "{text}");
        }
        assert!(endpoint("wss://h/x", &WEBSOCKET).is_some_and(|e| e.tls && e.port == 443));
    }

    #[test]
    fn refused_endpoints() {
        for text in [
            "",
            "h",
            "ftp://h/",
            "ws://h/",
            "http://",
            "http:///p",
            "http://h:0/",
            "http://h:65536/",
            "http://h:/",
            "http://h:+1/",
            "http://u:p@h/",
            "http://u@h/",
            "http://h/#f",
            "http://h/a b",
            "http://h/\n",
            "http://h/ä",
            "http://[::1/",
            "http://[::g]/",
            "http://[::1]x/",
            "http://::1/",
            "http://256.1.1.1/",
            "http://1.2.3/",
            "http://-a/",
            "http://a..b/",
        ] {
            assert_eq!(parts(text), None, "{text}");
        }
        assert_eq!(parts(&format!("http://h/{}", "x".repeat(MAX_TEXT_BYTES))), None);
        assert_eq!(parts(&format!("http://{}/", "a".repeat(MAX_LABEL_BYTES + 1))), None);
    }

    #[test]
    fn redis_urls() {
        let url = redis_url("redis://127.0.0.1:6380/7").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.database, url.tls), ("127.0.0.1", 6380, 7, false));
        let url = redis_url("rediss://cache.example.com").unwrap();
        assert_eq!(
            (url.host.as_str(), url.port, url.database, url.tls),
            ("cache.example.com", 6379, 0, true)
        );
        for text in
            ["redis://:pw@h", "redis://u:pw@h/0", "redis://h/x", "redis://h/65536", "redis://h/0?a", "h:6379"]
        {
            assert_eq!(redis_url(text), None, "{text}");
        }
    }

    #[test]
    fn nodes_need_a_port() {
        for text in ["h:1", "10.0.0.1:6379", "[::1]:7000"] {
            assert_eq!(node(text).as_deref(), Some(text));
        }
        for text in ["h", "[::1]", "h:0", "redis://h:1", "h:1/0", ""] {
            assert_eq!(node(text), None, "{text}");
        }
    }

    #[test]
    fn origins_and_hosts() {
        assert_eq!(origin("https://App.Example.com:8443").as_deref(), Some("https://app.example.com:8443"));
        assert_eq!(origin("vscode-webview://abc").as_deref(), Some("vscode-webview://abc"));
        for text in [
            "null",
            "*",
            "https://a/",
            "https://a:443",
            "http://a:80",
            "a.example",
            "https://u@a",
            "https://",
        ] {
            assert_eq!(origin(text), None, "{text}");
        }
        assert_eq!(host_header("MCP.example.com:8443").as_deref(), Some("mcp.example.com:8443"));
        assert_eq!(host_header("[::1]").as_deref(), Some("[::1]"));
        for text in ["", "https://a", "a/b", "*", "a:b"] {
            assert_eq!(host_header(text), None, "{text}");
        }
    }
}
