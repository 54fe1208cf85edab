//! Owns which tools a `tools/list` says may be called twice: those with `readOnlyHint` or `idempotentHint` among their
//! `annotations` (2025-03-26 and later, server/tools.mdx). It works on bytes; it never decides whether to trust a hint.

use std::borrow::Cow;

use super::param_headers::{member, text_of};
use crate::jsonrpc::for_each_element;

/// Calls `visit` with the name of each tool of a `tools/list` response, and whether it says that a second call does no harm.
/// A message that is not such a response has no tools.
pub fn for_each_tool_hint(message: &[u8], mut visit: impl FnMut(&str, bool)) {
    if std::str::from_utf8(message).is_err() {
        return;
    }
    let tools = member(message, "result").and_then(|result| member(result, "tools"));
    let Some(tools) = tools else { return };
    let mut found: Vec<(Cow<'_, [u8]>, bool)> = Vec::new();
    let read = for_each_element(tools, |tool| {
        let tool = tool.of(tools);
        if let Some(name) = member(tool, "name").filter(|name| name.first() == Some(&b'"')) {
            found.push((text_of(name), is_harmless(tool)));
        }
    });
    // Of a list that is broken nothing is believed.
    if read.is_ok() {
        for (name, harmless) in &found {
            if let Ok(name) = std::str::from_utf8(name) {
                visit(name, *harmless);
            }
        }
    }
}

fn is_harmless(tool: &[u8]) -> bool {
    let Some(annotations) = member(tool, "annotations") else { return false };
    ["readOnlyHint", "idempotentHint"].iter().any(|hint| member(annotations, hint) == Some(b"true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hints(message: &str) -> Vec<(String, bool)> {
        let mut hints = Vec::new();
        for_each_tool_hint(message.as_bytes(), |name, harmless| hints.push((name.to_owned(), harmless)));
        hints
    }

    #[test]
    fn either_hint_makes_a_tool_harmless_and_nothing_else_does() {
        let tools = r#"{"jsonrpc":"2.0","id":1,"result":{"tools":[
            {"name":"read","annotations":{"readOnlyHint":true}},
            {"annotations":{"title":"x","idempotentHint" : true,"destructiveHint":true},"name":"p\u0075t"},
            {"name":"plain"},
            {"name":"no","annotations":{"readOnlyHint":false,"idempotentHint":"true"}},
            {"name":"elsewhere","readOnlyHint":true,"annotations":[]},
            {"name":7,"annotations":{"readOnlyHint":true}},
            "text"
        ]}}"#;
        let expected = [("read", true), ("put", true), ("plain", false), ("no", false), ("elsewhere", false)];
        assert_eq!(hints(tools), expected.map(|(name, harmless)| (name.to_owned(), harmless)));
    }

    #[test]
    fn what_is_no_list_of_tools_has_none() {
        for message in [
            "",
            "{}",
            r#"{"result":{}}"#,
            r#"{"result":{"tools":{"name":"a"}}}"#,
            r#"{"error":{"tools":[{"name":"a"}]}}"#,
            r#"{"result":{"tools":[{"name":"a"},{"name":"b"}"#,
        ] {
            assert_eq!(hints(message), [], "{message}");
        }
    }
}
