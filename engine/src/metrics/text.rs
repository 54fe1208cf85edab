//! The Prometheus text format 0.0.4: owns names, help lines and label escaping of what `/metrics` shows. Never a number
//! of its own.

mod breakers;
mod channels;
mod peers;
mod reloads;
mod store;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use mcp_protocol::mcpb::FrameKind;

use crate::reload::Reloads;
use crate::shard::table::endpoints::Health;
use crate::tls::rotating::Rotating;
use crate::upstream::breaker::State;

use super::{Direction, Handshake, Latency, OrphanResult, Protocol, Rejection, Shed, Snapshot, method_label};

/// Upper bounds of the duration buckets, in microseconds: 0.5 ms to 60 s.
const BUCKETS_US: [u64; 16] = [
    500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000,
    5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// What the page needs besides the shards' snapshots.
pub(crate) struct Facts<'a> {
    /// Server names, by index, with their endpoints' texts.
    pub(crate) servers: &'a [(String, Vec<String>)],
    /// Running processes per server that is a stdio server, by its index.
    pub(crate) processes: Vec<(u16, u32)>,
    pub(crate) certificates: &'a [Arc<Rotating>],
    pub(crate) reloads: &'a Reloads,
    /// What all shards know of each server's endpoints, by their indices.
    pub(crate) endpoints: &'a [Vec<EndpointFacts>],
    pub(crate) uptime: Duration,
    pub(crate) version: &'a str,
    pub(crate) executor: &'a str,
}

/// What all shards know of an endpoint.
pub(crate) struct EndpointFacts {
    pub(crate) breaker: State,
    pub(crate) health: Health,
}

/// Renders one page of all shards.
pub(crate) fn render(facts: &Facts<'_>, shards: &[Snapshot]) -> String {
    let mut page = Page { out: String::with_capacity(64 << 10), facts };
    page.process();
    page.certificates();
    page.reloads(facts.reloads);
    page.connections(shards);
    page.frames(shards);
    page.sockets(shards);
    page.peers(shards);
    page.requests(shards);
    page.upstream(shards);
    page.channels(shards);
    page.breakers(shards);
    page.shards(shards);
    page.store(shards);
    page.limits(shards);
    page.out
}

struct Page<'a> {
    out: String,
    facts: &'a Facts<'a>,
}

impl Page<'_> {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.out, "# HELP mcp_gateway_{name} {help}\n# TYPE mcp_gateway_{name} {kind}\n");
    }

    fn line(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.out, "mcp_gateway_{name}");
        for (position, (label, text)) in labels.iter().enumerate() {
            self.out.push(if position == 0 { '{' } else { ',' });
            let _ = write!(self.out, "{label}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.out.push_str("\\\\"),
                    '"' => self.out.push_str("\\\""),
                    '\n' => self.out.push_str("\\n"),
                    other => self.out.push(other),
                }
            }
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    fn histogram(&mut self, name: &str, labels: &[(&str, &str)], latency: &Latency) {
        let bucket = format!("{name}_bucket");
        let bounds = BUCKETS_US.map(|bound| seconds(bound).to_string());
        for (bound, text) in BUCKETS_US.iter().zip(&bounds) {
            self.line(&bucket, &[labels, &[("le", text)]].concat(), latency.count_up_to(*bound));
        }
        self.line(&bucket, &[labels, &[("le", "+Inf")]].concat(), latency.count());
        self.line(&format!("{name}_sum"), labels, seconds(latency.sum_us));
        self.line(&format!("{name}_count"), labels, latency.count());
    }

    fn server(&self, index: Option<u16>) -> &str {
        index.and_then(|index| self.facts.servers.get(usize::from(index))).map_or("none", |(name, _)| name)
    }

    fn endpoint(&self, server: u16, endpoint: u16) -> &str {
        self.facts
            .servers
            .get(usize::from(server))
            .and_then(|(_, endpoints)| endpoints.get(usize::from(endpoint)))
            .map_or("none", |text| text)
    }

    fn process(&mut self) {
        self.head("build_info", "gauge", "Always 1; the labels say what runs.");
        let (version, executor) = (self.facts.version.to_owned(), self.facts.executor.to_owned());
        self.line("build_info", &[("version", &version), ("driver", &executor)], 1);
        self.head("uptime_seconds", "gauge", "Seconds since the process started.");
        self.line("uptime_seconds", &[], self.facts.uptime.as_secs());
    }

    fn certificates(&mut self) {
        let certificates = self.facts.certificates;
        self.head(
            "certificate_expiry_seconds",
            "gauge",
            "When the certificate in force ends, in seconds since 1970.",
        );
        for certificate in certificates {
            let labels = [("certificate", certificate.label())];
            self.line("certificate_expiry_seconds", &labels, certificate.ends_unix_s());
        }
        self.head(
            "certificate_reloads_total",
            "counter",
            "Changed certificate files that were taken over or refused.",
        );
        for certificate in certificates {
            let (loaded, refused) = certificate.reloads();
            for (result, count) in [("loaded", loaded), ("refused", refused)] {
                let labels = [("certificate", certificate.label()), ("result", result)];
                self.line("certificate_reloads_total", &labels, count);
            }
        }
    }

    fn connections(&mut self, shards: &[Snapshot]) {
        self.head("connections_active", "gauge", "Open downstream connections.");
        for shard in shards {
            for protocol in Protocol::ALL {
                let active = shard.connections_active[protocol as usize];
                self.line(
                    "connections_active",
                    &[("protocol", protocol.label()), ("shard", &shard.shard.to_string())],
                    active,
                );
            }
        }
        self.head(
            "connections_total",
            "counter",
            "Downstream connections accepted; one that turns to another protocol counts under both.",
        );
        for shard in shards {
            for protocol in Protocol::ALL {
                let total = shard.connections_total[protocol as usize];
                self.line(
                    "connections_total",
                    &[("protocol", protocol.label()), ("shard", &shard.shard.to_string())],
                    total,
                );
            }
        }
        self.summed("connections_rejected_total", "Connections turned away or cut, by reason.", "reason", {
            Rejection::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.rejections[index]).sum()))
        });
        self.summed("handshakes_total", "TLS handshakes, by result.", "result", {
            Handshake::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.handshakes[index]).sum()))
        });
        self.summed(
            "tcp_protocol_errors_total",
            "Frames that broke the binary protocol.",
            "error_type",
            merge(shards.iter().map(|shard| &shard.frame_errors)).into_iter(),
        );
        self.summed(
            "h2_errors_total",
            "HTTP/2 connections ended for what the client did, by error code.",
            "reason",
            merge(shards.iter().map(|shard| &shard.h2_errors)).into_iter(),
        );
    }

    fn frames(&mut self, shards: &[Snapshot]) {
        let connections: u64 =
            shards.iter().map(|shard| shard.connections_active[Protocol::Mcpb as usize]).sum();
        self.head("tcp_connections_active", "gauge", "Open connections of the binary protocol.");
        self.line("tcp_connections_active", &[], connections);
        self.head("tcp_messages_total", "counter", "Frames of the binary protocol.");
        for (direction, label) in Direction::LABELS.iter().enumerate() {
            for kind in FrameKind::ALL {
                let count: u64 = shards.iter().map(|shard| shard.frames[direction][*kind as usize - 1]).sum();
                self.line("tcp_messages_total", &[("direction", label), ("type", kind.label())], count);
            }
        }
        self.summed(
            "tcp_bytes_total",
            "Bytes of the binary protocol's frames, headers included.",
            "direction",
            Direction::LABELS.iter().enumerate().map(|(direction, label)| {
                (*label, shards.iter().map(|shard| shard.frame_bytes[direction]).sum())
            }),
        );
    }

    fn sockets(&mut self, shards: &[Snapshot]) {
        self.summed(
            "ws_messages_total",
            "Text messages of WebSockets.",
            "direction",
            Direction::LABELS.iter().enumerate().map(|(direction, label)| {
                (*label, shards.iter().map(|shard| shard.ws_messages[direction]).sum())
            }),
        );
        self.summed(
            "ws_closes_total",
            "Close frames sent to WebSockets.",
            "reason",
            merge(shards.iter().map(|shard| &shard.ws_closes)).into_iter(),
        );
    }

    fn summed(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: impl Iterator<Item = (&'static str, u64)>,
    ) {
        self.head(name, "counter", help);
        for (text, value) in values {
            self.line(name, &[(label, text)], value);
        }
    }

    fn requests(&mut self, shards: &[Snapshot]) {
        self.head("requests_in_flight", "gauge", "Exchanges that have not been answered in full.");
        self.line("requests_in_flight", &[], shards.iter().map(|shard| shard.in_flight).sum::<u64>());
        self.head("orphans", "gauge", "Legacy exchanges that go on without their client.");
        self.line("orphans", &[], shards.iter().map(|shard| shard.gauges.orphans).sum::<u64>());
        self.summed(
            "orphans_total",
            "Legacy exchanges that their client left before their answer was complete, by what became of them.",
            "result",
            OrphanResult::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.orphans[index]).sum())),
        );
        self.summed(
            "routing_errors_total",
            "Requests that the gateway itself answered with an error.",
            "reason",
            merge(shards.iter().map(|shard| &shard.refusals)).into_iter(),
        );
        self.summed(
            "requests_shed_total",
            "Requests refused for lack of capacity, with Retry-After.",
            "reason",
            Shed::LABELS
                .iter()
                .enumerate()
                .map(|(index, label)| (*label, shards.iter().map(|shard| shard.shed[index]).sum())),
        );

        self.head(
            "federation_missing_total",
            "counter",
            "Parts of answers of all servers that a server did not give.",
        );
        let mut missing: BTreeMap<(String, &str), u64> = BTreeMap::new();
        for ((server, method), times) in shards.iter().flat_map(|shard| &shard.missing) {
            let key = (self.server(Some(*server)).to_owned(), method_label(*method));
            *missing.entry(key).or_default() += times;
        }
        for ((server, method), times) in &missing {
            self.line("federation_missing_total", &[("server", server), ("method", method)], *times);
        }

        self.head(
            "list_cache_hits_total",
            "counter",
            "Lists that were answered without asking their server.",
        );
        let mut hits: BTreeMap<String, u64> = BTreeMap::new();
        for (server, times) in shards.iter().flat_map(|shard| &shard.lists_from_memory) {
            *hits.entry(self.server(Some(*server)).to_owned()).or_default() += times;
        }
        for (server, times) in &hits {
            self.line("list_cache_hits_total", &[("server", server)], *times);
        }

        self.head("requests_total", "counter", "Messages answered.");
        let mut totals: BTreeMap<(String, &str, u16, &str), u64> = BTreeMap::new();
        for (labels, latency) in shards.iter().flat_map(|shard| &shard.requests) {
            let key = (
                self.server(labels.server).to_owned(),
                method_label(labels.method),
                labels.status,
                labels.protocol.label(),
            );
            *totals.entry(key).or_default() += latency.count();
        }
        for ((server, method, status, protocol), count) in totals {
            let status = status.to_string();
            self.line(
                "requests_total",
                &[("server", &server), ("method", method), ("status", &status), ("protocol", protocol)],
                count,
            );
        }

        self.head(
            "request_duration_seconds",
            "histogram",
            "From a message's last byte in to its answer's last byte out.",
        );
        for shard in shards {
            let number = shard.shard.to_string();
            for (labels, latency) in &shard.requests {
                let (server, status) = (self.server(labels.server).to_owned(), labels.status.to_string());
                let labels = [
                    ("shard", number.as_str()),
                    ("server", &server),
                    ("method", method_label(labels.method)),
                    ("status", &status),
                    ("protocol", labels.protocol.label()),
                ];
                self.histogram("request_duration_seconds", &labels, latency);
            }
        }
    }

    fn upstream(&mut self, shards: &[Snapshot]) {
        let mut totals: BTreeMap<(String, String, String), Vec<&Latency>> = BTreeMap::new();
        for (labels, latency) in shards.iter().flat_map(|shard| &shard.upstream) {
            let status = if labels.status == 0 { "none".to_owned() } else { labels.status.to_string() };
            let key = (
                self.server(Some(labels.server)).to_owned(),
                self.endpoint(labels.server, labels.endpoint).to_owned(),
                status,
            );
            totals.entry(key).or_default().push(latency);
        }
        self.head(
            "upstream_requests_total",
            "counter",
            "Requests sent to an upstream, by its answer's status.",
        );
        for ((server, endpoint, status), latencies) in &totals {
            let count: u64 = latencies.iter().map(|latency| latency.count()).sum();
            self.line(
                "upstream_requests_total",
                &[("server", server), ("endpoint", endpoint), ("status", status)],
                count,
            );
        }
        self.head(
            "upstream_duration_seconds",
            "histogram",
            "From a request's first byte out to its answer's head.",
        );
        for ((server, endpoint, status), latencies) in &totals {
            let mut sum = latencies[0].clone();
            for latency in &latencies[1..] {
                // Both have the same bounds, so nothing is out of range.
                let _ = sum.histogram.add(&latency.histogram);
                sum.sum_us += latency.sum_us;
            }
            let labels = [("server", server.as_str()), ("endpoint", endpoint), ("status", status)];
            self.histogram("upstream_duration_seconds", &labels, &sum);
        }
        self.head("upstream_pool_connections", "gauge", "Connections to upstreams, by state.");
        let mut pools: BTreeMap<(u16, u16), (u64, u64)> = BTreeMap::new();
        for &(server, endpoint, in_use, idle) in shards.iter().flat_map(|shard| &shard.gauges.pools) {
            let sum = pools.entry((server, endpoint)).or_default();
            sum.0 += in_use;
            sum.1 += idle;
        }
        for ((server, endpoint), (in_use, idle)) in pools {
            let (name, text) =
                (self.server(Some(server)).to_owned(), self.endpoint(server, endpoint).to_owned());
            for (state, count) in [("in_use", in_use), ("idle", idle)] {
                self.line(
                    "upstream_pool_connections",
                    &[("server", &name), ("endpoint", &text), ("state", state)],
                    count,
                );
            }
        }
    }

    fn shards(&mut self, shards: &[Snapshot]) {
        self.head("sessions_active", "gauge", "Legacy sessions in this process's memory.");
        self.line("sessions_active", &[], shards.iter().map(|shard| shard.gauges.sessions).sum::<u64>());
        self.per_shard(
            shards,
            "buffered_bytes",
            "gauge",
            "Bytes held for unfinished messages and slow readers.",
            |s| s.gauges.buffered_bytes as f64,
        );
        self.per_shard(
            shards,
            "shard_loop_lag_seconds",
            "gauge",
            "The longest turn since the last scrape.",
            |s| seconds(s.lag_us),
        );
        self.per_shard(
            shards,
            "shard_queue_delay_seconds",
            "gauge",
            "The longest that a ready socket waited for the shard since the last scrape.",
            |s| seconds(s.queue_delay_us),
        );
        self.per_shard(
            shards,
            "shard_in_flight_limit",
            "gauge",
            "Requests that the shard takes at a time; further ones are refused.",
            |s| s.gauges.in_flight_limit as f64,
        );
        self.per_shard(
            shards,
            "shard_cpu_seconds_total",
            "counter",
            "CPU time of the shard's thread.",
            |s| seconds(s.gauges.cpu_us),
        );
    }

    fn per_shard(
        &mut self,
        shards: &[Snapshot],
        name: &str,
        kind: &str,
        help: &str,
        value: impl Fn(&Snapshot) -> f64,
    ) {
        self.head(name, kind, help);
        for shard in shards {
            self.line(name, &[("shard", &shard.shard.to_string())], value(shard));
        }
    }
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

fn merge<'a>(
    maps: impl Iterator<Item = &'a std::collections::HashMap<&'static str, u64>>,
) -> BTreeMap<&'static str, u64> {
    let mut sum = BTreeMap::new();
    for (&label, &count) in maps.flatten() {
        *sum.entry(label).or_default() += count;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::super::{Gauges, Metrics, RequestLabels, Retried, Shed, UpstreamLabels};
    use super::*;

    #[test]
    fn a_page_of_two_shards() {
        let servers = vec![("one\"".to_owned(), vec!["http://127.0.0.1:1/mcp".to_owned()])];
        let certificates = [Rotating::new("server", None).unwrap()];
        let facts = Facts {
            servers: &servers,
            processes: Vec::new(),
            certificates: &certificates,
            reloads: &Reloads::new(),
            endpoints: &[vec![EndpointFacts { breaker: State::Open, health: Health::Healthy }]],
            uptime: Duration::from_secs(7),
            version: "1.2.3",
            executor: "epoll",
        };
        let shards: Vec<_> = (0..2)
            .map(|shard| {
                let metrics = Metrics::default();
                metrics.connection_opened(Protocol::Http1);
                metrics.rejected(Rejection::MaxConnections);
                metrics.refused("session_unknown");
                metrics.shed(Shed::Pool);
                metrics.frame(Direction::In, FrameKind::HealthCheck, 12);
                let labels =
                    RequestLabels { server: Some(0), method: 0, status: 200, protocol: Protocol::Http1 };
                metrics.request(labels, 700);
                metrics.retried(0, Retried::NoBudget);
                metrics.upstream(UpstreamLabels { server: 0, endpoint: 0, status: 0 }, 80);
                metrics.snapshot(shard, Gauges { sessions: 4, ..Gauges::default() })
            })
            .collect();
        let page = render(&facts, &shards);
        let mut described: Vec<_> = page.lines().filter(|line| line.starts_with("# TYPE")).collect();
        let count = described.len();
        described.sort_unstable();
        described.dedup();
        assert_eq!(described.len(), count, "a metric is there twice:\n{page}");
        for line in [
            "mcp_gateway_build_info{version=\"1.2.3\",driver=\"epoll\"} 1",
            "mcp_gateway_connections_active{protocol=\"http1\",shard=\"1\"} 1",
            "mcp_gateway_connections_rejected_total{reason=\"max_connections\"} 2",
            "mcp_gateway_routing_errors_total{reason=\"session_unknown\"} 2",
            "mcp_gateway_requests_shed_total{reason=\"pool\"} 2",
            "mcp_gateway_requests_shed_total{reason=\"in_flight\"} 0",
            "mcp_gateway_certificate_reloads_total{certificate=\"server\",result=\"refused\"} 0",
            "mcp_gateway_sessions_active 8",
            "mcp_gateway_tcp_messages_total{direction=\"in\",type=\"health_check\"} 2",
            "mcp_gateway_tcp_bytes_total{direction=\"in\"} 24",
            "mcp_gateway_upstream_requests_total{server=\"one\\\"\",endpoint=\"http://127.0.0.1:1/mcp\",status=\"none\"} 2",
            "mcp_gateway_circuit_breaker_state{server=\"one\\\"\",endpoint=\"http://127.0.0.1:1/mcp\"} 1",
            "mcp_gateway_endpoint_healthy{server=\"one\\\"\",endpoint=\"http://127.0.0.1:1/mcp\"} 1",
            "mcp_gateway_retries_total{server=\"one\\\"\",result=\"no_budget\"} 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        let bucket = |le: &str| format!(",status=\"200\",protocol=\"http1\",le=\"{le}\"}}");
        assert!(page.lines().any(|line| line.contains(&bucket("0.0005")) && line.ends_with(" 0")));
        assert!(page.lines().any(|line| line.contains(&bucket("0.001")) && line.ends_with(" 1")));
    }
}
