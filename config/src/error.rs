//! What is wrong with a configuration: a list of problems, each naming the key, the value and what is allowed.
//!
//! Owns the wording's frame and the hiding of secrets in it. It never decides what is allowed.

use std::fmt;

/// Longest part of a value that a message repeats, in characters.
const SHOWN_VALUE_CHARS: usize = 120;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The key's path, such as `gateway.server.max_connections` or `servers[0].name`; empty for the file as a whole.
    pub key: String,
    /// The value as it was written, shortened, with secrets hidden; empty when the key is missing.
    pub value: String,
    /// What would be accepted, and why.
    pub allowed: String,
    /// Where the value stands: `gateway.toml:12`, or `environment variable MCP_GATEWAY__…`.
    pub origin: String,
}

impl Problem {
    /// A problem with `value` at `key`; hides what could be a secret.
    pub(crate) fn new(
        key: impl Into<String>,
        value: &str,
        allowed: impl Into<String>,
        origin: impl Into<String>,
    ) -> Self {
        let key = key.into();
        let value = present(&key, value);
        Self { key, value, allowed: allowed.into(), origin: origin.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, value, allowed, origin } = self;
        match (key.as_str(), value.as_str()) {
            ("", _) => write!(f, "{origin}: must be {allowed}"),
            (_, "") => write!(f, "{origin}: {key} is missing: must be {allowed}"),
            _ => write!(f, "{origin}: {key} = {value}: must be {allowed}"),
        }
    }
}

/// Everything that is wrong with a configuration; never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Errors {
    problems: Vec<Problem>,
}

impl Errors {
    /// `Err` with the problems when there are any.
    pub(crate) fn check(problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() { Ok(()) } else { Err(Self { problems }) }
    }

    /// The problems, in the order in which the keys are read.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

/// One line per problem, without a newline at the end.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{problem}")?;
        }
        Ok(())
    }
}

/// The value as a message may show it: on one line, shortened, secrets hidden.
pub(crate) fn present(key: &str, value: &str) -> String {
    if names_secret(key) && !value.is_empty() {
        return "<hidden>".to_owned();
    }
    let value = hide_user_information(value);
    let mut shown = String::new();
    for c in value.chars().take(SHOWN_VALUE_CHARS) {
        if c.is_control() { shown.extend(c.escape_default()) } else { shown.push(c) }
    }
    if value.chars().nth(SHOWN_VALUE_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

/// Whether a key's last segment sounds as if its value were a secret. An unknown key can be a misspelt place for one,
/// and `password_env` is where a password itself is put by mistake.
fn names_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    if last == "key_file" || key == "gateway.rate_limit.key" {
        return false;
    }
    ["password", "passwd", "secret", "token", "credential", "auth", "key"]
        .iter()
        .any(|word| last.contains(word))
}

/// Replaces `user:password@` in whatever looks like a URL. A password may hold any character, so all that stands between
/// the scheme and the last `@` goes, even where a path would only have held an `@`.
fn hide_user_information(value: &str) -> String {
    let mut shown = String::with_capacity(value.len());
    let mut rest = value;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let url_end = after.find(|c: char| c == '"' || c == '\'' || c.is_whitespace()).unwrap_or(after.len());
        rest = match after[..url_end].rfind('@') {
            Some(user_end) => {
                shown.push_str("<hidden>");
                &after[user_end..]
            }
            None => after,
        };
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_user_information_in_urls() {
        for (given, shown) in [
            ("\"redis://:pw@h:1/0\"", "\"redis://<hidden>@h:1/0\""),
            ("[\"http://a:b@h/x\", \"http://c@d/\"]", "[\"http://<hidden>@h/x\", \"http://<hidden>@d/\"]"),
            ("redis://a:p@q@h", "redis://<hidden>@h"),
            ("redis://a:p/w,1@h", "redis://<hidden>@h"),
            ("http://a:b@h, http://c@d", "http://<hidden>@h, http://<hidden>@d"),
            ("http://h/path", "http://h/path"),
            ("plain", "plain"),
        ] {
            assert_eq!(Problem::new("k", given, "", "").value, shown);
        }
    }

    #[test]
    fn hides_values_of_keys_that_sound_secret() {
        for key in ["gateway.redis.auth.password", "gateway.redis.auth.password_env", "a.api_key", "a.token"]
        {
            assert_eq!(Problem::new(key, "hunter2", "", "").value, "<hidden>");
        }
        assert_eq!(Problem::new("gateway.server.tls.key_file", "x", "", "").value, "x");
    }

    #[test]
    fn long_and_multi_line_values_stay_on_one_short_line() {
        let problem = Problem::new("k", &format!("a\nb{}", "x".repeat(1000)), "", "");
        assert!(problem.value.starts_with("a\\nbx"));
        assert_eq!(problem.value.chars().count(), SHOWN_VALUE_CHARS + 2);
    }

    #[test]
    fn each_problem_is_one_line() {
        let problems = vec![
            Problem::new("", "", "valid TOML", "f.toml:3"),
            Problem::new("a.b", "", "set", "f.toml:4"),
            Problem::new("a.c", "0", "1 to 9", "f.toml:5"),
        ];
        let errors = Errors::check(problems).unwrap_err();
        assert_eq!(
            errors.to_string(),
            "f.toml:3: must be valid TOML\nf.toml:4: a.b is missing: must be set\nf.toml:5: a.c = 0: must be 1 to 9"
        );
    }
}
