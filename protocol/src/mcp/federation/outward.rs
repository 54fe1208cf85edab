//! A server's message on its way to the client: owns which places of it hold names that are the server's own, and their
//! joining.

use std::borrow::Cow;

use super::Federation;
use super::splice::Splices;
use crate::Span;
use crate::jsonrpc::{
    Kind, Payload, Scan, ScanLimits, Shape, as_string, for_each_element, scan, walk, write_json_string,
};

/// What the client asked for, as far as it decides where names stand in the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// `tools/call`, or a task's result.
    Tool,
    /// `prompts/get`.
    Prompt,
    /// `resources/read`.
    Resource,
    /// A task's state.
    Task,
    /// `subscriptions/listen`: its server may cancel it, by the client's own id.
    Listen,
    /// The legacy stream on which a server speaks by itself.
    Stream,
    /// Anything whose answer holds no names.
    Other,
}

impl Asked {
    /// What a request of this method asks for.
    pub fn of(method: &str) -> Self {
        match method {
            "tools/call" | "tasks/result" => Asked::Tool,
            "prompts/get" => Asked::Prompt,
            "resources/read" => Asked::Resource,
            "tasks/get" | "tasks/update" | "tasks/cancel" => Asked::Task,
            "subscriptions/listen" => Asked::Listen,
            _ => Asked::Other,
        }
    }

    /// What stands for it in an event's id.
    fn letter(self) -> u8 {
        match self {
            Asked::Tool => b't',
            Asked::Prompt => b'p',
            Asked::Resource => b'r',
            Asked::Task => b'k',
            Asked::Listen => b'l',
            Asked::Stream => b's',
            Asked::Other => b'o',
        }
    }

    fn of_letter(letter: u8) -> Option<Self> {
        const ALL: [Asked; 7] = [
            Asked::Tool,
            Asked::Prompt,
            Asked::Resource,
            Asked::Task,
            Asked::Listen,
            Asked::Stream,
            Asked::Other,
        ];
        ALL.into_iter().find(|asked| asked.letter() == letter)
    }
}

/// What stands at a place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// A tool's, prompt's or task's name.
    Name,
    /// A URI or a template of URIs.
    Uri,
    /// An id or token by which the client will speak to the server.
    Mark,
}

const RELATED: Shape<Part> = Shape::Members(&[(
    "io.modelcontextprotocol/related-task",
    Shape::Members(&[("taskId", Shape::Here(Part::Name))]),
)]);
const CONTENT: Shape<Part> = Shape::Members(&[
    ("uri", Shape::Here(Part::Uri)),
    ("resource", Shape::Members(&[("uri", Shape::Here(Part::Uri))])),
]);
const TOOL: Shape<Part> = Shape::Members(&[(
    "result",
    Shape::Members(&[
        ("content", Shape::Each(&CONTENT)),
        ("task", Shape::Members(&[("taskId", Shape::Here(Part::Name))])),
        ("taskId", Shape::Here(Part::Name)),
        ("_meta", RELATED),
    ]),
)]);
const PROMPT: Shape<Part> = Shape::Members(&[(
    "result",
    Shape::Members(&[("messages", Shape::Each(&Shape::Members(&[("content", Shape::EachOrOne(&CONTENT))])))]),
)]);
const RESOURCE: Shape<Part> = Shape::Members(&[
    (
        "result",
        Shape::Members(&[("contents", Shape::Each(&Shape::Members(&[("uri", Shape::Here(Part::Uri))])))]),
    ),
    ("error", Shape::Members(&[("data", Shape::Members(&[("uri", Shape::Here(Part::Uri))]))])),
]);
/// A task's state, with the tool's result in it where the revision has it there.
const TASK: Shape<Part> = Shape::Members(&[(
    "result",
    Shape::Members(&[
        ("taskId", Shape::Here(Part::Name)),
        ("result", Shape::Members(&[("content", Shape::Each(&CONTENT))])),
        ("_meta", RELATED),
    ]),
)]);
const REQUEST: Shape<Part> = Shape::Members(&[
    ("id", Shape::Here(Part::Mark)),
    (
        "params",
        Shape::Members(&[(
            "_meta",
            Shape::Members(&[
                ("progressToken", Shape::Here(Part::Mark)),
                (
                    "io.modelcontextprotocol/related-task",
                    Shape::Members(&[("taskId", Shape::Here(Part::Name))]),
                ),
            ]),
        )]),
    ),
]);
const UPDATED: Shape<Part> =
    Shape::Members(&[("params", Shape::Members(&[("uri", Shape::Here(Part::Uri))]))]);
const TASK_STATUS: Shape<Part> =
    Shape::Members(&[("params", Shape::Members(&[("taskId", Shape::Here(Part::Name)), ("_meta", RELATED)]))]);
const CANCELLED: Shape<Part> =
    Shape::Members(&[("params", Shape::Members(&[("requestId", Shape::Here(Part::Mark))]))]);
const NOTIFICATION: Shape<Part> = Shape::Members(&[("params", Shape::Members(&[("_meta", RELATED)]))]);

impl Federation {
    /// What the client gets of a server's message, a batch included. A text that is no message stays as it is.
    #[must_use]
    pub fn outward<'m>(&self, server: usize, asked: Asked, message: &'m [u8]) -> Cow<'m, [u8]> {
        let shape = match scan(message, &ScanLimits::default()) {
            Ok(Payload::Single(scan)) => shape_of(&scan, asked, message),
            Ok(Payload::Batch(batch)) => return self.batch_outward(server, asked, message, &batch),
            Err(_) => None,
        };
        let mut splices = Splices::default();
        if let Some(shape) = shape {
            self.join(server, shape, message, 0, &mut splices);
        }
        splices.apply(message)
    }

    /// The id that the client gets for a server's event: `files/t/7`, so that whoever resumes after it reaches the server, and
    /// what comes then is told as it would have been. An empty id, which takes the last one back, stays.
    #[must_use]
    pub fn event_id(&self, server: usize, asked: Asked, id: &[u8]) -> Vec<u8> {
        if id.is_empty() {
            return Vec::new();
        }
        [self.mark(server).as_bytes(), &[asked.letter(), b'/'], id].concat()
    }

    /// The server of an event's id, what was asked for, and the server's own id.
    pub fn split_event_id<'i>(&self, id: &'i [u8]) -> Option<(usize, Asked, &'i [u8])> {
        let end = id.iter().position(|&byte| byte == b'/')?;
        let server = self.server(std::str::from_utf8(&id[..end]).ok()?)?;
        match &id[end + 1..] {
            [letter, b'/', own @ ..] => Some((server, Asked::of_letter(*letter)?, own)),
            _ => None,
        }
    }

    fn batch_outward<'m>(
        &self,
        server: usize,
        asked: Asked,
        batch: &'m [u8],
        scans: &[Scan],
    ) -> Cow<'m, [u8]> {
        let mut splices = Splices::default();
        let mut scans = scans.iter();
        // The scan has proved that it is an array, and found one message for each element.
        let _ = for_each_element(batch, |element| {
            if let Some(shape) = scans.next().and_then(|scan| shape_of(scan, asked, batch)) {
                self.join(server, shape, element.of(batch), element.start, &mut splices);
            }
        });
        splices.apply(batch)
    }

    /// Notes what is to be joined in `text`, which stands at `start` of the text that is spliced.
    pub(super) fn join<'s>(
        &'s self,
        server: usize,
        shape: &Shape<Part>,
        text: &[u8],
        start: u32,
        splices: &mut Splices<'s>,
    ) {
        // A text that has been scanned is JSON.
        let _ = walk(text, shape, |part, value| self.join_one(server, part, text, value, start, splices));
    }

    /// Notes what is to be joined at one place.
    pub(super) fn join_one<'s>(
        &'s self,
        server: usize,
        part: Part,
        text: &[u8],
        value: Span,
        start: u32,
        splices: &mut Splices<'s>,
    ) {
        let string = as_string(text, value);
        match part {
            Part::Name | Part::Uri => {
                let prefix = if part == Part::Name { self.name_prefix(server) } else { self.scheme(server) };
                if let Some(string) = string {
                    splices.insert(start + string.span.start, prefix);
                }
            }
            Part::Mark => {
                let raw = value.of(text);
                let is_number = raw.first().is_some_and(|byte| matches!(byte, b'-' | b'0'..=b'9'));
                if string.is_some() || is_number {
                    let value = Span { start: start + value.start, end: start + value.end };
                    splices.replace(value, marked(self.mark(server), raw));
                }
            }
        }
    }
}

/// The string that stands for a raw id or token.
fn marked(mark: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(mark.len() + raw.len() + 4);
    write_json_string(&mut out, &format!("{mark}{}", String::from_utf8_lossy(raw)));
    out
}

/// Where the names stand in a message.
fn shape_of(scan: &Scan, asked: Asked, text: &[u8]) -> Option<&'static Shape<Part>> {
    let is = |name: &str| scan.method.is_some_and(|method| method.eq_str(text, name));
    match scan.kind {
        Kind::Request => Some(&REQUEST),
        Kind::Notification if is("notifications/resources/updated") => Some(&UPDATED),
        Kind::Notification if is("notifications/tasks/status") => Some(&TASK_STATUS),
        Kind::Notification if is("notifications/cancelled") => {
            if asked == Asked::Listen {
                None
            } else {
                Some(&CANCELLED)
            }
        }
        Kind::Notification => Some(&NOTIFICATION),
        Kind::Response => match asked {
            Asked::Tool => Some(&TOOL),
            Asked::Prompt => Some(&PROMPT),
            Asked::Resource => Some(&RESOURCE),
            Asked::Task => Some(&TASK),
            Asked::Listen | Asked::Stream | Asked::Other => None,
        },
    }
}
