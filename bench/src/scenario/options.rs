//! A TOML table as the options of a command. Pure.

use toml::{Table, Value};

use crate::units::parse_duration;

/// Options that `--scale` multiplies: numbers of things.
const SCALED_COUNTS: [&str; 2] = ["connections", "total"];
/// Options that `--scale` multiplies: times.
const SCALED_TIMES: [&str; 2] = ["duration", "hold"];
/// No scaled time is shorter than this (ms): a turn needs some calls.
const SHORTEST_MS: f64 = 300.0;

/// `--key value` for each entry, by key: `true` is the flag alone, `false` nothing, a list the option often, a table JSON.
///
/// # Errors
/// A sentence naming a value that no option can have.
pub(super) fn options(table: &Table) -> Result<Vec<String>, String> {
    let mut list = Vec::new();
    for (key, value) in table {
        push(&mut list, &format!("--{}", key.replace('_', "-")), value).map_err(|e| format!("{key}: {e}"))?;
    }
    Ok(list)
}

/// Makes a load smaller (or larger) than its file says.
pub(super) fn scale(load: &mut Table, factor: f64) {
    if factor == 1.0 {
        return;
    }
    for (key, value) in load.iter_mut() {
        match value {
            Value::Integer(n) if SCALED_COUNTS.contains(&key.as_str()) => {
                *n = ((*n as f64 * factor).round() as i64).max(1);
            }
            Value::String(text) if SCALED_TIMES.contains(&key.as_str()) => {
                // What is no duration is left for the command to refuse.
                if let Ok(time) = parse_duration(text) {
                    *text = format!("{:.0}ms", (time.as_secs_f64() * 1e3 * factor).max(SHORTEST_MS));
                }
            }
            _ => {}
        }
    }
}

fn push(list: &mut Vec<String>, option: &str, value: &Value) -> Result<(), String> {
    let text = match value {
        Value::Boolean(true) => {
            list.push(option.to_owned());
            return Ok(());
        }
        Value::Boolean(false) => return Ok(()),
        Value::Array(values) => return values.iter().try_for_each(|value| push(list, option, value)),
        Value::String(text) => text.clone(),
        Value::Integer(n) => n.to_string(),
        Value::Float(x) => x.to_string(),
        Value::Table(table) => serde_json::to_string(table).map_err(|e| e.to_string())?,
        Value::Datetime(_) => return Err("a date is no option".to_owned()),
    };
    list.extend([option.to_owned(), text]);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_becomes_options() {
        let table: Table = toml::toml! {
            arguments = { text = "hi" }
            connections = 64
            header = ["A: b", "C: d"]
            rate = "10/s"
            shared_session = true
            insecure = false
        };
        let wanted = [
            "--arguments",
            r#"{"text":"hi"}"#,
            "--connections",
            "64",
            "--header",
            "A: b",
            "--header",
            "C: d",
            "--rate",
            "10/s",
            "--shared-session",
        ];
        assert_eq!(options(&table).unwrap(), wanted);
    }

    #[test]
    fn a_scaled_load_has_fewer_connections_and_less_time() {
        let mut load: Table = toml::toml! {
            connections = 1000
            hold = "60s"
            rate = "1000/s"
            threads = 6
            timeout = "30s"
        };
        scale(&mut load, 0.1);
        assert_eq!(load["connections"].as_integer(), Some(100));
        assert_eq!(load["hold"].as_str(), Some("6000ms"));
        assert_eq!((load["threads"].as_integer(), load["timeout"].as_str()), (Some(6), Some("30s")));
        scale(&mut load, 0.0001);
        assert_eq!((load["connections"].as_integer(), load["hold"].as_str()), (Some(1), Some("300ms")));
    }
}
