//! What `initialize` has of its own over MCPB: owns the token's removal, the handshake that the gateway makes for a bare
//! login, and the members that the result gains. Pure functions of bytes and time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mcp_protocol::Span;

/// The revision that the gateway offers when it makes the handshake itself: the newest that has one.
const OFFERED_REVISION: &str = "2025-11-25";

/// What ends that handshake.
pub(super) const INITIALIZED: &[u8] = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;

/// The gateway's own `initialize` in place of a bare login with this raw id.
pub(super) fn bare_initialize(id: &[u8]) -> Vec<u8> {
    let mut message = br#"{"jsonrpc":"2.0","id":"#.to_vec();
    message.extend_from_slice(id);
    message.extend_from_slice(br#","method":"initialize","params":{"protocolVersion":""#);
    message.extend_from_slice(OFFERED_REVISION.as_bytes());
    message.extend_from_slice(
        concat!(
            r#"","capabilities":{},"clientInfo":{"name":"mcp-gateway","version":""#,
            env!("CARGO_PKG_VERSION"),
            r#""}}}"#
        )
        .as_bytes(),
    );
    message
}

/// The message without the member whose value is the string with these contents, its key and one comma included. The
/// key must hold no escaped quote.
pub(super) fn without_member(message: &[u8], contents: Span) -> Vec<u8> {
    let quote = |before: usize| message[..before].iter().rposition(|&byte| byte == b'"').unwrap_or(0);
    let value = contents.start as usize - 1..contents.end as usize + 1;
    // Backwards: the key's closing quote, its opening one.
    let mut start = quote(quote(value.start));
    let mut end = value.end;
    let blank = |byte: &u8| byte.is_ascii_whitespace();
    let next = end + message[end..].iter().take_while(|byte| blank(byte)).count();
    if message.get(next) == Some(&b',') {
        end = next + 1;
    } else {
        let before = start - message[..start].iter().rev().take_while(|byte| blank(byte)).count();
        if before > 0 && message[before - 1] == b',' {
            start = before - 1;
        }
    }
    [&message[..start], &message[end..]].concat()
}

/// The response with `sessionId` and `expiresAt` added to its result, an object at this place.
pub(super) fn with_session(response: &[u8], result: Span, session: &[u8], expires_at: &str) -> Vec<u8> {
    // The object's closing brace.
    let end = result.end as usize - 1;
    let is_empty = result.of(response)[1..].trim_ascii_start().first() == Some(&b'}');
    let mut extended = response[..end].to_vec();
    extended.extend_from_slice(if is_empty { b"" } else { b"," });
    write_session(&mut extended, session, expires_at);
    extended.extend_from_slice(&response[end..]);
    extended
}

/// The whole response to a bare login.
pub(super) fn bare_response(id: &[u8], session: &[u8], expires_at: &str) -> Vec<u8> {
    let mut response = br#"{"jsonrpc":"2.0","id":"#.to_vec();
    response.extend_from_slice(id);
    response.extend_from_slice(br#","result":{"#);
    write_session(&mut response, session, expires_at);
    response.extend_from_slice(b"}}");
    response
}

fn write_session(out: &mut Vec<u8>, session: &[u8], expires_at: &str) {
    out.extend_from_slice(br#""sessionId":""#);
    out.extend_from_slice(session);
    out.extend_from_slice(br#"","expiresAt":""#);
    out.extend_from_slice(expires_at.as_bytes());
    out.push(b'"');
}

/// When a session that is used now and then no more expires, as RFC 3339 in UTC. Every use moves it later.
pub(super) fn expires_at(now: SystemTime, ttl: Duration) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().saturating_add(ttl).as_secs();
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
}

/// Year, month and day of a day since 1970-01-01, in the Gregorian calendar: eras of 400 years (146,097 days) that begin
/// in March, so that a leap day is the last of its year.
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_goes_with_its_comma_wherever_it_stands() {
        for (before, after) in [
            (r#"{"token":"x","a":1}"#, r#"{"a":1}"#),
            (r#"{"a":1,"token":"x"}"#, r#"{"a":1}"#),
            (r#"{"a":1 , "token" : "x" , "b":2}"#, r#"{"a":1 ,  "b":2}"#),
            (r#"{"token":"x"}"#, r#"{}"#),
            (r#"{ "\u0074oken" : "x" }"#, r#"{  }"#),
        ] {
            let start = before.find("\"x\"").unwrap() as u32 + 1;
            let found = without_member(before.as_bytes(), Span { start, end: start + 1 });
            assert_eq!(String::from_utf8(found).unwrap(), after);
        }
    }

    #[test]
    fn a_result_gains_two_members() {
        for (result, expected) in [
            (r#"{"a":{}}"#, r#"{"a":{},"sessionId":"s","expiresAt":"e"}"#),
            (r#"{ }"#, r#"{ "sessionId":"s","expiresAt":"e"}"#),
        ] {
            let response = format!(r#"{{"result":{result},"id":1}}"#);
            let start = 10;
            let span = Span { start, end: start + result.len() as u32 };
            let found = with_session(response.as_bytes(), span, b"s", "e");
            assert_eq!(String::from_utf8(found).unwrap(), format!(r#"{{"result":{expected},"id":1}}"#));
        }
        let bare: serde_json::Value = serde_json::from_slice(&bare_response(b"7", b"s", "e")).unwrap();
        assert_eq!(
            bare,
            serde_json::json!({"jsonrpc": "2.0", "id": 7, "result": {"sessionId": "s", "expiresAt": "e"}})
        );
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_200, "2024-03-01T00:00:00Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(expires_at(UNIX_EPOCH + Duration::from_secs(seconds), Duration::ZERO), text);
        }
        assert_eq!(expires_at(UNIX_EPOCH, Duration::from_secs(3661)), "1970-01-01T01:01:01Z");
    }
}
