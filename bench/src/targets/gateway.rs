//! Our gateway's configuration as a target.

use std::path::PathBuf;

use toml::{Table, Value};

use super::{Setting, TargetSpec};

/// The configuration file: what every target has in common, then the target's own keys over it.
pub(super) fn config(spec: &TargetSpec, setting: &Setting<'_>) -> String {
    let certificate = setting.certificate;
    let mut config: Table = toml::toml! {
        [gateway.server]
        listen = "127.0.0.1"
        binary_port = 0
        max_connections = 1000000
        max_connections_per_ip = 0
        [gateway.server.tls]
        min_version = "1.3"
        [gateway.runtime]
        pin = false
        [gateway.connection_pool]
        max_size = 0
    };
    let text = |path: &PathBuf| Value::String(path.display().to_string());
    set(&mut config, "gateway.server.https_port", i64::from(setting.port).into());
    set(&mut config, "gateway.server.binary_port", i64::from(setting.binary_port).into());
    set(&mut config, "gateway.server.admin_listen", format!("127.0.0.1:{}", setting.second_port).into());
    set(&mut config, "gateway.server.tls.cert_file", text(&certificate.cert_file));
    set(&mut config, "gateway.server.tls.key_file", text(&certificate.key_file));
    set(&mut config, "gateway.runtime.shards", i64::from(spec.threads).into());
    set(&mut config, "gateway.connection_pool.max_size", i64::from(super::POOL_CONNECTIONS).into());
    let mut server = Table::new();
    server.insert("name".to_owned(), "upstream".into());
    server.insert("transport".to_owned(), "streamable-http".into());
    server.insert(
        "endpoints".to_owned(),
        Value::Array(vec![format!("http://{}/mcp", setting.upstream).into()]),
    );
    config.insert("servers".to_owned(), Value::Array(vec![Value::Table(server)]));
    merge(&mut config, &spec.config);
    config.to_string()
}

/// Sets a value by its dotted path, whose tables exist.
fn set(table: &mut Table, path: &str, value: Value) {
    match path.split_once('.') {
        Some((first, rest)) => {
            if let Some(Value::Table(inner)) = table.get_mut(first) {
                set(inner, rest, value);
            }
        }
        None => {
            table.insert(path.to_owned(), value);
        }
    }
}

/// Puts `over` on top of `table`; tables are joined, all else is replaced.
fn merge(table: &mut Table, over: &Table) {
    for (key, value) in over {
        match (table.get_mut(key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            _ => {
                table.insert(key.clone(), value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::targets::tests::{setting, spec};

    #[test]
    fn own_keys_win_and_the_others_stay() {
        let mut spec = spec("gateway");
        spec.threads = 6;
        spec.config = toml::toml! {
            [gateway.runtime]
            driver = "epoll"
            pin = true
        };
        let text = setting(|setting| config(&spec, setting));
        let config: Table = text.parse().unwrap();
        let runtime = &config["gateway"]["runtime"];
        assert_eq!(runtime["shards"].as_integer(), Some(6), "{text}");
        assert_eq!(runtime["driver"].as_str(), Some("epoll"), "{text}");
        assert_eq!(runtime["pin"].as_bool(), Some(true), "{text}");
        assert_eq!(
            config["servers"][0]["endpoints"][0].as_str(),
            Some("http://127.0.0.1:3001/mcp"),
            "{text}"
        );
    }
}
