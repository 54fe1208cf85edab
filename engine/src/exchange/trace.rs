//! A message's trace: owns the way from W3C `traceparent`, in a field or in `_meta`, to the id that an exemplar shows. Never
//! starts a trace: what comes without one has none here.

use std::sync::LazyLock;

use mcp_protocol::Span;
use memchr::memmem::Finder;
use serde::Deserialize;

use super::{Message, Origin};
use crate::metrics::{TraceId, Traced};
use crate::shard::Shard;

const NAME: &str = "traceparent";
/// Made once: that takes longer than the search.
static FINDER: LazyLock<Finder<'static>> = LazyLock::new(|| Finder::new(NAME));
/// Bytes of a `traceparent` of version 00: version, trace, parent and flags, with a dash between each two.
const LENGTH: usize = 2 + 1 + 32 + 1 + 16 + 1 + 2;

/// The trace that the message says it belongs to, where somebody keeps it; `meta` is where `params._meta` stands in the
/// body. The field goes before `_meta`: it is at hand.
pub(crate) fn find(shard: &Shard, message: &Message, meta: Option<Span>) -> Option<Traced> {
    let beside = match &message.origin {
        Origin::Http(http) => http.head.traceparent.map(|span| span.of(&http.bytes)),
        Origin::Frame(frame) => line(frame.fields.as_deref().unwrap_or_default()),
    };
    let trace = beside.or_else(|| in_meta(meta?.of(&message.body))).and_then(sampled)?;
    Some(Traced { trace, unix_ms: shard.core.clock.unix_ms() })
}

/// The value among header lines.
fn line(fields: &[u8]) -> Option<&[u8]> {
    fields.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = memchr::memchr(b':', line)?;
        line[..colon].eq_ignore_ascii_case(NAME.as_bytes()).then(|| line[colon + 1..].trim_ascii())
    })
}

/// The value in a raw `_meta`.
fn in_meta(meta: &[u8]) -> Option<&[u8]> {
    #[derive(Deserialize)]
    struct Meta<'a> {
        #[serde(borrow)]
        traceparent: Option<&'a str>,
    }
    // Most have none, and need not be read for it.
    FINDER.find(meta)?;
    serde_json::from_slice::<Meta<'_>>(meta).ok()?.traceparent.map(str::as_bytes)
}

/// The trace's id, where the value is whole and says that the trace is kept: one that is not leads nowhere.
fn sampled(value: &[u8]) -> Option<TraceId> {
    let (known, rest) = value.split_at_checked(LENGTH)?;
    let (version, trace, parent, flags) = (&known[..2], &known[3..35], &known[36..52], &known[53..]);
    let dashes = [known[2], known[35], known[52]] == [b'-'; 3];
    let digits = [version, trace, parent, flags].into_iter().flatten().all(|byte| {
        // Capital letters are not allowed.
        matches!(byte, b'0'..=b'9' | b'a'..=b'f')
    });
    // Later versions may say more after these.
    let ends = rest.is_empty() || (version != b"00" && rest[0] == b'-');
    let is_kept = char::from(flags[1]).to_digit(16)? & 1 == 1;
    let valid = dashes && digits && ends && version != b"ff" && [trace, parent].iter().all(|id| !is_zero(id));
    if valid && is_kept { trace.try_into().ok().map(TraceId) } else { None }
}

fn is_zero(id: &[u8]) -> bool {
    id.iter().all(|&digit| digit == b'0')
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const VALUE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn id(value: &str) -> Option<String> {
        sampled(value.as_bytes()).map(|trace| trace.text().to_owned())
    }

    #[test]
    fn a_kept_trace_has_an_id() {
        assert_eq!(id(VALUE).as_deref(), Some(TRACE));
        // All flags but the first are somebody else's; a later version may have more fields.
        assert_eq!(id(&VALUE.replace("-01", "-0b")).as_deref(), Some(TRACE));
        assert_eq!(id(&format!("{}-what", VALUE.replacen("00", "01", 1))).as_deref(), Some(TRACE));
    }

    #[test]
    fn what_is_no_kept_trace_has_none() {
        for value in [
            "",
            "00",
            &VALUE[..VALUE.len() - 1],
            &VALUE.replace("-01", "-00"),
            &VALUE.replace("-01", "-0g"),
            &VALUE.replacen("00", "ff", 1),
            &VALUE.replace("0af7", "0AF7"),
            &VALUE.replace("-b7", "_b7"),
            &VALUE.replace(TRACE, &"0".repeat(32)),
            &VALUE.replace("b7ad6b7169203331", &"0".repeat(16)),
            &format!("{VALUE}-what"),
            &format!("{}what", VALUE.replacen("00", "01", 1)),
            &"é".repeat(40),
        ] {
            assert_eq!(id(value), None, "{value}");
        }
    }

    #[test]
    fn it_is_found_among_lines_and_in_meta() {
        let lines = format!("User-Agent: traceparent\r\nTraceParent:  {VALUE}\r\n");
        assert_eq!(line(lines.as_bytes()), Some(VALUE.as_bytes()));
        assert_eq!(line(b"traceparents: 1\r\nnone\r\n"), None);
        assert_eq!(
            in_meta(format!(r#"{{"a":{{}},"traceparent": "{VALUE}"}}"#).as_bytes()),
            Some(VALUE.as_bytes())
        );
        for meta in
            [r#"{"a":{"traceparent":"1"}}"#, r#"{"traceparent":1}"#, r#"{"traceparent":null}"#, "{}", ""]
        {
            assert_eq!(in_meta(meta.as_bytes()), None, "{meta}");
        }
    }
}
