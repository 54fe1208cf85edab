//! The report's figures as tables, whatever sections it has. Pure.
//!
//! Units stand last in the names of fields, so a name says how its value is to be written.

use super::axis::{Unit, short};
use super::escape;
use super::node::Node;

/// Sections that the page's head or its charts show.
const SHOWN_ELSEWHERE: [&str; 2] = ["series", "about"];
/// Fields that charts show.
const CHARTED: [&str; 1] = ["curve"];
/// Numbers that name something and are not counted with.
const IDS: [&str; 2] = ["tid", "pid"];
/// Rows of a table; what is left out is counted in a last row.
const MAX_ROWS: usize = 64;
/// Sections within sections are shown to this depth.
const MAX_DEPTH: usize = 4;

/// All sections of a report.
pub(super) fn push_sections(out: &mut String, report: &Node) {
    let Node::Object(members) = report else { return };
    let rows: Vec<_> = members.iter().filter(|(_, value)| value.is_plain()).collect();
    push_section(out, "run", &rows, &[], 0);
    for (name, value) in members.iter().filter(|(name, _)| !SHOWN_ELSEWHERE.contains(&name.as_str())) {
        push_value(out, name, value, 0);
    }
}

/// A collection under its name; a plain value has been a row of its section.
fn push_value(out: &mut String, name: &str, value: &Node, depth: usize) {
    match value {
        Node::Object(members) => {
            let (rows, inner): (Vec<_>, Vec<_>) = members.iter().partition(|(_, value)| value.is_plain());
            push_section(out, name, &rows, &inner, depth);
        }
        Node::List(items) => push_list(out, name, items),
        _ => {}
    }
}

fn push_section(out: &mut String, name: &str, rows: &[&Member], inner: &[&Member], depth: usize) {
    let rows: Vec<_> = rows.iter().filter(|(_, value)| *value != Node::Absent).collect();
    if !rows.is_empty() {
        open_table(out, "section", name);
        for (key, value) in rows.iter().take(MAX_ROWS) {
            let (label, text) = (label(key), escape(&text(key, value)));
            out.push_str(&format!("<tr><th>{}</th><td>{text}</td></tr>", escape(&label)));
        }
        push_left_out(out, rows.len());
        out.push_str("</table>\n");
    }
    if depth == MAX_DEPTH {
        return;
    }
    let (alike, others) = split_alike(inner);
    push_matrix(out, name, &alike);
    for (key, value) in others.iter().filter(|(key, _)| !CHARTED.contains(&key.as_str())) {
        push_value(out, &format!("{name}, {}", label(key)), value, depth + 1);
    }
}

/// Objects with the same fields, such as the same figures at several moments: a column for each object.
fn push_matrix(out: &mut String, name: &str, columns: &[&Member]) {
    let Some((_, Node::Object(fields))) = columns.first() else { return };
    let told = |key: &str| columns.iter().any(|(_, column)| *column.member(key) != Node::Absent);
    let fields: Vec<_> = fields.iter().filter(|(key, _)| told(key)).collect();
    open_table(out, "matrix", &format!("{name}, side by side"));
    out.push_str("<tr><td></td>");
    for (column, _) in columns {
        out.push_str(&format!("<th class=\"head\">{}</th>", escape(&label(column))));
    }
    out.push_str("</tr>");
    for (key, _) in fields.iter().take(MAX_ROWS) {
        out.push_str(&format!("<tr><th>{}</th>", escape(&label(key))));
        for (_, column) in columns {
            out.push_str(&format!("<td>{}</td>", escape(&text(key, column.member(key)))));
        }
        out.push_str("</tr>");
    }
    push_left_out(out, fields.len());
    out.push_str("</table>\n");
}

/// A list of objects: a row for each; of plain values: all in one cell.
fn push_list(out: &mut String, name: &str, items: &[Node]) {
    let Some(first) = items.first() else { return };
    open_table(out, "list", name);
    if let Node::Object(fields) = first {
        let columns: Vec<_> =
            fields.iter().filter(|(_, value)| value.is_plain()).map(|(key, _)| key).collect();
        out.push_str("<tr>");
        for key in &columns {
            out.push_str(&format!("<th class=\"head\">{}</th>", escape(&label(key))));
        }
        out.push_str("</tr>");
        for item in items.iter().take(MAX_ROWS) {
            out.push_str("<tr>");
            for key in &columns {
                out.push_str(&format!("<td>{}</td>", escape(&text(key, item.member(key)))));
            }
            out.push_str("</tr>");
        }
        push_left_out(out, items.len());
    } else {
        let all: Vec<_> = items.iter().take(MAX_ROWS).map(|item| text(name, item)).collect();
        out.push_str(&format!("<tr><td>{}</td></tr>", escape(&all.join(", "))));
    }
    out.push_str("</table>\n");
}

fn open_table(out: &mut String, class: &str, name: &str) {
    out.push_str(&format!("<table class=\"{class}\"><caption>{}</caption>", escape(&name.replace('_', " "))));
}

fn push_left_out(out: &mut String, rows: usize) {
    if rows > MAX_ROWS {
        out.push_str(&format!("<tr><td>and {} more</td></tr>", rows - MAX_ROWS));
    }
}

/// A member of an object: its name and value.
type Member = (String, Node);

/// Splits off the objects that have the same plain fields, if there are at least two such.
fn split_alike<'a>(members: &[&'a Member]) -> (Vec<&'a Member>, Vec<&'a Member>) {
    let fields = |member: &Member| match &member.1 {
        Node::Object(fields) if fields.iter().all(|(_, value)| value.is_plain()) => {
            Some(fields.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>())
        }
        _ => None,
    };
    let Some(first) = members.iter().find_map(|member| fields(member)) else {
        return (Vec::new(), members.to_vec());
    };
    let (alike, others): (Vec<_>, Vec<_>) =
        members.iter().copied().partition(|member| fields(member).as_ref() == Some(&first));
    if alike.len() > 1 { (alike, others) } else { (Vec::new(), members.to_vec()) }
}

/// Splits a field's name into what it is and its unit.
fn split_unit(key: &str) -> (&str, Option<Unit>) {
    if key.ends_with("_us_per_call") {
        return (key, Some(Unit::Microseconds));
    }
    for (suffix, unit) in [
        ("_per_s", Unit::PerSecond),
        ("_bytes", Unit::Bytes),
        ("_us", Unit::Microseconds),
        ("_s", Unit::Seconds),
    ] {
        if let Some(name) = key.strip_suffix(suffix) {
            return (name, Some(unit));
        }
    }
    let bytes = key.starts_with("bytes_per_") || key.ends_with("_bytes_per_connection");
    (key, bytes.then_some(Unit::Bytes))
}

fn label(key: &str) -> String {
    let name = split_unit(key).0.replace("_us_per_call", " per call").replace('_', " ");
    if name == "p999" { "p99.9".to_owned() } else { name }
}

fn text(key: &str, value: &Node) -> String {
    match value {
        Node::Number(number) => match split_unit(key).1 {
            Some(unit) => unit.text(*number),
            None if IDS.contains(&key) => number.to_string(),
            None => short(*number),
        },
        Node::Text(text) => text.clone(),
        Node::Truth(truth) => if *truth { "yes" } else { "no" }.to_owned(),
        Node::Absent | Node::List(_) | Node::Object(_) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(json: &str) -> String {
        let mut out = String::new();
        push_sections(&mut out, &serde_json::from_str(json).unwrap());
        out
    }

    #[test]
    fn a_section_unknown_here_is_shown_with_units_and_escaped() {
        let page = sections(
            r#"{"kind":"<x>","novel":{"p99_us":1500,"held_bytes":2097152,"none":null,"steps":[{"rate_per_s":5}]}}"#,
        );
        for part in [
            "<th>kind</th><td>&lt;x&gt;</td>",
            "<caption>novel</caption><tr><th>p99</th><td>1.5 ms</td></tr><tr><th>held</th><td>2 MiB</td></tr></table>",
            "<caption>novel, steps</caption><tr><th class=\"head\">rate</th></tr><tr><td>5/s</td></tr>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
    }

    #[test]
    fn the_same_figures_at_several_moments_stand_side_by_side() {
        let page = sections(r#"{"kernel":{"before":{"n":1},"end":{"n":2}}}"#);
        assert!(page.contains("<tr><th>n</th><td>1</td><td>2</td></tr>"), "{page}");
    }

    #[test]
    fn what_nobody_told_has_no_row() {
        let page = sections(r#"{"group":{"id":7,"a":{"n":1,"x":null},"b":{"n":2,"x":null},"c":{"y":3}}}"#);
        assert!(page.contains("<tr><th>n</th><td>1</td><td>2</td></tr></table>"), "{page}");
        assert!(page.contains("<caption>group, c</caption>"), "{page}");
    }

    #[test]
    fn long_lists_are_cut_and_say_so() {
        let rows = vec![r#"{"n":1}"#; 70].join(",");
        let page = sections(&format!(r#"{{"x":[{rows}]}}"#));
        assert!(page.contains("and 6 more"), "{page}");
    }
}
