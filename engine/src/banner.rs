//! What the gateway says once it serves: owns the lines on standard output. Never the log.

use std::io::Write;
use std::net::SocketAddr;

use crate::process::Process;
use crate::runtime::Executor;

/// Prints what is served and a line to try it with.
pub(crate) fn print(process: &Process, executor: Executor, admin: SocketAddr, demo: bool) {
    let setup = process.setup();
    let server = &setup.config.server;
    let host =
        if server.listen.is_unspecified() { "127.0.0.1".to_owned() } else { server.listen.to_string() };
    let base = format!("https://{host}:{}", server.https_port);
    let mut text = format!(
        "mcp-gateway {} serving: {} on {}\n  MCP      {base}/mcp (Streamable HTTP)\n",
        env!("CARGO_PKG_VERSION"),
        match process.mailboxes.len() {
            1 => "1 shard".to_owned(),
            shards => format!("{shards} shards"),
        },
        executor.name(),
    );
    for upstream in &setup.config.upstreams {
        text.push_str(&format!("           {base}/mcp/{}\n", upstream.name));
    }
    text.push_str(&format!("  WS       {}/ws\n", base.replacen("https", "wss", 1)));
    if let Some(port) = server.binary_port {
        text.push_str(&format!("  MCPB     {host}:{port} (TLS)\n"));
    }
    text.push_str(&format!("  health   {base}/health, {base}/ready\n  metrics  http://{admin}/metrics\n"));
    let insecure = if server.tls.files.is_none() { "-k " } else { "" };
    text.push_str("try it:\n");
    text.push_str(&if demo { call_line(&base, insecure) } else { initialize_line(&base, insecure) });
    // Nobody listens to a standard output that is gone.
    let _ = std::io::stdout().write_all(text.as_bytes());
}

const COMMON: &str = "-H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream'";

fn call_line(base: &str, insecure: &str) -> String {
    format!(
        "  curl -s {insecure}{base}/mcp {COMMON} -H 'MCP-Protocol-Version: 2026-07-28' -H 'Mcp-Method: tools/call' \
         -H 'Mcp-Name: echo' -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\",\"params\":{{\"name\":\"echo\",\
         \"arguments\":{{\"text\":\"hello\"}},\"_meta\":{{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\",\
         \"io.modelcontextprotocol/clientInfo\":{{\"name\":\"curl\",\"version\":\"1\"}},\
         \"io.modelcontextprotocol/clientCapabilities\":{{}}}}}}}}'\n"
    )
}

fn initialize_line(base: &str, insecure: &str) -> String {
    format!(
        "  curl -si {insecure}{base}/mcp {COMMON} -d '{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"initialize\",\
         \"params\":{{\"protocolVersion\":\"2025-11-25\",\"capabilities\":{{}},\"clientInfo\":{{\"name\":\"curl\",\
         \"version\":\"1\"}}}}}}'\n"
    )
}
