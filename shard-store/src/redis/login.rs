//! Logging in at a node: owns the first commands of a connection, in RESP3 and, where the node does not know it, RESP2.

use std::io;

use futures_io::{AsyncRead, AsyncWrite};
use mcp_protocol::resp::Reply;

use super::link::Link;
use super::settings::Auth;
use crate::StoreError;
use crate::error::ServerCode;

/// The name by which `CLIENT LIST` shows our connections.
const CLIENT_NAME: &[u8] = b"mcp-gateway";

/// What a connection needs to be before it carries commands.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) auth: Option<Auth>,
    pub(crate) database: u16,
    /// Keys under this prefix are followed; empty: none.
    pub(crate) tracked_prefix: Vec<u8>,
    /// The node must be a master: it was named as one, and may have been demoted since.
    pub(crate) require_master: bool,
}

/// Why a connection did not come up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoginError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Refused(StoreError),
    #[error("the node is not a master")]
    NotMaster,
    #[error("no answer in time")]
    Timeout,
}

/// What was agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Agreed {
    /// The node says when keys under the prefix change.
    pub(crate) tracking: bool,
}

/// Logs in. The caller bounds the time.
///
/// # Errors
/// [`LoginError`]; the stream is of no more use.
pub(crate) async fn login<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    login: &Login,
) -> Result<Agreed, LoginError> {
    let resp3 = hello(link, login).await?;
    if login.database != 0 {
        accepted(link.ask(&[b"SELECT", login.database.to_string().as_bytes()]).await?)?;
    }
    if login.require_master && !is_master(link).await? {
        return Err(LoginError::NotMaster);
    }
    let tracking = resp3 && !login.tracked_prefix.is_empty() && track(link, &login.tracked_prefix).await?;
    Ok(Agreed { tracking })
}

/// `HELLO 3`, with credentials where there are any; says whether the node speaks RESP3.
async fn hello<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    login: &Login,
) -> Result<bool, LoginError> {
    let mut args: Vec<&[u8]> = vec![b"HELLO", b"3"];
    if let Some(auth) = &login.auth {
        let user = auth.username.as_deref().unwrap_or("default");
        args.extend([b"AUTH", user.as_bytes(), auth.password.as_bytes()]);
    }
    args.extend([b"SETNAME", CLIENT_NAME]);
    let Reply::Error(text) = link.ask(&args).await? else { return Ok(true) };
    // Redis before 6 does not know the command; a proxy may know it and refuse version 3.
    if !text.starts_with("ERR ") && !text.starts_with("NOPROTO") {
        return Err(LoginError::Refused(StoreError::refused(&text)));
    }
    if let Some(auth) = &login.auth {
        let password = auth.password.as_bytes();
        let reply = match &auth.username {
            Some(user) => link.ask(&[b"AUTH", user.as_bytes(), password]).await?,
            None => link.ask(&[b"AUTH", password]).await?,
        };
        accepted(reply)?;
    }
    // A server without this command still serves.
    link.ask(&[b"CLIENT", b"SETNAME", CLIENT_NAME]).await?;
    Ok(false)
}

/// Whether the node follows keys for us. A refusal (a proxy, or a user who may not) is no error: copies are then believed for
/// a short time only.
async fn track<S: AsyncRead + AsyncWrite + Unpin>(
    link: &mut Link<S>,
    prefix: &[u8],
) -> Result<bool, LoginError> {
    match link.ask(&[b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"PREFIX", prefix, b"NOLOOP"]).await? {
        Reply::Ok => Ok(true),
        other => {
            tracing::warn!(answer = ?other, "CLIENT TRACKING was refused: copies of sessions are believed for a short time");
            Ok(false)
        }
    }
}

async fn is_master<S: AsyncRead + AsyncWrite + Unpin>(link: &mut Link<S>) -> Result<bool, LoginError> {
    match link.ask(&[b"ROLE"]).await? {
        Reply::Array(role) => Ok(role.first().and_then(Reply::as_bytes) == Some(b"master")),
        Reply::Error(text) => match ServerCode::of(&text) {
            // A user who may not ask: the sentinels' word has to do.
            ServerCode::Permission => Ok(true),
            _ => Err(LoginError::Refused(StoreError::refused(&text))),
        },
        _ => Ok(false),
    }
}

fn accepted(reply: Reply) -> Result<(), LoginError> {
    match reply {
        Reply::Error(text) => Err(LoginError::Refused(StoreError::refused(&text))),
        _ => Ok(()),
    }
}
