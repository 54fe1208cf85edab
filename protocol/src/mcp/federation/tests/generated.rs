//! Thousands of generated messages: everything but the spliced names is the same, byte for byte, both ways. A generator
//! writes each message twice, as the server has it and as the client has it, with whatever JSON allows around the names.

use super::*;

const MESSAGES: usize = 10_000;
const SEED: u64 = 0x5EED_0F0F_1234_5678;
const SPACES: &[&str] = &["", "", "", " ", "\n", "\t ", "\r\n  "];
const STRINGS: &[&str] =
    &["", "a", "é世界", r#"\"q\""#, r"\u0041\/\\", r"\ud83d\ude00", "x__y", "mcp+files:z", "tab\\t", "}{]["];
const NUMBERS: &[&str] =
    &["0", "-0", "1", "1.0", "1e400", "-12.50E+3", "123456789012345678901234567890", "5E-9"];
const KEYS: &[&str] =
    &["x", "name", "uri", "taskId", "content", "result", "\\u0078", "", "id", "params", "é"];
const NAMES: [(&str, &str); 3] = [("files", "files"), ("my_git", "my.git"), ("time", "time")];

/// A member's key, and what writes its value.
type Member<'a> = (&'a str, &'a dyn Fn(&mut Twin));

/// A message as the server has it and as the client has it.
struct Twin {
    own: String,
    seen: String,
    random: u64,
    server: usize,
}

impl Twin {
    fn new(seed: u64) -> Self {
        let mut twin = Twin { own: String::new(), seen: String::new(), random: seed | 1, server: 0 };
        twin.server = twin.below(NAMES.len());
        twin
    }

    /// Xorshift: the same messages in every run.
    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % limit as u64) as usize
    }

    fn one_of(&mut self, all: &[&'static str]) -> &'static str {
        all[self.below(all.len())]
    }

    fn both(&mut self, text: &str) {
        self.own.push_str(text);
        self.seen.push_str(text);
    }

    fn space(&mut self) {
        let space = self.one_of(SPACES);
        self.both(space);
    }

    fn token(&mut self, text: &str) {
        self.space();
        self.both(text);
        self.space();
    }

    fn string(&mut self) {
        let text = self.one_of(STRINGS);
        self.token(&format!("\"{text}\""));
    }

    /// A value that means nothing to the gateway.
    fn any(&mut self, depth: usize) {
        match self.below(if depth == 0 { 4 } else { 6 }) {
            0 => self.string(),
            1 => {
                let number = self.one_of(NUMBERS);
                self.token(number);
            }
            2 => self.token("null"),
            3 => self.token("true"),
            4 => {
                self.token("[");
                for place in 0..self.below(4) {
                    if place > 0 {
                        self.token(",");
                    }
                    self.any(depth - 1);
                }
                self.token("]");
            }
            _ => {
                self.token("{");
                for place in 0..self.below(4) {
                    if place > 0 {
                        self.token(",");
                    }
                    let key = self.one_of(KEYS);
                    self.token(&format!("\"{key}\""));
                    self.token(":");
                    self.any(depth - 1);
                }
                self.token("}");
            }
        }
    }

    fn name(&mut self) {
        let (name, text) = (NAMES[self.server].0, self.one_of(STRINGS));
        self.space();
        self.own.push_str(&format!("\"{text}\""));
        self.seen.push_str(&format!("\"{name}__{text}\""));
    }

    fn uri(&mut self) {
        let (name, text) = (NAMES[self.server].1, self.one_of(STRINGS));
        self.space();
        self.own.push_str(&format!("\"s:{text}\""));
        self.seen.push_str(&format!("\"mcp+{name}:s:{text}\""));
    }

    fn mark(&mut self) {
        let (name, id) =
            (NAMES[self.server].0, self.one_of(&["1", "-7", r#""a""#, r#""\u0061\"/""#, "12345678901"]));
        self.space();
        self.own.push_str(id);
        self.seen.push_str(&json!(format!("{name}/{id}")).to_string());
    }

    /// An object of these members in any order, with members between them that mean nothing.
    fn object(&mut self, members: &[Member<'_>]) {
        let mut order: Vec<_> = (0..members.len()).collect();
        for place in (1..order.len()).rev() {
            let other = self.below(place + 1);
            order.swap(place, other);
        }
        self.token("{");
        for (place, member) in order.into_iter().enumerate() {
            if place > 0 {
                self.token(",");
            }
            if self.below(3) == 0 {
                self.token(&format!("\"x{place}\""));
                self.token(":");
                self.any(3);
                self.token(",");
            }
            let (key, value) = members[member];
            let key = if self.below(8) == 0 { escaped(key) } else { key.to_owned() };
            self.token(&format!("\"{key}\""));
            self.token(":");
            value(self);
        }
        self.token("}");
    }

    fn array(&mut self, element: &dyn Fn(&mut Self)) {
        self.token("[");
        for place in 0..self.below(4) {
            if place > 0 {
                self.token(",");
            }
            element(self);
        }
        self.token("]");
    }

    fn content(&mut self) {
        match self.below(3) {
            0 => self.object(&[
                ("type", &|t| t.token(r#""resource_link""#)),
                ("uri", &Self::uri),
                ("name", &Self::string),
            ]),
            1 => self.object(&[("resource", &|t| {
                t.object(&[("uri", &Self::uri), ("text", &Self::string)]);
            })]),
            _ => self.object(&[("text", &Self::string)]),
        }
    }

    fn message(&mut self, method: Option<&str>, rest: &[Member<'_>]) {
        let quoted = method.map(|method| format!("\"{method}\"")).unwrap_or_default();
        let write_method = |t: &mut Self| t.token(&quoted);
        let version = |t: &mut Self| t.token(r#""2.0""#);
        let mut members: Vec<Member<'_>> = vec![("jsonrpc", &version)];
        if method.is_some() {
            members.push(("method", &write_method));
        }
        members.extend_from_slice(rest);
        self.object(&members);
    }
}

/// The key with its first character escaped, which is the same key.
fn escaped(key: &str) -> String {
    let first = key.chars().next().map_or(0, u32::from);
    format!("\\u{first:04x}{}", &key[1..])
}

fn client_id(t: &mut Twin) {
    let id = t.one_of(&["1", "\"c\"", "\"files/1\"", "-3"]);
    t.token(id);
}

#[test]
fn servers_messages_change_in_their_names_alone() {
    let all = all();
    for number in 0..MESSAGES {
        let mut t = Twin::new(SEED.wrapping_mul(number as u64 + 1));
        let structured = |t: &mut Twin| t.any(4);
        let task = |t: &mut Twin| t.object(&[("taskId", &Twin::name), ("status", &Twin::string)]);
        let uris = |t: &mut Twin| t.array(&|t| t.object(&[("uri", &Twin::uri), ("blob", &Twin::string)]));
        let contents = |t: &mut Twin| t.array(&Twin::content);
        let messages =
            |t: &mut Twin| t.array(&|t| t.object(&[("role", &Twin::string), ("content", &Twin::content)]));
        let response = |t: &mut Twin, result: &dyn Fn(&mut Twin)| {
            t.message(None, &[("id", &client_id), ("result", result)]);
        };
        let asked = match t.below(8) {
            0 | 1 => {
                response(&mut t, &|t| {
                    t.object(&[("content", &contents), ("structuredContent", &structured), ("task", &task)]);
                });
                Asked::Tool
            }
            2 => {
                response(&mut t, &|t| t.object(&[("messages", &messages)]));
                Asked::Prompt
            }
            3 => {
                response(&mut t, &|t| t.object(&[("contents", &uris)]));
                Asked::Resource
            }
            4 => {
                response(&mut t, &task);
                Asked::Task
            }
            5 => {
                let meta = |t: &mut Twin| t.object(&[("progressToken", &Twin::mark)]);
                let params = |t: &mut Twin| t.object(&[("_meta", &meta), ("messages", &structured)]);
                t.message(Some("sampling/createMessage"), &[("id", &Twin::mark), ("params", &params)]);
                Asked::Other
            }
            6 => {
                let params = |t: &mut Twin| t.object(&[("uri", &Twin::uri), ("title", &Twin::string)]);
                t.message(Some("notifications/resources/updated"), &[("params", &params)]);
                Asked::Listen
            }
            _ => {
                response(&mut t, &|t| t.object(&[("structuredContent", &structured)]));
                Asked::Other
            }
        };
        let seen = all.outward(t.server, asked, t.own.as_bytes());
        assert_eq!(std::str::from_utf8(&seen), Ok(&*t.seen), "message {number} of seed {SEED:#x}: {}", t.own);
    }
}

#[test]
fn clients_messages_change_in_their_names_alone() {
    let all = all();
    for number in 0..MESSAGES {
        let mut t = Twin::new(SEED.wrapping_mul(number as u64 + 1));
        let anything = |t: &mut Twin| t.any(4);
        let meta = |t: &mut Twin| t.object(&[("progressToken", &client_id)]);
        let by_name =
            |t: &mut Twin| t.object(&[("name", &Twin::name), ("arguments", &anything), ("_meta", &meta)]);
        let by_uri = |t: &mut Twin| t.object(&[("uri", &Twin::uri), ("_meta", &meta)]);
        let by_task = |t: &mut Twin| t.object(&[("taskId", &Twin::name)]);
        let reference = |t: &mut Twin| {
            if t.below(2) == 0 {
                t.object(&[("type", &Twin::string), ("name", &Twin::name)]);
            } else {
                t.object(&[("type", &Twin::string), ("uri", &Twin::uri)]);
            }
        };
        let by_reference = |t: &mut Twin| t.object(&[("ref", &reference), ("argument", &anything)]);
        let request = |t: &mut Twin, method: &str, params: &dyn Fn(&mut Twin)| {
            t.message(Some(method), &[("id", &client_id), ("params", params)]);
        };
        match t.below(7) {
            0 | 1 => request(&mut t, "tools/call", &by_name),
            2 => request(&mut t, "prompts/get", &by_name),
            3 => request(&mut t, "resources/read", &by_uri),
            4 => request(&mut t, "completion/complete", &by_reference),
            5 => request(&mut t, "tasks/get", &by_task),
            _ => t.message(None, &[("id", &Twin::mark), ("result", &anything)]),
        }
        let route = all.route(t.seen.as_bytes(), &scanned(&t.seen));
        let Ok(Route::One { server, body, .. }) = route else { panic!("{number}: {}: {route:?}", t.seen) };
        assert_eq!(server, t.server);
        assert_eq!(std::str::from_utf8(&body), Ok(&*t.own), "message {number} of seed {SEED:#x}: {}", t.seen);
    }
}

#[test]
fn items_of_lists_change_in_their_names_alone() {
    let all = all();
    for number in 0..MESSAGES {
        let mut t = Twin::new(SEED.wrapping_mul(number as u64 + 1));
        let schema = |t: &mut Twin| t.any(4);
        let items = |t: &mut Twin| {
            t.array(&|t| {
                t.object(&[("name", &Twin::name), ("inputSchema", &schema), ("title", &Twin::string)])
            });
        };
        let mut inner = Twin::new(t.random);
        inner.server = t.server;
        items(&mut inner);
        let (own, seen) = (inner.own.trim().to_owned(), inner.seen.trim().to_owned());
        let result = |t: &mut Twin| t.object(&[("tools", &|t| t.both(&own))]);
        t.message(None, &[("id", &client_id), ("result", &result)]);
        let page = Page::read(&all, t.server, List::Tools, t.own.as_bytes());
        let page = page.unwrap_or_else(|| panic!("{number}: {}", t.own));
        let written = write_list(&all, List::Tools, b"1", &[(t.server, page)], &[], false);
        let items = &seen[1..seen.len() - 1];
        let items = if items.trim().is_empty() { "" } else { items };
        let expected = format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{items}]}}}}"#);
        assert_eq!(
            std::str::from_utf8(&written),
            Ok(&*expected),
            "message {number} of seed {SEED:#x}: {}",
            t.own
        );
    }
}
