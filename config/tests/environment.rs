//! Claim: every key can be set by the environment, which wins over the file, and what it can't set is an error.
//!
//! Setup: printed configurations are turned into variables line by line, so a new key is covered as soon as it prints.

#![allow(clippy::unwrap_used, reason = "in a test a failure is the message")]

mod common;

use common::{EXAMPLE, load, load_with, rich_files};
use mcp_config::Config;

/// A line of a printed file and the variable that says the same.
struct Variable {
    line: usize,
    key: String,
    name: String,
    value: String,
}

/// The `key = value` lines of a printed file as variables, lists as TOML arrays, strings unquoted.
fn variables(printed: &str) -> Vec<Variable> {
    let mut table = String::new();
    let mut servers = 0;
    let mut variables = Vec::new();
    let lines = printed.lines().enumerate();
    for (line, text) in lines.filter(|(_, text)| !text.starts_with('#') && !text.is_empty()) {
        if text == "[[servers]]" {
            table = format!("servers__{servers}");
            servers += 1;
        } else if text.starts_with('[') {
            table = text.trim_matches(['[', ']']).replace("gateway.", "").replace('.', "__");
        } else {
            let (key, value) = text.split_once(" = ").unwrap();
            let value = match value.strip_prefix('"') {
                Some(text) => text.trim_end_matches('"').replace("\\\"", "\"").replace("\\\\", "\\"),
                None => value.to_owned(),
            };
            let name = format!("mcp_gateway__{table}__{}", key.replace('.', "__")).to_uppercase();
            variables.push(Variable { line, key: key.to_owned(), name, value });
        }
    }
    variables
}

#[test]
fn the_environment_alone_makes_any_configuration() {
    for file in rich_files() {
        let expected = load(&file).unwrap();
        let env = variables(&expected.to_toml()).into_iter().map(|variable| (variable.name, variable.value));
        assert_eq!(Config::load(None, env).unwrap(), expected);
    }
}

#[test]
fn each_variable_alone_overrides_the_file() {
    let mut covered = 0;
    for file in rich_files() {
        let rich = load(&file).unwrap();
        let printed = rich.to_toml();
        for Variable { line, key, name, value } in variables(&printed) {
            let mut lines: Vec<_> = printed.lines().map(str::to_owned).collect();
            lines[line] =
                format!("{key} = 1.5 # No key takes a float, so only the variable can make this load.");
            let env = [(name.as_str(), value.as_str())];
            assert_eq!(load_with(&lines.join("\n"), &env).unwrap(), rich, "{name}");
            let errors = load_with(&printed, &[(name.as_str(), "\0")]).expect_err(&name).to_string();
            assert!(errors.contains(&name), "{name}: {errors}");
            covered += 1;
        }
    }
    assert!(covered > 150, "{covered}");
}

#[test]
fn the_environment_wins() {
    let env =
        [("MCP_GATEWAY__SERVER__MAX_CONNECTIONS", "50000"), ("mcp_gateway__server__listen", "127.0.0.1")];
    let config = load_with("[gateway.server]\nmax_connections = 7\nlisten = \"::\"\n", &env).unwrap();
    assert_eq!(config.server.max_connections, 50_000);
    assert_eq!(config.server.listen.to_string(), "127.0.0.1");
}

#[test]
fn a_server_can_be_changed_or_added() {
    let env = [
        ("MCP_GATEWAY__SERVERS__0__TIMEOUT", "5s"),
        ("MCP_GATEWAY__SERVERS__1__NAME", "second"),
        ("MCP_GATEWAY__SERVERS__1__ENDPOINTS", "http://a/mcp, http://b/mcp"),
    ];
    let config = load_with(EXAMPLE, &env).unwrap();
    assert_eq!(config.upstreams[0].name, "everything");
    assert_eq!(config.upstreams[0].timeout.as_secs(), 5);
    assert_eq!(config.upstreams[1].name, "second");
    assert!(format!("{:?}", config.upstreams[1].transport).contains("http://b/mcp"));
}

#[test]
fn unknown_variables_are_errors_with_a_suggestion() {
    for (name, said) in [
        ("MCP_GATEWAY__SERVER__MAX_CONECTIONS", "did you mean MCP_GATEWAY__SERVER__MAX_CONNECTIONS?"),
        ("MCP_GATEWAY__SERVERS__2__ENDPOINT", "did you mean MCP_GATEWAY__SERVERS__2__ENDPOINTS?"),
        ("MCP_GATEWAY__SERVER", "known key"),
        ("MCP_GATEWAY__SERVERS__X__NAME", "known key"),
        ("MCP_GATEWAY__SERVERS__256__NAME", "known key"),
        ("MCP_GATEWAY__SERVERS__0", "known key"),
        ("MCP_GATEWAY__", "known key"),
    ] {
        let errors = load_with("", &[(name, "1")]).unwrap_err();
        let [problem] = errors.problems() else { panic!("{name}: {errors}") };
        assert_eq!(problem.origin, format!("environment variable {name}"));
        assert!(problem.allowed.contains(said), "{name}: {problem}");
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    let env = [
        ("MCP_GATEWAY_PORT", "tcp://10.0.0.1:8443"),
        ("MCP_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("PATH", "/bin"),
    ];
    assert_eq!(load_with("", &env).unwrap(), Config::default());
}

#[test]
fn a_gap_between_servers_and_a_variable_set_twice_are_errors() {
    let env = [("MCP_GATEWAY__SERVERS__1__NAME", "b"), ("MCP_GATEWAY__SERVERS__1__ENDPOINTS", "http://b/")];
    let errors = load_with("", &env).unwrap_err();
    assert_eq!(errors.problems().len(), 1, "{errors}");
    assert_eq!(errors.problems()[0].key, "servers[0]");
    let env = [("MCP_GATEWAY__LOG__LEVEL", "info"), ("mcp_gateway__log__level", "warn")];
    let errors = load_with("", &env).unwrap_err();
    assert_eq!(errors.problems().len(), 1, "{errors}");
    assert!(errors.problems()[0].allowed.contains("set once"), "{errors}");
}
