//! Owns `Mcp-Param-*`: which headers a tool asks for, and whether a call's headers mirror its arguments
//! (2026-07-28, streamable-http.mdx, "Custom Headers from Tool Parameters").
//!
//! The learning builds a JSON tree of each annotated `inputSchema`; the checking works on bytes.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::modern::{Mismatch, ModernError, shortened};
use super::value::decode_value;
use crate::Span;
use crate::jsonrpc::{as_string, for_each_element, for_each_member};

/// The most annotated parameters of one tool; a tool with more is taken for invalid. No head could carry more headers.
const MAX_PARAMS_PER_TOOL: usize = 128;
/// The longest `inputSchema` of which a tree is built; a tool with a longer one is taken for invalid. Worst-case memory:
/// some twenty times as much, for one schema at a time.
const MAX_SCHEMA_BYTES: usize = 256 * 1024;
const ANNOTATION: &str = "x-mcp-header";
const HEADER_PREFIX: &str = "Mcp-Param-";
/// 2^53 - 1, the end of the range in which every integer is exact for a reader that knows only doubles.
const MAX_SAFE_INTEGER: f64 = 9_007_199_254_740_991.0;

/// The headers that one tool's `inputSchema` asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ToolHeaders {
    /// The tool's name.
    pub tool: String,
    /// Its annotated parameters.
    pub params: Vec<ParamHeader>,
}

/// One annotated parameter.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ParamHeader {
    /// The `{Name}` of `Mcp-Param-{Name}`.
    pub header: String,
    /// The keys that lead from `arguments` to the value.
    pub path: Vec<String>,
}

/// The tools of a `tools/list` response that ask for headers. Tools without annotations have no entry, nor have tools
/// with an invalid one (clients must not offer those).
pub fn learn_from_tools_list(result_message: &[u8]) -> Vec<ToolHeaders> {
    let mut learned = Vec::new();
    if !is_annotated(result_message) || std::str::from_utf8(result_message).is_err() {
        return learned;
    }
    let tools = member(result_message, "result").and_then(|result| member(result, "tools"));
    let Some(tools) = tools else { return learned };
    // A message that is not JSON has no tools: nothing is to be learnt from its first half.
    match for_each_element(tools, |tool| learned.extend(learn_tool(tool.of(tools)))) {
        Ok(_) => learned,
        Err(_) => Vec::new(),
    }
}

/// Checks a call's headers against its arguments. `headers` are all header lines of the request, `arguments` is the raw
/// `params.arguments`. Headers that the tool does not ask for are ignored.
///
/// # Errors
/// [`ModernError::HeaderMismatch`] for the first parameter whose header is absent, unexpected, repeated or different.
pub fn check_params<'a>(
    tool: &ToolHeaders,
    headers: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    arguments: Option<&[u8]>,
) -> Result<(), ModernError> {
    let mut sent: Vec<Option<&[u8]>> = vec![None; tool.params.len()];
    for (name, value) in headers {
        let Some((prefix, name)) = name.split_at_checked(HEADER_PREFIX.len()) else { continue };
        if !prefix.eq_ignore_ascii_case(HEADER_PREFIX.as_bytes()) {
            continue;
        }
        let wanted = tool.params.iter().position(|param| param.header.as_bytes().eq_ignore_ascii_case(name));
        if let Some(index) = wanted
            && sent[index].replace(value).is_some()
        {
            return Err(mismatch(&tool.params[index], Mismatch::Repeated));
        }
    }
    for (param, header) in tool.params.iter().zip(sent) {
        check_param(param, header, arguments).map_err(|reason| mismatch(param, reason))?;
    }
    Ok(())
}

impl ParamHeader {
    /// The header's whole name.
    pub(super) fn header_name(&self) -> String {
        format!("{HEADER_PREFIX}{}", self.header)
    }

    /// The text of the parameter's value in the raw `arguments`; `None` where it is absent or null.
    ///
    /// # Errors
    /// [`ModernError::HeaderMismatch`] where a key on its path stands twice.
    pub(super) fn value_in<'a>(
        &self,
        arguments: Option<&'a [u8]>,
    ) -> Result<Option<Cow<'a, [u8]>>, ModernError> {
        let Some(arguments) = arguments else { return Ok(None) };
        let value = value_at(arguments, &self.path).map_err(|reason| mismatch(self, reason))?;
        Ok(value.filter(|&value| value != b"null").map(text_of))
    }
}

/// The four rows of "Server Behavior for Custom Headers".
fn check_param(param: &ParamHeader, header: Option<&[u8]>, arguments: Option<&[u8]>) -> Result<(), Mismatch> {
    let value = match arguments {
        Some(arguments) => value_at(arguments, &param.path)?.filter(|&value| value != b"null"),
        None => None,
    };
    match (header, value) {
        (None, None) => Ok(()),
        (None, Some(_)) => Err(Mismatch::Missing),
        (Some(_), None) => Err(Mismatch::Unexpected),
        (Some(header), Some(value)) => {
            let header = decode_value(header).map_err(Mismatch::Invalid)?;
            if mirrors(&header, value) {
                return Ok(());
            }
            Err(Mismatch::Different { header: shortened(&header), body: shortened(&text_of(value)) })
        }
    }
}

/// The raw value at a path of keys. Of every key on the path there may be one, or two readers could see two values.
fn value_at<'a>(arguments: &'a [u8], path: &[String]) -> Result<Option<&'a [u8]>, Mismatch> {
    let mut value = arguments;
    for key in path {
        let (mut found, mut count) = (Span::default(), 0);
        let read = for_each_member(value, |member, span| {
            if member.eq_str(value, key) {
                (found, count) = (span, count + 1);
            }
        });
        match (read, count) {
            (Ok(true), 1) => value = found.of(value),
            (Ok(true), 2..) => return Err(Mismatch::Ambiguous),
            // The arguments are part of a message that was scanned, so an error is not to be expected; whoever hands
            // in something else is told that there is no value.
            (Ok(_) | Err(_), _) => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// Whether a decoded header value stands for a raw JSON value.
fn mirrors(header: &[u8], value: &[u8]) -> bool {
    match value.first() {
        Some(b'"') => text_of(value) == header,
        Some(b'-' | b'0'..=b'9') => {
            value == header || integer(header).is_some_and(|header| integer(value) == Some(header))
        }
        Some(b't' | b'f') => value == header,
        Some(_) | None => false,
    }
}

/// A string's contents, or another value's text.
pub(super) fn text_of(value: &[u8]) -> Cow<'_, [u8]> {
    match as_string(value, Span::new(0, value.len())) {
        Some(text) => match text.decode(value) {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        },
        None => Cow::Borrowed(value),
    }
}

/// The integer that a number stands for, `42.0` and `4.2e1` included, within the safe range.
fn integer(number: &[u8]) -> Option<i64> {
    let plain = number.strip_prefix(b"-").unwrap_or(number);
    let well_formed = plain.first().is_some_and(u8::is_ascii_digit)
        && plain.iter().all(|b| b.is_ascii_digit() || b"+-.eE".contains(b));
    let value: f64 = std::str::from_utf8(number).ok().filter(|_| well_formed)?.parse().ok()?;
    (value.fract() == 0.0 && value.abs() <= MAX_SAFE_INTEGER).then_some(value as i64)
}

fn mismatch(param: &ParamHeader, reason: Mismatch) -> ModernError {
    ModernError::mismatch(param.header_name(), reason)
}

fn learn_tool(tool: &[u8]) -> Option<ToolHeaders> {
    let schema = member(tool, "inputSchema").filter(|schema| is_annotated(schema))?;
    if schema.len() > MAX_SCHEMA_BYTES {
        return None;
    }
    let name = member(tool, "name").filter(|name| name.first() == Some(&b'"'))?;
    let name = String::from_utf8(text_of(name).into_owned()).ok()?;
    let schema: Map<String, Value> = serde_json::from_slice(schema).ok()?;
    let mut learner = Learner { path: Vec::new(), params: Vec::new(), valid: true };
    learner.schema(&schema, true);
    let learned = learner.valid && !learner.params.is_empty();
    learned.then_some(ToolHeaders { tool: name, params: learner.params })
}

fn is_annotated(json: &[u8]) -> bool {
    memchr::memmem::find(json, ANNOTATION.as_bytes()).is_some()
}

/// The raw value of a member, the last one of this key as most readers take it; `None` also where there is no object.
pub(super) fn member<'a>(object: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut found = None;
    let read = for_each_member(object, |name, value| {
        if name.eq_str(object, key) {
            found = Some(value.of(object));
        }
    });
    found.filter(|_| read.is_ok())
}

/// Walks one `inputSchema`. The nesting is bounded by serde_json's own limit (128).
struct Learner {
    path: Vec<String>,
    params: Vec<ParamHeader>,
    valid: bool,
}

impl Learner {
    /// `reachable`: only `properties` keys lead here.
    fn schema(&mut self, schema: &Map<String, Value>, reachable: bool) {
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                (ANNOTATION, name) => self.annotation(schema, name, reachable),
                ("properties", Value::Object(properties)) => {
                    for (name, property) in properties {
                        self.path.push(name.clone());
                        self.any(property, reachable);
                        self.path.pop();
                    }
                }
                // Maps from names to schemas: their keys are no keywords.
                (
                    "$defs" | "definitions" | "patternProperties" | "dependentSchemas",
                    Value::Object(schemas),
                ) => {
                    schemas.values().for_each(|schema| self.any(schema, false));
                }
                // Instance values, not schemas.
                ("const" | "default" | "enum" | "examples", _) => {}
                (_, value) => self.any(value, false),
            }
        }
    }

    fn any(&mut self, value: &Value, reachable: bool) {
        match value {
            Value::Object(schema) => self.schema(schema, reachable),
            Value::Array(schemas) => schemas.iter().for_each(|schema| self.any(schema, false)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    fn annotation(&mut self, schema: &Map<String, Value>, name: &Value, reachable: bool) {
        let name = name.as_str().filter(|name| !name.is_empty() && name.bytes().all(is_token_byte));
        let is_new = |name: &&str| !self.params.iter().any(|param| param.header.eq_ignore_ascii_case(name));
        match name.filter(is_new) {
            Some(name)
                if reachable
                    && !self.path.is_empty()
                    && has_primitive_type(schema)
                    && self.params.len() < MAX_PARAMS_PER_TOOL =>
            {
                self.params.push(ParamHeader { header: name.to_owned(), path: self.path.clone() });
            }
            Some(_) | None => self.valid = false,
        }
    }
}

/// Whether a schema's `type` is one that can be mirrored; `null` beside it stands for an absent value.
fn has_primitive_type(schema: &Map<String, Value>) -> bool {
    let is_primitive = |name: &Value| matches!(name.as_str(), Some("string" | "integer" | "boolean"));
    match schema.get("type") {
        Some(Value::Array(types)) => {
            types.iter().any(is_primitive) && types.iter().all(|name| is_primitive(name) || name == "null")
        }
        Some(name) => is_primitive(name),
        None => false,
    }
}

/// `tchar` of RFC 9110, section 5.6.2.
fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn(schema: &str) -> Option<Vec<(String, String)>> {
        let message = format!(
            r#"{{"jsonrpc":"2.0","id":1,"result":{{"tools":[{{"name":"plain","inputSchema":{{"type":"object"}}}},
            {{"name":"t","inputSchema":{schema}}}]}}}}"#
        );
        let tools = learn_from_tools_list(message.as_bytes());
        assert!(tools.len() <= 1, "{tools:?}");
        let tool = tools.into_iter().next()?;
        assert_eq!(tool.tool, "t");
        Some(tool.params.into_iter().map(|param| (param.header, param.path.join("/"))).collect())
    }

    #[test]
    fn annotations_are_found_along_properties() {
        let schema = r#"{"type":"object","properties":{
            "region":{"type":"string","x-mcp-header":"Region"},
            "x-mcp-header":{"type":"string"},
            "nested":{"type":"object","properties":{"n":{"type":["integer","null"],"x-mcp-header":"N"}}},
            "flag":{"type":"boolean","x-mcp-header":"Flag","default":{"x-mcp-header":"no"}},
            "free":{"type":"string","enum":[{"x-mcp-header":"no"}]}}}"#;
        let mut found = learn(schema).unwrap();
        found.sort();
        let expected = [("Flag", "flag"), ("N", "nested/n"), ("Region", "region")];
        assert_eq!(found, expected.map(|(header, path)| (header.to_owned(), path.to_owned())));
    }

    #[test]
    fn an_invalid_annotation_discards_the_tool() {
        let property = |property: &str| format!(r#"{{"properties":{{"p":{property}}}}}"#);
        for schema in [
            property(r#"{"type":"string","x-mcp-header":""}"#),
            property(r#"{"type":"string","x-mcp-header":"a b"}"#),
            property(r#"{"type":"string","x-mcp-header":"a\r\nb"}"#),
            property(r#"{"type":"string","x-mcp-header":"é"}"#),
            property(r#"{"type":"string","x-mcp-header":1}"#),
            property(r#"{"type":"number","x-mcp-header":"A"}"#),
            property(r#"{"type":"object","x-mcp-header":"A"}"#),
            property(r#"{"type":["string","number"],"x-mcp-header":"A"}"#),
            property(r#"{"type":["null"],"x-mcp-header":"A"}"#),
            property(r#"{"x-mcp-header":"A"}"#),
            property(r#"{"type":"array","items":{"type":"string","x-mcp-header":"A"}}"#),
            property(r#"{"anyOf":[{"type":"string","x-mcp-header":"A"}]}"#),
            property(r#"{"not":{"properties":{"q":{"type":"string","x-mcp-header":"A"}}}}"#),
            r#"{"type":"string","x-mcp-header":"A"}"#.to_owned(),
            r#"{"$defs":{"d":{"type":"string","x-mcp-header":"A"}}}"#.to_owned(),
            r#"{"if":{"properties":{"p":{"type":"string","x-mcp-header":"A"}}}}"#.to_owned(),
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#
                .to_owned(),
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"x-mcp-header":7}}}"#.to_owned(),
        ] {
            assert_eq!(learn(&schema), None, "{schema}");
        }
    }

    #[test]
    fn other_messages_teach_nothing() {
        for message in
            ["", "x-mcp-header", r#"{"x-mcp-header":1}"#, r#"{"result":{"tools":{"x-mcp-header":1}}}"#]
        {
            assert!(learn_from_tools_list(message.as_bytes()).is_empty(), "{message}");
        }
    }

    #[test]
    fn a_schema_that_is_too_long_discards_the_tool() {
        let schema = |filler: usize| {
            format!(
                r#"{{"description":"{}","properties":{{"a":{{"type":"string","x-mcp-header":"A"}}}}}}"#,
                "x".repeat(filler)
            )
        };
        assert!(learn(&schema(1000)).is_some());
        assert_eq!(learn(&schema(MAX_SCHEMA_BYTES)), None);
    }

    fn check(headers: &[(&str, &str)], arguments: Option<&str>) -> Result<(), Mismatch> {
        let param = |header: &str, path: &[&str]| ParamHeader {
            header: header.to_owned(),
            path: path.iter().map(|&key| key.to_owned()).collect(),
        };
        let tool = ToolHeaders {
            tool: "t".to_owned(),
            params: vec![param("Region", &["region"]), param("N", &["a", "n"])],
        };
        let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        match check_params(&tool, headers, arguments.map(str::as_bytes)) {
            Ok(()) => Ok(()),
            Err(ModernError::HeaderMismatch { mismatch, header }) => {
                assert!(["Mcp-Param-Region", "Mcp-Param-N"].contains(&header.as_ref()), "{header}");
                Err(mismatch)
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn headers_that_mirror_the_arguments_pass() {
        let region = |value: &'static str| vec![("mcp-param-REGION", value)];
        for (headers, arguments) in [
            (vec![], None),
            (vec![], Some("{}")),
            (vec![], Some(r#"{"region":null,"a":{"n":null}}"#)),
            (vec![], Some(r#"{"region":null,"a":[]}"#)),
            (vec![("Mcp-Param-Other", "x"), ("Mcp-Param-Other", "y"), ("Mcp-Param", "z")], Some("{}")),
            (region("us-west1"), Some(r#"{"x":1,"region":"us-west1"}"#)),
            (region("us-west1"), Some(r#"{"re\u0067ion":"us\u002dwest1"}"#)),
            (region("=?base64?5LiW55WM?="), Some(r#"{"region":"世界"}"#)),
            (region(""), Some(r#"{"region":""}"#)),
            (region("true"), Some(r#"{"region":true}"#)),
            (region("42"), Some(r#"{"region":42.0}"#)),
            (region("42.0"), Some(r#"{"region":42}"#)),
            (region("-7"), Some(r#"{"region":-7}"#)),
            (region("0"), Some(r#"{"region":-0}"#)),
            (region("42"), Some(r#"{"region":4.2e1}"#)),
            (region("1.5"), Some(r#"{"region":1.5}"#)),
            (vec![("Mcp-Param-N", "3")], Some(r#"{"a":{"m":1,"n":3}}"#)),
        ] {
            assert_eq!(check(&headers, arguments), Ok(()), "{headers:?} {arguments:?}");
        }
    }

    #[test]
    fn headers_that_do_not_are_refused() {
        use super::super::value::InvalidValue;
        let region = |value: &'static str| vec![("Mcp-Param-Region", value)];
        let different =
            |header: &str, body: &str| Mismatch::Different { header: header.into(), body: body.into() };
        for (headers, arguments, reason) in [
            (vec![], Some(r#"{"region":"x"}"#), Mismatch::Missing),
            (vec![], Some(r#"{"a":{"n":0}}"#), Mismatch::Missing),
            (region("x"), None, Mismatch::Unexpected),
            (region("x"), Some("{}"), Mismatch::Unexpected),
            (region("null"), Some(r#"{"region":null}"#), Mismatch::Unexpected),
            (region("y"), Some(r#"{"region":"x"}"#), different("y", "x")),
            (region("X"), Some(r#"{"region":"x"}"#), different("X", "x")),
            (region("1"), Some(r#"{"region":true}"#), different("1", "true")),
            (region("True"), Some(r#"{"region":true}"#), different("True", "true")),
            (region("43"), Some(r#"{"region":42}"#), different("43", "42")),
            (region("+42"), Some(r#"{"region":42}"#), different("+42", "42")),
            (region("inf"), Some(r#"{"region":42}"#), different("inf", "42")),
            (region("9007199254740993"), Some(r#"{"region":9007199254740992}"#), {
                different("9007199254740993", "9007199254740992")
            }),
            (region("{}"), Some(r#"{"region":{}}"#), different("{}", "{}")),
            (region("=?base64?eA=?="), Some(r#"{"region":"x"}"#), Mismatch::Invalid(InvalidValue::Base64)),
            (region("é"), Some(r#"{"region":"é"}"#), Mismatch::Invalid(InvalidValue::Character)),
            (region("x"), Some(r#"{"region":"x","region":"y"}"#), Mismatch::Ambiguous),
            (region("x"), Some(r#"{"region":"x","\u0072egion":"x"}"#), Mismatch::Ambiguous),
            (
                vec![("Mcp-Param-Region", "x"), ("MCP-PARAM-REGION", "x")],
                Some(r#"{"region":"x"}"#),
                Mismatch::Repeated,
            ),
        ] {
            assert_eq!(check(&headers, arguments), Err(reason), "{headers:?} {arguments:?}");
        }
    }
}
