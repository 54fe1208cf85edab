//! Setup: a gateway that asks a name server of the test's own, and servers on several loopback addresses.
//! Claim: names are looked up again as often as their records say; traffic follows them; each address of a headless service
//! and each target of an SRV record is an endpoint of its own; a name server that is down takes no server away.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use mcp_system_tests::dns::{Data, NameServer};
use mcp_system_tests::fixtures::{Fixture, nothing};
use mcp_system_tests::mcp::{LEGACY, call, initialize, open_session, post_in_session, request};
use mcp_system_tests::port::free_port;
use mcp_system_tests::{Connection, Gateway, GatewayConfig, eventually};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn a_name_that_moves_takes_its_traffic_along() {
    let dns = NameServer::start();
    let mut fixtures =
        one_port(2).into_iter().map(|listener| Fixture::modern_on(listener, json!([]), nothing));
    let (old, new) = (fixtures.next().expect("two"), fixtures.next().expect("two"));
    dns.set("mcp.test", 1, &[address(2)]);
    let url = format!("http://mcp.test:{}/mcp", old.server.port());
    let gateway = Gateway::start(&config(&dns).server("one", &[&url]));
    let mut connection = gateway.connect().expect("a connection");
    calls(&mut connection, 5);
    assert_eq!((old.seen().len(), new.seen().len()), (5, 0));
    let asked = dns.questions();
    dns.set("mcp.test", 1, &[address(3)]);
    eventually("the traffic moved", LIMIT, || {
        calls(&mut connection, 1);
        (!new.seen().is_empty()).then_some(())
    });
    let before = old.seen().len();
    calls(&mut connection, 10);
    assert_eq!(old.seen().len(), before, "a connection to the old address was used again");
    assert!(dns.questions() > asked);

    // A name server that says nothing, or that the name is nothing, takes nothing away.
    dns.set_silent(true);
    let asked = dns.questions();
    eventually("it is asked in vain", LIMIT, || (dns.questions() > asked + 1).then_some(()));
    calls(&mut connection, 3);
    dns.set_silent(false);
    dns.set("mcp.test", 1, &[]);
    let asked = dns.questions();
    eventually("it is asked again", LIMIT, || (dns.questions() > asked + 3).then_some(()));
    calls(&mut connection, 3);
}

/// A headless Kubernetes Service: one name, an address for each pod.
#[test]
fn each_address_is_an_endpoint_of_its_own() {
    let dns = NameServer::start();
    let pods = pods(3);
    dns.set("mcp.test", 1, &[address(2), address(3)]);
    let url = format!("http://mcp.test:{}/mcp", pods[0].server.port());
    let gateway = Gateway::start(&config(&dns).server_with("one", &[&url], "discovery = \"addresses\""));
    let mut connection = gateway.connect().expect("a connection");
    let sessions: Vec<_> = (0..2).map(|_| open_session(&mut connection, "/mcp/one", LEGACY)).collect();
    assert_eq!(requests(&pods), [1, 1, 0]);

    // One pod goes, another comes: new sessions find it, the session of the pod that stays goes on, the other's is over.
    dns.set("mcp.test", 1, &[address(3), address(4)]);
    eventually("the new pod has a session", LIMIT, || {
        open_session(&mut connection, "/mcp/one", LEGACY);
        (!pods[2].seen().is_empty()).then_some(())
    });
    let mut statuses: Vec<_> = sessions
        .iter()
        .map(|session| {
            let ping = request(7, "ping", json!({}));
            post_in_session(&mut connection, "/mcp/one", session, &ping).expect("an answer").status
        })
        .collect();
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 404]);
    let endpoint = format!("http://127.0.0.4:{}/mcp", pods[0].server.port());
    let counted = gateway
        .metrics()
        .count("mcp_gateway_upstream_requests_total", &[("server", "one"), ("endpoint", &endpoint)]);
    assert!(counted > 0.0);
}

#[test]
fn srv_records_name_endpoints_with_their_ports() {
    let dns = NameServer::start();
    let pods: Vec<_> = (2..5)
        .map(|host| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), 0)).expect("a free port"))
        .map(|listener| Fixture::legacy_on(listener, nothing))
        .collect();
    for (number, host) in (2..5u8).enumerate() {
        dns.set(&format!("pod{number}.mcp.test"), 1, &[address(host)]);
    }
    let service = |priority: u16, pod: usize| {
        Data::Service(priority, pods[pod].server.port(), format!("pod{pod}.mcp.test"))
    };
    // What is less preferred gets nothing while another is there.
    dns.set("_mcp._tcp.mcp.test", 1, &[service(10, 0), service(10, 1), service(20, 2)]);
    let config = config(&dns).server_with("one", &["http://_mcp._tcp.mcp.test/mcp"], "discovery = \"srv\"");
    let gateway = Gateway::start(&config);
    let mut connection = gateway.connect().expect("a connection");
    for _ in 0..4 {
        open_session(&mut connection, "/mcp/one", LEGACY);
    }
    assert_eq!(requests(&pods), [2, 2, 0]);
    let host = format!("pod0.mcp.test:{}", pods[0].server.port());
    assert_eq!(pods[0].seen()[0].header("host"), Some(&*host));
    dns.set("_mcp._tcp.mcp.test", 1, &[service(20, 2)]);
    eventually("the traffic moved", LIMIT, || {
        open_session(&mut connection, "/mcp/one", LEGACY);
        (!pods[2].seen().is_empty()).then_some(())
    });
}

/// A server whose name is not known yet is refused at once, and served as soon as it is.
#[test]
fn a_name_that_comes_later_is_found_later() {
    let dns = NameServer::start();
    let pods = pods(1);
    let url = format!("http://mcp.test:{}/mcp", pods[0].server.port());
    for discovery in ["name", "addresses"] {
        let lines = format!("discovery = {discovery:?}");
        dns.set("mcp.test", 1, &[]);
        let gateway = Gateway::start(&config(&dns).server_with("one", &[&url], &lines));
        let mut connection = gateway.connect().expect("a connection");
        let answer = call(&mut connection, "/mcp/one", "any", json!({})).expect("an answer");
        assert_eq!((answer.status, &answer.json()["error"]["code"]), (502, &json!(-32000)));
        dns.set("mcp.test", 1, &[address(2)]);
        eventually("the name is found", LIMIT, || {
            let answer = connection.post("/mcp/one", &[], &initialize(LEGACY));
            (answer.expect("an answer").status == 200).then_some(())
        });
    }
}

fn config(dns: &NameServer) -> GatewayConfig {
    GatewayConfig::new()
        .set("gateway.runtime", "shards = 1")
        .set("gateway.dns", &format!("servers = [\"{}\"]", dns.addr()))
        .set("gateway.circuit_breaker", "failure_threshold = 10000")
        .set("gateway.dns", "min_ttl = \"100ms\"")
        .set("gateway.dns", "max_ttl = \"1s\"")
}

fn address(host: u8) -> Data {
    Data::Address(IpAddr::from([127, 0, 0, host]))
}

/// Legacy servers at 127.0.0.2 and on, all at one port.
fn pods(count: usize) -> Vec<Fixture> {
    one_port(count).into_iter().map(|listener| Fixture::legacy_on(listener, nothing)).collect()
}

/// Listeners at 127.0.0.2 and on, all at one port.
fn one_port(count: usize) -> Vec<TcpListener> {
    for _ in 0..100 {
        let port = free_port();
        let at = |host| TcpListener::bind((Ipv4Addr::new(127, 0, 0, host), port)).ok();
        let listeners: Option<Vec<_>> = (2..).take(count).map(at).collect();
        if let Some(listeners) = listeners {
            return listeners;
        }
    }
    panic!("no port is free on {count} addresses");
}

fn requests(pods: &[Fixture]) -> Vec<usize> {
    pods.iter().map(|pod| pod.seen().len()).collect()
}

fn calls(connection: &mut Connection, count: usize) {
    for _ in 0..count {
        let answer = call(connection, "/mcp/one", "any", json!({})).expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}
