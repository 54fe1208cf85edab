//! Who sends a message: owns the principal, as far as the gateway can know it without an authority of its own. What a token
//! claims is not verified here, that is the server's part: the principal only ties a session to whoever opened it.
//!
//! ```text
//! ""                   no credential
//! basic:<user>         HTTP Basic (RFC 7617)
//! jwt:<iss> <sub>      a bearer token that is a JWT with a subject (RFC 7519), both as they stand in its JSON
//! bearer               anything else: whose an opaque token is cannot be known, and tokens are renewed within a session
//! ```

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Message;
use crate::shard::Shard;

/// The principal of a credential that names nobody.
const SOMEBODY: &str = "bearer";
/// Bytes of a credential that are looked at, and of a principal: what is longer counts as one that names nobody.
const MAX_CREDENTIAL_BYTES: usize = 16 << 10;
const MAX_PRINCIPAL_BYTES: usize = 512;
/// Base64url as JWTs have it, and as careless issuers do.
const BASE64URL: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Lends the principal of a message for the length of `work`. It takes no memory of the allocator's once the shard has
/// warmed up.
pub(super) fn with_principal<T>(shard: &Shard, message: &Message, work: impl FnOnce(&str) -> T) -> T {
    match message.authorization() {
        None => work(""),
        Some(credential) => shard.with_scratch(|decoded| {
            shard.with_scratch(|text| {
                work(
                    write(credential, decoded, text)
                        .and_then(|()| std::str::from_utf8(text).ok())
                        .unwrap_or(SOMEBODY),
                )
            })
        }),
    }
}

/// Whether a principal tells its owner from others.
pub(super) fn is_somebody(principal: &str) -> bool {
    !principal.is_empty() && principal != SOMEBODY
}

/// Writes the principal that a credential names; `None` where it names none. Both vectors are empty; one is scratch.
fn write(credential: &[u8], decoded: &mut Vec<u8>, principal: &mut Vec<u8>) -> Option<()> {
    let place = credential
        .iter()
        .position(|&byte| byte == b' ')
        .filter(|_| credential.len() <= MAX_CREDENTIAL_BYTES)?;
    let (scheme, value) = (&credential[..place], credential[place..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"basic") {
        STANDARD.decode_vec(value, decoded).ok()?;
        let user = &decoded[..decoded.iter().position(|&byte| byte == b':')?];
        principal.extend_from_slice(b"basic:");
        principal.extend_from_slice(user);
        return (!user.is_empty() && principal.len() <= MAX_PRINCIPAL_BYTES).then_some(());
    }
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return None;
    }
    let mut parts = value.split(|&byte| byte == b'.');
    let (Some(_header), Some(claims), Some(_signature), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    BASE64URL.decode_vec(claims, decoded).ok()?;
    let claims: Claims<'_> = serde_json::from_slice(decoded).ok()?;
    let subject = contents(claims.sub?).filter(|subject| !subject.is_empty())?;
    // A space ends the issuer here, and none is allowed in it where it is a URI.
    let issuer = claims.iss.map_or(Some(""), contents).filter(|issuer| !issuer.contains(' '))?;
    for part in ["jwt:", issuer, " ", subject] {
        principal.extend_from_slice(part.as_bytes());
    }
    (principal.len() <= MAX_PRINCIPAL_BYTES).then_some(())
}

/// What is read of a JWT's claims, raw.
#[derive(Deserialize)]
struct Claims<'a> {
    #[serde(borrow)]
    iss: Option<&'a RawValue>,
    #[serde(borrow)]
    sub: Option<&'a RawValue>,
}

/// The contents of a JSON string as they are written there.
fn contents(value: &RawValue) -> Option<&str> {
    value.get().strip_prefix('"')?.strip_suffix('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(credential: &[u8]) -> Option<String> {
        let (mut decoded, mut text) = (Vec::new(), Vec::new());
        write(credential, &mut decoded, &mut text)?;
        String::from_utf8(text).ok()
    }

    fn jwt(claims: &str) -> Vec<u8> {
        format!("Bearer e30.{}.c2ln", BASE64URL.encode(claims)).into_bytes()
    }

    #[test]
    fn credentials_name_their_owners() {
        for (credential, principal) in [
            (b"Basic YWxpY2U6c2VjcmV0".to_vec(), "basic:alice"),
            (b"basic  YWxpY2U6YTpi".to_vec(), "basic:alice"),
            (jwt(r#"{"iss":"https://idp","sub":"alice","exp":1}"#), "jwt:https://idp alice"),
            (jwt(r#"{"sub":"a b \"c\"","aud":["x",{"y":[]}]}"#), r#"jwt: a b \"c\""#),
        ] {
            assert_eq!(named(&credential).as_deref(), Some(principal));
        }
        let renewed = jwt(r#"{"exp":2,"sub":"alice","iss":"https://idp"}"#);
        assert_eq!(named(&renewed).as_deref(), Some("jwt:https://idp alice"));
    }

    #[test]
    fn whatever_names_nobody_is_not_taken_for_a_name() {
        for credential in [
            &b""[..],
            b"Bearer",
            b"Bearer opaque",
            b"Bearer a.b",
            b"Bearer a.b.c.d",
            b"Bearer ..",
            b"Bearer \xff.\xfe.\xfd",
            b"Digest username=\"alice\"",
            b"Basic",
            b"Basic ?",
            b"Basic Ong=",
            b"Basic bm9jb2xvbg==",
        ] {
            assert_eq!(named(credential), None, "{credential:?}");
        }
        let long = "x".repeat(MAX_PRINCIPAL_BYTES);
        for claims in [
            "",
            "[]",
            "{}",
            r#"{"sub":1}"#,
            r#"{"sub":""}"#,
            r#"{"sub":null,"iss":"x"}"#,
            r#"{"iss":1,"sub":"x"}"#,
            r#"{"iss":"a b","sub":"x"}"#,
            r#"{"sub":"a","sub":"b"}"#,
            &format!(r#"{{"sub":"{long}"}}"#),
            &format!(r#"{{"a":{},"sub":"x"}}"#, "[".repeat(5000)),
        ] {
            assert_eq!(named(&jwt(claims)), None, "{claims}");
        }
        assert_eq!(named(&[b"Bearer ".to_vec(), vec![b'x'; MAX_CREDENTIAL_BYTES]].concat()), None);
    }

    #[test]
    fn only_a_name_tells_its_owner_from_others() {
        assert!(is_somebody("basic:bearer") && !is_somebody("") && !is_somebody(SOMEBODY));
    }
}
