//! Claims: no request makes the upgrade's check panic; one that passes has every field that RFC 6455 demands; what is
//! answered is a head that our own parser takes for 101, whatever the request held, and a refusal has a status of its table.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::http1::{HeadLimits, Method, parse_request, parse_response};
use mcp_protocol::ws::{check_upgrade, write_switch};

const LIMITS: HeadLimits = HeadLimits { max_bytes: 4096, max_headers: 40 };

fuzz_target!(|input: &[u8]| {
    let Ok(Some(head)) = parse_request(input, &LIMITS) else { return };
    let own = &input[..head.head_len];
    let upgrade = match check_upgrade(&head, own) {
        Ok(upgrade) => upgrade,
        Err(error) => {
            assert!([400, 405, 426].contains(&error.status()));
            assert!(error.fields().is_empty() || error.fields().ends_with(b"\r\n"));
            return;
        }
    };
    assert!(head.method == Method::Get && !head.http10);
    let all = |name| head.headers.all(own, name).collect::<Vec<_>>();
    assert_eq!(all("sec-websocket-version"), [b"13"]);
    assert_eq!(all("sec-websocket-key").len(), 1);
    assert!(!all("upgrade").is_empty() && !all("connection").is_empty());
    let mut answer = Vec::new();
    write_switch(&mut answer, &upgrade, b"Mcp-Session-Id: AAAAAAAAAAAAAAAAAAAAAAAA\r\n");
    let found = parse_response(&answer, Method::Get, &LIMITS).expect("a head").expect("a whole head");
    assert_eq!((found.status, found.head_len), (101, answer.len()));
    let offered = all("sec-websocket-protocol").iter().any(|line| line.windows(3).any(|word| word == b"mcp"));
    let agreed = found.headers.all(&answer, "sec-websocket-protocol").next();
    assert!(agreed.is_none() || (offered && agreed == Some(b"mcp")));
});
