//! Setup: clients of several doors before a modern server, some of which say which trace their requests belong to; then
//! clients that make up all that a client can make up. The metrics are scraped in both formats.
//! Claim: each scraper gets the format that it asks for, with the same series; a kept trace is found beside the buckets of
//! its request's latency; what clients make up makes no series.

use std::collections::BTreeSet;
use std::time::Duration;

use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{mirrored, modern_call};
use mcp_system_tests::mcpb::{Frames, REQUEST};
use mcp_system_tests::port::free_port;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, Response, eventually};
use serde_json::{Value, json};

const LIMIT: Duration = Duration::from_secs(30);
const OPEN_METRICS: &str =
    "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

#[test]
fn each_scraper_gets_its_format() {
    let gateway = Gateway::start(&GatewayConfig::new());
    let open = scrape(&gateway, &[("accept", OPEN_METRICS)]);
    let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(open.header("content-type"), Some(media_type));
    assert!(open.text().ends_with("\n# EOF\n"), "{}", open.text());
    for headers in [&[][..], &[("accept", "*/*")], &[("accept", "text/plain"), ("accept", "text/html")]] {
        let text = scrape(&gateway, headers);
        assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        // What the gateway asks its servers by itself may make a series between two scrapes.
        eventually("the same series in both formats", LIMIT, || {
            let text = scrape(&gateway, headers).text();
            (series(&text) == series(&open_metrics(&gateway))).then_some(())
        });
    }
}

#[test]
fn a_kept_trace_is_found_beside_its_latency() {
    let fixture = Fixture::modern(json!([]), nothing);
    let port = free_port();
    let gateway = Gateway::start(&GatewayConfig::new().binary_port(port).server("one", &[&fixture.url()]));
    let mut http = gateway.connect().expect("a connection");
    let mut frames = Frames::open(&gateway, port).expect("a connection");
    let headers = mirrored("tools/call", Some("echo"));

    // Beside the message, over HTTP. Its trace is asked for until it is shown: exemplars stay for a while.
    let beside = "4bf92f3577b34da6a3ce929d0e0e4736";
    let value = format!("00-{beside}-00f067aa0ba902b7-01");
    eventually("the trace of a field", LIMIT, || {
        let headers = [&headers[..], &[("traceparent", value.as_str())]].concat();
        assert_answered(&http.post("/mcp/one", &headers, &modern_call(1, "echo", json!({}))));
        shows(&gateway, beside).then_some(())
    });

    // In the message, over HTTP and over frames.
    let within = ["0af7651916cd43dd8448eb211c80319c", "ffeeddccbbaa99887766554433221100"];
    eventually("the trace of a message over HTTP", LIMIT, || {
        assert_answered(&http.post("/mcp/one", &headers, &traced(within[0], 1)));
        shows(&gateway, within[0]).then_some(())
    });
    eventually("the trace of a message over frames", LIMIT, || {
        frames.send(REQUEST, traced(within[1], 1).to_string().as_bytes()).expect("sent");
        let answer = frames.message().expect("an answer");
        assert_eq!(answer["result"]["name"], "echo", "{answer}");
        shows(&gateway, within[1]).then_some(())
    });

    // A trace that nobody keeps leads nowhere.
    let dropped = "11111111111111111111111111111111";
    assert_answered(&http.post("/mcp/one", &headers, &traced(dropped, 0)));
    assert!(!open_metrics(&gateway).contains(dropped));
    // The other format has no room for exemplars.
    assert!(!scrape(&gateway, &[]).text().contains("trace_id"));
}

#[test]
fn what_clients_make_up_makes_no_series() {
    let fixture = Fixture::modern(json!([]), nothing);
    let gateway = Gateway::start(&GatewayConfig::new().server("one", &[&fixture.url()]));
    let send = |method: &str, path: &str, headers: &[(&str, &str)], message: Option<Value>| {
        let mut connection = gateway.connect().expect("a connection");
        let answer = match message {
            Some(message) => connection.post(path, headers, &message),
            None => connection.request(method, path, headers, b""),
        };
        answer.unwrap_or_else(|error| panic!("{method} {path} {headers:?}: {error}")).status
    };
    let post = |path: &str, headers: &[(&str, &str)], message| send("POST", path, headers, Some(message));
    let make_up = |round: usize| {
        let made_up = |what: &str| format!("{what}-{round}\\\"\u{e9}");
        let ascii = format!("made-up-{round}");
        let call = modern_call(1, &made_up("tool"), json!({made_up("argument"): made_up("value")}));
        [
            // A tool that the server does not know; a method that MCP does not define; a server and a path that are not.
            post("/mcp/one", &mirrored("tools/call", Some("=?base64?eA==?=")), call),
            post("/mcp/one", &mirrored(&ascii, None), modern_of(&made_up("method"))),
            post("/mcp/one", &mirrored(&ascii, None), modern_of(&ascii)),
            post(&format!("/mcp/{ascii}"), &[], modern_of("tools/list")),
            post(&format!("/{ascii}"), &[], modern_of("tools/list")),
            // Sessions, revisions, fields and methods of HTTP of its own.
            post("/mcp/one", &[("mcp-session-id", &ascii)], modern_of("ping")),
            post("/mcp/one", &[("mcp-protocol-version", &ascii)], modern_of("ping")),
            send(&ascii, "/mcp/one", &[("x-made-up", &ascii), ("user-agent", &ascii)], None),
        ]
    };
    let statuses = make_up(0);
    assert!(statuses.iter().any(|status| *status >= 400), "{statuses:?}");
    // Enough connections that no shard is left without: its series come with its first request.
    for round in 1..10 {
        assert_eq!(make_up(round), statuses, "round {round}");
    }
    // An exchange is counted when its answer is on its way.
    let before = eventually("an idle page", LIMIT, || {
        let page = scrape(&gateway, &[]).text();
        page.contains("mcp_gateway_requests_in_flight 0\n").then(|| series(&page))
    });
    for round in 10..50 {
        assert_eq!(make_up(round), statuses, "round {round}");
    }
    let after = series(&scrape(&gateway, &[]).text());
    assert_eq!(after.difference(&before).collect::<Vec<_>>(), Vec::<&String>::new());
    assert!(!after.iter().any(|series| series.contains("made-up")), "{after:?}");
}

fn modern_of(method: &str) -> Value {
    mcp_system_tests::mcp::modern(1, method, json!({}))
}

/// A call of a trace; `flags` 1 says that it is kept.
fn traced(trace: &str, flags: u8) -> Value {
    let mut message = modern_call(1, "echo", json!({}));
    message["params"]["_meta"]["traceparent"] = format!("00-{trace}-b7ad6b7169203331-{flags:02x}").into();
    message
}

fn assert_answered(answer: &std::io::Result<Response>) {
    let answer = answer.as_ref().expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// Whether the trace stands beside a bucket of both histograms, with a latency and a time.
fn shows(gateway: &Gateway, trace: &str) -> bool {
    let page = open_metrics(gateway);
    let exemplar = format!(" # {{trace_id=\"{trace}\"}} ");
    let found = |family: &str, labels: &[&str]| {
        let bucket = format!("mcp_gateway_{family}_bucket{{");
        let of_family =
            |line: &&str| line.starts_with(&bucket) && labels.iter().all(|label| line.contains(label));
        page.lines().filter(of_family).any(|line| {
            line.split_once(&exemplar).is_some_and(|(_, numbers)| {
                numbers.split(' ').filter(|number| number.parse::<f64>().is_ok()).count() == 2
            })
        })
    };
    found("request_duration_seconds", &["server=\"one\"", "method=\"tools/call\""])
        && found("shard_request_duration_seconds", &["shard=\""])
}

fn scrape(gateway: &Gateway, headers: &[(&str, &str)]) -> Response {
    let answer = Connection::plain(gateway.admin_addr)
        .and_then(|mut connection| connection.request("GET", "/metrics", headers, b""))
        .expect("a page");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer
}

fn open_metrics(gateway: &Gateway) -> String {
    scrape(gateway, &[("accept", OPEN_METRICS)]).text()
}

/// The names and labels of a page's series.
fn series(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let bare = lines.map(|line| line.split(" # ").next().unwrap_or(line));
    bare.filter_map(|line| line.rsplit_once(' ')).map(|(series, _)| series.to_owned()).collect()
}
