//! The demo server's tools: `echo`, `add` and `slow`.
//!
//! Owns their definitions and what they do with their arguments. Arguments that a tool can't use give a result with
//! `isError`, so that a model can correct itself. It never waits: a slow call is described, and run by the connection.

use std::time::Duration;

use serde_json::{Map, Value, json};

/// Most steps of a slow call.
const MAX_STEPS: u64 = 100;

/// Longest step of a slow call, in milliseconds.
const MAX_STEP_MS: u64 = 1000;

/// What a call of a tool comes to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The `CallToolResult` without the members that only some revisions have.
    Done(Map<String, Value>),
    /// The call takes its time.
    Slow(SlowCall),
    /// There is no such tool.
    UnknownTool,
}

/// A call that goes step by step.
#[derive(Clone, Copy, Debug)]
pub(super) struct SlowCall {
    pub(super) steps: u64,
    pub(super) step: Duration,
}

impl SlowCall {
    /// The result after the last step.
    pub(super) fn result(self) -> Map<String, Value> {
        text(&format!("{} steps of {} ms done", self.steps, self.step.as_millis()), false)
    }
}

/// The definitions, in a fixed order; `structured` adds what revisions before 2025-06-18 don't know.
pub(super) fn definitions(structured: bool) -> Value {
    let mut add = json!({
        "name": "add",
        "description": "Adds two numbers.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "a": { "type": "number", "description": "The first number." },
                "b": { "type": "number", "description": "The second number." },
            },
            "required": ["a", "b"],
        },
    });
    if structured {
        add["outputSchema"] = json!({
            "type": "object",
            "properties": { "sum": { "type": "number" } },
            "required": ["sum"],
        });
    }
    json!([
        {
            "name": "echo",
            "description": "Gives the text back.",
            "inputSchema": {
                "type": "object",
                "properties": { "text": { "type": "string", "description": "What to give back." } },
                "required": ["text"],
            },
        },
        add,
        {
            "name": "slow",
            "description": "Takes some steps of some time each, and reports its progress when asked to.",
            "inputSchema": {
                "type": "object",
                "properties": {
                    "steps": { "type": "integer", "minimum": 1, "maximum": MAX_STEPS, "default": 5 },
                    "step_ms": { "type": "integer", "minimum": 0, "maximum": MAX_STEP_MS, "default": 200 },
                },
            },
        },
    ])
}

/// Calls the tool `name`.
pub(super) fn call(name: &str, arguments: &Value, structured: bool) -> Outcome {
    match name {
        "echo" => Outcome::Done(echo(arguments)),
        "add" => Outcome::Done(add(arguments, structured)),
        "slow" => slow(arguments),
        _ => Outcome::UnknownTool,
    }
}

fn echo(arguments: &Value) -> Map<String, Value> {
    match arguments["text"].as_str() {
        Some(given) => text(given, false),
        None => text("`text` must be a string", true),
    }
}

fn add(arguments: &Value, structured: bool) -> Map<String, Value> {
    let (a, b) = (&arguments["a"], &arguments["b"]);
    let exact = || a.as_i64()?.checked_add(b.as_i64()?).map(Value::from);
    let rounded = || serde_json::Number::from_f64(a.as_f64()? + b.as_f64()?).map(Value::Number);
    let Some(sum) = exact().or_else(rounded) else {
        return text("`a` and `b` must be numbers with a finite sum", true);
    };
    if !structured {
        return text(&sum.to_string(), false);
    }
    let content = json!({ "sum": sum });
    let mut result = text(&content.to_string(), false);
    result.insert("structuredContent".to_owned(), content);
    result
}

fn slow(arguments: &Value) -> Outcome {
    let within = |name: &str, default, min, max| match &arguments[name] {
        Value::Null => Some(default),
        given => given.as_u64().filter(|number| (min..=max).contains(number)),
    };
    match (within("steps", 5, 1, MAX_STEPS), within("step_ms", 200, 0, MAX_STEP_MS)) {
        (Some(steps), Some(step_ms)) => {
            Outcome::Slow(SlowCall { steps, step: Duration::from_millis(step_ms) })
        }
        (None, _) => Outcome::Done(text(&format!("`steps` must be an integer from 1 to {MAX_STEPS}"), true)),
        (_, None) => {
            Outcome::Done(text(&format!("`step_ms` must be an integer from 0 to {MAX_STEP_MS}"), true))
        }
    }
}

/// A `CallToolResult` of one text.
fn text(text: &str, is_error: bool) -> Map<String, Value> {
    let mut result = Map::new();
    result.insert("content".to_owned(), json!([{ "type": "text", "text": text }]));
    result.insert("isError".to_owned(), is_error.into());
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(name: &str, arguments: &Value) -> Map<String, Value> {
        match call(name, arguments, true) {
            Outcome::Done(result) => result,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn adds_integers_exactly_and_other_numbers_as_floats() {
        for (a, b, sum) in [
            (json!(1), json!(2), json!(3)),
            (json!(9_007_199_254_740_993_i64), json!(0), json!(9_007_199_254_740_993_i64)),
            (json!(0.5), json!(1), json!(1.5)),
            (json!(i64::MAX), json!(1), json!(9.223_372_036_854_776e18)),
        ] {
            let result = done("add", &json!({ "a": a, "b": b }));
            assert_eq!(result["structuredContent"], json!({ "sum": sum }));
            assert_eq!(result["isError"], false);
        }
    }

    #[test]
    fn arguments_that_cannot_be_used_are_errors_of_the_tool() {
        for (name, arguments) in [
            ("echo", json!({})),
            ("echo", json!({ "text": 1 })),
            ("add", json!({ "a": 1 })),
            ("add", json!({ "a": "1", "b": 2 })),
            ("add", json!({ "a": 1e308, "b": 1e308 })),
            ("slow", json!({ "steps": 0 })),
            ("slow", json!({ "steps": 101 })),
            ("slow", json!({ "step_ms": 1001 })),
            ("slow", json!({ "step_ms": -1 })),
            ("slow", json!({ "steps": 1.5 })),
        ] {
            let result = done(name, &arguments);
            assert_eq!(result["isError"], true, "{name} {arguments}");
            assert!(!result.contains_key("structuredContent"));
        }
    }

    #[test]
    fn unknown_tools_are_told_apart() {
        assert!(matches!(call("nothing", &json!({}), true), Outcome::UnknownTool));
    }

    #[test]
    fn old_revisions_get_no_structured_content() {
        assert!(definitions(false)[1].get("outputSchema").is_none());
        assert!(definitions(true)[1].get("outputSchema").is_some());
        assert!(!add(&json!({ "a": 1, "b": 2 }), false).contains_key("structuredContent"));
    }
}
