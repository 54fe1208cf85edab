//! What real nodes say, and what none should. `captured/` holds the bytes that Redis 7.0.15 sent: three masters with a
//! replica each, with slots 6000 to 6099 taken away (`hole`), with names preferred of which two are known (`hostname`),
//! with `cluster-preferred-endpoint-type unknown-endpoint` (`unknown`), and after the third master was killed (`failed`).

use super::*;
use mcp_protocol::resp::Reader;

macro_rules! captured {
    ($name:literal) => {
        read(include_bytes!(concat!("captured/", $name, ".resp")))
    };
}

fn read(bytes: &[u8]) -> Reply {
    let (reply, used) = Reader::new(1 << 20).read(bytes).unwrap().unwrap();
    assert_eq!(used, bytes.len());
    reply
}

fn asked() -> Address {
    Address { host: "192.0.2.7".into(), port: 7801 }
}

/// Each master and its ranges, by their first slot.
fn told(layout: Option<Layout>) -> Vec<(String, Vec<(u16, u16)>)> {
    let mut masters: Vec<_> = layout.unwrap().masters;
    masters.sort_by_key(|shard| shard.ranges[0]);
    masters.into_iter().map(|shard| (shard.address.to_string(), shard.ranges)).collect()
}

fn plain(hosts: [&str; 3]) -> Vec<(String, Vec<(u16, u16)>)> {
    let spans = [(0, 5460), (5461, 10_922), (10_923, 16_383)];
    hosts.iter().zip(spans).map(|(host, span)| (host.to_string(), vec![span])).collect()
}

#[test]
fn a_whole_cluster_is_read_in_every_version_and_by_both_commands() {
    let expected = plain(["127.0.0.1:7801", "127.0.0.1:7802", "127.0.0.1:7803"]);
    for reply in [captured!("plain_shards_2"), captured!("plain_shards_3")] {
        assert_eq!(told(read_shards(&reply, &asked(), false)), expected);
        assert_eq!(read_shards(&reply, &asked(), true), None, "no node has a TLS port");
        assert_eq!(read_shards(&reply, &asked(), false).unwrap().replicas.len(), 3);
    }
    assert_eq!(told(read_slots(&captured!("plain_slots_2"), &asked())), expected);
}

#[test]
fn what_nobody_serves_is_in_no_range() {
    let expected = vec![(5461, 5999), (6100, 10_922)];
    assert_eq!(told(read_shards(&captured!("hole_shards_3"), &asked(), false))[1].1, expected);
    assert_eq!(told(read_slots(&captured!("hole_slots_2"), &asked()))[1].1, expected);
}

#[test]
fn a_master_that_failed_serves_nothing_any_more() {
    let expected = plain(["127.0.0.1:7801", "127.0.0.1:7802", "127.0.0.1:7805"]);
    let layout = read_shards(&captured!("failed_shards_3"), &asked(), false);
    assert!(!layout.as_ref().unwrap().replicas.iter().any(|replica| replica.port == 7803));
    assert_eq!(told(layout), expected);
    assert_eq!(told(read_slots(&captured!("failed_slots_2"), &asked())), expected);
}

#[test]
fn a_node_without_the_preferred_name_is_found_by_its_address() {
    let expected = plain(["127.0.0.1:7801", "node2.example:7802", "node3.example:7803"]);
    for reply in [captured!("hostname_shards_2"), captured!("hostname_shards_3")] {
        assert_eq!(told(read_shards(&reply, &asked(), false)), expected);
    }
    assert_eq!(told(read_slots(&captured!("hostname_slots_2"), &asked())), expected);
}

#[test]
fn a_node_without_an_endpoint_is_where_was_asked() {
    let expected = plain(["192.0.2.7:7801", "192.0.2.7:7802", "192.0.2.7:7803"]);
    for reply in [captured!("unknown_shards_2"), captured!("unknown_shards_3")] {
        assert_eq!(told(read_shards(&reply, &asked(), false)), expected);
    }
    assert_eq!(told(read_slots(&captured!("unknown_slots_2"), &asked())), expected);
}

/// A shard of `CLUSTER SHARDS`: slots, and of each node role, health and ports.
fn shard(slots: &str, nodes: &[(&str, &str, &str)]) -> String {
    let nodes: String = nodes
        .iter()
        .map(|(role, health, ports)| {
            format!(
                "%{}\r\n+role\r\n+{role}\r\n+health\r\n+{health}\r\n{ports}",
                2 + ports.matches("\r\n").count() / 2
            )
        })
        .collect();
    format!("%2\r\n+slots\r\n{slots}+nodes\r\n{nodes}")
}

fn shards(slots: &str, nodes: &[(&str, &str, &str)], tls: bool) -> Option<Layout> {
    let nodes_text = shard(slots, nodes).replace("+nodes\r\n", &format!("+nodes\r\n*{}\r\n", nodes.len()));
    read_shards(&read(format!("*1\r\n{nodes_text}").as_bytes()), &asked(), tls)
}

#[test]
fn of_two_masters_the_one_that_is_online_counts() {
    let (dead, alive) = (("master", "fail", "+port\r\n:1\r\n"), ("master", "online", "+port\r\n:2\r\n"));
    for nodes in [[dead, alive], [alive, dead]] {
        let layout = shards("*2\r\n:0\r\n:9\r\n", &nodes, false).unwrap();
        assert_eq!(layout.masters, [Shard { address: Address { port: 2, ..asked() }, ranges: vec![(0, 9)] }]);
    }
}

#[test]
fn with_tls_nodes_are_reached_at_their_tls_port() {
    let node = ("master", "online", "+port\r\n:1\r\n+tls-port\r\n:2\r\n");
    let port = |tls| shards("*2\r\n:0\r\n:9\r\n", &[node], tls).unwrap().masters[0].address.port;
    assert_eq!((port(false), port(true)), (1, 2));
}

#[test]
fn garbage_is_no_layout() {
    let node = ("master", "online", "+port\r\n:1\r\n");
    for slots in [
        "*1\r\n:0\r\n",
        "*2\r\n:0\r\n:16384\r\n",
        "*2\r\n:-1\r\n:5\r\n",
        "*2\r\n:9\r\n:5\r\n",
        ":7\r\n",
        "_\r\n",
        "*3\r\n:0\r\n:1\r\n:2\r\n",
        "*2\r\n+a\r\n+b\r\n",
    ] {
        assert_eq!(shards(slots, &[node], false), None, "{slots:?}");
    }
    for ports in [
        "",
        "+port\r\n:0\r\n",
        "+port\r\n:65536\r\n",
        "+port\r\n_\r\n",
        "+endpoint\r\n+h\r\n",
        "+port\r\n:1\r\n+endpoint\r\n+?\r\n",
    ] {
        assert_eq!(shards("*2\r\n:0\r\n:9\r\n", &[("master", "online", ports)], false), None, "{ports:?}");
    }
    assert_eq!(shards("*0\r\n", &[node], false), None, "nobody serves anything");
    assert_eq!(shards("*2\r\n:0\r\n:9\r\n", &[("replica", "online", "+port\r\n:1\r\n")], false), None);
    for bytes in [
        "+OK\r\n",
        "_\r\n",
        "*0\r\n",
        ":1\r\n",
        "*1\r\n*0\r\n",
        "*1\r\n%0\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n:1\r\n",
        "*1\r\n*3\r\n:5\r\n:0\r\n*2\r\n+h\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n+h\r\n:1\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*1\r\n+h\r\n",
        "*1\r\n*3\r\n:0\r\n:5\r\n*4\r\n+?\r\n:1\r\n+id\r\n*0\r\n",
    ] {
        let reply = read(bytes.as_bytes());
        assert_eq!(read_shards(&reply, &asked(), false), None, "{bytes:?}");
        assert_eq!(read_slots(&reply, &asked()), None, "{bytes:?}");
    }
}

#[test]
fn garbage_made_of_real_answers_is_read_without_a_panic() {
    let whole = include_bytes!("captured/plain_shards_3.resp");
    let mut read = 0;
    for place in 0..whole.len() {
        for byte in [b'0', b'9', b'-', b'*', b'%', b'$', b':', b'_', b'?', 0] {
            let mut bytes = whole.to_vec();
            bytes[place] = byte;
            if let Ok(Some((reply, _))) = Reader::new(1 << 20).read(&bytes) {
                let layouts = [read_shards(&reply, &asked(), false), read_slots(&reply, &asked())];
                for layout in layouts.into_iter().flatten() {
                    let ranges = layout.masters.iter().flat_map(|shard| &shard.ranges);
                    ranges.for_each(|(first, last)| assert!(first <= last && usize::from(*last) < SLOTS));
                }
                read += 1;
            }
        }
    }
    assert!(read > 100, "{read}");
}

#[test]
fn redirects_say_where_to() {
    let to = |host: &str, port| Address { host: host.into(), port };
    for (text, moved, slot, address) in [
        ("MOVED 3999 127.0.0.1:6381", true, 3999, to("127.0.0.1", 6381)),
        ("ASK 0 10.0.0.2:7000", false, 0, to("10.0.0.2", 7000)),
        ("MOVED 16383 redis-3.example:6379", true, 16_383, to("redis-3.example", 6379)),
        ("MOVED 3999 :6381", true, 3999, to("192.0.2.7", 6381)),
        ("MOVED 3999 ?:6381", true, 3999, to("192.0.2.7", 6381)),
        ("ASK 1 ::1:6381", false, 1, to("::1", 6381)),
        ("ASK 1 2001:db8::7:6381", false, 1, to("2001:db8::7", 6381)),
        ("MOVED 1 [2001:db8::7]:6381", true, 1, to("2001:db8::7", 6381)),
    ] {
        assert_eq!(read_redirect(text, &asked()), Some(Redirect { moved, slot, to: address }), "{text}");
    }
    for text in [
        "",
        "MOVED",
        "MOVED 1",
        "MOVED x h:1",
        "MOVED 16384 h:1",
        "MOVED -1 h:1",
        "MOVED 1 h",
        "MOVED 1 h:",
        "MOVED 1 h:0",
        "ASK 1 h:99999",
        "TRYAGAIN Multiple keys request during rehashing of slot",
        "moved 1 h:1",
    ] {
        assert_eq!(read_redirect(text, &asked()), None, "{text:?}");
    }
}
