//! The names that a client sees where many servers are shown as one: owns how a server's name is joined to what is the
//! server's own, and taken off again.
//!
//! | what | the server's own | the client's |
//! | --- | --- | --- |
//! | tool, prompt, task | `search` | `files__search` |
//! | URI, URI template | `file:///{path}` | `mcp+files:file:///{path}` |
//! | id of a server's request, progress token | `7` | `"files/7"` |
//!
//! Invariant: joining only puts a prefix of plain ASCII in front, so it is an insertion into the JSON text, and taking it
//! off gives back the very bytes.

/// The servers that are shown as one, in the order of their numbers.
#[derive(Debug)]
pub struct Federation {
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    name: Box<str>,
    /// Clients may name it.
    is_there: bool,
    /// Before names.
    name_prefix: Box<str>,
    /// Before URIs.
    scheme: Box<str>,
    /// Before raw ids and tokens, within a string.
    mark: Box<str>,
}

/// What stands between a server's name and a tool's.
const BETWEEN: &str = "__";
/// Begins the scheme of every URI; the colon is its end.
const SCHEME: &str = "mcp+";

impl Federation {
    /// Servers of these names, `[a-z0-9][a-z0-9_-]*` each, no two of which [`clash`].
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self::with_gone(names.into_iter().map(|name| (name, true)))
    }

    /// The same of servers of which some are gone (`false`): what those still say has their name, but no client can name
    /// them, and they are asked nothing. Only names of servers that are there must not [`clash`].
    pub fn with_gone<'a>(names: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        let member = |(name, is_there): (&str, bool)| Member {
            is_there,
            name: name.into(),
            name_prefix: format!("{name}{BETWEEN}").into(),
            // A scheme holds no underscore (RFC 3986, 3.1), a server's name no full stop.
            scheme: format!("{SCHEME}{}:", name.replace('_', ".")).into(),
            mark: format!("{name}/").into(),
        };
        Federation { members: names.into_iter().map(member).collect() }
    }

    /// The numbers of the servers that are there.
    pub fn numbers(&self) -> impl Iterator<Item = usize> {
        let members = self.members.iter().enumerate();
        members.filter(|(_, member)| member.is_there).map(|(number, _)| number)
    }

    /// The name of a server; empty for a number that no server has.
    pub fn name(&self, server: usize) -> &str {
        self.members.get(server).map_or("", |member| &member.name)
    }

    /// The number of the server of this name.
    pub fn server(&self, name: &str) -> Option<usize> {
        self.members.iter().position(|member| member.is_there && *member.name == *name)
    }

    /// The server whose tool, prompt or task this is, and its own name for it.
    pub fn split_name<'a>(&self, name: &'a str) -> Option<(usize, &'a str)> {
        self.split(name, |member| &member.name_prefix)
    }

    /// The server whose URI or template this is, and its own for it. The scheme's case does not matter.
    pub fn split_uri<'a>(&self, uri: &'a str) -> Option<(usize, &'a str)> {
        let fits = |member: &Member| {
            let start = uri.as_bytes().get(..member.scheme.len());
            member.is_there && start.is_some_and(|start| start.eq_ignore_ascii_case(member.scheme.as_bytes()))
        };
        let server = self.members.iter().position(fits)?;
        Some((server, &uri[self.members[server].scheme.len()..]))
    }

    /// The server whose id, token or event this is, and the raw text of its own.
    pub fn split_mark<'a>(&self, marked: &'a str) -> Option<(usize, &'a str)> {
        self.split(marked, |member| &member.mark)
    }

    pub(super) fn name_prefix(&self, server: usize) -> &str {
        self.members.get(server).map_or("", |member| &member.name_prefix)
    }

    pub(super) fn scheme(&self, server: usize) -> &str {
        self.members.get(server).map_or("", |member| &member.scheme)
    }

    pub(super) fn mark(&self, server: usize) -> &str {
        self.members.get(server).map_or("", |member| &member.mark)
    }

    /// Of several prefixes that fit the longest counts; where names do not clash there is one at most.
    fn split<'a>(&self, text: &'a str, prefix: impl Fn(&Member) -> &str) -> Option<(usize, &'a str)> {
        let fits = |member: &Member| member.is_there && text.starts_with(prefix(member));
        let fitting = self.members.iter().enumerate().filter(|(_, member)| fits(member));
        let (server, member) = fitting.max_by_key(|(_, member)| prefix(member).len())?;
        Some((server, &text[prefix(member).len()..]))
    }
}

/// Whether a tool of the one server could have the same joined name as a tool of the other: `a` and `a__b` cannot stand
/// side by side, because `a__b__c` would be `b__c` of the one and `c` of the other.
#[must_use]
pub fn clash(one: &str, other: &str) -> bool {
    let (one, other) = (format!("{one}{BETWEEN}"), format!("{other}{BETWEEN}"));
    one.starts_with(&other) || other.starts_with(&one)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 5] = ["files", "a_b", "a-b", "a__c", "0"];

    #[test]
    fn names_that_clash_are_those_whose_tools_could() {
        for (one, other) in [("a", "a__b"), ("a", "a_"), ("a", "a__"), ("a_", "a___b"), ("x", "x")] {
            assert!(clash(one, other) && clash(other, one), "{one} {other}");
        }
        for (one, other) in [("a", "a_b"), ("a", "ab"), ("a", "b__a"), ("a-", "a"), ("a_b", "a__b")] {
            assert!(!clash(one, other) && !clash(other, one), "{one} {other}");
        }
    }

    #[test]
    fn what_is_joined_is_split_again() {
        let all = Federation::new(NAMES);
        let tools = ["search", "", "_x", "__", "files__x", "b__x", "é/ü", "c__x"];
        for (server, _) in NAMES.iter().enumerate() {
            for tool in tools {
                let name = format!("{}{tool}", all.name_prefix(server));
                assert_eq!(all.split_name(&name), Some((server, tool)), "{name}");
                let id = format!("{}{tool}", all.mark(server));
                assert_eq!(all.split_mark(&id), Some((server, tool)), "{id}");
                let uri = format!("{}x:{tool}", all.scheme(server));
                assert_eq!(all.split_uri(&uri), Some((server, &*format!("x:{tool}"))), "{uri}");
            }
        }
    }

    #[test]
    fn who_is_gone_can_be_named_by_nobody_but_us() {
        let all = Federation::with_gone([("a", true), ("a__b", false), ("c", false)]);
        assert_eq!(all.numbers().collect::<Vec<_>>(), [0]);
        assert_eq!((all.server("c"), all.split_uri("mcp+c:x"), all.split_mark("c/1")), (None, None, None));
        assert_eq!(all.split_name("a__b__x"), Some((0, "b__x")));
        assert_eq!((all.name(2), all.name_prefix(2), all.name(3)), ("c", "c__", ""));
    }

    #[test]
    fn two_tools_never_share_a_name() {
        // Every pair of short names that does not clash, and every pair of short tools.
        let words = |alphabet: &[&str]| -> Vec<String> {
            let mut words = vec![String::new()];
            for _ in 0..4 {
                let longer = words.iter().flat_map(|word| alphabet.iter().map(move |c| format!("{word}{c}")));
                words = words.iter().cloned().chain(longer).collect();
                words.sort();
                words.dedup();
            }
            words
        };
        let tools = words(&["a", "_"]);
        let servers: Vec<_> = tools.iter().filter(|word| word.starts_with('a')).collect();
        for one in &servers {
            for other in servers.iter().filter(|other| !clash(one, other)) {
                let all = Federation::new([one.as_str(), other.as_str()]);
                for tool in &tools {
                    assert_eq!(all.split_name(&format!("{one}__{tool}")), Some((0, tool.as_str())));
                    assert_eq!(all.split_name(&format!("{other}__{tool}")), Some((1, tool.as_str())));
                }
            }
        }
    }

    #[test]
    fn what_is_no_servers_belongs_to_none() {
        let all = Federation::new(NAMES);
        for name in ["search", "file__x", "files_x", "files", "", "FILES__x", "a__b"] {
            assert_eq!(all.split_name(name), None, "{name}");
        }
        for uri in ["file:///x", "mcp+file:x", "mcp+files", "mcp:files:x", "", "mcp+é:x", "mcp+a_b:x"] {
            assert_eq!(all.split_uri(uri), None, "{uri}");
        }
        assert_eq!(all.split_uri("MCP+Files:x:y"), Some((0, "x:y")));
        assert_eq!(all.split_uri("mcp+a.b:x:y"), Some((1, "x:y")));
        assert_eq!((all.name(1), all.server("a_b"), all.server("x")), ("a_b", Some(1), None));
    }
}
