//! The bearer token: owns where it comes from and when it is read again. It is never logged and never part of an error.

use std::cell::{Cell, RefCell};
use std::fs::Metadata;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::SystemTime;

/// The longest token, in bytes; MCPB allows no more.
const MAX_TOKEN_BYTES: usize = 4096;

/// A credential that can change while the program runs.
pub(super) struct Token {
    file: Option<PathBuf>,
    held: RefCell<Option<Rc<str>>>,
    /// What the file looked like when it was read last.
    seen: Cell<Option<Seen>>,
}

/// What tells a file from its successor.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Seen {
    modified: Option<SystemTime>,
    len: u64,
    inode: u64,
}

impl Token {
    pub(super) fn none() -> Self {
        Token { file: None, held: RefCell::default(), seen: Cell::new(None) }
    }

    /// # Errors
    /// A sentence for the user; it never has the token.
    pub(super) fn from_env(name: &str) -> Result<Self, String> {
        let value = std::env::var(name)
            .map_err(|_| format!("--token-env {name}: the environment has no such variable"))?;
        let token = checked(&value).map_err(|what| format!("--token-env {name}: {what}"))?;
        Ok(Token { held: RefCell::new(Some(token)), ..Token::none() })
    }

    /// # Errors
    /// A sentence for the user; it never has the token.
    pub(super) fn from_file(file: PathBuf) -> Result<Self, String> {
        let token = Token { file: Some(file), ..Token::none() };
        token.read()?;
        Ok(token)
    }

    /// The token now: a file that changed is read again. One that cannot be read leaves the token as it was.
    pub(super) fn now(&self) -> Option<Rc<str>> {
        let changed = self
            .file
            .as_ref()
            .is_some_and(|file| std::fs::metadata(file).ok().map(Seen::of) != self.seen.get());
        if changed && let Err(error) = self.read() {
            tracing::warn!("{error}; the token before is kept");
        }
        self.held.borrow().clone()
    }

    /// The gateway refused `used`: whether there is another token to try.
    pub(super) fn has_other_than(&self, used: Option<&str>) -> bool {
        if self.file.is_some()
            && let Err(error) = self.read()
        {
            tracing::warn!("{error}");
        }
        self.held.borrow().as_deref() != used
    }

    fn read(&self) -> Result<(), String> {
        let Some(file) = &self.file else { return Ok(()) };
        let told = |what: &dyn std::fmt::Display| format!("--token-file {}: {what}", file.display());
        // Before the text: what changes in between is read again.
        let seen = std::fs::metadata(file).map_err(|error| told(&error))?;
        self.seen.set(Some(Seen::of(seen)));
        let text = std::fs::read_to_string(file).map_err(|error| told(&error))?;
        let token = checked(&text).map_err(|what| told(&what))?;
        *self.held.borrow_mut() = Some(token);
        Ok(())
    }
}

impl Seen {
    fn of(metadata: Metadata) -> Self {
        let inode = std::os::unix::fs::MetadataExt::ino(&metadata);
        Seen { modified: metadata.modified().ok(), len: metadata.len(), inode }
    }
}

/// The token in a text, without the white space around it. A token must not be able to end a header line.
fn checked(text: &str) -> Result<Rc<str>, &'static str> {
    let token = text.trim();
    match token.len() {
        0 => Err("there is no token in it"),
        1..=MAX_TOKEN_BYTES if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.into()),
        1..=MAX_TOKEN_BYTES => Err("a token has visible ASCII characters only"),
        _ => Err("the token is longer than 4096 characters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_again_when_it_changed_and_kept_when_it_is_gone() {
        let folder = std::env::temp_dir().join(format!("mcp-token-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("token");
        std::fs::write(&file, " first\n").unwrap();
        let token = Token::from_file(file.clone()).unwrap();
        assert_eq!(token.now().as_deref(), Some("first"));
        assert!(!token.has_other_than(Some("first")));

        std::fs::write(folder.join("new"), "second, with a space").unwrap();
        std::fs::rename(folder.join("new"), &file).unwrap();
        assert_eq!(token.now().as_deref(), Some("first"), "what is no token is not taken");
        std::fs::write(folder.join("new"), "third").unwrap();
        std::fs::rename(folder.join("new"), &file).unwrap();
        assert!(token.has_other_than(Some("first")));
        assert_eq!(token.now().as_deref(), Some("third"));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(token.now().as_deref(), Some("third"));
    }

    #[test]
    fn what_is_no_token_is_told_without_its_text() {
        for text in ["", " \n", "secret secret", "secret\u{e9}", &"s".repeat(4097)] {
            let error = checked(text).expect_err(text);
            assert!(!error.contains("secret"), "{error}");
        }
        assert!(Token::from_env("MCP_CONNECT_NO_SUCH_VARIABLE").is_err());
    }
}
