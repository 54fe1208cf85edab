//! Setup: the binary is started from the command line, with good and bad configurations, on free and taken ports.
//! Claim: it says what is wrong, all at once and with the right exit code; what it prints is what it does; each driver serves;
//! a second signal ends it at once.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

use mcp_system_tests::fixtures::Fixture;
use mcp_system_tests::gateway::binary;
use mcp_system_tests::mcp::{LEGACY, call, mirrored, modern, open_session};
use mcp_system_tests::port::free_port;
use mcp_system_tests::process::Finished;
use mcp_system_tests::{Gateway, GatewayConfig, Process, TempDir, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_good_configuration_is_said_to_be_good() {
    let dir = TempDir::new();
    let file = dir.write("gateway.toml", "[gateway.server]\nmax_connections = 7\n");
    let finished = run(&["check", &file.display().to_string()], &[]);
    assert_eq!(finished.status.code(), Some(0), "{finished:?}");
    assert_eq!(finished.stdout, [format!("{}: ok", file.display())]);
    assert!(finished.stderr.is_empty(), "{finished:?}");
}

#[test]
fn all_errors_are_told_at_once() {
    let dir = TempDir::new();
    let file = dir.write(
        "gateway.toml",
        "[gateway.server]\nmax_connections = 0\nread_timeout = \"soon\"\nmax_conections = 5\n\
         [gateway.runtime]\ndriver = \"kqueue\"\n\
         [[servers]]\nname = \"a b\"\ntransport = \"streamable-http\"\nendpoints = [\"ftp://x\"]\n",
    );
    let path = file.display().to_string();
    let variable = ("MCP_GATEWAY__SERVER__MAX_BODY", "1 parsec");
    for args in [&["check", &path][..], &["--config", &path], &["print-config", "--config", &path]] {
        let finished = run(args, &[variable]);
        assert_eq!(finished.status.code(), Some(2), "{args:?}: {finished:?}");
        let told = finished.stderr.join("\n");
        for (key, value, allowed) in [
            ("gateway.server.max_connections", "0", "1"),
            ("gateway.server.read_timeout", "soon", "30s"),
            ("gateway.server.max_conections", "5", "max_connections"),
            ("gateway.server.max_body", "1 parsec", "KiB"),
            ("gateway.runtime.driver", "kqueue", "io_uring"),
            ("servers[0].name", "a b", ""),
            ("servers[0].endpoints", "ftp://x", "http"),
        ] {
            let line = told
                .lines()
                .find(|line| line.contains(&format!("{key} ")) || line.contains(&format!("{key}[")));
            let line = line.unwrap_or_else(|| panic!("{args:?}: nothing about {key} in:\n{told}"));
            assert!(line.contains(value) && line.contains(allowed), "{args:?}: {line}");
        }
        assert!(told.contains("gateway.toml:2") && told.contains(variable.0), "{args:?}:\n{told}");
        assert!(finished.stdout.is_empty(), "{finished:?}");
    }
}

#[test]
fn a_file_that_is_not_there_and_words_that_mean_nothing() {
    let finished = run(&["check", "/nowhere/gateway.toml"], &[]);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(finished.stderr.join("\n").contains("/nowhere/gateway.toml"), "{finished:?}");
    let finished = run(&["sevre"], &[]);
    assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    assert!(finished.stderr.join("\n").contains("serve"), "{finished:?}");
    let finished = run(&["--version"], &[]);
    assert_eq!((finished.status.code(), finished.stdout.len()), (Some(0), 1), "{finished:?}");
}

#[test]
fn the_printed_configuration_is_the_one_in_force() {
    let dir = TempDir::new();
    let file = dir.write(
        "gateway.toml",
        "[gateway.server]\nmax_body = \"3MiB\"\nread_timeout = \"7s\"\n\
         [[servers]]\nname = \"one\"\ntransport = \"streamable-http\"\nendpoints = [\"http://127.0.0.1:1/mcp\"]\n",
    );
    let variables = [("MCP_GATEWAY__SERVER__READ_TIMEOUT", "9s"), ("MCP_GATEWAY__SERVERS__0__TIMEOUT", "5s")];
    let printed = run(&["print-config", "--config", &file.display().to_string()], &variables);
    assert_eq!(printed.status.code(), Some(0), "{printed:?}");
    let text = printed.stdout.join("\n");
    for line in ["max_body = \"3MiB\"", "read_timeout = \"9s\"", "timeout = \"5s\"", "name = \"one\""] {
        assert!(text.lines().any(|printed| printed.trim() == line), "no {line} in:\n{text}");
    }
    let again = dir.write("printed.toml", &text);
    let reprinted = run(&["print-config", "--config", &again.display().to_string()], &[]);
    assert_eq!(reprinted.stdout, printed.stdout);
    assert_eq!(run(&["check", &again.display().to_string()], &[]).status.code(), Some(0));
}

/// Embedded defaults but for the ports, which must be free: HTTPS, MCPB and the admin listener's.
fn on_ports(command: &mut Command) -> [String; 3] {
    let ports = [free_port(), free_port(), free_port()].map(|port| port.to_string());
    command.envs([
        ("MCP_GATEWAY__SERVER__LISTEN", "127.0.0.1"),
        ("MCP_GATEWAY__SERVER__HTTPS_PORT", &ports[0]),
        ("MCP_GATEWAY__SERVER__BINARY_PORT", &ports[1]),
        ("MCP_GATEWAY__SERVER__ADMIN_LISTEN", &format!("127.0.0.1:{}", ports[2])),
    ]);
    ports
}

/// `auto` shards are the CPUs that the process may use, not those that the machine has.
#[test]
fn shards_respect_the_cpus_that_are_allowed() {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "0"]).arg(binary());
    on_ports(&mut command);
    let mut gateway = Process::start("mcp-gateway", &mut command);
    let line = gateway.wait_line(LIMIT, |line| line.contains(" serving: ").then(|| line.to_owned()));
    assert!(line.contains(" serving: 1 shard on "), "{line}");
}

#[test]
fn the_line_to_try_works() {
    let mut command = Command::new(binary());
    let ports = on_ports(&mut command);
    let admin = format!("127.0.0.1:{}", ports[2]);
    let mut gateway = Process::start("mcp-gateway", &mut command);
    let line =
        gateway.wait_line(LIMIT, |line| line.trim_start().starts_with("curl ").then(|| line.to_owned()));
    let banner = gateway.log();
    for said in [
        format!("https://127.0.0.1:{}/mcp", ports[0]),
        format!("127.0.0.1:{}", ports[1]),
        format!("http://{admin}/metrics"),
    ] {
        assert!(banner.contains(&said), "no {said} in:\n{banner}");
    }
    let tried = Process::start("the line to try", Command::new("sh").arg("-c").arg(&line)).finish(LIMIT);
    assert!(tried.status.success(), "{line}: {tried:?}");
    let answer: Value = serde_json::from_str(&tried.stdout.join("\n")).expect("JSON");
    assert_eq!(answer["result"]["content"][0]["text"], "hello", "{answer}");
    gateway.signal(libc::SIGTERM);
    assert_eq!(gateway.finish(LIMIT).status.code(), Some(0));
}

#[test]
fn a_port_that_is_taken_ends_the_start() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let addr = taken.local_addr().expect("bound");
    let (https, admin) = (free_port().to_string(), format!("127.0.0.1:{}", free_port()));
    for (variable, value) in [
        ("MCP_GATEWAY__SERVER__HTTPS_PORT", addr.port().to_string()),
        ("MCP_GATEWAY__SERVER__BINARY_PORT", addr.port().to_string()),
        ("MCP_GATEWAY__SERVER__ADMIN_LISTEN", addr.to_string()),
    ] {
        let finished = run(
            &[],
            &[
                ("MCP_GATEWAY__SERVER__LISTEN", "127.0.0.1"),
                ("MCP_GATEWAY__SERVER__HTTPS_PORT", &https),
                ("MCP_GATEWAY__SERVER__BINARY_PORT", "0"),
                ("MCP_GATEWAY__SERVER__ADMIN_LISTEN", &admin),
                (variable, &value),
            ],
        );
        assert_eq!(finished.status.code(), Some(1), "{variable}: {finished:?}");
        let last = finished.stderr.last().expect("a message");
        assert!(last.starts_with("mcp-gateway: ") && last.contains(&addr.to_string()), "{variable}: {last}");
        assert!(last.contains("in use"), "{variable}: {last}");
        assert!(!finished.stdout.iter().any(|line| line.contains("serving")), "{variable}: {finished:?}");
    }
}

#[test]
fn both_drivers_serve() {
    let modern_server = Fixture::modern(json!([]), mcp_system_tests::fixtures::nothing);
    let legacy_server = Fixture::legacy(mcp_system_tests::fixtures::nothing);
    for driver in ["epoll", "io_uring"] {
        let config = GatewayConfig::new()
            .set("gateway.runtime", &format!("driver = \"{driver}\""))
            .server("modern", &[&modern_server.url()])
            .server("legacy", &[&legacy_server.url()]);
        let gateway = Gateway::start(&config);
        eventually("the line that names the driver", LIMIT, || {
            gateway.process.log().contains(&format!(" on {driver}")).then_some(())
        });
        assert_eq!(gateway.metrics().value("mcp_gateway_build_info", &[("driver", driver)]), Some(1.0));
        let mut connection = gateway.connect().expect("a connection");
        let answer =
            call(&mut connection, "/mcp/modern", "any", json!({"driver": driver})).expect("an answer");
        assert_eq!(answer.json()["result"]["arguments"]["driver"], driver);
        let session = open_session(&mut connection, "/mcp/legacy", LEGACY);
        assert!(!session.is_empty());
        assert_eq!(gateway.stop(LIMIT).code(), Some(0), "{driver}");
    }
}

#[test]
fn a_second_signal_ends_at_once() {
    // With no server configured, the demo server takes its steps: up to 100 seconds.
    let mut gateway = Gateway::start(&GatewayConfig::new());
    let arguments = json!({"steps": 100, "step_ms": 1000});
    let message = modern(1, "tools/call", json!({"name": "slow", "arguments": arguments})).to_string();
    let mut headers =
        vec![("content-type", "application/json"), ("accept", "application/json, text/event-stream")];
    headers.extend(mirrored("tools/call", Some("slow")));
    let mut connection = gateway.connect().expect("a connection");
    connection.send_request("POST", "/mcp", &headers, message.as_bytes()).expect("sent");
    eventually("the call is under way", LIMIT, || {
        (gateway.metrics().count("mcp_gateway_requests_in_flight", &[]) >= 1.0).then_some(())
    });
    gateway.process.signal(libc::SIGTERM);
    gateway.process.wait_line(LIMIT, |line| line.contains("draining").then_some(()));
    assert!(gateway.process.is_running(), "the first signal cut the call");
    gateway.process.signal(libc::SIGTERM);
    let Gateway { process, .. } = gateway;
    let finished = process.finish(Duration::from_secs(5));
    assert_eq!(finished.status.code(), Some(128 + libc::SIGTERM), "{finished:?}");
    assert_eq!(finished.status.signal(), None);
    assert!(connection.read_response(false).is_err(), "an answer that was cut looked complete");
}

fn run(args: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = Command::new(binary());
    command.args(args).envs(variables.iter().copied());
    Process::start("mcp-gateway", &mut command).finish(LIMIT)
}
