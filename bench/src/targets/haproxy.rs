//! HAProxy's configuration as a target: a plain HTTPS proxy of HTTP/1.1, without logs, tuned as far as its manual goes.

use super::{CIPHER_SUITES, POOL_CONNECTIONS, Setting, TargetSpec};

/// The configuration file.
pub(super) fn config(spec: &TargetSpec, setting: &Setting<'_>) -> String {
    format!(
        "\
global
    nbthread {threads}
    maxconn {max_connections}
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites {CIPHER_SUITES}
defaults
    mode http
    timeout connect 5s
    timeout client 1h
    timeout http-request 10s
    timeout http-keep-alive 1h
    timeout server 60s
    http-reuse always
frontend downstream
    bind 127.0.0.1:{port} ssl crt {certificate} alpn http/1.1
    default_backend upstream
backend upstream
    server upstream {upstream} maxconn {POOL_CONNECTIONS}
",
        threads = spec.threads,
        max_connections = setting.max_connections,
        port = setting.port,
        certificate = setting.certificate.both_file.display(),
        upstream = setting.upstream,
    )
}
