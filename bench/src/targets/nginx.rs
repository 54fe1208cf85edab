//! nginx's configuration as a target: a plain HTTPS proxy of HTTP/1.1 in one process, without logs and without buffering,
//! so that event streams pass at once.

use super::{CIPHER_SUITES, POOL_CONNECTIONS, Setting};

/// The configuration file.
pub(super) fn config(setting: &Setting<'_>) -> String {
    let folder = setting.folder.path().display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("    {name}_temp_path {folder}/nginx-{name};\n"))
        .collect();
    format!(
        "\
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections {connections}; multi_accept on; }}
http {{
{temporary}    access_log off;
    client_max_body_size 10m;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    upstream mcp {{
        server {upstream};
        keepalive {POOL_CONNECTIONS};
        keepalive_requests 1000000000;
        keepalive_timeout 1h;
    }}
    server {{
        listen 127.0.0.1:{port} ssl backlog=4096;
        ssl_certificate {cert};
        ssl_certificate_key {key};
        ssl_protocols TLSv1.3;
        ssl_prefer_server_ciphers on;
        ssl_conf_command Ciphersuites {CIPHER_SUITES};
        location / {{
            proxy_pass http://mcp;
            proxy_http_version 1.1;
            proxy_set_header Connection \"\";
            proxy_buffering off;
            proxy_request_buffering off;
        }}
    }}
}}
",
        connections = setting.max_connections,
        upstream = setting.upstream,
        port = setting.port,
        cert = setting.certificate.cert_file.display(),
        key = setting.certificate.key_file.display(),
    )
}
