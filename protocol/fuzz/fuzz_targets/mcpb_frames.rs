//! Claims: a stream of frames parses without panic; what parses is written back byte for byte; payloads round-trip.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcp_protocol::jsonrpc::{Payload, ScanLimits, scan};
use mcp_protocol::mcpb::{
    AuthWrapper, Control, FrameKind, HEADER_LEN, HealthCheck, MAX_PAYLOAD, MAX_TOKEN_LEN, VersionNegotiation,
    login_token, parse_header, parse_version_ack, write_frame, write_version_ack,
};

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    loop {
        match parse_header(rest) {
            Ok(Some(header)) => {
                assert!(header.len <= MAX_PAYLOAD);
                let end = HEADER_LEN + header.len as usize;
                let Some((frame, after)) = rest.split_at_checked(end) else { return };
                for len in 0..HEADER_LEN {
                    assert_eq!(parse_header(&frame[..len]), Ok(None));
                }
                let mut written = Vec::new();
                write_frame(&mut written, header.kind, &frame[HEADER_LEN..])
                    .expect("a payload that was announced");
                assert_eq!(written, frame);
                payload(header.kind, &frame[HEADER_LEN..]);
                rest = after;
            }
            Ok(None) => {
                assert!(rest.len() < HEADER_LEN);
                return;
            }
            Err(error) => {
                assert!(!error.label().is_empty() && !error.to_string().is_empty());
                return;
            }
        }
    }
});

fn payload(kind: FrameKind, payload: &[u8]) {
    match kind {
        FrameKind::Request => {
            if let Ok(Some(wrapper)) = AuthWrapper::parse(payload) {
                assert!(wrapper.auth_token.decode(payload).chars().count() <= MAX_TOKEN_LEN);
                assert!(wrapper.request.of(payload).starts_with(b"{"));
                assert!(scan(payload, &ScanLimits::default()).is_err());
            }
            if let Ok(Payload::Single(scan)) = scan(payload, &ScanLimits::default())
                && let Ok(Some(token)) = login_token(payload, &scan)
            {
                assert_eq!(token.span.of(payload).len(), token.span.len());
            }
        }
        FrameKind::VersionNegotiation => {
            let Ok(negotiation) = VersionNegotiation::parse(payload) else { return };
            let mut written = Vec::new();
            negotiation.write(&mut written);
            assert_eq!(VersionNegotiation::parse(&written), Ok(negotiation.clone()));
            if let Ok(version) = negotiation.agree() {
                assert!((negotiation.min_version..=negotiation.max_version).contains(&version));
            }
        }
        FrameKind::VersionAck => {
            let Ok(version) = parse_version_ack(payload) else { return };
            let mut written = Vec::new();
            write_version_ack(&mut written, version);
            assert_eq!(parse_version_ack(&written), Ok(version));
        }
        FrameKind::Control => {
            if let Ok(control) = Control::parse(payload) {
                assert_eq!(Control::parse(control.payload()), Ok(control));
            }
        }
        FrameKind::HealthCheck => {
            assert_eq!(HealthCheck::parse(payload) == Ok(HealthCheck::Empty), payload.is_empty());
        }
        FrameKind::Response | FrameKind::Error => {}
    }
}
