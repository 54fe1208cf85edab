//! Pages of shards that have counted a little, and of shards that were made to count as much as can be.

use std::collections::BTreeSet;

use mcp_protocol::mcpb::FrameKind;

use super::super::labels::STATUSES;
use super::super::{
    Direction, Gauges, MAX_REQUEST_SETS, Metrics, Protocol, Rejection, RequestLabels, Retried, Shed, Took,
    TraceId, Traced, UpstreamLabels,
};
use super::*;

type Servers = Vec<(String, Vec<String>)>;

fn servers(count: usize) -> Servers {
    (0..count).map(|number| (format!("{number}\""), vec![format!("http://127.0.0.1:{number}/mcp")])).collect()
}

fn page(format: Format, servers: &Servers, shards: &[Snapshot]) -> String {
    page_in(format, servers, State::Open, shards)
}

/// A page while all endpoints' breakers are in a state.
fn page_in(format: Format, servers: &Servers, breaker: State, shards: &[Snapshot]) -> String {
    let certificates = [Rotating::new("server", None).unwrap()];
    let facts_of = |(_, endpoints): &(String, Vec<String>)| {
        endpoints.iter().map(|_| EndpointFacts { breaker, health: Health::Healthy }).collect()
    };
    let endpoints: Vec<_> = servers.iter().map(facts_of).collect();
    let facts = Facts {
        servers,
        processes: Vec::new(),
        certificates: &certificates,
        reloads: &Reloads::new(),
        endpoints: &endpoints,
        uptime: Duration::from_secs(7),
        version: "1.2.3",
        executor: "epoll",
    };
    render(format, &facts, shards)
}

fn labels(server: u16, method: u8, status: u16, protocol: Protocol) -> RequestLabels {
    RequestLabels { server: Some(server), method, status, protocol }
}

fn took(us: u64) -> Option<Took> {
    Some(Took { us, ended_us: 0 })
}

fn traced(digit: u8, unix_ms: u64) -> Option<Traced> {
    Some(Traced { trace: TraceId([digit; 32]), unix_ms })
}

/// Two shards that have counted one of each.
fn two_shards() -> Vec<Snapshot> {
    (0..2)
        .map(|shard| {
            let metrics = Metrics::default();
            metrics.connection_opened(Protocol::Http1);
            metrics.rejected(Rejection::MaxConnections);
            metrics.refused("session_unknown");
            metrics.shed(Shed::Pool);
            metrics.frame(Direction::In, FrameKind::HealthCheck, 12);
            let labels = labels(0, 0, 200, Protocol::Http1);
            metrics
                .request(labels, took(700), || traced(b'a' + shard as u8, 1_700_000_000_007 + shard as u64));
            metrics.request(labels, None, || panic!("a stream that is listened on has no latency"));
            metrics.retried(0, Retried::NoBudget);
            metrics.upstream(UpstreamLabels { server: 0, endpoint: 0, status: 0 }, 80);
            metrics.snapshot(shard, Gauges { sessions: 4, ..Gauges::default() })
        })
        .collect()
}

/// The lines that are series.
fn series(page: &str) -> Vec<&str> {
    page.lines().filter(|line| !line.starts_with('#')).collect()
}

#[test]
fn a_page_of_two_shards() {
    let page = page(Format::Text, &servers(1), &two_shards());
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
        "mcp_gateway_upstream_requests_total{server=\"0\\\"\",endpoint=\"http://127.0.0.1:0/mcp\",status=\"none\"} 2",
        "mcp_gateway_circuit_breaker_state{server=\"0\\\"\",endpoint=\"http://127.0.0.1:0/mcp\"} 1",
        "mcp_gateway_endpoint_healthy{server=\"0\\\"\",endpoint=\"http://127.0.0.1:0/mcp\"} 1",
        "mcp_gateway_retries_total{server=\"0\\\"\",result=\"no_budget\"} 2",
        "mcp_gateway_requests_total{server=\"0\\\"\",method=\"completion/complete\",status=\"200\",protocol=\"http1\"} 4",
        "mcp_gateway_request_duration_seconds_bucket{server=\"0\\\"\",method=\"completion/complete\",le=\"0.0005\"} 0",
        "mcp_gateway_request_duration_seconds_bucket{server=\"0\\\"\",method=\"completion/complete\",le=\"0.001\"} 2",
        "mcp_gateway_request_duration_seconds_bucket{server=\"0\\\"\",method=\"completion/complete\",le=\"1.0\"} 2",
        "mcp_gateway_request_duration_seconds_count{server=\"0\\\"\",method=\"completion/complete\"} 2",
        "mcp_gateway_shard_request_duration_seconds_bucket{protocol=\"http1\",shard=\"1\",le=\"0.001\"} 1",
        "mcp_gateway_shard_request_duration_seconds_sum{protocol=\"http1\",shard=\"1\"} 0.0007",
    ] {
        assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
    }
}

#[test]
fn a_breaker_s_states_have_the_numbers_that_alerts_ask_for() {
    for (state, number) in [(State::Closed, 0), (State::Open, 1), (State::HalfOpen, 2)] {
        let page = page_in(Format::OpenMetrics, &servers(1), state, &[]);
        let line = "mcp_gateway_circuit_breaker_state{server=\"0\\\"\",endpoint=\"http://127.0.0.1:0/mcp\"}";
        assert!(page.contains(&format!("\n{line} {number}\n")), "{state:?}:\n{page}");
    }
}

#[test]
fn both_formats_show_the_same_series_under_heads_of_their_own() {
    let (servers, shards) = (servers(1), two_shards());
    let text = page(Format::Text, &servers, &shards);
    let open = page(Format::OpenMetrics, &servers, &shards);
    let bare: Vec<_> = series(&open).iter().map(|line| line.split(" # ").next().unwrap()).collect();
    assert_eq!(bare, series(&text));
    assert!(!text.contains(" # {") && !text.contains("# UNIT") && !text.contains("# EOF"), "{text}");
    assert!(open.ends_with("\n# EOF\n") && open.matches("# EOF").count() == 1);
    for line in [
        "# TYPE mcp_gateway_build info",
        "# TYPE mcp_gateway_requests counter",
        "# TYPE mcp_gateway_request_duration_seconds histogram",
        "# UNIT mcp_gateway_request_duration_seconds seconds",
        "# UNIT mcp_gateway_shard_cpu_seconds seconds",
        "# UNIT mcp_gateway_tcp_bytes bytes",
    ] {
        assert!(open.lines().any(|found| found == line), "{line} is not in\n{open}");
    }
    for page in [&text, &open] {
        let heads: Vec<_> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let names: BTreeSet<_> = heads.iter().map(|head| head.split(' ').next().unwrap()).collect();
        assert_eq!(names.len(), heads.len(), "a family is there twice:\n{page}");
    }
    for head in text.lines().filter(|line| line.starts_with("# TYPE")) {
        assert_eq!(head.ends_with("_total counter"), head.ends_with(" counter"), "{head}");
    }
}

#[test]
fn exemplars_stand_beside_the_buckets_of_their_series() {
    let page = page(Format::OpenMetrics, &servers(1), &two_shards());
    let exemplar = |name: &str, digit: &str, ms: &str| {
        let expected = format!(" # {{trace_id=\"{}\"}} 0.0007 1700000000.{ms}", digit.repeat(32));
        let mut found = page.lines().filter(|line| line.starts_with(&format!("mcp_gateway_{name}_bucket{{")));
        assert!(
            found.any(|line| line.contains("le=\"0.001\"") && line.ends_with(&expected)),
            "{name}:\n{page}"
        );
    };
    // Of all shards the newest, and of each its own.
    exemplar("request_duration_seconds", "b", "008");
    exemplar("shard_request_duration_seconds", "a", "007");
    exemplar("shard_request_duration_seconds", "b", "008");
    assert_eq!(page.matches("trace_id").count(), 3, "{page}");
}

/// Whatever comes, a page has no more series than this.
fn most_series(servers: usize, endpoints: usize, shards: usize) -> usize {
    const HISTOGRAM: usize = BUCKETS + 2;
    // Beyond the limit, there is a set for each class of statuses and protocol.
    let sets = shards * (MAX_REQUEST_SETS + 10 * Protocol::ALL.len());
    let durations = sets.min((servers + 1) * METHOD_LABELS.len());
    sets + durations * HISTOGRAM
        + shards * Protocol::ALL.len() * HISTOGRAM
        + endpoints * STATUSES * (1 + HISTOGRAM)
}

#[test]
fn there_is_a_most_of_series() {
    const SERVERS: usize = 40;
    const SHARDS: usize = 2;
    let servers = servers(SERVERS);
    let shards: Vec<_> = (0..SHARDS).map(|_| Metrics::default()).collect();
    let count = |shards: &[Metrics]| {
        let snapshots: Vec<_> = shards
            .iter()
            .enumerate()
            .map(|(number, each)| each.snapshot(number, Gauges::default()))
            .collect();
        series(&page(Format::OpenMetrics, &servers, &snapshots)).len()
    };
    let empty = count(&shards);
    // Each shard sees another half of what can be made up.
    let flood = |statuses: std::ops::Range<u16>| {
        for (number, shard) in shards.iter().enumerate() {
            for server in 0..2 * SERVERS as u16 {
                for status in statuses.clone().filter(|status| usize::from(*status) % SHARDS == number) {
                    shard
                        .upstream(UpstreamLabels { server: server % SERVERS as u16, endpoint: 0, status }, 9);
                    for protocol in Protocol::ALL {
                        let method = (status % 251) as u8;
                        shard.request(labels(server, method, status, protocol), took(9), || None);
                    }
                }
            }
        }
    };
    flood(0..1_024);
    let full = count(&shards);
    assert!(full <= empty + most_series(SERVERS, SERVERS, SHARDS), "{full} series");
    assert!(full > empty + MAX_REQUEST_SETS, "{full} series: the limit was not reached");
    flood(0..4_096);
    assert_eq!(count(&shards), full, "more of the same made more series");
}
