//! Where messages for a stream go: owns the reading of the URI in its first event. Never a place of another origin: a client's
//! messages and credentials are for the server that was configured, and for no other that it names.

/// Bytes of the URI.
const MAX_BYTES: usize = 4 << 10;

/// Who a stream's server is: what a URI's origin must be.
pub(super) struct Origin<'a> {
    pub(super) tls: bool,
    /// As in `Host`: without the scheme's own port.
    pub(super) authority: &'a str,
    /// The target that the stream was asked for with.
    pub(super) path: &'a str,
}

/// The request target that `uri`, a reference relative to the stream's own, names (RFC 3986, section 5.2); `None` where it is
/// no such thing or another origin's.
pub(super) fn target(origin: &Origin<'_>, uri: &str) -> Option<String> {
    let uri = uri.trim_ascii();
    let uri = uri.split_once('#').map_or(uri, |(before, _)| before);
    if uri.is_empty() || uri.len() > MAX_BYTES || !uri.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let (scheme, default_port) = if origin.tls { ("https:", ":443") } else { ("http:", ":80") };
    let is_own_scheme = uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    let rest = if is_own_scheme { &uri[scheme.len()..] } else { uri };
    if let Some(rest) = rest.strip_prefix("//") {
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        if !authority.eq_ignore_ascii_case(origin.authority) {
            return None;
        }
        return Some(if target.starts_with('/') { target.to_owned() } else { format!("/{target}") });
    }
    if is_own_scheme {
        return None;
    }
    if uri.starts_with('/') {
        return Some(uri.to_owned());
    }
    let own = origin.path.split_once('?').map_or(origin.path, |(path, _)| path);
    if uri.starts_with('?') {
        return Some(format!("{own}{uri}"));
    }
    // A colon in the first segment makes what stands before it a scheme.
    let first = uri.split(['/', '?']).next().unwrap_or_default();
    let directory = own.rsplit_once('/').map_or("", |(directory, _)| directory);
    (!first.contains(':')).then(|| format!("{directory}/{uri}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_of_the_same_origin_or_none() {
        let origin = |tls, authority| Origin { tls, authority, path: "/a/sse?key=1" };
        let plain = origin(false, "h:8000");
        for (uri, expected) in [
            ("/messages/?session_id=1", Some("/messages/?session_id=1")),
            ("messages?s=1", Some("/a/messages?s=1")),
            ("?s=1", Some("/a/sse?s=1")),
            ("/m#part", Some("/m")),
            (" /m\t", Some("/m")),
            ("http://h:8000/m?s=1", Some("/m?s=1")),
            ("HTTP://H:8000", Some("/")),
            ("http://h:8000?s=1", Some("/?s=1")),
            ("//h:8000/m", Some("/m")),
            ("/m?next=http://other/", Some("/m?next=http://other/")),
            ("http://h:8001/m", None),
            ("http://h/m", None),
            ("https://h:8000/m", None),
            ("//other/m", None),
            ("http://h:8000@other/m", None),
            ("http://other\\@h:8000/m", None),
            ("http:/m", None),
            ("http:m", None),
            ("javascript:alert(1)", None),
            ("ws://h:8000/m", None),
            ("/m\r\nX: y", None),
            ("/m y", None),
            ("", None),
            ("#", None),
        ] {
            assert_eq!(target(&plain, uri).as_deref(), expected, "{uri:?}");
        }
        for uri in ["https://h/m", "https://h:443/m", "//h/m"] {
            assert_eq!(target(&origin(true, "h"), uri).as_deref(), Some("/m"), "{uri}");
        }
        assert_eq!(target(&origin(true, "h"), "http://h/m"), None);
        assert_eq!(target(&origin(true, "h"), "https://h:80/m"), None);
        assert_eq!(target(&plain, &"m".repeat(MAX_BYTES + 1)), None);
        let root = Origin { tls: false, authority: "h", path: "/" };
        assert_eq!(target(&root, "m").as_deref(), Some("/m"));
    }
}
