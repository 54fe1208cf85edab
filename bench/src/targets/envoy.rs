//! Envoy's configuration as a target, twice: a plain HTTPS proxy of HTTP/1.1, and a proxy that reads MCP (its `mcp` and
//! `mcp_router` filters with one server, whose tools then keep their names).

use serde_json::{Value, json};

use super::{POOL_CONNECTIONS, Setting};

/// Requests that may wait or be under way: more than any load has, so that only connections are limited.
const MAX_REQUESTS: u32 = 1_000_000;
/// How Envoy names its message types.
const TYPES: &str = "type.googleapis.com/envoy.extensions";

/// The configuration file (JSON, which Envoy reads as well as YAML).
pub(super) fn config(setting: &Setting<'_>, reads_mcp: bool) -> String {
    let certificate = setting.certificate;
    let upstream = json!({"address": "127.0.0.1", "port_value": setting.upstream.port()});
    json!({"static_resources": {
        "listeners": [{
            "name": "downstream",
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": setting.port}},
            "filter_chains": [{
                "transport_socket": {
                    "name": "envoy.transport_sockets.tls",
                    "typed_config": {
                        "@type": format!("{TYPES}.transport_sockets.tls.v3.DownstreamTlsContext"),
                        "common_tls_context": {
                            "alpn_protocols": ["http/1.1"],
                            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3"},
                            "tls_certificates": [{
                                "certificate_chain": {"filename": certificate.cert_file},
                                "private_key": {"filename": certificate.key_file},
                            }],
                        },
                    },
                },
                "filters": [connection_manager(reads_mcp)],
            }],
        }],
        "clusters": [{
            "name": "upstream",
            "type": "STATIC",
            "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [{
                "max_connections": POOL_CONNECTIONS,
                "max_pending_requests": MAX_REQUESTS,
                "max_requests": MAX_REQUESTS,
            }]},
            "load_assignment": {
                "cluster_name": "upstream",
                "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address": upstream}}}]}],
            },
        }],
    }})
    .to_string()
}

/// The HTTP layer, without what costs and is not compared: request ids, extra headers, statistics by request.
fn connection_manager(reads_mcp: bool) -> Value {
    let router = json!({
        "name": "envoy.filters.http.router",
        "typed_config": {
            "@type": format!("{TYPES}.filters.http.router.v3.Router"),
            "dynamic_stats": false,
            "suppress_envoy_headers": true,
        },
    });
    let mcp = json!({
        "name": "envoy.filters.http.mcp",
        "typed_config": {"@type": format!("{TYPES}.filters.http.mcp.v3.Mcp")},
    });
    // It ends the chain in the router's place.
    let mcp_router = json!({
        "name": "envoy.filters.http.mcp_router",
        "typed_config": {
            "@type": format!("{TYPES}.filters.http.mcp_router.v3.McpRouter"),
            "servers": [{"name": "upstream", "mcp_cluster": {"cluster": "upstream", "path": "/mcp"}}],
        },
    });
    json!({
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": format!("{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager"),
            "stat_prefix": "downstream",
            "codec_type": "HTTP1",
            "generate_request_id": false,
            "route_config": {"virtual_hosts": [{
                "name": "all",
                "domains": ["*"],
                "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "60s"}}],
            }]},
            "http_filters": if reads_mcp { vec![mcp, mcp_router] } else { vec![router] },
        },
    })
}
