//! Lists of all servers: owns the reading of one server's page and the page that is made of all. An item's bytes are the
//! server's own but for its name.

use serde_json::Value;

use super::cursor::{self, MAX_SERVER_CURSOR_BYTES};
use super::outward::Part;
use super::splice::Splices;
use super::{Federation, MISSING_SERVERS, write_names};
use crate::Span;
use crate::jsonrpc::{
    Kind, Payload, ScanLimits, Shape, as_string, for_each_member, scan, walk, write_json_string,
};

const METHOD_NOT_FOUND: i64 = -32601;

/// What is listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum List {
    /// `tools/list`.
    Tools,
    /// `prompts/list`.
    Prompts,
    /// `resources/list`.
    Resources,
    /// `resources/templates/list`.
    Templates,
    /// `tasks/list`.
    Tasks,
}

/// How long a list may be kept, and for whom, as its server says (caching.mdx).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Freshness {
    /// For how long, in milliseconds; 0 where the server says nothing that counts.
    pub ttl_ms: u64,
    /// Whether it is the same for everybody.
    pub public: bool,
}

/// What one server listed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// The items' text, without the brackets around; empty where there are none.
    items: Vec<u8>,
    /// The server's own cursor for its next page.
    next: Option<String>,
    freshness: Freshness,
}

/// What is found in a page.
#[derive(Clone, Copy)]
enum Found {
    Items,
    In(Part),
    Next,
    Ttl,
    Scope,
}

macro_rules! page_of {
    ($member:literal, $key:literal, $part:expr) => {
        Shape::Members(&[(
            "result",
            Shape::Members(&[
                (
                    $member,
                    Shape::Around(
                        Found::Items,
                        &Shape::Each(&Shape::Members(&[($key, Shape::Here(Found::In($part)))])),
                    ),
                ),
                ("nextCursor", Shape::Here(Found::Next)),
                ("ttlMs", Shape::Here(Found::Ttl)),
                ("cacheScope", Shape::Here(Found::Scope)),
            ]),
        )])
    };
}

const TOOLS: Shape<Found> = page_of!("tools", "name", Part::Name);
const PROMPTS: Shape<Found> = page_of!("prompts", "name", Part::Name);
const RESOURCES: Shape<Found> = page_of!("resources", "uri", Part::Uri);
const TEMPLATES: Shape<Found> = page_of!("resourceTemplates", "uriTemplate", Part::Uri);
const TASKS: Shape<Found> = page_of!("tasks", "taskId", Part::Name);

impl List {
    const ALL: [List; 5] = [List::Tools, List::Prompts, List::Resources, List::Templates, List::Tasks];

    /// The list that a method asks for.
    pub fn of(method: &str) -> Option<Self> {
        List::ALL.into_iter().find(|list| list.method() == method)
    }

    /// The method that asks for it.
    pub fn method(self) -> &'static str {
        match self {
            List::Tools => "tools/list",
            List::Prompts => "prompts/list",
            List::Resources => "resources/list",
            List::Templates => "resources/templates/list",
            List::Tasks => "tasks/list",
        }
    }

    /// What a change of such a list is told as: 0 tools, 1 prompts, 2 resources and templates, 3 tasks.
    pub fn kind(self) -> usize {
        match self {
            List::Tools => 0,
            List::Prompts => 1,
            List::Resources | List::Templates => 2,
            List::Tasks => 3,
        }
    }

    /// The number by which a cursor says which list it is of.
    pub(super) fn number(self) -> u8 {
        match self {
            List::Tools => 0,
            List::Prompts => 1,
            List::Resources => 2,
            List::Templates => 3,
            List::Tasks => 4,
        }
    }

    /// The result's member that holds the items.
    fn member(self) -> &'static str {
        match self {
            List::Tools => "tools",
            List::Prompts => "prompts",
            List::Resources => "resources",
            List::Templates => "resourceTemplates",
            List::Tasks => "tasks",
        }
    }

    fn shape(self) -> &'static Shape<Found> {
        match self {
            List::Tools => &TOOLS,
            List::Prompts => &PROMPTS,
            List::Resources => &RESOURCES,
            List::Templates => &TEMPLATES,
            List::Tasks => &TASKS,
        }
    }
}

/// Where a result says how long it may be kept.
const HINTS: Shape<Found> = Shape::Members(&[(
    "result",
    Shape::Members(&[("ttlMs", Shape::Here(Found::Ttl)), ("cacheScope", Shape::Here(Found::Scope))]),
)]);

impl Freshness {
    /// What a response says of itself. Answers of which only a part is there yet are not to be kept: their `resultType` is
    /// another than `complete`, and they have no such members.
    #[must_use]
    pub fn of(response: &[u8]) -> Self {
        let mut freshness = Freshness::default();
        // A text that is not JSON is not kept.
        match walk(response, &HINTS, |found, value| freshness.read(response, found, value)) {
            Ok(()) => freshness,
            Err(_) => Freshness::default(),
        }
    }

    fn read(&mut self, response: &[u8], found: Found, value: Span) {
        match found {
            Found::Ttl => {
                let text = std::str::from_utf8(value.of(response)).unwrap_or_default();
                // What is negative, or no number, counts as 0 (caching.mdx); the cast keeps within the range.
                self.ttl_ms = text.parse().map_or(0, |ttl: f64| ttl as u64);
            }
            Found::Scope => {
                self.public =
                    as_string(response, value).is_some_and(|scope| scope.eq_str(response, "public"));
            }
            Found::Items | Found::In(_) | Found::Next => {}
        }
    }
}

/// Whether a list's request says nothing but which page is wanted, so that its answer depends on nothing else. `params` is
/// the place of its object.
#[must_use]
pub fn asks_only_for_page(body: &[u8], params: Option<Span>) -> bool {
    let Some(params) = params else { return true };
    let params = params.of(body);
    let mut only = true;
    let is_object = for_each_member(params, |key, _| {
        only &= key.eq_str(params, "cursor") || key.eq_str(params, "_meta");
    });
    only && matches!(is_object, Ok(true))
}

impl Page {
    /// Reads a server's response to a list's request, its names joined. A server that has no such method lists nothing.
    /// `None` where the response is another error, or holds no such list.
    pub fn read(federation: &Federation, server: usize, list: List, response: &[u8]) -> Option<Self> {
        let Ok(Payload::Single(scan)) = scan(response, &ScanLimits::default()) else { return None };
        let mut page = Page { items: Vec::new(), next: None, freshness: Freshness::default() };
        match scan.kind {
            Kind::Response if scan.error_code == Some(METHOD_NOT_FOUND) => {
                // Nothing takes nothing from what the others say.
                page.freshness = Freshness { ttl_ms: u64::MAX, public: true };
                return Some(page);
            }
            Kind::Response if !scan.is_error => {}
            Kind::Response | Kind::Request | Kind::Notification => return None,
        }
        let mut splices = Splices::default();
        let mut items: Vec<Span> = Vec::new();
        let walked = walk(response, list.shape(), |found, value| match found {
            Found::Items => items.push(value),
            Found::In(part) => federation.join_one(server, part, response, value, 0, &mut splices),
            Found::Next => {
                let next = as_string(response, value).map(|next| next.decode(response).into_owned());
                page.next = next.filter(|next| next.len() <= MAX_SERVER_CURSOR_BYTES);
            }
            Found::Ttl | Found::Scope => page.freshness.read(response, found, value),
        });
        let [all] = items[..] else { return None };
        if walked.is_err() || !all.of(response).starts_with(b"[") {
            return None;
        }
        splices.write(&mut page.items, response, Span { start: all.start + 1, end: all.end - 1 });
        if page.items.trim_ascii().is_empty() {
            page.items.clear();
        }
        Some(page)
    }
}

/// Writes the response that is made of these servers' pages. `missing` are the servers whose part is not there; `modern`
/// says whether the client is of the era that has `resultType` and hints for caches.
pub fn write_list(
    federation: &Federation,
    list: List,
    id: &[u8],
    pages: &[(usize, Page)],
    missing: &[usize],
    modern: bool,
) -> Vec<u8> {
    let items: usize = pages.iter().map(|(_, page)| page.items.len() + 1).sum();
    let mut out = Vec::with_capacity(items + 256);
    out.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    out.extend_from_slice(id);
    out.extend_from_slice(b",\"result\":{\"");
    out.extend_from_slice(list.member().as_bytes());
    out.extend_from_slice(b"\":[");
    let mut is_first = true;
    for (_, page) in pages.iter().filter(|(_, page)| !page.items.is_empty()) {
        if !std::mem::take(&mut is_first) {
            out.push(b',');
        }
        out.extend_from_slice(&page.items);
    }
    out.push(b']');
    let next: Vec<_> =
        pages.iter().filter_map(|(server, page)| Some((*server, page.next.as_deref()?))).collect();
    if let Some(cursor) = cursor::write(federation, list, &next) {
        out.extend_from_slice(b",\"nextCursor\":");
        write_json_string(&mut out, &cursor);
    }
    if modern {
        let whole = missing.is_empty();
        let ttl =
            pages.iter().map(|(_, page)| page.freshness.ttl_ms).min().filter(|&ttl| whole && ttl < u64::MAX);
        let scope = if pages.iter().all(|(_, page)| page.freshness.public) { "public" } else { "private" };
        let hints = format!(
            r#","resultType":"complete","ttlMs":{},"cacheScope":{}"#,
            ttl.unwrap_or(0),
            Value::from(scope)
        );
        out.extend_from_slice(hints.as_bytes());
    }
    if !missing.is_empty() {
        out.extend_from_slice(format!(",\"_meta\":{{\"{MISSING_SERVERS}\":").as_bytes());
        write_names(&mut out, federation, missing);
        out.push(b'}');
    }
    out.extend_from_slice(b"}}");
    out
}
